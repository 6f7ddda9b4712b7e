"""Cancel, delete and retry existing jobs; pause and resume the workers."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast

from rq.exceptions import InvalidJobOperation
from rq.job import Job
from rq.utils import utcformat

from qdjobs.client.enqueue import RECORD_ERRORS, load_fields
from qdjobs.client.job import BoundedJob, job_class
from qdjobs.client.options import is_job_id
from qdjobs.client.outboxes import current_outbox, waiting_status
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import AFTER, COUNT, LUA, Script, get_connection, redis_connection
from qdjobs.client.stand_in import stand_in
from qdjobs.client.states import ENDED
from qdjobs.client.status import read_text
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobNotFoundError

CancelOutcome = Literal['canceled', 'stopping', 'finished', 'failed', 'stopped']

_cancel = Script(LUA / 'cancel.lua', COUNT, AFTER)
_delete = Script(LUA / 'delete.lua', COUNT, AFTER)
_retry = Script(LUA / 'retry.lua', COUNT, AFTER)


class MovedJobError(InvalidJobError):
    """The job is no longer in the registry in which the caller has seen it, and is unchanged."""

    def __init__(self, job_id: str, place: str) -> None:
        super().__init__(f'Job {job_id!r} is no longer in {place}: nothing was changed.')


def cancel_job(job_id: str) -> CancelOutcome:
    """Cancel a waiting job, or have a running one stopped by its worker.

    Returns 'canceled' if the job will not run, 'stopping' if its worker has been sent a stop
    command. A job that is in the outbox of the application is deleted there, and has no status
    afterwards. A job in a terminal state is unchanged, and that state is returned ('finished',
    'failed', 'stopped' or 'canceled'). Raises JobNotFoundError.
    """
    state = _cancel_unless(job_id, is_running=False)
    if state == 'started':
        return 'stopping'
    return cast(CancelOutcome, state)  # cancel.lua returns no other text


def cancel_waiting_job(job_id: str) -> str:
    """Cancel a job that waits; leave one that runs or has ended unchanged.

    Returns 'canceled', or the state of the other. Raises JobNotFoundError.
    """
    return _cancel_unless(job_id, is_running=True)


def cancel_job_in(place: str, job_id: str) -> None:
    """Cancel or stop a job that is still in this key, a queue or registry, by its record.

    Raises JobNotFoundError and MovedJobError.
    """
    _cancel_unless(job_id, is_running=False, place=place)


def _cancel_unless(job_id: str, is_running: bool, place: str = '') -> str:
    moment, ttl = utcformat(datetime.now(UTC)), get_config().result_ttl
    _require_id(job_id)
    if (other := stand_in()) is not None:
        return other.cancel(job_id)
    with redis_connection() as connection:
        arguments = [job_id, moment, ttl, int(is_running), place]
        before = _cancel(connection, arguments)
        if before is None and not place and (outbox := current_outbox()) is not None:
            if outbox.cancel(job_id):
                return 'canceled'
            before = _cancel(connection, arguments)  # it may have become a job in between
        if before is None:
            raise JobNotFoundError([job_id])
        if before == b'moved':
            raise MovedJobError(job_id, place)
        if before == b'limited':  # RQ also keeps count of rate-limited jobs
            _change_by_rq(job_id, Job.cancel)
            return 'canceled'
    return read_text(before)


def delete_job(job_id: str) -> CancelOutcome | Literal['deleted']:
    """Delete a job in a terminal state, with its outcome; cancel or stop any other.

    Returns 'deleted', or what `cancel_job` returns: a job that may still run is not deleted.
    Raises JobNotFoundError.
    """
    return 'deleted' if _delete_ended(job_id) == 'deleted' else cancel_job(job_id)


def delete_ended_job(job_id: str, place: str = '') -> None:
    """Delete a job in a terminal state, with its outcome.

    Raises JobNotFoundError, InvalidJobError for a job in any other state, which is unchanged, or
    MovedJobError for one that is not in the registry with the key `place`, if that is given.
    """
    before = _delete_ended(job_id, place)
    if before is None:
        raise JobNotFoundError([job_id])
    if before != 'deleted':
        why = 'other jobs depend on it' if before in ENDED else 'cancel it first'
        raise InvalidJobError(f'Job {job_id!r} is {before}, and not deleted: {why}.')


def _delete_ended(job_id: str, place: str = '') -> str | None:
    """Return 'deleted', the state of a job that has not ended, or None for a missing job."""
    _require_id(job_id)
    if (other := stand_in()) is not None:
        return other.delete(job_id)
    with redis_connection() as connection:
        cursor = '0'
        while (
            reply := _delete(connection, [job_id, utcformat(datetime.now(UTC)), cursor, place])
        ) is not None:
            cursor = read_text(reply)
            if cursor == 'moved':
                raise MovedJobError(job_id, place)
            if not cursor.isdecimal():
                return cursor
        return None


def retry_job(job_id: str) -> Job:
    """Requeue a failed, stopped or cancelled job with its full number of retries.

    Its previous outcome is deleted. Raises JobNotFoundError, or InvalidJobError if the job is in
    any other state.
    """
    return retry_job_in('', job_id)


def retry_job_in(place: str, job_id: str) -> Job:
    """Requeue as `retry_job` does a job that is still in the registry with this key; '' is any.

    Raises MovedJobError too.
    """
    _require_id(job_id)
    if (other := stand_in()) is not None:
        return other.retry(job_id)
    with redis_connection(job_id) as connection:
        reply = _retry(connection, [job_id, utcformat(datetime.now(UTC)), place])
        if reply is None:
            raise _why_not_retried(job_id)
        before = read_text(reply[0])
        if before == 'moved':
            raise MovedJobError(job_id, place)
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


def _why_not_retried(job_id: str) -> InvalidJobError | JobNotFoundError:
    """Return the error for a job that Redis does not have."""
    waiting = waiting_status(job_id)
    if waiting is None:
        return JobNotFoundError([job_id])
    if waiting['error'] is None:
        return InvalidJobError(f'Job {job_id!r} is in the outbox: it has not run yet.')
    return InvalidJobError(
        f'Job {job_id!r} is in the outbox, which refuses it: {waiting["error"]} To relay what is '
        'refused again: flask jobs outbox --relay'
    )


def pause_workers(seconds: int | None = None) -> None:
    """Have all workers take no further job, as `rq suspend` does; for ever if None.

    Running jobs go on, and jobs can be enqueued.
    """
    with redis_connection() as connection:
        connection.set(_suspended(), 1, ex=seconds)


def resume_workers() -> bool:
    """Have the workers take jobs again. Returns whether they were paused."""
    with redis_connection() as connection:
        return bool(connection.delete(_suspended()))


def _suspended() -> str:
    return f'{get_config().key_prefix}:suspended'  # RQ's own function knows RQ's prefix only


def _change_by_rq(job_id: str, change: Callable[[Job], Any]) -> Any:
    """Change a rate-limited job through RQ, which manages the slots of its limit."""
    try:
        return change(BoundedJob.fetch(job_id, get_connection(), PlainSerializer))
    except InvalidJobOperation as error:  # RQ requeues dead letters only
        raise InvalidJobError(
            f'Job {job_id!r} was cancelled under a rate limit: enqueue it again instead.'
        ) from error
    except RECORD_ERRORS as error:
        raise InvalidJobError(f'The record of job {job_id!r} cannot be read.') from error


def _require_id(job_id: str) -> None:
    if not is_job_id(job_id):
        raise JobNotFoundError([job_id])
