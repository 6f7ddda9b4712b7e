"""Describe how a run ends, for the function `end_run` of lua/run.lua.

Built in the horse; for runs whose horse has died or was killed, in the parent.
"""

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.exceptions import RedisError
from rq.job import Job, Retry
from rq.repeat import Repeat
from rq.results import Result
from rq.utils import utcformat

from qdjobs.client.payload import dump_checked, dump_within
from qdjobs.client.status import last_line
from qdjobs.config import JobConfig
from qdjobs.errors import InvalidJobError
from qdjobs.worker.lease import STOPPED, pack_error

TOO_MANY_REQUESTED = 'Retry: the task requested more attempts than it may have'
MAX_ATTEMPTS = 10  # failed attempts whose errors are kept in the metadata
MAX_RELEASE_DELAY = 60.0  # seconds
MAX_REASON = 500  # characters


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state in which a run leaves its job, and what is recorded about the attempt."""

    status: str
    moment: str  # now, in RQ's format
    ended_at: str = ''  # the same, or empty if the job has not ended
    kind: int | None = None  # of RQ's result; None records no attempt
    field: str | None = None  # of the result: 'return_value' or 'exc_string'
    value: str | None = None  # encoded
    enqueued_at: float | None = None
    execution_started_at: float | None = None
    execution_ended_at: float | None = None
    counter: str | None = None  # of the worker: 'successful_job_count' or 'failed_job_count'
    fields: tuple[Any, ...] = ()  # of the job's hash: name, value, name, value …
    meta: bytes = b''  # the job's metadata, if it changes
    ttl: int | None = None  # seconds to keep an ended job; None: its failure_ttl
    delay: float | None = None  # seconds, by the clock of Redis, until a scheduled job is due
    at_front: bool = False  # of its queue, for a queued one
    is_unregistered: bool = False  # for `rq worker --disable-default-exception-handler`

    def encode(self) -> 'Encoded':
        """Return the ending as the scripts read it; Redis' msgpack knows no bytes."""
        return msgspec.msgpack.encode(msgspec.structs.replace(self, meta=b'')), self.meta


Encoded = tuple[bytes, bytes]  # an ending in msgpack, and the metadata


def finished(job: Job, result_ttl: int, config: JobConfig) -> Ending:
    """Return the ending of a task that has returned. Its result must be known to be plain data.

    Raises InvalidJobError if the result is too large.
    """
    data = b'' if job._result is None else _dump_result(job, config.max_result)
    outcome: dict[str, Any] = {
        **_times(job),
        'kind': Result.Type.SUCCESSFUL.value,
        'field': 'return_value' if data else None,
        'value': b64encode(data).decode() if data else None,
        'counter': 'successful_job_count',
    }
    if job.repeats_left:
        return _repeated(job, outcome)
    return Ending(status='finished', ended_at=outcome['moment'], ttl=result_ttl, **outcome)


def _dump_result(job: Job, limit: int) -> bytes:
    advice = f'JOB_MAX_RESULT ({limit} MB): write it to a file, and return its name'
    return dump_within(job._result, limit, f'The result of {job.func_name} has', advice)


def failed(
    job: Job,
    worker: str,
    error: str,
    kind: Result.Type = Result.Type.FAILED,
    is_unregistered: bool = False,
) -> Ending:
    """Return the ending of a last attempt: the job becomes a dead letter."""
    outcome = _attempt(job, worker, error, kind)
    if is_unregistered:
        outcome |= {'kind': None}
    return Ending(
        status='failed', ended_at=outcome['moment'], is_unregistered=is_unregistered, **outcome
    )


def stopped(job: Job, worker: str) -> Ending:
    """Return the ending of a run that was stopped by request."""
    outcome = _attempt(job, worker, STOPPED, Result.Type.FAILED)
    return Ending(status='stopped', ended_at=outcome['moment'], **outcome)


def retried(job: Job, worker: str, error: str) -> Ending:
    """Return the ending of a failed attempt that is followed by another, by RQ's count."""
    assert job.retries_left
    fields = ('retries_left', job.retries_left - 1)
    return _again(
        job, worker, error, job.get_retry_interval(), bool(job.enqueue_at_front_on_retry), fields
    )


