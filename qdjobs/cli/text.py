"""Format jobs for a terminal: one in full, many as a table, a running one as a bar; or as JSON.

Names, errors and messages come from tasks, or from anyone who can write to Redis. `plain` removes
their control characters, and JSON escapes them.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from qdjobs.client.details import Details
from qdjobs.client.json import to_json
from qdjobs.client.status import Status
from qdjobs.monitoring.doctor import show_duration

_BAR = 30  # characters
_MIN_WIDTH = 10  # characters of the last column, even on a narrow terminal


def plain(text: object) -> str:
    """Return the text as one line without control characters."""
    return ''.join(c if c.isprintable() else ' ' for c in str(text))


def safe_json(value: Any) -> str:
    """Encode plain data as JSON in one line, with every character escaped that is no text."""
    return ''.join(c if c.isprintable() else _escaped(c) for c in to_json(value))


def _escaped(character: str) -> str:
    units = character.encode('utf-16-be').hex()
    return ''.join(f'\\u{units[start : start + 4]}' for start in range(0, len(units), 4))


def describe(status: Status) -> Iterator[str]:
    """Yield the lines that show the status of a job."""
    return _lines(_rows(status) + _attempts(status))


def describe_fully(job: Details) -> Iterator[str]:
    """Yield the lines that show a job with its arguments and the traceback of each attempt."""
    due = [('due', _moment(job.due_at))]
    arguments = [('argument', to_json(value)) for value in job.args]
    arguments += [('argument', f'{name}={to_json(value)}') for name, value in job.kwargs.items()]
    if job.unreadable:
        arguments = [('arguments', f'unreadable: {job.unreadable}')]
    meta = job.status.get('meta')
    yield from _lines(
        _rows(job.status) + due + arguments + [('meta', to_json(meta) if meta else None)]
    )
    for attempt, traceback in zip(_attempts(job.status), job.tracebacks, strict=True):
        yield from _lines([attempt])
        yield from (f'  {plain(line)}' for line in (traceback or '').splitlines())


def _lines(rows: Sequence[tuple[str, str | None]]) -> Iterator[str]:
    return (f'{name:<10}{plain(value)}' for name, value in rows if value)


def _rows(status: Status) -> list[tuple[str, str | None]]:
    return [
        ('id', status['id']),
        ('status', status['status']),
        ('task', status['task']),
        ('queue', status['queue']),
        ('created', _moment(status['created_at'])),
        ('started', _moment(status['started_at'])),
        ('ended', _moment(status['ended_at'])),
        ('waits for', ' '.join(status['waits_for'])),
        ('progress', _progress(status)),
        ('result', to_json(status['result']) if status['status'] == 'finished' else None),
        ('error', status['error']),
    ]


def _attempts(status: Status) -> list[tuple[str, str | None]]:
    return [
        ('attempt', f'{_moment(attempt["at"])}  {attempt["error"]}')
        for attempt in status['attempts']
    ]


def table(jobs: Sequence[Status]) -> Iterator[str]:
    """Yield a header and a line for each job."""
    rows = [('ID', 'STATUS', 'QUEUE', 'AGE', 'TASK')]
    now = datetime.now(UTC)
    for job in jobs:
        created = job['created_at']
        age = show_duration(max(0.0, (now - created).total_seconds())) if created else ''
        name = (job['task'] or '?').rpartition('.')[2]  # `describe` shows the whole path
        summary = f'{name}  {job["error"] or _progress(job) or ""}'
        rows.append((job['id'], job['status'], job['queue'], age, summary.rstrip()))
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each row; the last cell is cut at the width of the terminal, if any."""
    plain_rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*plain_rows, strict=True)][:-1]
    room = max(_MIN_WIDTH, _columns() - sum(widths) - 2 * len(widths))
    for *first, last in plain_rows:
        cells = [f'{cell:<{width}}' for cell, width in zip(first, widths, strict=True)]
        yield '  '.join((*cells, _cut(last, room))).rstrip()


def bar(status: Status) -> str:
    """Return a job's status and progress in one line that fits the terminal."""
    share = _share(status)
    drawn = ''
    if share is not None:
        filled = round(_BAR * share)
        drawn = f'[{"#" * filled}{"-" * (_BAR - filled)}] {share:4.0%}  '
    line = plain(f'{status["status"]:<9} {drawn}{_progress(status) or ""}')
    return _cut(line, _columns() - 1).rstrip()


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f'{text[: room - 1]}…'


def _share(status: Status) -> float | None:
    progress = status['progress']
    if progress is None or progress['total'] is None or progress['total'] <= 0:
        return None
    return min(1.0, max(0.0, progress['done'] / progress['total']))


def _progress(status: Status) -> str | None:
    progress = status['progress']
    if progress is None:
        return None
    total = '' if progress['total'] is None else f'/{progress["total"]}'
    return f'{progress["done"]}{total} {progress["message"]}'.rstrip()


def _moment(moment: datetime | None) -> str | None:
    return f'{moment:%Y-%m-%d %H:%M:%S}Z' if moment else None
