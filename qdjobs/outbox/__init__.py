"""Enqueue jobs by the transaction of a database: each committed row becomes one job.

docs/transactions.md says what is promised, and what it costs.
"""

from qdjobs.errors import needs_extra

with needs_extra('sqlalchemy'):
    from qdjobs.outbox.outbox import JobOutbox, OutboxJob
    from qdjobs.outbox.table import outbox_table

__all__ = ['JobOutbox', 'OutboxJob', 'outbox_table']
