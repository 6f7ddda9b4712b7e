"""Make jobs of the rows of one queue, in their order, each of them once.

The job's id is in its row, and a row is deleted only when Redis has said yes. So a relay can die
anywhere: the next one sends the same rows again, and Redis knows what it has had already.

On PostgreSQL a relay locks the rows that it sends. On SQLite it holds no lock while it talks to
Redis, because every writer would wait for that: two relays may send the same rows, each in their
order, of which Redis takes the first.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import Any

import msgspec
from redis.exceptions import ResponseError
from sqlalchemy import Connection, Engine, Select, Table, delete, func, select, update

from qdjobs.client.enqueue import no_such_parent
from qdjobs.errors import InvalidJobError, QueueUnavailableError
from qdjobs.outbox.connections import begin
from qdjobs.outbox.sending import MissingParent, forget_rows, send_row
from qdjobs.outbox.table import OutboxRow

MAX_ROWS = 100  # of one transaction
MAX_BYTES = 10_000_000  # of their data, unless the first row alone has more

# `WRONGTYPE …` or `MISCONF …`: about the server. What a script says of its input has no such code.
_SERVER_CODE = re.compile(r'[A-Z]+ ')

log = logging.getLogger(__name__)


@dataclass
class _Outcome:
    """What became of the rows of a batch."""

    sent: list[OutboxRow] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)  # why, by their numbers
    orphan: tuple[OutboxRow, str] | None = None  # and the job that it waits for, which is missing
    outage: QueueUnavailableError | None = None


def relay_queue(engine: Engine, table: Table, queue: str) -> tuple[int, int]:
    """Make jobs of the next rows of a queue. Returns of how many, and how many were refused.

    Both are 0 if another relay is at work on the queue. Raises QueueUnavailableError, after the
    rows that Redis has accepted are deleted.
    """
    take = _take_locked if engine.dialect.name == 'postgresql' else _take_unlocked
    with take(engine, table, queue) as (rows, outcome):
        for row in rows:
            if not _send(row, outcome):
                break
    if outcome.sent:
        forget_rows(outcome.sent)
    if outcome.outage is not None:
        raise outcome.outage
    return len(outcome.sent), len(outcome.refused)


def read_queues(connection: Connection, table: Table) -> list[str]:
    """Return the queues that have rows, by their index, however many rows there are."""
    names = ['']
    following = select(func.min(table.c.queue))
    while (name := connection.scalar(following.where(table.c.queue > names[-1]))) is not None:
        names.append(name)
    return names[1:]


@contextmanager
def _take_locked(
    engine: Engine, table: Table, queue: str
) -> Iterator[tuple[Sequence[OutboxRow], _Outcome]]:
    """Lock the next rows of a queue for the block; none if another relay has locked the first."""
    outcome = _Outcome()
    # Each statement must see what was committed before it.
    reading = engine.execution_options(isolation_level='READ COMMITTED')
    with begin(reading) as connection:
        yield _lock_next(connection, table, queue), outcome
        _write(connection, table, outcome)


def _lock_next(connection: Connection, table: Table, queue: str) -> Sequence[OutboxRow]:
    seq = table.c.seq
    first = _ready(select(func.min(seq)), table, queue).scalar_subquery()
    # No row but the first is tried: a relay that fails here leaves the queue to the other one, and
    # must not lock for an instant what that one looks for next.
    head = select(seq).where(seq == first).with_for_update(skip_locked=True)
    if connection.scalar(head) is None:
        return ()
    query = _next_rows(table, queue)
    locked = connection.execute(query.with_for_update(skip_locked=True)).all()
    # The first row can be one that was committed late, before those that another relay has locked:
    # what comes after these has to wait for them.
    present = connection.execute(query).all()
    own = takewhile(lambda pair: pair[0] == pair[1], zip(locked, present, strict=False))
    return _read(connection, table, [row for row, _ in own])


@contextmanager
def _take_unlocked(
    engine: Engine, table: Table, queue: str
) -> Iterator[tuple[Sequence[OutboxRow], _Outcome]]:
    """Read the next rows of a queue; after the block, write what became of them."""
    outcome = _Outcome()
    with begin(engine) as connection:
        rows = _read(connection, table, connection.execute(_next_rows(table, queue)).all())
    yield rows, outcome
    if outcome != _Outcome():
        with begin(engine) as connection:
            _write(connection, table, outcome)


def _ready(query: Select[Any], table: Table, queue: str) -> Select[Any]:
    return query.where(table.c.queue == queue, table.c.error.is_(None))


def _next_rows(table: Table, queue: str) -> Select[Any]:
    """Return the query for the numbers and sizes of the next rows."""
    columns = select(table.c.seq, func.length(table.c.packed))
    return _ready(columns, table, queue).order_by(table.c.seq).limit(MAX_ROWS)


def _read(connection: Connection, table: Table, rows: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
    """Read the first of these rows, as many as are sent at once."""
    totals = accumulate(size for _, size in rows)
    seqs = [seq for (seq, _), total in zip(rows, totals, strict=True) if total <= MAX_BYTES]
    wanted = table.c.seq.in_(seqs or [seq for seq, _ in rows[:1]])
    return connection.execute(select(table).where(wanted).order_by(table.c.seq)).all()


def _send(row: OutboxRow, outcome: _Outcome) -> bool:
    """Send a row. Returns whether the next one of its queue can be sent."""
    try:
        send_row(row)
    except MissingParent as error:
        outcome.orphan = row, error.job_id
        return False
    except QueueUnavailableError as error:
        if not _is_about_the_row(error):
            outcome.outage = error
            return False
        outcome.refused[row.seq] = str(error.__cause__)
    except (InvalidJobError, msgspec.DecodeError) as error:
        outcome.refused[row.seq] = str(error)
    else:
        outcome.sent.append(row)
    return True


def _is_about_the_row(error: QueueUnavailableError) -> bool:
    """Return whether Redis is well, but its script cannot read what is in the row."""
    cause = error.__cause__
    return type(cause) is ResponseError and not _SERVER_CODE.match(str(cause))


def _write(connection: Connection, table: Table, outcome: _Outcome) -> None:
    """Delete the rows that Redis has accepted, and mark those that cannot become jobs."""
    seq = table.c.seq
    _settle_orphan(connection, table, outcome)
    if outcome.sent:
        connection.execute(delete(table).where(seq.in_([row.seq for row in outcome.sent])))
    for number, text in outcome.refused.items():
        log.error('No job can be made of row %s of the outbox: %s', number, text)
        connection.execute(update(table).where(seq == number).values(error=text))


def _settle_orphan(connection: Connection, table: Table, outcome: _Outcome) -> None:
    """Refuse a row whose parent does not exist, unless that is still to come."""
    if outcome.orphan is None or _is_ahead(connection, table, *outcome.orphan):
        return
    row, _ = outcome.orphan
    outcome.orphan = None
    _send(row, outcome)  # once more: another relay may have sent the row of the parent meanwhile
    if outcome.orphan is not None and not _is_ahead(connection, table, *outcome.orphan):
        why = f'{no_such_parent(outcome.orphan[1])} Or it was cancelled while it was in the outbox.'
        outcome.refused[row.seq] = why


def _is_ahead(connection: Connection, table: Table, row: OutboxRow, parent: str) -> bool:
    """Return whether the parent of a row is in an earlier one, of another queue: that is next."""
    earlier = select(table.c.seq).where(
        table.c.job_id == parent, table.c.seq < row.seq, table.c.error.is_(None)
    )
    return connection.scalar(earlier) is not None
