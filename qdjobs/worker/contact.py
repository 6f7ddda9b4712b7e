"""Notice for how long Redis does not answer, or refuses writes. Lives in the parent."""

import logging
import time

from redis import Redis
from redis.exceptions import ReadOnlyError, RedisError

from qdjobs.client.keys import is_wrong_type, named_key
from qdjobs.client.redis import NotReplicatedError, may_be_former_primary
from qdjobs.config import JobConfig
from qdjobs.errors import wrong_key

REPORT_INTERVAL = 10.0  # seconds between two lines about the same outage

log = logging.getLogger(__name__)


class Contact:
    """The contact of one worker to Redis: what each part of the worker needs to write there."""

    def __init__(self, worker: str, connection: Redis, config: JobConfig) -> None:
        """`worker` is its name."""
        self.worker = worker
        self.connection = connection
        self.config = config
        self._own: Redis | None = None
        self._patience = 2 * config.lease  # seconds in which to find the primary again
        self._reported_at = 0.0
        self._read_only_since: float | None = None

    @property
    def own_connection(self) -> Redis:
        """A dedicated connection, which saves the pool's overhead for each command."""
        if self._own is None:
            self._own = self.connection.client()
        return self._own

    def failed(self, action: str, error: RedisError) -> None:
        """Log an outage. Raises SystemExit if the server stays a replica, and drops connections.

        A demoted primary keeps its connections open, and refuses all writes. A new connection can
        lead to the new primary; if not, the process manager starts the worker anew.
        """
        moment = time.monotonic()
        if moment - self._reported_at >= REPORT_INTERVAL:
            self._reported_at = moment
            log.error('Worker %s: cannot %s: %s', self.worker, action, _cause(error))
        if may_be_former_primary(error):
            self.drop()
        if not isinstance(error, ReadOnlyError):
            self._read_only_since = None
            return
        self._read_only_since = self._read_only_since or moment
        if moment - self._read_only_since >= self._patience:
            log.error('Worker %s: Redis remains read-only: exits with 1', self.worker)
            raise SystemExit(1)

    def restored(self) -> None:
        """Note that Redis has accepted a write."""
        if self._reported_at:
            self._reported_at = 0.0
            log.info('Worker %s: Redis is back', self.worker)
        self._read_only_since = None

    def drop(self) -> None:
        """Close all connections but that of RQ's thread: the next command opens a new one.

        A server that becomes a replica still passes on the messages that the thread waits for.
        """
        if self._own is not None:
            self._own.close()
            self._own = None
        self.connection.connection_pool.disconnect(inuse_connections=False)


def _cause(error: RedisError) -> str:
    if (found := named_key(error)) is not None:
        return wrong_key(*found)
    is_away = not is_wrong_type(error) and not isinstance(error, NotReplicatedError)
    return f'Redis is away: {error}' if is_away else str(error)
