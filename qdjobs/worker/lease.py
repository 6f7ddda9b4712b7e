"""Claim jobs under a lease; renew, end, release and recover leases.

A running job has a lease: an entry of the sorted set `leases`, scored with the time at which it
expires. Only the holder of the lease can record the outcome of the job. Once the lease has
expired, any JobWorker requeues the job. RQ's registry of started jobs has the execution too,
without an expiry, so that RQ's tools do not treat it as abandoned.

Runs in the parent, except that `record` and `finish` also run in the horse.
"""

import logging
import select
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import compress

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.defaults import RQ_KEY_PREFIX
from rq.utils import utcformat

from qdjobs.client.redis import Script

log = logging.getLogger(__name__)

WAKE_UPS = f'{RQ_KEY_PREFIX}:doorbell'
PENDING_DEPENDENTS = f'{RQ_KEY_PREFIX}:pending-dependents'

_LUA = Path(__file__).with_name('lua')
_LEASE = _LUA / 'lease.lua'

_claim = Script(_LUA / 'claim.lua', _LEASE)
_renew = Script(_LUA / 'renew.lua', _LEASE)
_finish = Script(_LUA / 'finish.lua', _LEASE)
_record = Script(_LUA / 'record.lua', _LEASE)
_release = Script(_LUA / 'release.lua', _LEASE)
_recover = Script(_LUA / 'recover.lua', _LEASE)
_persist_waiting = Script(_LUA / 'persist_waiting.lua', _LEASE)


@dataclass(frozen=True)
class Lease:
    """The right of one worker to run one job and to record its outcome."""

    job_id: str
    execution_id: str
    worker: str
    origin: str  # the queue whose registries hold the job


@dataclass(frozen=True)
class Claim:
    """A job that this worker has claimed: its lease, its queue and its hash."""

    lease: Lease
    queue: str
    fields: dict[bytes, bytes]


@dataclass(frozen=True)
class NoJob:
    """No job can be claimed: none waits, or `rq suspend` has suspended the workers."""

    suspended: bool
    last_wake_up: str  # its id in the stream; every later enqueue adds a new entry


def claim_job(
    connection: Redis,
    worker: str,
    execution_id: str,
    seconds: float,
    queues: Sequence[str],
    reply_lost: bool = False,
    due: bool = True,
) -> Claim | NoJob:
    """Claim and start the next job of the queues, in their order, with a lease of `seconds`.

    With `reply_lost`, a job that this execution may have claimed already is returned again. With
    `due`, delayed jobs that are due are enqueued first.
    """
    arguments = [worker, execution_id, seconds, *_now(), int(reply_lost), int(due), *queues]
    reply = _claim(connection, arguments)
    if reply[0] != b'job':
        return NoJob(reply[0] == b'suspended', reply[1].decode())
    queue, job_id = reply[1].decode(), reply[2].decode()
    fields = dict(zip(reply[3][::2], reply[3][1::2], strict=True))
    origin = fields[b'origin'].decode(errors='replace')
    return Claim(Lease(job_id, execution_id, worker, origin), queue, fields)


def wait_for_wake_up(connection: Redis, last_wake_up: str, seconds: float, interrupt: int) -> None:
    """Block until a wake-up after `last_wake_up`, or for at most `seconds`.

    Also returns once the file descriptor `interrupt` is readable. Claims nothing, so no job is
    lost with the reply. Raises RedisError.
    """
    pool = connection.connection_pool
    link = pool.get_connection()
    try:
        block = max(1, int(seconds * 1000))
        link.send_command('XREAD', 'BLOCK', block, 'STREAMS', WAKE_UPS, last_wake_up)
        socket: Any = link._sock  # redis-py has no public name for it
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        poll.register(interrupt, select.POLLIN)
        ready = {file for file, _ in poll.poll(block + (link.socket_timeout or 5.0) * 1000)}
        if not ready:
            raise RedisTimeoutError('Timeout reading from socket')
        if interrupt not in ready:
            link.read_response()
            return
        link.disconnect()  # ends the wait in Redis too
    except BaseException:
        link.disconnect()
        raise
    finally:
        pool.release(link)


def renew(connection: Redis, lease: Lease, seconds: float) -> str:
    """Renew a lease for `seconds`. Returns 'held', 'stop' if a stop was requested, or 'lost'."""
    arguments = [lease.job_id, lease.execution_id, seconds, *_now()]
    return str(_renew(connection, arguments).decode())


def record(connection: Redis, lease: Lease, commands: Pipeline) -> str:
    """Run the commands of a pipeline in one step, and end the lease.

    Returns 'done', or 'dependents' if other jobs wait for this one. Runs nothing and returns
    'lost' if the lease does not hold any more, or the job was deleted or cancelled meanwhile.
    """
    arguments: list[Any] = [lease.job_id, lease.execution_id, lease.worker, lease.origin]
    for words, _ in commands.command_stack:
        arguments += (len(words), *words)
    return str(_record(connection, arguments).decode())


def finish(
    connection: Redis, lease: Lease, started: float, ended: float, result: str, ttl: int
) -> str:
    """Record that the task has returned, and end the lease. Returns the same as `record`.

    `started` and `ended` are timestamps, `result` is encoded by `pack_result`, `ttl` is in seconds.
    """
    moment = utcformat(datetime.fromtimestamp(ended, UTC))
    identity = [lease.job_id, lease.execution_id, lease.worker, lease.origin]
    reply = _finish(connection, [*identity, moment, started, ended, result, ttl])
    return str(reply.decode())


def release(connection: Redis, lease: Lease) -> bool:
    """Release a claimed job to the front of its queue. Returns False if the lease was lost."""
    arguments = [lease.job_id, lease.execution_id, lease.worker, lease.origin, _now()[0]]
    return bool(_release(connection, arguments))


def recover(connection: Redis, max_deaths: int, failure_ttl: int) -> list[str]:
    """Requeue every job whose lease has expired; fail those whose workers died too often.

    Returns the ids of jobs that have failed, or have stopped since a stop was requested.
    """
    lost = 'WorkerLostError: the worker died while it ran this job'
    poison = f'PoisonJobError: {max_deaths} workers died while they ran this job'
    arguments = [max_deaths, _now()[0], pack_error(lost), pack_error(poison), failure_ttl]
    requeued, failed = _recover(connection, arguments)
    for job_id in requeued:
        log.warning('Job %s is requeued: its worker has died.', job_id.decode())
    for job_id in failed:
        log.error('Job %s has failed or stopped: its worker has died.', job_id.decode())
    return [job_id.decode() for job_id in failed]


def persist_waiting(connection: Redis, queue: str, first: int, last: int) -> int:
    """Remove the expiry of waiting jobs in a range of indexes; return how many were checked."""
    return int(_persist_waiting(connection, [queue, first, last]))


def pack_error(text: str) -> str:
    """Encode an error as RQ does in a job's results."""
    return b64encode(compress(text.encode(errors='backslashreplace'))).decode()


def _now() -> tuple[str, float]:
    moment = datetime.now(UTC)
    return utcformat(moment), moment.timestamp()
