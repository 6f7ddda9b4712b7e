"""The work horse: a forked process that runs one job after another.

`Horse` lives in the parent. `_child_main`, and what it calls, run in the horse. Imports of the
worker and of earlier jobs stay loaded. The horse dies with its worker. If it crashes, only the job
that it runs is affected.
"""

import contextlib
import ctypes
import logging
import mmap
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from qdjobs.worker.application import ApplicationError

log = logging.getLogger(__name__)

_READY = b'ready'
_FAILED = b'failed: '  # before the reason
_PR_SET_PDEATHSIG = 1
_SIGNALS = {number.value: number.name for number in signal.Signals}
_EXIT_GRACE = 0.5  # seconds that a horse has to exit once it has closed its pipe


class HorseFailed(Exception):
    """The horse could not be prepared; the message is one line that says why."""


class HorseDied(Exception):
    """The horse has died; the message names the signal or the exit code."""

    def __init__(self, status: int) -> None:
        self.status = status
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = _SIGNALS.get(number, f'signal {number}')
            hint = ' (out of memory?)' if name == 'SIGKILL' else ''
            super().__init__(f'the work horse was killed by {name}{hint}')
        else:
            code = os.waitstatus_to_exitcode(status)
            super().__init__(f'the task ended its process with exit code {code}')


class Horse:
    """The parent's handle of one forked horse."""

    def __init__(self, prepare: Callable[[], None], run: Callable[[bytes], bytes]) -> None:
        """Fork the horse, and return once it is ready.

        The horse calls `prepare` once and `run` for each message. Raises HorseFailed if `prepare`
        raises, HorseDied if the horse dies before it is ready.
        """
        self.jobs = 0
        self._started = mmap.mmap(-1, 8)  # shared: the number of jobs that the horse has started
        self._connection, child_end = multiprocessing.Pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._connection.close()
            _child_main(parent, child_end, self._started, prepare, run)
        child_end.close()
        self._poll = select.poll()  # `Connection.poll` would create a new one for each job
        self._poll.register(self._connection.fileno(), select.POLLIN)
        with contextlib.suppress(OSError):  # it may have done so itself, or be dead
            os.setpgid(self.pid, self.pid)
        while (answer := self.wait(60)) != _READY:
            if answer is not None and answer.startswith(_FAILED):
                self.kill()
                raise HorseFailed(answer.removeprefix(_FAILED).decode())

    def send(self, message: bytes) -> None:
        """Send a job to the horse. If the horse is dead, `wait` raises HorseDied."""
        self.jobs += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(message)

    def wait(self, seconds: float) -> bytes | None:
        """Return the answer to the message, or None after `seconds`. Raises HorseDied."""
        try:
            if self._poll.poll(seconds * 1000):
                return self._connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            self._reap(self._wait_for_exit())
        # A process that the task has started may hold the pipe open: check the horse itself too.
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid and not self._poll.poll(0):
            self._reap(status)
        return None

    @property
    def has_started_job(self) -> bool:
        """Whether the horse has started the job sent last; also known once it is dead."""
        return int.from_bytes(self._started[:]) == self.jobs

    def is_alive(self) -> bool:
        """Return whether the horse can run a job. Check before claiming one."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == 0
        except ChildProcessError:
            return False

    def _wait_for_exit(self) -> int:
        """Return the exit status once the pipe is closed. Kills a horse that does not exit."""
        deadline = time.monotonic() + _EXIT_GRACE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.01)
        self._kill_group()
        return os.waitpid(self.pid, 0)[1]

    def kill(self) -> None:
        """Kill the horse and every process of its group."""
        self._kill_group()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._connection.close()

    def retire(self) -> None:
        """Let an idle horse exit; kill it if it does not."""
        self._connection.close()
        deadline = time.monotonic() + 2
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.01)
            self.kill()

    def _reap(self, status: int) -> None:
        self._kill_group()  # processes that the task has started must not outlive the horse
        self._connection.close()
        raise HorseDied(status)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _child_main(
    parent: int,
    connection: Connection,
    started: mmap.mmap,
    prepare: Callable[[], None],
    run: Callable[[bytes], bytes],
) -> None:
    """Run the horse until its pipe is closed. Never returns."""
    code = 1
    own = os.getpid()
    try:
        os.setpgid(0, 0)  # Ctrl-C goes to the worker, which decides about the job
        _die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Some platforms send SIGTERM to every process of a service; the worker decides here too.
        # Programs that a task starts would inherit SIG_IGN, but not a handler.
        signal.signal(signal.SIGTERM, lambda *_: None)
        connection.send_bytes(_prepare(prepare))
        with contextlib.suppress(EOFError, OSError):  # the worker has closed the pipe
            while os.getpid() == own:  # a task may fork, and its child may return to here
                message = connection.recv_bytes()
                started[:] = (int.from_bytes(started[:]) + 1).to_bytes(8)
                answer = run(message)
                if os.getpid() == own:
                    connection.send_bytes(answer)
        code = 0
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())  # nothing above catches it: `os._exit` follows
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _prepare(prepare: Callable[[], None]) -> bytes:
    """Prepare the horse, and return the message for the parent: _READY, or _FAILED and why."""
    try:
        prepare()
    except ApplicationError as error:
        return _FAILED + str(error).encode()
    except (Exception, SystemExit) as error:
        log.exception('The work horse cannot be prepared')
        return _FAILED + f'{type(error).__name__}: {" ".join(str(error).split())}'.encode()
    return _READY


def _die_with_parent(parent: int) -> None:
    """Have the horse killed when its worker dies, for whatever reason."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
