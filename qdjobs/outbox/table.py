"""Define the table of an outbox."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.exc import DBAPIError

NAME = 'qdjobs_outbox'
ADDED = ('job_id', 'queue', 'task', 'packed', 'meta', 'created_at')  # columns that a call fills

OutboxRow = Any  # a Row, whose parameters differ between SQLAlchemy 2.0 and 2.1


def outbox_table(metadata: MetaData) -> Table:
    """Return the table in an application's metadata, from where Alembic knows it too."""
    key = f'{metadata.schema}.{NAME}' if metadata.schema else NAME
    if key in metadata.tables:
        return metadata.tables[key]
    return Table(
        NAME,
        metadata,
        # The order of the rows. A number is never used again: a relay that is late would delete
        # another row than it has sent.
        Column('seq', BigInteger().with_variant(Integer, 'sqlite'), primary_key=True),
        Column('job_id', String(255), nullable=False, unique=True),
        Column('queue', String(100), nullable=False),
        Column('task', Text, nullable=False),
        Column('packed', LargeBinary, nullable=False),  # a Packed, in msgpack
        Column('meta', LargeBinary),  # of its status while it waits
        Column('created_at', DateTime(timezone=True), nullable=False),
        Column('error', Text),  # why no job can be made of the row
        Index('ix_qdjobs_outbox_queue_seq', 'queue', 'seq'),
        sqlite_autoincrement=True,
    )


def is_missing(error: DBAPIError) -> bool:
    """Return whether a statement has failed because there is no table."""
    cause = error.orig
    code = getattr(cause, 'sqlstate', None) or getattr(cause, 'pgcode', None)
    return code == '42P01' or 'no such table' in str(cause)


def make_upsert(table: Table, dialect: str) -> PostgresInsert | SqliteInsert:
    """Return the statement that adds a row; its parameters are the values of ADDED.

    A job of its id that waits is the same job, as in Redis; a refused row is none, and is replaced.
    PostgreSQL locks the row in either case, so that no relay sends it before the data of this
    transaction are committed.
    """
    insert = postgresql.insert(table) if dialect == 'postgresql' else sqlite.insert(table)
    statement = insert.values({name: bindparam(name) for name in ADDED})
    return statement.on_conflict_do_update(
        index_elements=[table.c.job_id],
        set_={name: statement.excluded[name] for name in ('seq', *ADDED)} | {'error': None},
        where=table.c.error.is_not(None),
    )
