"""Report the progress of a task, which the job's status shows.

Outside a job these functions do nothing, so a task can be called like any function.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

if TYPE_CHECKING:
    from rq.job import Job  # imported only in a job, so that importing a task stays fast

    from qdjobs.client.status import Status

_SAVE = (
    "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'meta', ARGV[1]) end"
)
META = 'job_meta'  # in RQ's metadata, beside `progress` and `attempts`
INTERVAL = 0.3  # seconds, at least, between two writes of one job

Row = TypeVar('Row')

log = logging.getLogger(__name__)
_written: dict[str, float] = {}  # the id of the running job, and when it last wrote


class Progress(TypedDict):
    """How much of a job is done; `total` is None if it is unknown."""

    done: int
    total: int | None
    message: str


@dataclass(frozen=True)
class CurrentJob:
    """The job that the calling code runs in."""

    id: str
    task: str  # its dotted path
    queue: str
    attempt: int  # starts at 1
    is_last_attempt: bool  # an error of this attempt is final, whatever it is
    created_at: datetime  # distinguishes jobs that were enqueued under one id
    enqueued_at: datetime | None  # when it was put into its queue the last time
    meta: dict[str, Any]  # its job_meta
    # Reads from Redis, or from what takes its place.
    _read_parents: 'Callable[[], dict[str, Status]] | None' = field(default=None, repr=False)

    def parents(self) -> 'Mapping[str, Status]':
        """Return the status, with its result or error, of each job of `job_after`, by id.

        In the order of `job_after`, in one round trip. One whose record has expired or was deleted
        is missing. Raises QueueUnavailableError.
        """
        if self._read_parents is None:
            raise RuntimeError('Only a job of a JobWorker can read its parents: start that worker.')
        return self._read_parents()


def current_job() -> CurrentJob | None:
    """Return the job that the calling code runs in, or None outside a job."""
    job = _rq_job()
    return None if job is None else describe_job(job)


def describe_job(job: 'Job') -> CurrentJob:
    """Return what its own code can see of an RQ job."""
    retries_left = job.retries_left or 0
    meta = job.meta.get(META)
    attempt = 1 + len(job.retry_intervals or ()) - retries_left + (job.number_of_retries or 0)
    return CurrentJob(
        id=job.id,
        task=_task_of(job),
        queue=job.origin,
        attempt=attempt,
        is_last_attempt=retries_left == 0,
        created_at=job.created_at,
        enqueued_at=job.enqueued_at,
        meta=deepcopy(meta) if meta else {},  # a task changes nothing that others read
        _read_parents=getattr(job, 'read_parents', None),
    )


def _task_of(job: 'Job') -> str:
    from rq.exceptions import DeserializationError

    try:
        return job.func_name or ''
    except DeserializationError:
        return ''


def track(rows: Iterable[Row], total: int | None = None, message: str = '') -> Iterator[Row]:
    """Yield the rows, and report how many are done; `total` defaults to their number, if sized."""
    if total is None and isinstance(rows, Sized):
        total = len(rows)
    done = 0
    report_progress(done, total, message)
    for done, row in enumerate(rows, start=1):
        yield row
        report_progress(done, total, message)
    if done != total:
        report_progress(done, done, message)


def report_progress(done: int, total: int | None = None, message: str = '') -> None:
    """Report the progress of the current job, at most once in INTERVAL seconds.

    Reports of 0 and of `total` are always written.
    """
    job = _rq_job()
    if job is None:
        return
    moment = time.monotonic()
    if 0 < done != total and moment - _written.get(job.id, 0.0) < INTERVAL:
        return
    _written.clear()  # one job runs at a time
    _written[job.id] = moment
    _write(job, Progress(done=done, total=total, message=message))


def _rq_job() -> 'Job | None':
    from rq import get_current_job

    return get_current_job()


def _write(job: 'Job', progress: Progress) -> None:
    from redis.exceptions import RedisError

    job.meta['progress'] = progress
    try:
        # Only if the record exists: a write must not bring back a deleted job.
        job.connection.eval(_SAVE, 1, job.key, job.serializer.dumps(job.meta))
    except RedisError as error:  # the job must not fail for its progress
        log.warning('The progress of job %s was not written: %s', job.id, error)
