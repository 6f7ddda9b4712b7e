"""The work horse: a forked process that runs one job after another.

`Horse` lives in the parent. `_child_main`, and what it calls, run in the horse. Imports of the
worker and of earlier jobs stay loaded. The horse dies with its worker. If it crashes, only the job
that it runs is affected.
"""

import contextlib
import ctypes
import logging
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

from qdjobs.worker.application import ApplicationError

log = logging.getLogger(__name__)

_READY = b'ready: '  # before its news
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


class Marks:
    """What the parent can see of a job even if its horse dies: memory that both share."""

    _ENTERED, _RETURNED = slice(0, 8), slice(8, 16)

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def enter(self, job: int) -> None:
        """Mark that code of this job, a running number from 1, is entered; 0 marks none."""
        self._memory[self._ENTERED] = job.to_bytes(8)

    def leave(self, job: int) -> None:
        """Mark that the task's function has returned or raised."""
        self._memory[self._RETURNED] = job.to_bytes(8)

    def has_entered(self, job: int) -> bool:
        return int.from_bytes(self._memory[self._ENTERED]) == job

    def has_returned(self, job: int) -> bool:
        return int.from_bytes(self._memory[self._RETURNED]) == job


class Work(Protocol):
    """What a horse does."""

    @property
    def news(self) -> bytes:
        """What the parent is to know before it sends a message."""

    def answer(self, message: bytes, number: int) -> bytes:
        """Do what a message says. `number` is the message's for this horse, from 1."""

    def end(self) -> None:
        """Do what is left before the horse exits."""


class Horse:
    """The parent's handle of one forked horse."""

    def __init__(
        self, prepare: Callable[[Marks], Work], patience: float, pulse: Callable[[], None]
    ) -> None:
        """Fork the horse, and return once it is ready.

        The horse calls `prepare` once. `patience` are the seconds in which the horse must read a
        message. `pulse` is called each second until the horse is ready.
        Raises HorseFailed if `prepare` raises, HorseDied if the horse dies before it is ready.
        """
        self.jobs = 0
        self.marks = Marks()
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(patience))
        self._connection, child_end = Connection(ours.detach()), Connection(theirs.detach())
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._connection.close()
            _child_main(parent, child_end, lambda: prepare(self.marks))
        child_end.close()
        self._poll = select.poll()  # `Connection.poll` would create a new one for each job
        self._poll.register(self._connection.fileno(), select.POLLIN)
        with contextlib.suppress(OSError):  # it may have done so itself, or be dead
            os.setpgid(self.pid, self.pid)
        while (answer := self.wait(1)) is None:  # an application may take minutes to load
            pulse()
        if answer.startswith(_FAILED):
            self.kill()
            raise HorseFailed(answer.removeprefix(_FAILED).decode())
        self.news = answer.removeprefix(_READY)  # of its work

    def send(self, message: bytes) -> None:
        """Send a message to the horse. If the horse is dead, `wait` raises HorseDied."""
        self.jobs += 1
        try:
            self._connection.send_bytes(message)
        except (BrokenPipeError, ConnectionResetError):
            return
        except BlockingIOError:  # it does not read: a thread of an earlier job may hold a lock
            self._kill_group()

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
    def has_entered_task(self) -> bool:
        """Whether the task of the message sent last was entered; also known once it is dead."""
        return self.marks.has_entered(self.jobs)

    @property
    def has_left_task(self) -> bool:
        """Whether the task of the message sent last has returned or raised."""
        return self.marks.has_returned(self.jobs)

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
        """Let an idle horse exit, and kill what its tasks have left running."""
        self._connection.close()
        deadline = time.monotonic() + 2
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()

    def _reap(self, status: int) -> None:
        self._kill_group()  # processes that the task has started must not outlive the horse
        self._connection.close()
        raise HorseDied(status)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _timeval(seconds: float) -> bytes:
    return struct.pack('@ll', int(seconds), int(seconds % 1 * 1_000_000))


def _child_main(parent: int, connection: Connection, prepare: Callable[[], Work]) -> None:
    """Run the horse until its pipe is closed. Never returns."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C goes to the worker, which decides about the job
        _die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Some platforms send SIGTERM to every process of a service; the worker decides here too.
        # Programs that a task starts would inherit SIG_IGN, but not a handler.
        signal.signal(signal.SIGTERM, lambda *_: None)
        _serve(connection, prepare)
        code = 0
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())  # nothing above catches it: `os._exit` follows
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _serve(connection: Connection, prepare: Callable[[], Work]) -> None:
    """Prepare the horse, then answer each message of the parent until it closes the pipe."""
    own = os.getpid()
    work, answer = _prepare(prepare)
    number = 0
    while os.getpid() == own:  # a task may fork, and its child may return to here
        try:  # around sending and receiving only: an OSError of a task is a task's failure
            connection.send_bytes(answer)
            message = connection.recv_bytes()
        except (EOFError, ConnectionError):
            if work is not None:
                work.end()
            return
        assert work is not None  # otherwise the parent sends nothing
        number += 1
        answer = work.answer(message, number)


def _prepare(prepare: Callable[[], Work]) -> tuple[Work | None, bytes]:
    """Prepare the horse. Returns its work and its news, or None and _FAILED with the reason."""
    try:
        work = prepare()
        return work, _READY + work.news
    except ApplicationError as error:
        return None, _FAILED + str(error).encode()
    except (Exception, SystemExit) as error:
        log.exception('The work horse cannot be prepared')
        reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
        return None, _FAILED + reason.encode()


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
