"""Measure the calls a web request makes: ours and RQ's own, in one run on one server.

Run with `make bench`. Each figure is the best of several rounds; both sides take turns.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from redis import Redis
from rq import Queue
from rq.job import Job

from libraries.job_manager import (
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
)
from qdjobs.server import embedded_redis, free_port, point_here

TASK = 'workers.svg_tasks.generate_complex_svg'
ARGUMENTS: dict[str, Any] = {
    'width': 210,
    'height': 297,
    'pattern_type': 'spiral',
    'output_filename': 'spiral.svg',
}
ROUNDS = 7


def best(repeat: int, *calls: Callable[[], object]) -> list[float]:
    """The best time of each call, in microseconds; the calls take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            taken.append((time.perf_counter() - start) / repeat * 1e6)
    return [min(taken) for taken in times]


def compare(title: str, ours: tuple[str, float], theirs: tuple[str, float], goal: str) -> None:
    click.echo(f'\n{title} (goal: {goal})')
    for name, taken in (theirs, ours):
        click.echo(f'  {name:48}{taken:12,.0f} µs')
    click.echo(f'  {"":48}{theirs[1] / ours[1]:12.2f} ×')


def main() -> None:
    with embedded_redis(free_port()) as url, tempfile.TemporaryDirectory() as folder:
        point_here(url)
        os.environ['OUTPUT_DIR'] = folder
        # RQ with the connection that `rq` itself makes.
        rq = Queue('default', connection=Redis.from_url(url))

        ours, theirs = best(
            200,
            lambda: enqueue_background_job(TASK, **ARGUMENTS),
            lambda: rq.enqueue(TASK, **ARGUMENTS),
        )
        compare(
            'Enqueue one job',
            ('enqueue_background_job, which checks', ours),
            ('rq.Queue.enqueue', theirs),
            'faster',
        )

        calls = [ARGUMENTS | {'output_filename': f'{number}.svg'} for number in range(1000)]
        many, loop = best(
            1,
            lambda: enqueue_background_jobs(TASK, calls),
            lambda: [enqueue_background_job(TASK, **call) for call in calls],
        )
        compare(
            'Enqueue 1,000 jobs',
            ('enqueue_background_jobs', many),
            ('enqueue_background_job in a loop', loop),
            '≥ 5 ×',
        )

        connection = rq.connection
        connection.flushall()
        job = enqueue_background_job(TASK, **ARGUMENTS)
        worker = Path(sys.executable).with_name('rq')
        subprocess.run([worker, 'worker', '--burst', '--quiet', 'default'], check=True)

        def fetch() -> None:
            fetched = Job.fetch(job.id, connection)
            fetched.get_status()
            fetched.latest_result()

        ours, theirs = best(200, lambda: get_job_status(job.id), fetch)
        compare(
            'Ask what became of a finished job',
            ('get_job_status', ours),
            ('Job.fetch + get_status + latest_result', theirs),
            '≥ 2 ×',
        )

        ids = [queued.id for queued in enqueue_background_jobs(TASK, calls)]
        many, loop = best(
            1, lambda: get_job_statuses(ids), lambda: [get_job_status(job_id) for job_id in ids]
        )
        compare(
            'Ask for 1,000 statuses',
            ('get_job_statuses', many),
            ('get_job_status in a loop', loop),
            'none',
        )


if __name__ == '__main__':
    main()
