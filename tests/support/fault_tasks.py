"""Tasks and applications for tests in which deploys, servers and neighbours go wrong."""

import logging
import os
import random
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

from flask import Flask
from flask.ctx import AppContext

from tests.support.worker_tasks import say


def begin_and_wait(path: str, gate: str, result: Any = 'done') -> Any:
    """Tell that it has begun, wait for the file `gate`, and remove it: the next run waits too."""
    say(path, str(os.getpid()))
    while not Path(gate).exists():
        time.sleep(0.02)
    Path(gate).unlink()
    return result


def begin_and_fail(path: str, gate: str) -> None:
    begin_and_wait(path, gate)
    raise ValueError('it failed')


def begin_and_fail_late(path: str, seconds: float) -> None:
    say(path, str(os.getpid()))
    time.sleep(seconds)
    raise ValueError('it failed')


def return_much(path: str, count: int) -> bytes:
    say(path, str(os.getpid()))
    return b'x' * count


def leave_a_child(path: str) -> None:
    """Start a process, tell its number, and end without it."""
    child = subprocess.Popen(['sleep', '300'])
    Path(path).write_text(str(child.pid))


_kept: list[bytes] = []


def grow(megabytes: int) -> int:
    """Keep memory, as a leak does."""
    _kept.append(b'x' * (megabytes * 1024 * 1024))
    return os.getpid()


def change(what: str) -> None:
    """Change the process that the next job would find."""
    if what == 'umask':
        os.umask(0o777)
    elif what == 'nice':
        os.nice(5)
    elif what == 'soft limit':
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, _files()[1]))
    elif what == 'hard limit':
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    elif what == 'seed':
        random.seed(1)
    elif what == 'logging':
        logging.disable(logging.CRITICAL)
    elif what == 'output':
        os.close(1)


def look(what: str) -> Any:
    """What the process of a job is like."""
    if what == 'umask':
        before = os.umask(0o022)
        os.umask(before)
        return before
    if what == 'nice':
        return os.getpriority(os.PRIO_PROCESS, 0)
    if what in ('soft limit', 'hard limit'):
        return list(_files())
    if what == 'seed':  # whether it draws what everybody draws after this seed
        return random.random() == random.Random(1).random()
    if what == 'logging':
        return logging.root.manager.disable
    assert what == 'output'
    return os.fstat(1).st_ino


def _files() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


class FragileFlask(Flask):
    def app_context(self) -> AppContext:
        """Dies while the file exists: after a job is claimed, before its function is entered."""
        if Path(os.environ['FRAGILE']).exists():
            os._exit(7)
        return super().app_context()


def create_fragile_app() -> Flask:
    return FragileFlask('fragile')


def create_app_once() -> Flask:
    """The second time the database is away, say."""
    made = Path(os.environ['MADE_ONCE'])
    if made.exists():
        raise RuntimeError('no database')
    made.touch()
    return Flask('once')


def create_app_after_the_gate() -> Flask:
    """It loads for as long as a test says."""
    while not Path(os.environ['GATE']).exists():
        time.sleep(0.05)
    return Flask('late')


def die_at_once(*_: Any) -> None:
    """A callback that takes its process with it."""
    os._exit(9)
