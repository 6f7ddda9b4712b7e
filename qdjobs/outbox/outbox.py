"""JobOutbox: rows of a database that become jobs once they are committed."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from flask import Flask, has_app_context
from flask.globals import app_ctx
from redis.exceptions import ResponseError
from sqlalchemy import Connection, Engine, MetaData, delete, inspect, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from qdjobs.client.call import Call, call_from_python
from qdjobs.client.enqueue import pack_arguments, pack_calls, pack_metas
from qdjobs.client.hooks import current_hooks
from qdjobs.client.names import NamedTask
from qdjobs.client.options import After, AfterFailure, Duration, given_options
from qdjobs.client.outboxes import Waiting
from qdjobs.client.stand_in import StandIn, stand_in
from qdjobs.client.status import Status
from qdjobs.client.tasks import TaskOrPath
from qdjobs.errors import InvalidJobError, QueueUnavailableError
from qdjobs.outbox.commits import RelayThread, note_added
from qdjobs.outbox.connections import OwnConnections, begin
from qdjobs.outbox.reading import BoundedReader, read_statuses, read_waiting
from qdjobs.outbox.relay import read_queues, relay_queue
from qdjobs.outbox.savepoints import repair_savepoints
from qdjobs.outbox.sending import claim_marker
from qdjobs.outbox.sessions import Source, checked_session, engine_of
from qdjobs.outbox.table import is_missing, make_upsert, outbox_table

log = logging.getLogger(__name__)

T = TypeVar('T')
FindName = Callable[[str], NamedTask]


@dataclass(frozen=True)
class OutboxJob:
    """A job that exists once the transaction in which it was enqueued is committed."""

    id: str


class JobOutbox:
    """Enqueues jobs by rows of a table, which are committed or rolled back with everything else."""

    def __init__(
        self,
        source: Source,
        metadata: MetaData | None = None,
        *,
        app: Flask | None = None,
        find: FindName | None = None,
    ) -> None:
        """`source` is an Engine, or what makes sessions: a sessionmaker or a scoped_session.

        `metadata` is the application's, for Alembic and its own `create_all`. `app` is the
        application whose configuration counts, `find` knows its named tasks: a JobQueue sets both.
        """
        self.table = outbox_table(MetaData() if metadata is None else metadata)
        self.engine = engine_of(source, self.table)
        self._upsert = make_upsert(self.table, self.engine.dialect.name)
        repair_savepoints(self.engine)
        self.app = app
        self.find = find
        # One connection, such as that of a database in memory, which no other thread can use.
        self._is_private = isinstance(self.engine.pool, (SingletonThreadPool, StaticPool))
        self._own = OwnConnections(self.engine)
        self._thread = RelayThread(self.relay)
        self._reader = BoundedReader()

    def enqueue(
        self,
        session: Session | scoped_session[Any],
        task: TaskOrPath,
        /,
        *args: Any,
        job_queue: str | None = None,
        job_timeout: Duration | None = None,
        job_max_retries: int | None = None,
        job_retry_delay: Duration | None = None,
        job_delay: Duration | None = None,
        job_at: datetime | None = None,
        job_after: After | None = None,
        job_after_failure: AfterFailure | None = None,
        job_on_success: str | None = None,
        job_on_failure: str | None = None,
        job_id: str | None = None,
        job_result_ttl: Duration | None = None,
        job_meta: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> OutboxJob:
        """Check a call as `enqueue_background_job` does, and add it as a row by the session.

        `task` is a dotted path, a function, or a name of the application, whose options it then
        has. Keywords that begin with `job_` are job options. If the session commits, there is a
        job; if it rolls back, there is none. If a job with this `job_id` is in the outbox, adds
        none.

        Raises UnknownTaskError or InvalidJobError, also for a session whose transaction the job
        cannot belong to, and QueueUnavailableError if there is no table.
        """
        options = given_options(locals())
        session = checked_session(session, self.engine, self.table)
        if isinstance(task, str) and '.' not in task and self.find is not None:
            named = self.find(task)
            task, options = named.path, {**named.options, **options}
        with self._context():
            call = call_from_python(task, args, kwargs, options)
            hooks = current_hooks()
            with hooks.around_enqueue([call]) if hooks is not None else nullcontext():
                self._add(session, call)
        return OutboxJob(call.id)

    def _add(self, session: Session, call: Call) -> None:
        metas = pack_metas([call])
        row = {
            'job_id': call.id,
            'queue': call.options.queue,
            'task': call.task.path,
            'packed': msgspec.msgpack.encode(pack_calls([call])),
            'meta': metas[0] if metas else None,
            'created_at': datetime.now(UTC),
        }
        try:
            session.execute(self._upsert, row)
        except DBAPIError as error:
            if is_missing(error):
                raise _no_table() from error
            raise
        note_added(session, session.get_bind(clause=self.table), call, self._committed)

    def _committed(self, calls: Sequence[Call], bind: Engine | Connection) -> None:
        """Have the rows relayed, of which a session has just committed some."""
        if (other := stand_in()) is not None:
            self._hand_over(other, calls, bind)
        elif self._is_private:
            try:
                self.relay()
            except QueueUnavailableError as error:  # the commit is done
                log.warning('The outbox cannot be relayed now: %s', error)
        else:
            self._thread.wake()

    def _hand_over(self, other: StandIn, calls: Sequence[Call], bind: Engine | Connection) -> None:
        """Hand committed calls to what takes the place of Redis in a test.

        The session can be bound to a connection with a transaction that the test rolls back.
        """
        column = self.table.c.job_id
        by_id = {call.id: call for call in calls}
        with Session(bind) as session:
            there = session.scalars(
                select(column).where(column.in_(by_id)).order_by(self.table.c.seq)
            ).all()
            session.execute(delete(self.table).where(column.in_(there)))
            session.commit()
        for job_id in there:
            batch = [by_id[job_id]]
            with self._context():
                arguments, metas = pack_arguments(batch), pack_metas(batch)
                try:
                    other.enqueue(batch, arguments, metas)
                except InvalidJobError as error:  # as of a relay, which fails no commit
                    log.error('No job can be made of %s: %s', job_id, error)

    def relay(self, *, refused: bool = False, seconds: float | None = None) -> int:
        """Make a job of each committed row, and return of how many.

        For a loop or a periodic task: any number of processes can do so at once. With `refused`,
        rows of which no job could be made are tried again. Ends after about `seconds`, if there
        are more rows than that. Raises QueueUnavailableError; the rows are still there then.
        """
        if stand_in() is not None:
            return 0
        end = None if seconds is None else time.monotonic() + seconds
        total = 0
        with self._context(), self._database():
            if refused:
                self._forgive()
            while any(done := self._relay_once()):
                total += done[0]
                if end is not None and time.monotonic() > end:
                    break
        return total

    def _relay_once(self) -> tuple[int, int]:
        """Relay some rows of each queue. Returns of how many, and how many were refused."""
        with begin(self.engine) as connection:
            queues = read_queues(connection, self.table)
        sent, refused, failure = 0, 0, None
        for queue in queues:
            try:
                done = relay_queue(self.engine, self.table, queue)
            except QueueUnavailableError as error:
                if not isinstance(error.__cause__, ResponseError):
                    raise
                failure = error  # Redis answers: the next queue may be well
            else:
                sent, refused = sent + done[0], refused + done[1]
        if failure is not None and not sent + refused:
            raise failure
        return sent, refused

    def _forgive(self) -> None:
        error = self.table.c.error
        with begin(self.engine) as connection:
            connection.execute(update(self.table).where(error.is_not(None)).values(error=None))

    def read_statuses(self, job_ids: Sequence[str]) -> Mapping[str, Status]:
        """Return the status of each job that is in the outbox. Raises QueueUnavailableError."""
        if self._is_private:  # an open session may have the only connection
            return {}
        with self._database(), self._own.begin() as connection:
            return read_statuses(connection, self.table, job_ids)

    def cancel(self, job_id: str) -> bool:
        """Delete the row of a job, which then has no status.

        Returns False if there is none, or if Redis has the job by now. Raises
        QueueUnavailableError.
        """
        if self._is_private:
            return False
        table = self.table
        with self._database(), self._own.begin() as connection:
            columns = select(table.c.seq, table.c.created_at)
            row = connection.execute(columns.where(table.c.job_id == job_id)).one_or_none()
            if row is None:
                return False
            if not connection.execute(delete(table).where(table.c.seq == row.seq)).rowcount:
                return False
            # A relay may have read the row already: what counts is who is the first in Redis. Only
            # once the row can be deleted: one that stays, and is claimed, would never be a job.
            if not claim_marker(job_id, row.created_at):
                connection.rollback()
                return False
        return True

    def read_waiting(self, timeout: float | None = None) -> Waiting:
        """Return what is in the outbox. Raises QueueUnavailableError, at most `timeout` s later."""
        return self._read(lambda connection: read_waiting(connection, self.table), timeout)

    def has_table(self, timeout: float | None = None) -> bool:
        """Return whether the table exists. Raises as `read_waiting`."""
        name, schema = self.table.name, self.table.schema
        return self._read(lambda connection: inspect(connection).has_table(name, schema), timeout)

    def _read(self, read: Callable[[Connection], T], timeout: float | None) -> T:
        def run() -> T:
            own = begin(self.engine) if self._is_private else self._own.begin()
            with self._database(), own as connection:
                return read(connection)

        return run() if timeout is None or self._is_private else self._reader.read(run, timeout)

    def create_all(self) -> None:
        """Create the table unless it exists. Raises QueueUnavailableError."""
        with self._database():
            self.table.create(self.engine, checkfirst=True)

    def _context(self) -> AbstractContextManager[object]:
        """Have the configuration and the hooks of the outbox's application count."""
        if self.app is None or _is_current(self.app):
            return nullcontext()
        return self.app.app_context()

    @contextmanager
    def _database(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and is_missing(error):
                raise _no_table() from error
            reason = str(getattr(error, 'orig', None) or error).strip().splitlines()[0]
            raise QueueUnavailableError(
                f'The database of the outbox does not answer or does not accept: {reason}'
            ) from error


def _no_table() -> QueueUnavailableError:
    return QueueUnavailableError(
        'The database of the outbox has no table of it: migrate it, or make the table by '
        '`flask jobs outbox --create` or `outbox.create_all()`.'
    )


def _is_current(app: Flask) -> bool:
    return has_app_context() and app_ctx.app is app
