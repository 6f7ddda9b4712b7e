"""Replace Redis while an application is tested: `qdjobs.testing` has what replaces it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rq.job import Job

    from qdjobs.client.call import Call
    from qdjobs.client.status import Status


class StandIn(Protocol):
    """Keeps jobs elsewhere. Each method does what the script of its caller does."""

    def enqueue(
        self, calls: 'Sequence[Call]', payloads: Sequence[bytes], metas: Sequence[bytes]
    ) -> 'list[Job]': ...

    def read_statuses(self, job_ids: Sequence[str]) -> 'list[Status | None]': ...

    def read_page(
        self, statuses: Sequence[str], queues: Sequence[str], limit: int
    ) -> 'list[Status]': ...

    def cancel(self, job_id: str) -> str: ...

    def delete(self, job_id: str) -> str: ...

    def retry(self, job_id: str) -> 'Job': ...


_used: list[StandIn] = []  # by all threads; the last counts


def stand_in() -> StandIn | None:
    """Return what takes the place of Redis, or None."""
    return _used[-1] if _used else None


@contextmanager
def using(other: StandIn) -> Iterator[None]:
    """Let the stand-in take the place of Redis, in every thread."""
    _used.append(other)
    try:
        yield
    finally:
        _used.remove(other)
