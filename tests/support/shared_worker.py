"""One worker for many tests: between them it is stopped, so that it writes to no other's Redis."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from redis import Redis
from rq import Queue
from rq.job import JobStatus

from qdjobs.client.payload import PlainSerializer

PROBE = 'tests.support.tasks.add'
PATIENCE = 2.0  # seconds that a worker has to become idle; a new one takes less


class SharedWorker:
    """A process that a test resumes, uses and pauses; replaced if it is dead or remains busy.

    `start` starts a worker of a name, with a file for its log.
    """

    def __init__(
        self, start: Callable[[Path, str], subprocess.Popen[bytes]], connection: Redis, log: Path
    ) -> None:
        self.log = log
        self.name = ''  # as Redis has it
        self._start = start
        self._connection = connection
        self._process: subprocess.Popen[bytes] | None = None
        self._said_before = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def poll(self) -> int | None:
        """None while it runs; else its exit code, as that of a `Popen`."""
        assert self._process is not None
        return self._process.poll()

    def said(self) -> str:
        """What the worker has logged since the test began."""
        return self.log.read_bytes()[self._said_before :].decode()

    def resume(self) -> None:
        """Let it run, in a Redis that has just been emptied."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self.name = f'shared-{uuid4().hex}'
            self._process = self._start(self.log, self.name)
        self._said_before = self.log.stat().st_size

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing that is enqueued in the block runs before its end."""
        assert self._is_stopped(), 'the worker is dead'
        self._connection.ping()  # behind whatever it has sent
        try:
            yield
        finally:
            assert self._process is not None
            self._process.send_signal(signal.SIGCONT)

    def pause(self) -> None:
        """Stop it once it is idle; end it if it does not become so."""
        if self._is_idle() and self._is_stopped():
            self._connection.ping()  # behind whatever it has sent
        else:
            self.end()

    def end(self) -> None:
        """Kill it with its horse, which dies with it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _is_idle(self) -> bool:
        """Whether it comes to run a job of ours, behind which there is no other."""
        self._connection.flushall()
        queue = Queue('high', self._connection, serializer=PlainSerializer)
        probe = queue.enqueue(PROBE, 1)
        self._connection.rpush('rq:wake-up:high', 1)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            if probe.get_status() == JobStatus.FINISHED:
                return True
            time.sleep(0.005)
        return False

    def _is_stopped(self) -> bool:
        """Stop it, and wait until it is."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return False
        for client in self._connection.client_list():
            if 'b' in client['flags']:  # it would take the wake-up of a job meant for another
                self._connection.client_unblock(int(client['id']))
        return True
