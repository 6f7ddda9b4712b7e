"""Claim jobs under a lease; renew, end and recover leases. Calls the scripts in lua/.

A running job has a lease: an entry of the sorted set `leases`, scored with the time at which it
expires. Only the run that holds the lease can record how it ended. RQ's registry of started jobs
has the execution too, without an expiry, so that RQ's tools do not treat it as abandoned.

Runs in the parent.
"""

import select
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import compress

import msgspec
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.defaults import RQ_KEY_PREFIX
from rq.utils import utcformat

from qdjobs.client.counts import LUA_BUCKETS
from qdjobs.client.redis import ADD, AFTER, COUNT, Script
from qdjobs.config import get_config

LEASES = f'{RQ_KEY_PREFIX}:leases'
LOST = 'WorkerLostError: the worker died while it ran this job'
STOPPED = 'Job stopped by user, work-horse terminated.'  # RQ's words

_LUA = Path(__file__).with_name('lua')


def pack_error(text: str) -> str:
    """Encode an error as RQ does in a job's results."""
    return b64encode(compress(text.encode(errors='backslashreplace'))).decode()


def _script(name: str, *preambles: str) -> Script:
    return Script(
        _LUA / f'{name}.lua',
        COUNT,
        AFTER,
        ADD,
        *(_LUA / f'{each}.lua' for each in preambles),
        constants=f"local STOPPED = '{pack_error(STOPPED)}'\n{LUA_BUCKETS}",
        # What a worker does for a job must work when Redis is full: it frees memory.
        flags='allow-oom',
    )


_claim = _script('claim', 'run', 'claim_next')
_end = _script('end', 'run', 'claim_next')
_renew = _script('renew', 'run')
_recover = _script('recover', 'run')
_dependents = _script('dependents')
_deferred = _script('deferred')
_persist_waiting = _script('persist_waiting')
_expired = _script('expired')
_presence = _script('presence')


class Lease(msgspec.Struct, frozen=True):
    """The right of one worker to run one job and to record its outcome."""

    job_id: str
    execution_id: str
    worker: str
    origin: str  # the queue whose registries hold the job

    @property
    def member(self) -> str:
        """Its entry in `leases`, which is also RQ's name of the execution."""
        return f'{self.job_id}:{self.execution_id}'


class Claim(msgspec.Struct, frozen=True, tag=True):
    """A job that this worker has claimed: its lease, its queue and its hash."""

    lease: Lease
    queue: str
    fields: dict[bytes, bytes]
    claimed_at: float  # on the monotonic clock, when the request was made


class ClaimRequest(msgspec.Struct, frozen=True):
    """Who asks for a job, under which execution, and from which queues, in their order."""

    worker: str
    execution: str
    lease: float  # seconds
    queues: Sequence[str]
    is_due_check: bool  # enqueue due jobs first
    is_ahead: bool  # claimed while another job still runs
    is_woken: bool  # by an entry in the list of wake-ups
    moment: str
    timestamp: float
    made_at: float  # on the monotonic clock


@dataclass(frozen=True)
class Claimed:
    """The reply to a claim. Without a `claim`, no job waits, or the workers are suspended."""

    claim: Claim | None
    is_suspended: bool
    has_more: bool  # a limit was reached: claim again at once, with a check for due jobs


@dataclass(frozen=True)
class Ended:
    """The reply to an ending: the new state of the job, or 'lost'; see run.lua."""

    state: str
    has_dependents: bool
    claimed: Claimed | None


@dataclass(frozen=True)
class Recovered:
    """A job whose lease had expired, and its new state, which is 'lost' as in run.lua."""

    job_id: str
    state: str
    has_dependents: bool
    is_death: bool  # its worker has died under it


def claim_request(
    worker: str,
    execution: str,
    lease: float,
    queues: Sequence[str],
    is_due_check: bool = True,
    is_ahead: bool = False,
    is_woken: bool = False,
) -> ClaimRequest:
    """Return a request for the next job. Its `execution` is a new id."""
    made_at = time.monotonic()
    flags = is_due_check, is_ahead, is_woken
    return ClaimRequest(worker, execution, lease, queues, *flags, *_now(), made_at)


def claim_job(connection: Redis, request: ClaimRequest, reply_lost: bool = False) -> Claimed:
    """Claim and start the next job.

    With `reply_lost`, a job that this execution may have claimed already is returned again.
    """
    reply = _claim(connection, [msgspec.msgpack.encode(request), int(reply_lost)])
    return _read_claimed(reply, request)


def end_run(
    connection: Redis,
    lease: Lease,
    ending: tuple[bytes, bytes],
    begun: Lease | None = None,
    request: ClaimRequest | None = None,
) -> Ended:
    """End a run, and claim the next job if there is a `request`. Safe to repeat.

    Raises RedisError, also if fewer replicas than JOB_WAIT_REPLICAS have it.

    `ending` is an Ending as its `encode` returns it. `begun` was claimed ahead and has begun.
    """
    identity = [lease.job_id, lease.execution_id, lease.worker, lease.origin]
    wanted = b'' if request is None else msgspec.msgpack.encode(request)
    arguments = [*identity, *ending, begun.member if begun else '', wanted]
    reply = _end(connection, arguments, must_last=True)
    claimed = _read_claimed(reply[2], request) if request is not None else None
    return Ended(reply[0].decode(), bool(reply[1]), claimed)


