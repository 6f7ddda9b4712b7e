"""The connection to Redis, the names of keys, and the calls of Lua scripts.

Jobs are kept under RQ's own keys. docs/reliability.md lists the keys and fields that we add.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from qdjobs.client.keys import find_wrong_keys, is_wrong_type, named_key
from qdjobs.client.stand_in import stand_in
from qdjobs.client.states import LUA_STATES
from qdjobs.config import JobConfig, get_config
from qdjobs.errors import QueueUnavailableError, WrongKeyError
from qdjobs.sentinel import (
    NO_HANDSHAKE,
    SentinelConnection,
    connection_options,
    names_sentinels,
    show_address,
)

LUA = Path(__file__).with_name('lua')
# Functions for the scripts that count jobs, let jobs wait for others, or add jobs.
COUNT, AFTER, ADD = (LUA / f'{name}.lua' for name in ('count', 'after', 'add'))

_COMMON = LUA / 'common.lua'

# Together less than two seconds: a new connection and its first answer.
_CONNECT_TIMEOUT = 0.6  # seconds
_ANSWER_TIMEOUT = 0.9  # seconds
_REPLICATION_TIMEOUT = 0.5  # seconds, of those of an answer

_WITHOUT_TAG = str.maketrans('', '', '{}')
_CLUSTER_ERRORS = (MovedError, ClusterCrossSlotError, ClusterDownError)
# How a server refuses that is being replaced, or is cut off from its replicas.
FORMER_PRIMARY = ('NOREPLICAS', 'MASTERDOWN', 'UNBLOCKED')
NO_CLUSTER = 'RQ works with one server, or with Sentinel: name one of these in REDIS_URL.'


def get_connection() -> Redis:
    """Return this process's Redis client, created on first use. Its pool survives a fork."""
    return connect(get_config().redis_url)


@lru_cache(maxsize=8)
def connect(url: str) -> Redis:
    # By Sentinel there are two more questions: for the address, and for the role of the server.
    connect_timeout = _CONNECT_TIMEOUT / 2 if names_sentinels(url) else _CONNECT_TIMEOUT
    options: dict[str, Any] = {
        **({} if url.startswith('rediss') else NO_HANDSHAKE),
        'socket_connect_timeout': connect_timeout,
        'socket_timeout': _ANSWER_TIMEOUT,
        # By default redis-py repeats a failed command up to ten times. An enqueue must not be
        # repeated without its caller's knowledge.
        'retry': Retry(NoBackoff(), 0),
    }
    return Redis.from_pool(_Pool(**options | connection_options(url)))


class NotReplicatedError(RedisError):
    """Too few replicas have confirmed a write."""


class _NotConnectedError(RedisError):
    """There was no connection by which a command could have been sent."""


class _Pool(ConnectionPool):
    """Tells a failed connection from a lost answer, for which redis-py has the same errors."""

    def get_connection(self, *args: Any, **options: Any) -> Connection:
        try:
            connection = super().get_connection(*args, **options)
            if isinstance(connection, SentinelConnection) and connection.is_outdated:
                # The former primary may be cut off, and not know of the new one.
                self.release(connection)
                self.disconnect(inuse_connections=False)
                connection = super().get_connection(*args, **options)
        except RedisError as error:
            raise _NotConnectedError(str(error)) from error
        return connection


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
        if is_wrong_type(error):
            raise _wrong_key_error(error) from error
        if may_be_former_primary(error):
            # It keeps its connections: the next call connects anew, to the primary of then.
            # Connections that other threads are using are theirs to drop.
            get_connection().connection_pool.disconnect(inuse_connections=False)
        raise QueueUnavailableError(
            f'Redis at {address()} {_what_is_wrong(error)}',
            None if _is_refused(error) else job_id,
            # Why there is no connection is in the message; 200 lines of redis-py would hide it.
        ) from (None if isinstance(error, _NotConnectedError) else error)


