"""The work horse: a process that a worker forks once and hands one job after another.

It is warm: what the worker has imported, and what earlier jobs have, stays. It dies with its
worker, and whatever it dies of, only the job that it was running is hurt.
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
_PIPE_CLOSED = 0.5  # seconds that a horse has to end once its pipe is closed


class HorseFailed(Exception):
    """The process could not be prepared; the message is one line that says why."""


class HorseDied(Exception):
    """The process is gone; says how."""

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
    """One forked process; `prepare` runs in it once, `run` for each message."""

    def __init__(self, prepare: Callable[[], None], run: Callable[[bytes], bytes]) -> None:
        """Return once the process is ready.

        Raises HorseFailed if `prepare` raises, HorseDied if the process ends before.
        """
        self.jobs = 0
        self._begun = mmap.mmap(-1, 8)  # shared: the number of jobs that the horse has begun
        self._connection, far_end = multiprocessing.Pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._connection.close()
            _child_main(parent, far_end, self._begun, prepare, run)
        far_end.close()
        self._poll = select.poll()  # `Connection.poll` would make a new one for each job
        self._poll.register(self._connection.fileno(), select.POLLIN)
        with contextlib.suppress(OSError):  # it may have done so itself, or be gone
            os.setpgid(self.pid, self.pid)
        while (answer := self.wait(60)) != _READY:
            if answer is not None and answer.startswith(_FAILED):
                self.kill()
                raise HorseFailed(answer.removeprefix(_FAILED).decode())

    def send(self, message: bytes) -> None:
        """Hand over a job. If the horse is dead, `wait` will say so."""
        self.jobs += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(message)

    def wait(self, seconds: float) -> bytes | None:
        """The answer to the message, or None after so many seconds. Raises HorseDied."""
        try:
            if self._poll.poll(seconds * 1000):
                return self._connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            self._reap(self._end_after_pipe())
        # A process that the task has left behind may hold the pipe open: look at the horse too.
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid and not self._poll.poll(0):
            self._reap(status)
        return None

    @property
    def has_begun(self) -> bool:
        """Whether it has begun the job that it was handed last; also once it is dead."""
        return int.from_bytes(self._begun[:]) == self.jobs

    def is_alive(self) -> bool:
        """Whether it can be given a job; look before taking one."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == 0
        except ChildProcessError:
            return False

    def _end_after_pipe(self) -> int:
        """Its status. A task may have closed the pipe and live on: it is of no use then."""
        deadline = time.monotonic() + _PIPE_CLOSED
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.01)
        self._signal_group()
        return os.waitpid(self.pid, 0)[1]

    def kill(self) -> None:
        """End it at once, with every process of its group."""
        self._signal_group()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._connection.close()

    def retire(self) -> None:
        """Let an idle horse end; kill it if it does not."""
        self._connection.close()
        deadline = time.monotonic() + 2
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.01)
            self.kill()

    def _reap(self, status: int) -> None:
        self._signal_group()  # what the task has started must not outlive it
        self._connection.close()
        raise HorseDied(status)

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _child_main(
    parent: int,
    connection: Connection,
    begun: mmap.mmap,
    prepare: Callable[[], None],
    run: Callable[[bytes], bytes],
) -> None:
    """The whole life of the process. Never returns."""
    code = 1
    own = os.getpid()
    try:
        os.setpgid(0, 0)  # Ctrl-C is for the worker, which decides about the job
        _die_with(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Platforms that end a service signal each of its processes: the worker decides here too.
        # Not SIG_IGN, which the programs that a task starts would inherit.
        signal.signal(signal.SIGTERM, lambda *_: None)
        connection.send_bytes(_prepare(prepare))
        with contextlib.suppress(EOFError, OSError):  # the worker is done with us
            while os.getpid() == own:  # a task may fork, and its child come back to here
                message = connection.recv_bytes()
                begun[:] = (int.from_bytes(begun[:]) + 1).to_bytes(8)
                answer = run(message)
                if os.getpid() == own:
                    connection.send_bytes(answer)
        code = 0
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())  # there is nobody left to raise it to
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _prepare(prepare: Callable[[], None]) -> bytes:
    """What to answer the parent, which decides what becomes of this process."""
    try:
        prepare()
    except ApplicationError as error:
        return _FAILED + str(error).encode()
    except (Exception, SystemExit) as error:
        log.exception('The work horse cannot be prepared')
        return _FAILED + f'{type(error).__name__}: {" ".join(str(error).split())}'.encode()
    return _READY


def _die_with(parent: int) -> None:
    """Have this process killed when its worker dies, however that dies."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
