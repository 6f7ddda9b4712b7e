"""The outbox of an application, as the rest of qdjobs knows it: `qdjobs.outbox` has the class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flask import Flask, current_app, has_app_context

if TYPE_CHECKING:
    from qdjobs.client.status import Status

_EXTENSION = 'qdjobs_outbox'  # the key of an application's outbox in `app.extensions`


@dataclass(frozen=True)
class WaitingQueue:
    """The rows of one queue that are in the outbox now."""

    name: str
    waiting: int
    oldest: float  # seconds that the oldest of them has waited
    refused: int  # rows that no job can be made of, which hold up no others


@dataclass(frozen=True)
class Waiting:
    """What is in the outbox now."""

    queues: Sequence[WaitingQueue]
    last_error: str | None  # of the latest row that was refused


class Outbox(Protocol):
    """Each method raises QueueUnavailableError if the database does not answer."""

    def read_statuses(self, job_ids: Sequence[str]) -> 'Mapping[str, Status]':
        """Return the status of each job that is in the outbox."""

    def cancel(self, job_id: str) -> bool:
        """Delete the row of a job. Returns False if there is none, or Redis has the job by now."""

    def read_waiting(self, timeout: float | None = None) -> Waiting: ...

    def relay(self, *, refused: bool = False, seconds: float | None = None) -> int: ...

    def has_table(self, timeout: float | None = None) -> bool: ...

    def create_all(self) -> None: ...


def attach_outbox(app: Flask, outbox: Outbox) -> None:
    """Make it the outbox of an application."""
    app.extensions[_EXTENSION] = outbox


def current_outbox() -> Outbox | None:
    """Return the outbox of the current application, or None."""
    return current_app.extensions.get(_EXTENSION) if has_app_context() else None


def waiting_status(job_id: str) -> 'Status | None':
    """Return the status of a job in the outbox of the current application, or None."""
    outbox = current_outbox()
    return outbox.read_statuses([job_id]).get(job_id) if outbox is not None else None