def _wrong_key_error(error: RedisError) -> WrongKeyError:
    found = named_key(error)
    if found is None:  # not from a script
        config = get_config()
        with suppress(RedisError):
            wrong = find_wrong_keys(get_connection(), config.key_prefix, config.queues)
            found = wrong[0] if wrong else None
    return WrongKeyError(*found) if found else WrongKeyError(None)


def may_be_former_primary(error: RedisError) -> bool:
    """Return whether the server may have been a primary that has been replaced."""
    return isinstance(error, (ReadOnlyError, NotReplicatedError)) or str(error).startswith(
        FORMER_PRIMARY
    )


def _what_is_wrong(error: RedisError) -> str:
    reason = str(error).rstrip('.')
    if isinstance(error, NotReplicatedError):
        return f'has done it, but {reason}. A fail-over now may undo it.'
    if isinstance(error, _CLUSTER_ERRORS):
        return f'is a node of a cluster: {reason}. {NO_CLUSTER}'
    if 'CERTIFICATE_VERIFY_FAILED' in reason:
        return (
            f'has a certificate that cannot be verified: {reason}. Name the file of its authority: '
            'JOB_REDIS_OPTIONS=ssl_ca_certs=… (docs/redis.md).'
        )
    stop = '' if reason.endswith('?') else '.'
    return (
        f'does not answer or does not accept: {reason}{stop} '
        'Is it running, and is it the one that REDIS_URL names?'
    )


def _is_refused(error: RedisError) -> bool:
    """Return whether nothing can have been written: no command was sent, or the answer is no."""
    return isinstance(
        error, (ResponseError, _NotConnectedError, AuthenticationError, BusyLoadingError)
    )


def address() -> str:
    """Return the address of Redis, without the user and the password in its URL."""
    return show_address(get_config().redis_url)


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

    def __call__(self, connection: Redis, arguments: Sequence[Any], must_last: bool = False) -> Any:
        """Run the script. Its first argument is the key prefix, `arguments` follow.

        With `must_last`, return once JOB_WAIT_REPLICAS replicas have all that it has seen. Raises
        NotReplicatedError otherwise.
        """
        config = get_config()
        prefix = config.key_prefix
        # The two keys are for a cluster. It keeps them apart, and refuses the script for that
        # before anything is written. Not so if both had the hash tag that a prefix can be.
        head = (2, f'{prefix}:queues', f'{prefix.translate(_WITHOUT_TAG)}:workers', prefix)
        if must_last and config.wait_replicas is not None:
            return self._run_and_wait(connection, [*head, *arguments], config)
        try:
            return connection.evalsha(self._sha, *head, *arguments)
        except NoScriptError:
            return connection.eval(self._source, *head, *arguments)

    def _run_and_wait(self, connection: Redis, arguments: list[Any], config: JobConfig) -> Any:
        with connection.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(self._sha, *arguments)
            # WAIT waits for what its connection has written last, which is nothing if the script
            # has found its work done by an earlier call. A message is always replicated.
            pipeline.publish(f'{config.key_prefix}:replicated', '')
            milliseconds = int(_REPLICATION_TIMEOUT * 1000)
            pipeline.execute_command('WAIT', config.wait_replicas, milliseconds)
            reply, published, confirmed = pipeline.execute(raise_on_error=False)
        if isinstance(reply, NoScriptError):
            connection.script_load(self._source)
            return self._run_and_wait(connection, arguments, config)
        if isinstance(reply, RedisError):
            raise reply
        for error in (published, confirmed):
            if isinstance(error, RedisError):  # the script has done its work all the same
                raise NotReplicatedError(f'does not say whether replicas have it: {error}')
        if confirmed < config.wait_replicas:
            raise NotReplicatedError(
                f'only {confirmed} of {config.wait_replicas} replicas (JOB_WAIT_REPLICAS) have '
                f'confirmed it within {_REPLICATION_TIMEOUT} s'
            )
        return reply


def redis_key(kind: str, name: str) -> str:
    """Return a key in Redis, such as `rq:queue:default` for ('queue', 'default')."""
    return f'{get_config().key_prefix}:{kind}:{name}'
