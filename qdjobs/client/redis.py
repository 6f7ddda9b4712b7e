"""The connection to Redis, the names of keys, and the calls of Lua scripts.

Jobs are kept under RQ's own keys. docs/reliability.md lists the keys and fields that we add.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from qdjobs.client.stand_in import stand_in
from qdjobs.client.states import LUA_STATES
from qdjobs.config import get_config
from qdjobs.errors import QueueUnavailableError

LUA = Path(__file__).with_name('lua')
# Functions for the scripts that count jobs, let jobs wait for others, or add jobs.
COUNT, AFTER, ADD = (LUA / f'{name}.lua' for name in ('count', 'after', 'add'))

_COMMON = LUA / 'common.lua'

# Together less than two seconds: a new connection and its first answer.
_CONNECT_TIMEOUT = 0.6  # seconds
_ANSWER_TIMEOUT = 0.9  # seconds


def get_connection() -> Redis:
    """Return this process's Redis client, created on first use. Its pool survives a fork."""
    return connect(get_config().redis_url)


@lru_cache(maxsize=8)
def connect(url: str) -> Redis:
    # Protocol 2 without driver info needs no handshake, which takes several round trips. Not over
    # TLS: there redis-py mistakes the server's first bytes for an unread answer.
    no_handshake: dict[str, Any] = {'protocol': 2, 'driver_info': None}
    pool = _Pool.from_url(
        url,
        **({} if url.startswith('rediss://') else no_handshake),
        socket_connect_timeout=_CONNECT_TIMEOUT,
        socket_timeout=_ANSWER_TIMEOUT,
        # By default redis-py repeats a failed command up to ten times. An enqueue must not be
        # repeated without its caller's knowledge.
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


class _NotConnectedError(RedisError):
    """There was no connection by which a command could have been sent."""


class _Pool(ConnectionPool):
    """Tells a failed connection from a lost answer, for which redis-py has the same errors."""

    def get_connection(self, *args: Any, **options: Any) -> Connection:
        try:
            return super().get_connection(*args, **options)
        except RedisError as error:
            raise _NotConnectedError(str(error)) from error


@contextmanager
def redis_connection(job_id: str | None = None) -> Iterator[Redis]:
    """Yield the connection; turn every RedisError into a QueueUnavailableError.

    The error has the `job_id` if Redis may have done what it was to do under this id.
    """
    if stand_in() is not None:
        raise RuntimeError(
            'This needs a Redis, and qdjobs.testing keeps the jobs of this block in memory: use '
            'run_jobs with a real one instead.'
        )
    try:
        yield get_connection()
    except RedisError as error:
        if isinstance(error, ReadOnlyError):
            # A demoted primary keeps its connections: the next call connects anew, to the primary
            # of then. Connections that other threads are using are theirs to drop.
            get_connection().connection_pool.disconnect(inuse_connections=False)
        reason = str(error).rstrip('.')
        raise QueueUnavailableError(
            f'Redis at {address()} does not answer or does not accept: {reason}. '
            'Is it running, and is it the one that REDIS_URL names?',
            None if _is_refused(error) else job_id,
        ) from error


def _is_refused(error: RedisError) -> bool:
    """Return whether nothing can have been written: no command was sent, or the answer is no."""
    if isinstance(error, ResponseError):
        # A script can meet a key of another type after its first write.
        return not str(error).startswith('WRONGTYPE')
    return isinstance(error, (_NotConnectedError, AuthenticationError, BusyLoadingError))


def address() -> str:
    """Return the address of Redis, without the user and the password in its URL."""
    url = urlsplit(get_config().redis_url)
    return f'{url.hostname}:{url.port or 6379}' if url.hostname else url.path


class Script:
    """A Lua script, called by its hash: one round trip once the server has cached it.

    Every script is one atomic step and is safe to repeat. Each file documents its arguments and
    its reply.
    """

    def __init__(self, path: Path, *preambles: Path, constants: str = '', flags: str = '') -> None:
        """`preambles` are files of Lua functions that the script uses, `constants` is Lua too.

        `flags` are Redis' own: with `allow-oom` the script also runs when memory is full.
        """
        files = (file.read_text() for file in (_COMMON, *preambles, path))
        head = f'#!lua flags={flags}\n' if flags else ''
        self._source = f'{head}{LUA_STATES}{constants}{"".join(files)}'
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, connection: Redis, arguments: Sequence[Any]) -> Any:
        """Run the script. Its first argument is the key prefix, `arguments` follow."""
        prefix = get_config().key_prefix
        try:
            return connection.evalsha(self._sha, 0, prefix, *arguments)
        except NoScriptError:
            return connection.eval(self._source, 0, prefix, *arguments)


def redis_key(kind: str, name: str) -> str:
    """Return a key in Redis, such as `rq:queue:default` for ('queue', 'default')."""
    return f'{get_config().key_prefix}:{kind}:{name}'
