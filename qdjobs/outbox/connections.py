"""Open transactions for an outbox beside those of its application."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, text

from qdjobs.errors import QueueUnavailableError

MOST = 2  # connections at once that are not from the application's pool
PATIENCE = 5.0  # seconds to wait for one of them, and for a statement of PostgreSQL

_LIMIT = text("SELECT set_config('statement_timeout', :limit, true)")  # SET LOCAL


@contextmanager
def begin(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction, no statement of which waits for long if a whole table is locked.

    On PostgreSQL: SQLite has such a limit by itself.
    """
    with engine.connect() as connection, _begun(connection):
        yield connection


@contextmanager
def _begun(connection: Connection) -> Iterator[None]:
    with connection.begin():
        if connection.dialect.name == 'postgresql':
            connection.execute(_LIMIT, {'limit': f'{PATIENCE * 1000:.0f}'})
        yield


class OwnConnections:
    """A few connections beside the application's pool, for what is read and changed by the way.

    A request has a connection of that pool already: if it waited for a second one there, requests
    could block one another. None is kept, so that a fork and `dispose` need not know of them.
    """

    def __init__(self, engine: Engine) -> None:
        self._of = engine
        self._mine: dict[int, tuple[Engine, threading.Semaphore]] = {}  # by process

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Begin a transaction, as the function does. Raises QueueUnavailableError."""
        engine, free = self._get()
        if not free.acquire(timeout=PATIENCE):
            raise QueueUnavailableError(
                f'No connection to the database of the outbox was free within {PATIENCE:g} s.'
            )
        try:
            with engine.connect() as connection:
                connection.detach()
                with _begun(connection):
                    yield connection
        finally:
            free.release()

    def _get(self) -> tuple[Engine, threading.Semaphore]:
        pid = os.getpid()
        if pid not in self._mine:  # without a lock, which a fork may find locked: two do no harm
            engine = create_engine(
                self._of.url,
                pool=self._of.pool.recreate(),  # with its way to connect, and its events
                execution_options=self._of.get_execution_options(),
            )
            self._mine = {pid: (engine, threading.Semaphore(MOST))}
        return self._mine[pid]
