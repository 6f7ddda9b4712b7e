"""Send rows of an outbox to Redis: each once, however often that is tried.

Redis has a marker of each row, in `rq:added:<job id>`, which the script that enqueues writes too.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from qdjobs.client.enqueue import Packed, refusal, send_packed
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.outbox.table import OutboxRow

# Seconds that a marker is kept. Long for a relay that has died before it has deleted the row; once
# that is deleted, only another relay can have it that has read it before and was slow.
KEPT = 7 * 86_400
KEPT_AFTERWARDS = 3600


class MissingParent(Exception):
    """The row waits for a job that does not exist."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


def marker_of(created_at: datetime) -> str:
    """Return what the marker of a row holds: another row of the same id is another job."""
    # PostgreSQL returns a time in the zone of its session, SQLite the UTC that was written.
    moment = created_at.astimezone(UTC) if created_at.tzinfo else created_at
    return moment.strftime('%Y%m%d%H%M%S%f')


def send_row(row: OutboxRow) -> None:
    """Make a job of a row, unless that has happened before.

    Raises MissingParent, InvalidJobError if it cannot become one, QueueUnavailableError.
    """
    packed = msgspec.msgpack.decode(row.packed, type=Packed)
    with redis_connection(row.job_id) as connection:
        reply = send_packed(connection, packed, once_for=KEPT, once_as=marker_of(row.created_at))
    if isinstance(reply, bytes):
        problem, _, job_id = reply.decode().partition(' ')
        raise MissingParent(job_id) if problem == 'missing' else refusal(reply.decode())


def forget_rows(rows: Sequence[OutboxRow]) -> None:
    """Let the markers of deleted rows expire soon: otherwise each job of a week has one."""
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipeline:
        for row in rows:
            pipeline.expire(redis_key('added', row.job_id), KEPT_AFTERWARDS)
        pipeline.execute()


def claim_marker(job_id: str, created_at: datetime) -> bool:
    """Have the row not become a job any more. Returns False if it has become one."""
    with redis_connection() as connection:
        key, marker = redis_key('added', job_id), marker_of(created_at)
        before = connection.set(key, marker, ex=KEPT, get=True)
    return before != marker.encode()
