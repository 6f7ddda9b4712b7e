"""Tasks that show where they run: in the process of the test."""

import builtins
import os
import threading
from dataclasses import dataclass
from typing import Any

from flask import current_app, g

from qdjobs import enqueue_background_job, get_job_status
from qdjobs.progress import current_job

seen: list[Any] = []


@dataclass
class Letter:
    to: str
    tags: set[str]


def look() -> None:
    seen.extend([threading.get_ident(), current_app.name, g.get('value')])


def note(value: Any) -> None:
    seen.append((threading.get_ident(), value))


def note_later(value: int) -> None:
    note(value)
    enqueue_background_job('tests.support.here.note', value + 1)


def spoil(rows: list[Any]) -> None:
    rows.append('spoilt')
    seen.append(rows)


def post(letter: Letter) -> None:
    seen.append(letter)


def leave(name: str) -> None:
    raise getattr(builtins, name)


def look_at_itself() -> None:
    job = current_job()
    assert job is not None
    seen.append(get_job_status(job.id)['status'])


def pid() -> None:
    seen.append(os.getpid())


def again() -> None:
    enqueue_background_job('tests.support.here.again')
