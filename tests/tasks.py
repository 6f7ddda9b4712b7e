"""Tasks for the tests."""

import os
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypedDict

from libraries.job_payload import PLAIN_TYPES

assert PLAIN_TYPES  # a name that is merely imported is no task
MODULE_OBJECT = os


class Point(TypedDict):
    x: int
    y: int


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


def options_collide(job_name: str) -> None: ...


def uncheckable(target: NotATask) -> None: ...


def fail(message: str = 'it failed') -> None:
    raise ValueError(message)


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
