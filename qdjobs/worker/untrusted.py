"""A job's record as a worker reads it: anyone may have written it, so nothing in it is believed."""

import signal
from collections.abc import Callable, Mapping
from datetime import datetime
from types import FrameType
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from redis import Redis
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.timeouts import UnixSignalDeathPenalty

from qdjobs.client.payload import PlainSerializer, decompress
from qdjobs.client.tasks import resolve_function
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError

_MOMENTS = ('created_at', 'enqueued_at', 'started_at', 'ended_at', 'last_heartbeat')
# RQ unpacks the first two without a limit, and takes as long for the others as for all the rest.
_NOT_FOR_RQ = {b'exc_info', b'result', *(name.encode() for name in _MOMENTS)}


class CheckedJob(Job):
    """A job that runs functions of the allowed modules only, and reads plain data only."""

    def __init__(
        self, id: str | None = None, connection: Redis | None = None, serializer: Any = None
    ) -> None:
        super().__init__(id, connection)
        self.serializer = PlainSerializer  # whatever RQ passes: its own would run what it reads

    @property
    def func(self) -> Callable[..., Any]:
        """The task. RQ would import any name, and call a method of an object that it unpickles."""
        if self.instance is not None:
            raise InvalidJobError('The record calls a method of an object, which is no task.')
        return _allowed(self.func_name)

    # RQ imports the names of callbacks as they stand in the record.
    @property
    def success_callback(self) -> Any:
        return _allowed_or_none(self._success_callback_name)

    @property
    def failure_callback(self) -> Any:
        return _allowed_or_none(self._failure_callback_name)

    @property
    def stopped_callback(self) -> Any:
        return _allowed_or_none(self._stopped_callback_name)

    def require_trustworthy(self) -> None:
        """Raise an error that says what in the record must not be acted upon."""
        webhooks, self.webhooks = self.webhooks, []  # none is sent for a record that is refused
        try:
            self._deserialize_data()  # type: ignore[no-untyped-call]
        except DeserializationError as error:
            raise InvalidJobError(f'The record cannot be read: {error.__cause__}') from error
        if self._unreadable_meta is not None:
            PlainSerializer.loads(self._unreadable_meta)  # which says why
        _ = self.func, self.success_callback, self.failure_callback, self.stopped_callback
        hosts = get_config().webhook_hosts
        for webhook in webhooks:
            if urlsplit(webhook.url).hostname not in hosts:
                raise InvalidJobError(
                    f'The webhook {webhook.url} goes to a host that is not in JOB_WEBHOOK_HOSTS.'
                )
        self.webhooks = webhooks


def restore_job(job_id: str, fields: Mapping[bytes, bytes], connection: Redis) -> CheckedJob:
    """The job of a hash. Raises almost anything for a record that nobody should have written."""
    job = CheckedJob(job_id, connection)
    kept = {name: value for name, value in fields.items() if name not in _NOT_FOR_RQ}
    job.restore(kept | {b'data': b''})  # RQ would unpack it once more, without a limit
    job.data = decompress(fields[b'data'])
    if job.retry_intervals is not None:
        msgspec.convert(job.retry_intervals, list[Annotated[float, msgspec.Meta(ge=0, le=1e9)]])
    for name in _MOMENTS:
        text = fields.get(name.encode())
        setattr(job, name, datetime.fromisoformat(text.decode()) if text else None)
    if b'result' in fields:
        PlainSerializer.loads(fields[b'result'])
    return job


class TimeLimit(UnixSignalDeathPenalty):
    """RQ's time-out, which a task's `except Exception` does not undo."""

    _fired = False

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:
        self._fired = True
        super().handle_death_penalty(signum, frame)  # type: ignore[no-untyped-call]

    def setup_death_penalty(self) -> None:
        signal.signal(signal.SIGALRM, self.handle_death_penalty)
        if self._timeout > 0:  # RQ writes -1 for none
            signal.alarm(self._timeout)

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        super().__exit__(kind, value, traceback)  # type: ignore[no-untyped-call]
        if self._fired and kind is None:
            raise self._exception(f'Task exceeded maximum timeout value ({self._timeout} seconds)')


def _allowed(name: Any) -> Callable[..., Any]:
    if not isinstance(name, str):
        raise InvalidJobError('The record names no function.')
    return resolve_function(name)


def _allowed_or_none(name: str | None) -> Callable[..., Any] | None:
    return _allowed(name) if name else None
