"""Tasks for the tests."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from contextvars import ContextVar
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

from redis import Redis
from rq import Retry
from rq.job import Job

from qdjobs.client.payload import PLAIN_TYPES
from qdjobs.errors import PermanentJobError

assert PLAIN_TYPES  # a name that is merely imported is no task
MODULE_OBJECT = os


class Point(TypedDict):
    x: int
    y: int


class DatedPoint(TypedDict):
    x: int
    day: NotRequired[date]


class NotATask:
    pass


def _private() -> None: ...


def add(a: int, b: int = 2) -> int:
    return a + b


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    """Whatever it is given, for arguments that have the names of options."""
    return [list(args), kwargs]


def typed(
    number: float = 0,
    moment: datetime | None = None,
    mode: Literal['fast', 'slow'] = 'fast',
    rows: list[tuple[int, str]] | None = None,
    point: Point | None = None,
    price: Decimal | None = None,
) -> None: ...


def convert(
    moment: datetime | None = None,
    day: date | None = None,
    span: timedelta | None = None,
    key: UUID | None = None,
    price: Decimal | None = None,
    data: bytes = b'',
    pair: tuple[int, str] = (0, ''),
    tags: set[str] | None = None,
    things: set[Any] | None = None,
    counts: dict[int, int] | None = None,
    points: list[DatedPoint] | None = None,
    either: date | str = '',
    anything: Any = None,
    **others: date,
) -> None:
    """Of many hints, most of which JSON has no form for."""


def options_collide(job_name: str) -> None: ...


def uncheckable(target: NotATask) -> None: ...


def fail(message: str = 'it failed') -> None:
    raise ValueError(message)


async def fail_in_a_task_group() -> None:
    async def fail_later() -> None:
        raise ValueError('too wide')

    async with asyncio.TaskGroup() as group:
        group.create_task(fail_later())


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return 'awake'


def append(path: str, line: str) -> None:
    with Path(path).open('a') as file:
        file.write(f'{line}\n')


def fail_until(marker: str, attempts: int) -> int:
    """Fail `attempts` times, remembering them in a file; return the number of the attempt."""
    with Path(marker).open('a') as file:
        file.write('x')
    attempt = len(Path(marker).read_text())
    if attempt <= attempts:
        raise ConnectionError(f'attempt {attempt} failed')
    return attempt


def return_unplain() -> Any:
    return NotATask()


def return_unpicklable() -> Any:
    return lambda: None


def touch_and_sleep(path: str, seconds: float) -> str:
    """Say that it has begun, then take its time."""
    Path(path).touch()
    time.sleep(seconds)
    return 'done'


def touch_and_wait(path: str, gate: str) -> str:
    """Say that it has begun, then wait for the test to make the file `gate`."""
    Path(path).touch()
    while not Path(gate).exists():
        time.sleep(0.02)
    return 'done'


def process_id() -> int:
    return os.getpid()


def segfault() -> None:
    ctypes.string_at(0)


def exit_at_once(code: int) -> None:
    os._exit(code)


def exit_politely(code: int) -> None:
    sys.exit(code)


def exhaust_memory() -> None:
    """Has the kernel kill it, as it would when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def need_too_much_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (512 * 1024 * 1024, resource.RLIM_INFINITY))
    try:
        bytearray(1024 * 1024 * 1024)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def hang_in_c() -> None:
    """A call in C that lets no signal handler of Python's run: it is resumed behind a signal."""
    signal.siginterrupt(signal.SIGALRM, False)
    silent, _open = os.pipe()
    ctypes.CDLL(None).read(silent, ctypes.create_string_buffer(1), 1)


def swallow_timeouts(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # the mistake that this is about
            time.sleep(0.05)
    return 'never noticed'


def fail_for_good() -> None:
    raise PermanentJobError('the address does not exist')


def spawn_a_child(path: str) -> None:
    """Start a process, tell its number, and hang."""
    child = subprocess.Popen(['sleep', '300'])
    Path(path).write_text(str(child.pid))
    time.sleep(300)


def change_its_process() -> None:
    os.chdir('/')
    _left_behind.set('by an earlier job')


def look_around() -> list[str]:
    return [os.getcwd(), _left_behind.get()]


def app_name() -> str:
    from flask import current_app

    return current_app.name


def on_success(job: Job, connection: Redis, result: Any) -> None:
    connection.set(f'callback:{job.id}', 'success')


def on_failure(job: Job, connection: Redis, *error: Any) -> None:
    connection.set(f'callback:{job.id}', 'failure')


def on_stopped(job: Job, connection: Redis) -> None:
    connection.set(f'callback:{job.id}', 'stopped')


def ask_for_a_retry() -> Retry:
    return Retry(max=2)


_left_behind: ContextVar[str] = ContextVar('left_behind', default='nothing')
