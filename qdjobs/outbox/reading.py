"""Read what waits in an outbox."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, TypeVar

from rq.utils import utcformat
from sqlalchemy import Connection, Table, case, func, select

from qdjobs.client.outboxes import Waiting, WaitingQueue
from qdjobs.client.status import STATUS_FIELDS, Status, make_status
from qdjobs.errors import QueueUnavailableError
from qdjobs.outbox.table import OutboxRow

_BATCH = 1000  # parameters of one statement

T = TypeVar('T')


def read_statuses(
    connection: Connection, table: Table, job_ids: Sequence[str]
) -> dict[str, Status]:
    """Return the status of each job in the outbox: `queued`, even if it is to be delayed.

    That of a refused row has the refusal as its error.
    """
    names = ('job_id', 'task', 'queue', 'meta', 'created_at', 'error')
    columns = [table.c[name] for name in names]
    found = {}
    for start in range(0, len(job_ids), _BATCH):
        mine = table.c.job_id.in_(job_ids[start : start + _BATCH])
        for row in connection.execute(select(*columns).where(mine)):
            found[row.job_id] = _make_status(row)
    return found


def _make_status(row: OutboxRow) -> Status:
    fields = {
        'status': b'queued',
        'task': row.task.encode(),
        'origin': row.queue.encode(),
        'meta': row.meta,
        'created_at': utcformat(_aware(row.created_at)).encode(),
    }
    values = [fields.get(name) for name in STATUS_FIELDS]
    status = make_status(row.job_id, (values, None, (), ()))
    status['error'] = row.error
    return status


def read_waiting(connection: Connection, table: Table) -> Waiting:
    """Return what is in the outbox."""
    is_refused = table.c.error.is_not(None)
    columns = (
        table.c.queue,
        func.count(),
        func.min(case((table.c.error.is_(None), table.c.created_at))),
        func.count(table.c.error),
    )
    now = datetime.now(UTC)
    queues = [
        WaitingQueue(
            name,
            number - refused,
            max(0.0, (now - _aware(oldest)).total_seconds()) if oldest else 0.0,
            refused,
        )
        for name, number, oldest, refused in connection.execute(
            select(*columns).group_by(table.c.queue).order_by(table.c.queue)
        )
    ]
    last = select(table.c.error).where(is_refused).order_by(table.c.seq.desc()).limit(1)
    return Waiting(queues, connection.scalar(last))


def _aware(moment: datetime) -> datetime:
    """Return a time of the table with its zone, which SQLite does not keep."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class BoundedReader:
    """Reads with a time limit, which the drivers of databases do not have by themselves."""

    def __init__(self) -> None:
        self._late: Future[Any] | None = None  # a read that has not answered in time

    def read(self, function: Callable[[], T], seconds: float) -> T:
        """Return what the function returns. Raises QueueUnavailableError if that takes longer."""
        late = QueueUnavailableError(
            f'The database of the outbox has not answered within {seconds:g} s.'
        )
        if self._late is not None and not self._late.done():
            raise late  # and begin no further thread that hangs
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  # raised by `result`
                future.set_exception(error)

        threading.Thread(target=run, name='qdjobs outbox reader', daemon=True).start()
        try:
            return future.result(seconds)
        except TimeoutError:
            self._late = future
            raise late from None
