"""Show in Redis that a worker lives, and what it does. Lives in the parent."""

import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError, ResponseError

from qdjobs.worker.contact import Contact
from qdjobs.worker.lease import write_presence

EXTRA_TTL = 60  # seconds for which the record outlives RQ's worker TTL, as in RQ


class Presence:
    """The record of a worker that `rq info`, the dashboard and the doctor read."""

    def __init__(
        self, contact: Contact, ttl: int, read: Callable[[], tuple[list[str], dict[str, Any]]]
    ) -> None:
        """`read` returns the names of the queues, and the fields of RQ's record."""
        self._contact = contact
        self._ttl = ttl + EXTRA_TTL
        self._read = read
        self._state = 'started'
        self._next_beat = 0.0  # on the monotonic clock

    def begin(self, key: str) -> None:
        """Write the first record under RQ's key. Raises ValueError if the name is in use."""
        connection, name = self._contact.connection, self._contact.worker
        if connection.exists(key) and not connection.hexists(key, 'death'):
            raise ValueError(f'There exists an active worker named {name!r} already')
        connection.delete(key)
        try:
            self._write()
        except ResponseError:
            raise
        except RedisError as error:  # the next beat writes it
            self._contact.failed('write its first heartbeat', error)

    def show(self, state: str) -> None:
        """Write the state of the worker, if it has changed."""
        if state != self._state:
            self._state = state
            self._next_beat = 0.0
            self.beat_if_due()

    def hurry(self) -> None:
        """Have the record written with the next beat. Called in a signal handler."""
        self._next_beat = 0.0

    def beat_if_due(self) -> None:
        """Write the record if its time has come: the whole of it, since Redis may have lost it."""
        if time.monotonic() < self._next_beat:
            return
        try:
            self._write()
        except RedisError as error:
            self._contact.failed('write its heartbeat', error)

    def _write(self) -> None:
        self._next_beat = time.monotonic() + self._contact.config.heartbeat_interval
        queues, record = self._read()
        fields = record | {'state': self._state}
        write_presence(self._contact.connection, self._contact.worker, self._ttl, queues, fields)