def asked_again(job: Job, worker: str, retry: Retry) -> Ending:
    """Return the ending of a task that has returned RQ's Retry."""
    done = job.number_of_retries or 0
    if done >= retry.max:
        error = TOO_MANY_REQUESTED
        return failed(job, worker, error, Result.Type.MAX_RETRIES_EXCEEDED)
    delay = Retry.get_interval(done, retry.intervals)
    error = 'Retry: the task requested another attempt'
    fields = ('number_of_retries', done + 1)
    return _again(job, worker, error, delay, retry.enqueue_at_front, fields)


def released() -> Ending:
    """Return the ending of a run that leaves its job as if it had not been claimed."""
    return Ending(status='queued', moment=utcformat(datetime.now(UTC)), at_front=True)


def unknown_here(since: float, why: str) -> Ending:
    """Return the ending of a job that this worker's code cannot run; that of another may.

    `since` is when the first worker said so. The delay grows with the time since then. The status
    of the job shows `why`.
    """
    moment = datetime.now(UTC)
    delay = min(max(1.0, moment.timestamp() - since), MAX_RELEASE_DELAY)
    return Ending(
        status='scheduled',
        moment=utcformat(moment),
        delay=delay,
        fields=('unknown_since', since, 'unknown_why', _encodable(why)),
    )


def _encodable(text: str) -> str:
    return text[:MAX_REASON].encode(errors='backslashreplace').decode()


def _again(
    job: Job, worker: str, error: str, delay: float, at_front: bool, fields: tuple[Any, ...]
) -> Ending:
    outcome = _attempt(job, worker, error, Result.Type.RETRIED)
    outcome['fields'] = (*fields, 'enqueue_at_front_on_retry', int(at_front))
    if delay:
        return Ending(status='scheduled', ended_at=outcome['moment'], delay=delay, **outcome)
    outcome['fields'] += ('enqueued_at', outcome['moment'])
    return Ending(status='queued', ended_at=outcome['moment'], at_front=at_front, **outcome)


def _repeated(job: Job, outcome: dict[str, Any]) -> Ending:
    """Return the ending of one run of a series, as RQ's Repeat.schedule would leave the job."""
    assert job.repeats_left
    intervals = job.repeat_intervals or [0]
    delay = Repeat.get_interval(0, intervals)
    left = json.dumps(intervals[1:] or intervals)
    fields: tuple[Any, ...] = ('repeats_left', job.repeats_left - 1, 'repeat_intervals', left)
    if delay:
        return Ending(status='scheduled', delay=delay, fields=fields, **outcome)
    fields += ('enqueued_at', outcome['moment'])
    return Ending(status='queued', fields=fields, **outcome)


def _attempt(job: Job, worker: str, error: str, kind: Result.Type) -> dict[str, Any]:
    return {
        **_times(job),
        'kind': kind.value,
        'field': 'exc_string',
        'value': pack_error(error),
        'counter': 'failed_job_count',
        'meta': _remember_attempt(job, worker, error),
    }


def _times(job: Job) -> dict[str, Any]:
    ended = job.ended_at or datetime.now(UTC)
    return {
        'moment': utcformat(ended),
        'enqueued_at': _timestamp(job.enqueued_at),
        'execution_started_at': (job.started_at or ended).timestamp(),
        'execution_ended_at': ended.timestamp(),
    }


def _timestamp(moment: Any) -> float | None:
    """Return a moment of a record in seconds, or None if it is none: the task can have set it."""
    is_moment = isinstance(moment, datetime) and moment.tzinfo is not None
    return moment.timestamp() if is_moment else None


def _remember_attempt(job: Job, worker: str, error: str) -> bytes:
    """Return the job's metadata with the attempt added, which the dashboard shows."""
    try:
        meta = job.get_meta()  # from Redis: the task may have saved its own metadata
    except (InvalidJobError, RedisError):
        return b''
    if not isinstance(meta, dict):
        return b''
    attempt = {
        'at': utcformat(job.ended_at or datetime.now(UTC)),
        'worker': worker,
        'error': last_line(error),
    }
    known = meta.get('attempts')
    meta['attempts'] = [*(known if isinstance(known, list) else []), attempt][-MAX_ATTEMPTS:]
    return dump_checked(meta)
