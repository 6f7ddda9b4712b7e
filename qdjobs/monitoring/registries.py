"""What a monitor shows beside statuses: queues, registries, one job in full, workers.

Read as bytes, not through RQ's Job, Queue, Worker and registries: theirs unpickle what they find,
tidy while they read, and fail for all if one record is odd. Anyone may have written all of it.
"""

from typing import Any

from redis import Redis

from qdjobs.client.json import to_json
from qdjobs.client.listing import read_ids, registry_key
from qdjobs.client.options import is_job_id
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.status import (
    STATUS_FIELDS,
    make_status,
    parse_moment,
    read_records,
    read_statuses,
    read_text,
    read_traceback,
)
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobNotFoundError

SHOWN = ('queued', 'started', 'scheduled', 'deferred', 'finished', 'failed', 'canceled')
MAX_TEXT = 20_000  # characters of one value that are shown
MAX_OTHERS = 50  # jobs that one is shown to depend on


def list_queues() -> list[str]:
    """The names of all queues, ours first."""
    with redis_connection() as connection:
        keys = connection.smembers(f'{get_config().key_prefix}:queues')
    others = {read_text(key).removeprefix(redis_key('queue', '')) for key in keys}
    ours = get_config().queues
    return [*ours, *sorted(others.difference(ours))]


def count_jobs(queues: list[str]) -> list[dict[str, int]]:
    """How many jobs stand in each registry of each queue."""
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for queue in queues:
            for registry in SHOWN:
                count = pipe.llen if registry == 'queued' else pipe.zcard
                count(registry_key(registry, queue))
        # What is no list or no sorted set answers with an error: nothing stands there.
        counts = [n if isinstance(n, int) else 0 for n in pipe.execute(raise_on_error=False)]
    rows = [counts[n : n + len(SHOWN)] for n in range(0, len(counts), len(SHOWN))]
    return [dict(zip(SHOWN, row, strict=True)) for row in rows]


def read_registry(
    queue: str, registry: str, start: int, size: int, from_end: bool = False
) -> list[str]:
    """Ids of jobs in a registry, in its order or, `from_end`, backwards."""
    first, last = (-start - size, -start - 1) if from_end else (start, start + size - 1)
    ids = read_ids(registry_key(registry, queue), first, last)
    return ids[::-1] if from_end else ids


def describe_jobs(job_ids: list[str]) -> list[dict[str, Any]]:
    """`id`, `description`, `error` and times of each job; where a record cannot be read, that."""
    statuses = read_statuses(job_ids, results=False)
    readable = [job_id for job_id, status in zip(job_ids, statuses, strict=True) if status]
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for job_id in readable:
            pipe.hget(redis_key('job', job_id), 'description')
        found = dict(zip(readable, pipe.execute(), strict=True))
    return [
        dict(status) | {'description': _cut(read_text(found[job_id]))}
        if status
        else {'id': job_id, 'description': 'The record of this job is gone, or is unreadable.'}
        for job_id, status in zip(job_ids, statuses, strict=True)
    ]


def describe_job(job_id: str) -> dict[str, Any]:
    """A job's status, with its description, metadata, traceback and what it depends on.

    `meta` is JSON or says why it cannot be read, `depends_on` maps ids to whether their record
    is there. What is longer than MAX_TEXT is cut. Raises JobNotFoundError.
    """
    if not is_job_id(job_id):
        raise JobNotFoundError([job_id])
    key = redis_key('job', job_id)
    with redis_connection() as connection:
        (reply,) = read_records(connection, [1, job_id])
        if reply is None:
            raise JobNotFoundError([job_id])
        fields: Any = connection.hmget(key, 'description', 'enqueued_at')
        others = _members(connection, redis_key('job', f':{job_id}:dependencies'))[:MAX_OTHERS]
        there = [bool(connection.exists(redis_key('job', other))) for other in others]
    status = make_status(job_id, reply)
    status['result'] = _bounded(status['result'])
    return dict(status) | {
        'description': _cut(read_text(fields[0])),
        'enqueued_at': parse_moment(fields[1]),
        'traceback': _cut_front(read_traceback(reply) or status['error']),
        'meta': _read_meta(reply[0][STATUS_FIELDS.index('meta')]),
        'depends_on': dict(zip(others, there, strict=True)),
    }


def list_workers() -> list[dict[str, Any]]:
    """Every worker that lives: `name`, `state`, `queues`, `job`, and two versions."""
    with redis_connection() as connection:
        keys = sorted(map(read_text, connection.smembers(f'{get_config().key_prefix}:workers')))
        with connection.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, 'state', 'queues', 'version', 'python_version')
                pipe.smembers(f'{key}:executions')
            found = pipe.execute(raise_on_error=False)
    workers = []
    for key, fields, runs in zip(keys, found[::2], found[1::2], strict=True):
        if not isinstance(fields, list) or fields[0] is None:
            continue  # its record has expired: it has died
        state, queues, version, python = (_cut(read_text(field)) for field in fields)
        job = read_text(min(runs)).split(':')[0] if isinstance(runs, set) and runs else None
        name = key.removeprefix(redis_key('worker', ''))
        row = {'name': name, 'state': state, 'queues': queues.split(','), 'job': job}
        workers.append(row | {'version': version, 'python_version': python})
    return workers


def _members(connection: Redis, key: str) -> list[str]:
    if connection.type(key) != b'set':
        return []
    return sorted(map(read_text, connection.smembers(key)))


def _read_meta(meta: bytes | None) -> str:
    try:
        return _cut(to_json(PlainSerializer.loads(meta) if meta else {}))
    except InvalidJobError as error:
        return _cut(f'unreadable: {error}')


def _bounded(value: Any) -> Any:
    """The value itself, or the beginning of a long one, as JSON has it, as text."""
    text = to_json(value)
    return value if len(text) <= MAX_TEXT else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f'{text[:MAX_TEXT]}… ({len(text)} characters)'


def _cut_front(text: str | None) -> str | None:
    """What matters in a traceback stands at its end."""
    return text if text is None or len(text) <= MAX_TEXT else f'…{text[-MAX_TEXT:]}'