def renew(
    connection: Redis, leases: Sequence[Lease], seconds: float, is_stopping: bool
) -> list[str]:
    """Renew leases. Returns for each 'held', 'stop' if a stop was requested, or 'lost'."""
    arguments = [seconds, *_now(), int(is_stopping)]
    for lease in leases:
        arguments += (lease.job_id, lease.execution_id)
    return [state.decode() for state in _renew(connection, arguments)]


def late_leases(connection: Redis, seconds: float, limit: int) -> dict[str, float]:
    """Return the leases that expire in less than `seconds`, with their expiry by Redis' clock."""
    server_time: Any = connection.time()
    latest = server_time[0] + seconds
    found: Any = connection.zrangebyscore(LEASES, '-inf', latest, 0, limit, withscores=True)
    return {member.decode(errors='replace'): score for member, score in found}


def recover(connection: Redis, expired: dict[str, float], max_deaths: int) -> list[Recovered]:
    """Requeue the jobs of leases that have expired and were not renewed since they were seen."""
    arguments = [max_deaths, _now()[0], pack_error(LOST)]
    for member, expiry in expired.items():
        arguments += (member, repr(expiry))
    return [
        Recovered(job_id.decode(), state.decode(), bool(note), bool(is_death))
        for job_id, state, note, is_death in zip(*_recover(connection, arguments), strict=True)
    ]


def claim_of(connection: Redis, job_id: str) -> Claim:
    """Return the record of a job as it is now in the form of a claim. It holds no lease."""
    fields: Any = connection.hgetall(f'{RQ_KEY_PREFIX}:job:{job_id}')
    queue = fields.get(b'origin', b'').decode(errors='replace')
    return Claim(Lease(job_id, '', '', queue), queue, fields, time.monotonic())


def enqueue_dependents(
    connection: Redis, parent: str | bytes, cursor: str, limit: int
) -> tuple[str, list[str]]:
    """Enqueue jobs that wait for an ended one, about `limit` of them. Safe to repeat.

    Returns the next cursor, '0' at the end, and the ids of jobs under RQ's rate limit.
    """
    reply = _dependents(connection, [parent, _now()[0], cursor, limit])
    return reply[0].decode(), [job_id.decode() for job_id in reply[1]]


def pending_dependents(connection: Redis, latest: float, limit: int) -> list[bytes]:
    """Return ended jobs whose dependents were to be looked at by a time, up to a limit."""
    found: Any = connection.zrangebyscore(_pending_dependents(), 0, latest, 0, limit)
    return list(found)


def forget_pending(connection: Redis, parent: bytes) -> None:
    """Remove the note that the dependents of a job are to be looked at."""
    connection.zrem(_pending_dependents(), parent)


def _pending_dependents() -> str:
    return f'{get_config().key_prefix}:pending-dependents'


def settle_deferred(connection: Redis, queue: str, first: int, last: int) -> tuple[int, int]:
    """Queue deferred jobs in a range of indexes that wait for nothing.

    Returns how many there are in that range, and how many of them no longer.
    """
    seen, removed = _deferred(connection, [_now()[0], queue, first, last])
    return seen, removed


def persist_waiting(connection: Redis, queue: str, first: int, last: int) -> int:
    """Remove the expiry of waiting jobs in a range of indexes; return how many were checked."""
    return int(_persist_waiting(connection, [queue, first, last]))


def remove_expired(connection: Redis, queues: Sequence[str], limit: int) -> bool:
    """Remove up to `limit` entries of ended jobs that have expired; return whether all are gone."""
    return not _expired(connection, [limit, *queues])


def write_presence(
    connection: Redis, worker: str, seconds: int, queues: Sequence[str], record: dict[str, Any]
) -> None:
    """Write the record of a living worker, which expires after `seconds`."""
    fields = [item for pair in record.items() for item in pair]
    _presence(connection, [worker, seconds, len(queues), *queues, *fields])


def wait_for_wake_up(
    connection: Redis, queues: Sequence[str], seconds: float, interrupt: int
) -> bool:
    """Block until a job is enqueued in one of the queues, or for at most `seconds`.

    Returns whether one was. Also returns once the file descriptor `interrupt` is readable. Claims
    nothing, so no job is lost with the reply. Raises RedisError.
    """
    pool = connection.connection_pool
    link = pool.get_connection()
    try:
        keys = [f'{RQ_KEY_PREFIX}:wake-up:{queue}' for queue in queues]
        link.send_command('BLPOP', *keys, f'{seconds:.3f}')
        socket: Any = link._sock  # redis-py has no public name for it
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        poll.register(interrupt, select.POLLIN)
        ready = {file for file, _ in poll.poll((seconds + (link.socket_timeout or 5.0)) * 1000)}
        if not ready:
            raise RedisTimeoutError('Timeout reading from socket')
        if interrupt not in ready:
            return link.read_response() is not None
        link.disconnect()  # ends the wait in Redis too
        return False
    except BaseException:
        link.disconnect()
        raise
    finally:
        pool.release(link)


def _read_claimed(reply: list[Any], request: ClaimRequest) -> Claimed:
    kind, queue, job_id, values, more = reply
    claim = None
    if kind == b'job':
        fields = dict(zip(values[::2], values[1::2], strict=True))
        origin = fields[b'origin'].decode(errors='replace')
        lease = Lease(job_id.decode(), request.execution, request.worker, origin)
        claim = Claim(lease, queue.decode(), fields, request.made_at)
    return Claimed(claim, kind == b'suspended', bool(more))


def _now() -> tuple[str, float]:
    moment = datetime.now(UTC)
    return utcformat(moment), moment.timestamp()
