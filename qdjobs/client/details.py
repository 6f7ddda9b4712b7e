"""Read all of one job: its status, its arguments, and the traceback of each failed attempt."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qdjobs.client.options import is_job_id
from qdjobs.client.outboxes import waiting_status
from qdjobs.client.payload import PlainSerializer, decompress
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.status import (
    Status,
    due_moment,
    make_status,
    no_such_jobs,
    read_records,
    read_tracebacks,
)
from qdjobs.errors import InvalidJobError, JobNotFoundError


@dataclass(frozen=True)
class Details:
    """A job in full. `unreadable` says why there are no arguments, or is None."""

    status: Status
    tracebacks: Sequence[str | None]  # of the attempts in `status`, in their order
    args: Sequence[Any]
    kwargs: dict[str, Any]
    unreadable: str | None
    due_at: datetime | None = None  # of a delayed one


def read_details(job_id: str) -> Details:
    """Return a job in full. Raises JobNotFoundError."""
    if not is_job_id(job_id):
        raise JobNotFoundError([job_id])
    with redis_connection() as connection:
        (reply,) = read_records(connection, [1, job_id])
        if reply is None:
            if (waiting := waiting_status(job_id)) is not None:
                return Details(waiting, (), (), {}, 'the job is still in the outbox.')
            raise no_such_jobs([job_id])
        status = make_status(job_id, reply)
        with connection.pipeline(transaction=False) as pipe:
            pipe.hget(redis_key('job', job_id), 'data')
            pipe.zscore(redis_key('scheduled', status['queue']), job_id)
            data, score = pipe.execute(raise_on_error=False)  # a key can have another type
    args, kwargs, unreadable = _read_arguments(data if isinstance(data, bytes) else None)
    return Details(
        status, read_tracebacks(reply), args, kwargs, unreadable, due_moment(status, score)
    )


def _read_arguments(data: bytes | None) -> tuple[Sequence[Any], dict[str, Any], str | None]:
    """Return the arguments in a job's payload, which anyone may have written."""
    try:
        payload = PlainSerializer.loads(decompress(data or b''))
    except InvalidJobError as error:
        return (), {}, str(error)
    if not isinstance(payload, (tuple, list)) or len(payload) != 4:
        return (), {}, 'The payload holds no call.'
    args, kwargs = payload[2:]
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, dict):
        return (), {}, 'The payload holds no call.'
    return args, kwargs, None
