"""Format jobs for a terminal: one in full, many as a table, a running one as a bar.

Names, errors and messages come from tasks, or from anyone who can write to Redis. `plain` removes
their control characters.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from qdjobs.client.json import to_json
from qdjobs.client.status import Status
from qdjobs.monitoring.doctor import show_duration

_BAR = 30  # characters
_MIN_WIDTH = 10  # characters of the last column, even on a narrow terminal


def plain(text: object) -> str:
    """Return the text as one line without control characters."""
    return ''.join(c if c.isprintable() else ' ' for c in str(text))


def describe(status: Status) -> Iterator[str]:
    """Yield the lines that show one job in full."""
    rows = [
        ('id', status['id']),
        ('status', status['status']),
        ('task', status['task']),
        ('queue', status['queue']),
        ('created', _moment(status['created_at'])),
        ('started', _moment(status['started_at'])),
        ('ended', _moment(status['ended_at'])),
        ('progress', _progress(status)),
        ('result', to_json(status['result']) if status['status'] == 'finished' else None),
        ('error', status['error']),
    ]
    rows += [
        ('attempt', f'{_moment(attempt["at"])}  {attempt["error"]}')
        for attempt in status['attempts']
    ]
    return (f'{name:<10}{plain(value)}' for name, value in rows if value)


def table(jobs: Sequence[Status]) -> Iterator[str]:
    """Yield a header and a line for each job; cut at the width of the terminal, if there is one."""
    rows = [('ID', 'STATUS', 'QUEUE', 'AGE', 'TASK')]
    now = datetime.now(UTC)
    for job in jobs:
        created = job['created_at']
        age = show_duration(max(0.0, (now - created).total_seconds())) if created else ''
        name = (job['task'] or '?').rpartition('.')[2]  # `describe` shows the whole path
        summary = f'{name}  {job["error"] or _progress(job) or ""}'
        rows.append((job['id'], job['status'], job['queue'], age, summary.rstrip()))
    widths = [max(len(plain(row[column])) for row in rows) for column in range(4)]
    room = max(_MIN_WIDTH, _columns() - sum(widths) - 2 * len(widths))
    for row in rows:
        cells = [f'{plain(cell):<{width}}' for cell, width in zip(row[:4], widths, strict=True)]
        yield '  '.join((*cells, _cut(plain(row[4]), room))).rstrip()


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
