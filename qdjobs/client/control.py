"""The whole of what web code needs: enqueue a job, ask what became of it, stop it, run it again.

Every function raises QueueUnavailableError within two seconds if Redis is away.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from rq.exceptions import InvalidJobOperation
from rq.job import Job
from rq.utils import utcformat

from qdjobs.client import redis as job_store
from qdjobs.client.enqueue import UNREADABLE, check_calls, enqueue, fill
from qdjobs.errors import InvalidJobError, JobNotFoundError, show
from qdjobs.client.listing import read_page, read_statuses
from qdjobs.client.options import JobOptions, is_job_id, parse_options, split_options
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.status import ENDED, STATUSES, Status, read_text
from qdjobs.client.redis import reaching_redis
from qdjobs.client.tasks import resolve_task
from qdjobs.config import QUEUES, get_settings

MAX_LISTED = 1000


def enqueue_background_job(dotted_path: str, /, *args: Any, **kwargs: Any) -> Job:
    """Check the call and queue it, in one round trip.

    `dotted_path` names a public function of an allowed module. Keywords that begin with `job_`
    are options of the job (README.md lists them), all else goes to the task untouched.
    Returns the job; with a `job_id` that is waiting or running already, that very job.

    Raises UnknownTaskError or InvalidJobError with nothing written, QueueUnavailableError,
    with the id to repeat it under, if Redis does not answer or accept.
    """
    arguments, given = split_options(kwargs)
    task = resolve_task(dotted_path)
    options = _parse_options(given)
    task.check(args, arguments)
    job_id = options.job_id or str(uuid4())
    return enqueue(task, options, [(job_id, args, arguments)], job_id)[0]


def enqueue_background_jobs(
    dotted_path: str, calls: Iterable[Mapping[str, Any]], /, **job_options: Any
) -> list[Job]:
    """Queue many calls of one task, in one round trip: all of them, or none.

    `calls` are at most 5,000 mappings of keyword arguments. The options are shared; the jobs' ids
    are `job_id`, or a new id, followed by `-0`, `-1` … in the order of the calls, so that
    repeating the whole with the same `job_id` adds nothing twice. Raises as
    `enqueue_background_job`.
    """
    task = resolve_task(dotted_path)
    options = _parse_options(job_options)
    batch_id = options.job_id or str(uuid4())
    batch = [
        (f'{batch_id}-{number}', (), call) for number, call in enumerate(check_calls(task, calls))
    ]
    return enqueue(task, options, batch, batch_id) if batch else []


def get_job_status(job_id: str) -> Status:
    """What became of a job; poll it. Raises JobNotFoundError."""
    return get_job_statuses([job_id])[0]


def get_job_statuses(job_ids: Iterable[str]) -> list[Status]:
    """The statuses of many jobs, in the order of the ids, in one round trip for each 1,000.

    Raises JobNotFoundError, naming all that are missing, if there is no job of some id.
    """
    if isinstance(job_ids, str):
        raise InvalidJobError('get_job_statuses takes a list of ids: for one, get_job_status.')
    wanted = list(job_ids)
    found = read_statuses(wanted)
    missing = [job_id for job_id, status in zip(wanted, found, strict=True) if status is None]
    if missing:
        raise JobNotFoundError(missing)
    return [status for status in found if status is not None]


def list_jobs(status: str | None = None, queue: str | None = None, limit: int = 50) -> list[Status]:
    """At most `limit` (≤ 1000) jobs, in the order in which RQ keeps them: of each queue the next
    to run, the next to start, or the first to expire, first. Without their results.

    `status` is any that RQ has, `queue` one of ours; None means all, the running and waiting
    first. Changes nothing, and looks at no more than 10,000 jobs. Raises InvalidJobError for a
    status or queue that does not exist.
    """
    return list_jobs_page(status, queue, limit)[0]


def list_jobs_page(
    status: str | None = None, queue: str | None = None, limit: int = 50, cursor: str | None = None
) -> tuple[list[Status], str | None]:
    """The jobs of `list_jobs`, and the cursor to read on from with the same status and queue, or
    None if these are all.

    A cursor is a place in a registry, and jobs move between registries: one that moves while
    somebody reads page by page can be told twice, or not at all.
    """
    statuses = _one_of('status', status, STATUSES)
    queues = _one_of('queue', queue, QUEUES)
    if type(limit) is not int or not 1 <= limit <= MAX_LISTED:
        raise InvalidJobError(
            f'limit must be a number from 1 to {MAX_LISTED}, not {show(limit)}.', 'limit'
        )
    return read_page(statuses, queues, limit, cursor)


def cancel_job(job_id: str) -> str:
    """Keep a waiting job from running, or stop a running one.

    Returns 'canceled' if it will not run, 'stopping' if it was running and its worker has been
    told; else it had ended, was left as it is, and its status is returned ('finished',
    'failed', 'stopped' or 'canceled'). Raises JobNotFoundError.
    """
    moment, ttl = utcformat(datetime.now(UTC)), get_settings().result_ttl
    _require_id(job_id)
    with reaching_redis() as connection:
        before = job_store.cancel(connection, [job_id, moment, ttl])
        if before is None:
            raise JobNotFoundError([job_id])
        if before == b'limited':  # RQ's own, with bookkeeping of its own
            _rate_limited(job_id, Job.cancel)
            return 'canceled'
    return 'stopping' if before == b'started' else read_text(before)


def delete_job(job_id: str) -> str:
    """Forget a job that has ended, with its outcome; one that has not is cancelled or stopped.

    Returns 'deleted', or what `cancel_job` returns: nothing that might still run is forgotten.
    Raises JobNotFoundError.
    """
    _require_id(job_id)
    with reaching_redis() as connection:
        if job_store.delete(connection, [job_id]) == b'deleted':
            return 'deleted'
    return cancel_job(job_id)


def retry_job(job_id: str) -> Job:
    """Queue a job again that failed, was stopped or was cancelled, with all of its retries.

    Its old outcome is gone from then on. Raises JobNotFoundError, or InvalidJobError if the job
    has not ended or has finished.
    """
    _require_id(job_id)
    with reaching_redis(job_id) as connection:
        reply = job_store.retry(connection, [job_id, utcformat(datetime.now(UTC))])
        if reply is None:
            raise JobNotFoundError([job_id])
        before = read_text(reply[0])
        if before == 'limited':
            requeued: Job = _rate_limited(job_id, Job.requeue)
            return requeued
    if before not in ENDED or before == 'finished':
        raise InvalidJobError(
            f'Job {job_id!r} is {before}: only a job that failed, was stopped or cancelled can be '
            'tried again. To run a finished one anew, enqueue it with its job_id.'
        )
    job = Job(job_id, job_store.get_connection(), PlainSerializer)
    fill(job, reply[1])
    return job


def _rate_limited(job_id: str, change: Callable[[Job], Any]) -> Any:
    """Change a job in RQ's own way, since it has to queue for its slot."""
    try:
        return change(Job.fetch(job_id, job_store.get_connection(), PlainSerializer))
    except InvalidJobOperation as error:  # RQ requeues from its dead letters only
        raise InvalidJobError(
            f'Job {job_id!r} was cancelled under a rate limit: enqueue it again instead.'
        ) from error
    except UNREADABLE as error:
        raise InvalidJobError(f'The record of job {job_id!r} cannot be read.') from error


def wait_for_job(job_id: str, timeout: float) -> Status:
    """The status of a job once it has ended, or after `timeout` seconds, whichever is first.

    For scripts and tests; in a web request, answer 202 and let the client poll.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise InvalidJobError(f'timeout must be seconds, not {show(timeout)}.')
    deadline = time.monotonic() + timeout
    pause = 0.01
    while (status := get_job_status(job_id))['status'] not in ENDED:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.25)
    return status


def _parse_options(given: Mapping[str, Any]) -> JobOptions:
    settings = get_settings()
    return parse_options(given, result_ttl=settings.result_ttl, failure_ttl=settings.failure_ttl)


def _require_id(job_id: str) -> None:
    if not is_job_id(job_id):
        raise JobNotFoundError([job_id])


def _one_of(name: str, value: str | None, known: Sequence[str]) -> Sequence[str]:
    if value is None:
        return known
    if value not in known:
        raise InvalidJobError(f'{name} must be one of {", ".join(known)}, not {show(value)}.', name)
    return (value,)
