"""Keep what signals and RQ's commands request of a worker. Lives in the parent.

Handlers write it, at any moment; the worker's loop reads it.
"""

import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType

NO_LIMIT = float('inf')


class Orders:
    """Requests to stop the worker, or the running job."""

    def __init__(self, grace: float | None, on_stop: Callable[[], None]) -> None:
        """`grace` are the seconds that a running job has after a request to stop."""
        self.stop = False
        self.at_once = False  # do not wait for the running job
        self.grace_until = NO_LIMIT  # on the monotonic clock
        self.execution_to_kill: str | None = None
        self.is_kill_a_stop = False  # by request of a user: the job ends as stopped
        self._grace = grace
        self._on_stop = on_stop
        self._requested_at = 0.0
        self.pipe, self._writer = os.pipe()  # readable after the first request to stop

    def install(self) -> None:
        """Handle the signals that end a worker. SIGHUP comes from a closed terminal."""
        # Also if a script's `&` has SIGINT ignored: by that RQ's pool stops its workers.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # RQ raises an exception in the handler, which can lose a job that was just claimed.
        if not self.stop:
            self._requested_at = time.monotonic()  # first: a second signal may follow
            if self._grace is not None:
                self.grace_until = self._requested_at + self._grace
            self.stop = True
            os.write(self._writer, b'.')  # ends a wait for a wake-up
            self._on_stop()
        elif time.monotonic() - self._requested_at >= 1:  # a pool sends each signal twice
            self.at_once = True

    def kill(self, execution: str | None, is_stop: bool) -> None:
        """Ask for the end of a running job: as stopped, or as failed. Another one is let be."""
        self.is_kill_a_stop = is_stop  # first: the loop may read it at once
        self.execution_to_kill = execution

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until a request to stop."""
        select.select([self.pipe], [], [], seconds)
