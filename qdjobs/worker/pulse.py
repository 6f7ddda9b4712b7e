"""Show outside of Redis that a worker's loop still runs. Lives in the parent.

For what restarts a worker that hangs: the file JOB_HEALTH_FILE, whose time a probe compares, and
systemd's watchdog. It goes on while Redis is away, which a restart would not bring back, and while
a new work horse loads the application.
"""

import logging
import os
import socket
import time
from pathlib import Path

from qdjobs.config import JobConfig

log = logging.getLogger(__name__)


class Pulse:
    """The sign of life of one worker."""

    def __init__(self, config: JobConfig) -> None:
        self._file = Path(config.health_file).absolute() if config.health_file else None
        self._systemd = os.environ.get('NOTIFY_SOCKET') or None
        self._interval = config.heartbeat_interval
        self._next_beat = float('inf')  # on the monotonic clock

    def begin(self) -> None:
        """Show that the worker is ready. Raises SystemExit if the file cannot be written."""
        self._next_beat = 0.0
        if self._file is not None:
            if self._file.is_dir():  # which could be touched, and changes by itself
                raise SystemExit(
                    f'Error: JOB_HEALTH_FILE is the folder {self._file}: name a file in it.'
                )
            try:
                self._file.touch()
            except OSError as error:
                raise SystemExit(f'Error: JOB_HEALTH_FILE cannot be written: {error}.') from None
        self._notify('READY=1')

    def beat_if_due(self) -> None:
        """Show that the loop has come round, if it is time to."""
        moment = time.monotonic()
        if moment < self._next_beat:
            return
        self._next_beat = moment + self._interval
        if self._file is not None:
            try:
                self._file.touch()
            except OSError as error:  # such as a full disk: the probe sees it
                log.error('JOB_HEALTH_FILE cannot be written: %s', error)
        self._notify('WATCHDOG=1')

    def _notify(self, state: str) -> None:
        """Tell systemd, if that has started this process; see sd_notify(3)."""
        if self._systemd is None:
            return
        address = self._systemd.replace('@', '\0', 1) if self._systemd[0] == '@' else self._systemd
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(state.encode(), address)
        except OSError as error:
            log.error('systemd cannot be notified of %s: %s', state, error)
