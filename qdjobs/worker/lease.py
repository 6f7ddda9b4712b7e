"""Who runs a job, and until when: taking it, renewing, recording, giving it back, recovering.

A job that runs is leased: `leases` holds its execution with the moment until which its worker is
believed. Whoever holds the lease may record an outcome; once it is past, a living worker puts the
job back. RQ's own registry of started jobs has the execution too, without an expiry, so that no
tool of RQ's takes it for abandoned.
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
_keep_waiting = Script(_LUA / 'keep_waiting.lua', _LEASE)


@dataclass(frozen=True)
class Lease:
    """The right of one worker to run one job and to record how it ended."""

    job_id: str
    execution_id: str
    worker: str
    origin: str  # the queue whose registries the job stands in


@dataclass(frozen=True)
class Claim:
    """A job that has been started for this worker: its lease and its hash."""

    lease: Lease
    queue: str
    fields: dict[bytes, bytes]


@dataclass(frozen=True)
class NoJob:
    """There is nothing to take: nothing waits, or `rq suspend` has suspended the workers."""

    suspended: bool
    last_wake_up: str  # of the doorbell; whatever is queued from now on rings after it


def claim_job(
    connection: Redis,
    worker: str,
    execution_id: str,
    seconds: float,
    queues: Sequence[str],
    again: bool = False,
    due: bool = True,
) -> Claim | NoJob:
    """Start the next job of the queues, in their order.

    With `again`, after an answer was lost, the execution gets the job that it has been given.
    With `due`, jobs whose time has come are enqueued first.
    """
    arguments = [worker, execution_id, seconds, *_now(), int(again), int(due), *queues]
    reply = _claim(connection, arguments)
    if reply[0] != b'job':
        return NoJob(reply[0] == b'suspended', reply[1].decode())
    queue, job_id = reply[1].decode(), reply[2].decode()
    fields = dict(zip(reply[3][::2], reply[3][1::2], strict=True))
    origin = fields[b'origin'].decode(errors='replace')
    return Claim(Lease(job_id, execution_id, worker, origin), queue, fields)


def wait_for_wake_up(connection: Redis, last_wake_up: str, seconds: float, wake_up: int) -> None:
    """Return when a job has been queued since `last_ring`, or after so many seconds.

    Or at once when the file `wake_up` can be read. The wait claims nothing: nothing is lost with
    its answer. Raises RedisError.
    """
    pool = connection.connection_pool
    link = pool.get_connection()
    try:
        block = max(1, int(seconds * 1000))
        link.send_command('XREAD', 'BLOCK', block, 'STREAMS', WAKE_UPS, last_wake_up)
        socket: Any = link._sock  # redis-py has no public name for it
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        poll.register(wake_up, select.POLLIN)
        ready = {file for file, _ in poll.poll(block + (link.socket_timeout or 5.0) * 1000)}
        if not ready:
            raise RedisTimeoutError('Timeout reading from socket')
        if wake_up not in ready:
            link.read_response()
            return
        link.disconnect()  # which ends the wait in Redis too
    except BaseException:
        link.disconnect()
        raise
    finally:
        pool.release(link)


def renew(connection: Redis, lease: Lease, seconds: float) -> str:
    """'held', 'stop' if the job is to be stopped, or 'lost'."""
    arguments = [lease.job_id, lease.execution_id, seconds, *_now()]
    return str(_renew(connection, arguments).decode())


def record(connection: Redis, lease: Lease, commands: Pipeline) -> str:
    """Run a pipeline's commands in one step if the lease still holds, and end it.

    Returns 'done', 'dependents' if other jobs wait for this one, or 'lost' with nothing written.
    """
    arguments: list[Any] = [lease.job_id, lease.execution_id, lease.worker, lease.origin]
    for words, _ in commands.command_stack:
        arguments += (len(words), *words)
    return str(_record(connection, arguments).decode())


def finish(
    connection: Redis, lease: Lease, started: float, ended: float, result: str, ttl: int
) -> str:
    """Record that the task has returned; answers as `record` does.

    `started` and `ended` are timestamps, `result` as RQ keeps it ('' for None), `ttl` seconds.
    """
    moment = utcformat(datetime.fromtimestamp(ended, UTC))
    identity = [lease.job_id, lease.execution_id, lease.worker, lease.origin]
    reply = _finish(connection, [*identity, moment, started, ended, result, ttl])
    return str(reply.decode())


def release(connection: Redis, lease: Lease) -> bool:
    """Put a job back to the front of its queue as if it had never been taken."""
    arguments = [lease.job_id, lease.execution_id, lease.worker, lease.origin, _now()[0]]
    return bool(_release(connection, arguments))


def recover(connection: Redis, max_deaths: int, failure_ttl: int) -> list[str]:
    """Put back every job whose lease is past; fail those whose worker has died too often.

    Returns the ids of those that have failed, or were to be stopped.
    """
    lost = 'WorkerLostError: the worker died while it ran this job'
    poison = f'PoisonJobError: {max_deaths} workers died while they ran this job'
    arguments = [max_deaths, _now()[0], pack_error(lost), pack_error(poison), failure_ttl]
    back, failed = _recover(connection, arguments)
    for job_id in back:
        log.warning('Job %s was put back: its worker is gone.', job_id.decode())
    for job_id in failed:
        log.error('Job %s has ended: its worker is gone, not for the first time.', job_id.decode())
    return [job_id.decode() for job_id in failed]


def keep_waiting(connection: Redis, queue: str, first: int, last: int) -> int:
    """Take the expiry from waiting jobs in a range; returns how many it has looked at."""
    return int(_keep_waiting(connection, [queue, first, last]))


def pack_error(text: str) -> str:
    """An error as RQ keeps it in a job's results."""
    return b64encode(compress(text.encode(errors='backslashreplace'))).decode()


def _now() -> tuple[str, float]:
    moment = datetime.now(UTC)
    return utcformat(moment), moment.timestamp()
