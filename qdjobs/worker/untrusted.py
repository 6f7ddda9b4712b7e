"""Read the record of a job without trusting it: anyone may have written it.

Runs in the horse; for crashed and stopped jobs in the parent.
"""

import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from types import FrameType
from typing import Annotated, Any

import msgspec
from redis import Redis
from rq.exceptions import DeserializationError
from rq.job import Retry
from rq.timeouts import UnixSignalDeathPenalty

from qdjobs.client.job import BoundedJob
from qdjobs.client.payload import PlainSerializer, check_plain
from qdjobs.client.redis import redis_key
from qdjobs.client.status import Status, read_statuses
from qdjobs.client.tasks import check_call, resolve_function
from qdjobs.errors import InvalidJobError

_MOMENTS = ('created_at', 'enqueued_at', 'started_at', 'ended_at', 'last_heartbeat')
_NOT_READ_BY_RQ = {name.encode() for name in _MOMENTS}  # it is slow at parsing these


class CheckedJob(BoundedJob):
    """A job that calls only functions of the allowed modules, and reads only plain data."""

    def __init__(
        self, id: str | None = None, connection: Redis | None = None, serializer: Any = None
    ) -> None:
        super().__init__(id, connection)
        self.serializer = PlainSerializer  # never RQ's, which can run code
        self.raised: BaseException | None = None  # by the task, or by the check of the record
        self.has_webhooks = False
        self.was_checked = False  # its arguments, by the code that has enqueued it
        self.around_task: AbstractContextManager[None] = nullcontext()

    @classmethod
    def key_for(cls, job_id: str) -> str:
        """Return the key of a job. RQ has one prefix per process, an application its own."""
        return redis_key('job', job_id)

    def perform(self) -> Any:
        """Run the task. Keeps what it raises, which RQ replaces if a callback raises too."""
        try:
            with self.around_task:
                result = super().perform()
            # RQ would record a placeholder for a result that is not plain data.
            if not isinstance(result, Retry):
                check_plain(result, f'the result of {self.func_name}')
        except BaseException as error:
            self.raised = error
            raise
        return result

    def read_parents(self) -> dict[str, Status]:
        """Return the status of each job that this one has waited for. Raises as `read_statuses`."""
        found = read_statuses(self._dependency_ids)
        return {status['id']: status for status in found if status is not None}

    @property
    def func(self) -> Callable[..., Any]:
        """The task. RQ would import any name, or call a method of an unpickled object."""
        if self.instance is not None:
            raise InvalidJobError('The record calls a method of an object, which is no task.')
        return _resolve_name(self.func_name)

    # RQ imports any name of a callback.
    @property
    def success_callback(self) -> Any:
        return _resolve_callback(self._success_callback_name)

    @property
    def failure_callback(self) -> Any:
        return _resolve_callback(self._failure_callback_name)

    @property
    def stopped_callback(self) -> Any:
        return _resolve_callback(self._stopped_callback_name)

    def require_trustworthy(self) -> None:
        """Raise InvalidJobError or UnknownTaskError if anything in the record is not allowed.

        UnknownHereError and UnfitHereError mean that another version of the code may allow it.
        """
        try:
            self._deserialize_data()  # type: ignore[no-untyped-call]
        except DeserializationError as error:
            raise InvalidJobError(f'The record cannot be read: {error.__cause__}') from error
        if self._unreadable_meta is not None:
            PlainSerializer.loads(self._unreadable_meta)  # raises, with the cause
        if self.instance is None:
            _, (self._args, self._kwargs) = check_call(self.func_name, self.args, self.kwargs)
        _ = self.func, self.success_callback, self.failure_callback, self.stopped_callback
        if self.has_webhooks:
            raise InvalidJobError(
                'The record has webhooks, which this worker does not send: enqueue the job with '
                'job_on_success or job_on_failure, and send the request in that task.'
            )


def restore_job(job_id: str, fields: Mapping[bytes, bytes], connection: Redis) -> CheckedJob:
    """Return the job of a hash. A malformed record can raise almost anything."""
    job = CheckedJob(job_id, connection)
    kept = {name: value for name, value in fields.items() if name not in _NOT_READ_BY_RQ}
    job.restore(kept)
    job.has_webhooks = bool(fields.get(b'webhooks'))
    job.was_checked = b'task' in fields  # which RQ's own enqueue does not write
    for intervals in (job.retry_intervals, job.repeat_intervals):
        if intervals is not None:
            msgspec.convert(intervals, list[Annotated[float, msgspec.Meta(ge=0, le=1e9)]])
    for name in _MOMENTS:
        text = fields.get(name.encode())
        setattr(job, name, datetime.fromisoformat(text.decode()) if text else None)
    if b'result' in fields:
        PlainSerializer.loads(fields[b'result'])
    return job


class TimeLimit(UnixSignalDeathPenalty):
    """RQ's time-out, raised again at the end if the task has caught it."""

    _fired = False

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:
        self._fired = True
        super().handle_death_penalty(signum, frame)  # type: ignore[no-untyped-call]

    def setup_death_penalty(self) -> None:
        signal.signal(signal.SIGALRM, self.handle_death_penalty)
        if self._timeout > 0:  # -1 means no limit
            signal.alarm(self._timeout)

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        super().__exit__(kind, value, traceback)  # type: ignore[no-untyped-call]
        if self._fired and kind is None:
            raise self._exception(f'Task exceeded maximum timeout value ({self._timeout} seconds)')


def _resolve_name(name: Any) -> Callable[..., Any]:
    if not isinstance(name, str):
        raise InvalidJobError('The record names no function.')
    return resolve_function(name)


def _resolve_callback(name: str | None) -> Callable[..., Any] | None:
    return _resolve_name(name) if name else None
