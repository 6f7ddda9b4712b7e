"""Exchange a file or folder for a link just before a chosen step of the code under test."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

_armed: list[Callable[[], None]] = []


def _before_each_step(event: str, args: tuple[object, ...]) -> None:
    if _armed and (event == 'open' or event.startswith('os.')):
        _armed[0]()


@cache
def _watch() -> None:
    sys.addaudithook(_before_each_step)  # which cannot be removed


def exchanges(path: Path, target: Path) -> Iterator[None]:
    """In each round `path` becomes a link to `target` before another step; ends after the last.

    A step is what Python reports to audit hooks of files. After the round `path` is back.
    """
    aside = path.with_name(f'{path.name}-aside')
    _watch()
    last = 0
    while True:
        steps = 0

        def step(chosen: int = last) -> None:
            nonlocal steps
            steps += 1
            if steps == chosen + 1:
                _armed.clear()
                os.rename(path, aside)
                path.symlink_to(target)
                _armed.append(step)

        _armed.append(step)
        try:
            yield
        finally:
            _armed.clear()
        if steps <= last:
            return
        path.unlink()
        os.rename(aside, path)
        last += 1
