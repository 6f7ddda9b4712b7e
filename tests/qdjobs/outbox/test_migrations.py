"""Alembic and the table: what it makes of the metadata, and what docs/transactions.md shows."""

from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import Session

from qdjobs.outbox import JobOutbox, outbox_table
from tests.support.documents import blocks
from tests.support.processes import ROOT


def documented() -> str:
    """The migration of docs/transactions.md."""
    document = (ROOT / 'docs/transactions.md').read_text()
    return next(block.body for block in blocks(document) if 'def upgrade()' in block.body)


def generated(context: MigrationContext, metadata: MetaData) -> str:
    """The migration that Alembic generates for an empty database."""
    upgrade = produce_migrations(context, metadata).upgrade_ops
    assert upgrade is not None
    return f'def upgrade():\n    {render_python_code(upgrade)}\n'


@pytest.mark.parametrize('source', ['documented', 'generated'])
def test_a_migration_makes_the_table_that_alembic_finds_complete(
    engine: Engine, source: str
) -> None:
    metadata = MetaData()
    outbox_table(metadata)
    migration: dict[str, Any] = {'op': op, 'sa': sa}
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={'compare_type': True})
        exec(documented() if source == 'documented' else generated(context, metadata), migration)
        with Operations.context(context):
            migration['upgrade']()
        assert compare_metadata(context, metadata) == []
    if engine.dialect.name == 'sqlite':  # what Alembic does not compare
        query = "SELECT sql FROM sqlite_master WHERE name = 'qdjobs_outbox'"
        with engine.connect() as connection:
            assert 'AUTOINCREMENT' in str(connection.scalar(sa.text(query)))
    with Session(engine) as session:
        JobOutbox(engine, metadata).enqueue(session, 'tests.support.tasks.add', 1)
        session.rollback()
    if source == 'documented':
        with engine.begin() as connection:
            with Operations.context(MigrationContext.configure(connection)):
                migration['downgrade']()
            assert not sa.inspect(connection).has_table('qdjobs_outbox')


def test_the_table_that_is_created_is_what_alembic_expects(engine: Engine) -> None:
    metadata = MetaData()
    outbox = JobOutbox(engine, metadata)
    outbox.create_all()
    outbox.create_all()  # once more does no harm
    assert outbox_table(metadata) is outbox.table
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={'compare_type': True})
        assert compare_metadata(context, metadata) == []
