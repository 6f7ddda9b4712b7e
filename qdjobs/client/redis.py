"""The connection to Redis, the keys of jobs there, and the scripts that read and change them.

The keys are RQ's own; `task` in the job's hash is the one field that we add.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from qdjobs.config import get_config
from qdjobs.errors import QueueUnavailableError

LUA = Path(__file__).with_name('lua')

_COMMON = LUA / 'common.lua'

# Two waits in a row, for a new connection and for the first answer, stay within two seconds.
_CONNECT_TIMEOUT = 0.6  # seconds
_ANSWER_TIMEOUT = 0.9  # seconds


def get_connection() -> Redis:
    """This process's one pool of connections, made when first asked for; it survives a fork."""
    return _connect(get_config().redis_url)


@lru_cache(maxsize=8)
def _connect(url: str) -> Redis:
    # The older protocol begins without a handshake of several more waits. Not over TLS, where
    # redis-py takes what the server says first for an answer that nobody has read.
    short: dict[str, Any] = {'protocol': 2, 'driver_info': None}
    return Redis.from_url(
        url,
        **({} if url.startswith('rediss://') else short),
        socket_connect_timeout=_CONNECT_TIMEOUT,
        socket_timeout=_ANSWER_TIMEOUT,
        # redis-py would send a command up to ten times more: an enqueue must not be
        # repeated behind its caller's back.
        retry=Retry(NoBackoff(), 0),
    )


@contextmanager
def redis_connection(job_id: str | None = None) -> Iterator[Redis]:
    """The connection, with every failure of Redis turned into a QueueUnavailableError."""
    try:
        yield get_connection()
    except RedisError as error:
        reason = str(error).rstrip('.')
        raise QueueUnavailableError(
            f'Redis at {address()} does not answer or does not accept: {reason}. '
            'Is it running, and is it the one that REDIS_URL names?',
            job_id,
        ) from error


def address() -> str:
    """Where Redis is, without the name and the password in its URL."""
    url = urlsplit(get_config().redis_url)
    return f'{url.hostname}:{url.port or 6379}' if url.hostname else url.path


class Script:
    """A Lua script, sent by its hash: one round trip once the server knows it.

    Every script does one whole step, so that no reader ever sees half of it, and is safe to
    repeat. Each file says what it takes and returns.
    """

    def __init__(self, path: Path, *preambles: Path) -> None:
        """`preambles` are files of Lua functions that stand before the script."""
        self._source = ''.join(file.read_text() for file in (_COMMON, *preambles, path))
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, connection: Redis, arguments: Sequence[Any]) -> Any:
        """Run it with `arguments` behind the key prefix, which is always the first."""
        prefix = get_config().key_prefix
        try:
            return connection.evalsha(self._sha, 0, prefix, *arguments)
        except NoScriptError:
            return connection.eval(self._source, 0, prefix, *arguments)


def redis_key(kind: str, name: str) -> str:
    """One of the keys in Redis, such as `rq:queue:default` for ('queue', 'default')."""
    return f'{get_config().key_prefix}:{kind}:{name}'
