"""Tasks that tell how far they are."""

import time
from pathlib import Path

from qdjobs.progress import current_job, report_progress, track


def stop_half_way(gate: str) -> None:
    for row in track(range(4), message='half-way'):
        if row == 2:
            report_progress(2, 4, 'half-way')
            time.sleep(0.35)  # longer than the least interval between two writes
            report_progress(2, 4, 'half-way')
            while not Path(gate).exists():
                time.sleep(0.02)


def count(rows: int) -> int:
    return sum(1 for _ in track(range(rows)))


def third_time_lucky() -> list[object]:
    job = current_job()
    assert job is not None
    if job.attempt < 3:
        raise ConnectionError('not yet')
    return [job.id, job.attempt]


def fail_half_way(total: int | None = None) -> None:
    """Of rows that know their number or, with `total`, do not."""
    for _ in track(range(2) if total is None else iter(range(2)), total=total):
        raise ValueError('half-way')
