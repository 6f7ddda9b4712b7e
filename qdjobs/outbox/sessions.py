"""Check the sessions that an outbox accepts, and find its engine."""

from typing import Any

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError, UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qdjobs.errors import InvalidJobError, short_repr

DIALECTS = ('postgresql', 'sqlite')  # MySQL and others are untested, and refused

Source = Engine | sessionmaker[Any] | scoped_session[Any]


def engine_of(source: Source, table: Table) -> Engine:
    """Return the engine of an outbox. Raises TypeError or ValueError for what cannot have one."""
    if isinstance(source, scoped_session):
        source = source.session_factory
    if isinstance(source, sessionmaker):
        with source() as session:
            if not isinstance(session, Session):
                raise _no_source(source)
            engine = _engine_behind(session, table)
    elif isinstance(source, Engine):
        engine = source
    else:
        raise _no_source(source)
    if engine.dialect.is_async:
        raise TypeError(
            'JobOutbox takes a synchronous Engine, which create_engine makes, and not the '
            'sync_engine of an asynchronous one.'
        )
    if engine.dialect.name not in DIALECTS:
        raise ValueError(
            f'An outbox needs PostgreSQL or SQLite, not {engine.dialect.name}: enqueue after the '
            'commit instead, and be ready to do so again.'
        )
    return engine


def _engine_behind(session: Session, table: Table) -> Engine:
    try:
        return session.get_bind(clause=table).engine
    except UnboundExecutionError:
        raise ValueError(
            f'The sessions have no database for the table {table.name}: pass JobOutbox their '
            'Engine, or bind them to it, as in sessionmaker(engine).'
        ) from None


def _no_source(source: object) -> TypeError:
    return TypeError(
        'JobOutbox takes a synchronous Engine of SQLAlchemy, or what makes its sessions '
        f'(sessionmaker, scoped_session), not {short_repr(source)}.'
    )


def checked_session(session: object, engine: Engine, table: Table) -> Session:
    """Return the session if rows that it adds are committed or rolled back with its transaction.

    Raises InvalidJobError.
    """
    if isinstance(session, scoped_session):
        session = session()
    if hasattr(session, 'sync_session'):
        raise InvalidJobError(
            'An outbox takes no asynchronous session: add the row by a synchronous Session of the '
            'transaction, or enqueue after the commit.'
        )
    if not isinstance(session, Session):
        raise InvalidJobError(
            'outbox.enqueue takes the Session whose transaction the job belongs to, before the '
            f'task, not {short_repr(session)}.'
        )
    connection = _connection_of(session, table)
    if connection.engine.pool is not engine.pool:
        if connection.engine.url == engine.url:
            bound = f'another Engine for {engine.url!r} than the outbox'
        else:
            bound = f'{connection.engine.url!r}, and the outbox to {engine.url!r}'
        raise InvalidJobError(
            f'The session is bound to {bound}: a job is enqueued by a session of the Engine of the '
            'outbox.'
        )
    if _is_autocommit(connection):
        raise InvalidJobError(
            'The session commits each statement by itself (AUTOCOMMIT): a job would be enqueued '
            'even if the rest fails. Use a session with a transaction.'
        )
    return session


def _connection_of(session: Session, table: Table) -> Connection:
    try:
        return session.connection(bind_arguments={'clause': table})
    except PendingRollbackError:
        raise  # an earlier statement has failed, and SQLAlchemy says which
    except UnboundExecutionError:
        raise InvalidJobError(
            f'The session has no database for the table {table.name}: bind it to an engine, or '
            'add `outbox.table` to its `binds`.'
        ) from None
    except InvalidRequestError as error:
        raise InvalidJobError(f'The session has no transaction: {error}') from error


def _is_autocommit(connection: Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    if connection.dialect.name == 'sqlite':
        # Python's module has begun nothing yet, unless the application begins by itself.
        is_manual = driver.isolation_level is None or getattr(driver, 'autocommit', -1) is True
        return is_manual and not driver.in_transaction
    return bool(getattr(driver, 'autocommit', False))
