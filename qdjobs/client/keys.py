"""The types that keys in Redis must have, and which of them have another.

Another program can write to the same Redis. Scripts pass over what is not essential to a job.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from qdjobs.client.states import STATES

_FIXED = {
    'queues': 'set',
    'workers': 'set',
    'leases': 'zset',
    'pending-dependents': 'zset',
    'metrics': 'hash',
    'metrics:labels': 'set',
    'rl-keys': 'set',
}
_OF_A_QUEUE = {
    **{state.place: 'zset' for state in STATES.values()},
    'ready': 'zset',
    'queue': 'list',
    'wake-up': 'list',
    'workers': 'set',
}
_OF_A_JOB = {
    'job:{}': 'hash',
    'results:{}': 'stream',
    'executions:{}': 'zset',
    'job:{}:dependents': 'set',
    'job::{}:dependencies': 'set',
}
# How common.lua names the key; Redis adds the place in the script.
_NAMED = re.compile(r'WRONGTYPE (.+?) (string|list|set|zset|hash|stream)( script: .*)?', re.DOTALL)


def find_wrong_keys(
    connection: Redis, prefix: str, queues: Sequence[str], jobs: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Return the names and types of keys of another type, of those that are known by name.

    In two round trips. Raises RedisError.
    """
    expected = dict(_expected(prefix, queues, jobs))
    wrong = compare_types(connection, expected)
    workers = f'{prefix}:workers'
    if workers not in dict(wrong):
        members: Any = connection.smembers(workers)
        names = (member.decode(errors='replace') for member in members)
        wrong += compare_types(connection, dict.fromkeys(names, 'hash'))
    return wrong


def _expected(prefix: str, queues: Sequence[str], jobs: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name, kind in _FIXED.items():
        yield f'{prefix}:{name}', kind
    for queue in queues:
        for name, kind in _OF_A_QUEUE.items():
            yield f'{prefix}:{name}:{queue}', kind
    for job_id in jobs:
        for name, kind in _OF_A_JOB.items():
            yield f'{prefix}:{name.format(job_id)}', kind


def compare_types(connection: Redis, expected: dict[str, str]) -> list[tuple[str, str]]:
    """Return the names and types of keys of another type than expected, in one round trip."""
    with connection.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        found = [kind.decode() for kind in pipe.execute()]
    pairs = zip(expected.items(), found, strict=True)
    return [(key, kind) for (key, wanted), kind in pairs if kind not in (wanted, 'none')]


def is_wrong_type(error: BaseException) -> bool:
    """Return whether Redis has refused a command since its key has another type."""
    return isinstance(error, ResponseError) and 'WRONGTYPE ' in str(error)


def named_key(error: BaseException) -> tuple[str, str] | None:
    """Return the key that an error of a script names, and the type that it has; or None."""
    match = _NAMED.fullmatch(str(error))
    return (match[1], match[2]) if match else None
