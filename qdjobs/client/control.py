"""Cancel, delete and retry existing jobs."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rq.exceptions import InvalidJobOperation
from rq.job import Job
from rq.utils import utcformat

from qdjobs.client.enqueue import RECORD_ERRORS, load_fields
from qdjobs.client.job import job_class
from qdjobs.client.options import is_job_id
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import COUNT, LUA, Script, get_connection, redis_connection
from qdjobs.client.states import ENDED
from qdjobs.client.status import read_text
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobNotFoundError

_cancel = Script(LUA / 'cancel.lua', COUNT)
_delete = Script(LUA / 'delete.lua')
_retry = Script(LUA / 'retry.lua', COUNT)


def cancel_job(job_id: str) -> str:
    """Cancel a waiting job, or have a running one stopped by its worker.

    Returns 'canceled' if the job will not run, 'stopping' if its worker has been sent a stop
    command. A job in a terminal state is unchanged, and that state is returned ('finished',
    'failed', 'stopped' or 'canceled'). Raises JobNotFoundError.
    """
    moment, ttl = utcformat(datetime.now(UTC)), get_config().result_ttl
    _require_id(job_id)
    with redis_connection() as connection:
        before = _cancel(connection, [job_id, moment, ttl])
        if before is None:
            raise JobNotFoundError([job_id])
        if before == b'limited':  # RQ also keeps count of rate-limited jobs
            _change_by_rq(job_id, Job.cancel)
            return 'canceled'
    return 'stopping' if before == b'started' else read_text(before)


def delete_job(job_id: str) -> str:
    """Delete a job in a terminal state, with its outcome; cancel or stop any other.

    Returns 'deleted', or what `cancel_job` returns: a job that may still run is not deleted.
    Raises JobNotFoundError.
    """
    _require_id(job_id)
    with redis_connection() as connection:
        if _delete(connection, [job_id]) == b'deleted':
            return 'deleted'
    return cancel_job(job_id)


def retry_job(job_id: str) -> Job:
    """Requeue a failed, stopped or cancelled job with its full number of retries.

    Its previous outcome is deleted. Raises JobNotFoundError, or InvalidJobError if the job is in
    any other state.
    """
    _require_id(job_id)
    with redis_connection(job_id) as connection:
        reply = _retry(connection, [job_id, utcformat(datetime.now(UTC))])
        if reply is None:
            raise JobNotFoundError([job_id])
        before = read_text(reply[0])
        if before == 'limited':
            requeued: Job = _change_by_rq(job_id, Job.requeue)
            return requeued
    if before not in ENDED or before == 'finished':
        raise InvalidJobError(
            f'Job {job_id!r} is {before}: only a job that failed, was stopped or cancelled can be '
            'tried again. To run a finished one anew, enqueue it with its job_id.'
        )
    job = job_class(get_config().key_prefix)(job_id, get_connection(), PlainSerializer)
    load_fields(job, reply[1])
    return job


def _change_by_rq(job_id: str, change: Callable[[Job], Any]) -> Any:
    """Change a rate-limited job through RQ, which manages the slots of its limit."""
    try:
        return change(Job.fetch(job_id, get_connection(), PlainSerializer))
    except InvalidJobOperation as error:  # RQ requeues dead letters only
        raise InvalidJobError(
            f'Job {job_id!r} was cancelled under a rate limit: enqueue it again instead.'
        ) from error
    except RECORD_ERRORS as error:
        raise InvalidJobError(f'The record of job {job_id!r} cannot be read.') from error


def _require_id(job_id: str) -> None:
    if not is_job_id(job_id):
        raise JobNotFoundError([job_id])
