"""How far a task is: told by the task, read by whoever asks for the job's status.

Outside a job nothing is told and nothing is needed, so a task can be called like any function.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rq.job import Job  # imported where one runs: whoever imports a task need not wait for it

_SAVE = (
    "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'meta', ARGV[1]) end"
)
INTERVAL = 0.3  # seconds, at least, between two times that one job writes its progress

Row = TypeVar('Row')

log = logging.getLogger(__name__)
_written: dict[str, float] = {}  # the job that runs, and when it last wrote


@dataclass(frozen=True)
class CurrentJob:
    """The job that calls."""

    id: str
    attempt: int  # from 1
    created_at: datetime  # which tells the runs under one id apart


def current_job() -> CurrentJob | None:
    """The job that this code runs in, or None outside a job."""
    job = _rq_job()
    if job is None:
        return None
    attempt = len(job.retry_intervals or ()) - (job.retries_left or 0) + 1
    return CurrentJob(job.id, attempt, job.created_at)


def track(rows: Iterable[Row], total: int | None = None, message: str = '') -> Iterator[Row]:
    """Pass on the rows, and tell how many are done; `total` is their number if they know it."""
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
    """Tell how far the task is; the first and the last are written at once, others now and then."""
    job = _rq_job()
    if job is None:
        return
    moment = time.monotonic()
    if 0 < done != total and moment - _written.get(job.id, 0.0) < INTERVAL:
        return
    _written.clear()  # one job runs at a time
    _written[job.id] = moment
    _write(job, {'done': done, 'total': total, 'message': message})


def _rq_job() -> 'Job | None':
    from rq import get_current_job

    return get_current_job()


def _write(job: 'Job', progress: dict[str, object]) -> None:
    from redis.exceptions import RedisError

    job.meta['progress'] = progress
    try:
        # Only into a record that is there: a deleted one must not come back as a ghost.
        job.connection.eval(_SAVE, 1, job.key, job.serializer.dumps(job.meta))
    except RedisError as error:  # the work is worth more than the telling
        log.warning('The progress of job %s was not written: %s', job.id, error)
