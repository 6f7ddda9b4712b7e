"""Begin a transaction of SQLite before its first savepoint."""

from typing import Any

from sqlalchemy import Connection, Engine, event


def repair_savepoints(engine: Engine) -> None:
    """Let a transaction of SQLite begin at its first savepoint, if that is its first statement.

    Python's sqlite3 begins one before a statement that writes, and not before SAVEPOINT: then the
    release of the savepoint commits, whatever becomes of the transaction around it.
    """
    if engine.dialect.name == 'sqlite' and not event.contains(engine, 'savepoint', _begin):
        event.listen(engine, 'savepoint', _begin)


def _begin(connection: Connection, name: str | None) -> None:
    driver: Any = connection.connection.dbapi_connection
    # None: the application begins by itself, or wants no transaction.
    if driver.isolation_level is not None and not driver.in_transaction:
        connection.exec_driver_sql(f'BEGIN {driver.isolation_level}')
