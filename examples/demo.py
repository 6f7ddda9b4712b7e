"""`make demo`: a server, a worker and real jobs on free ports, gone again when it ends."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from libraries.embedded_redis import embedded_redis, point_here
from libraries.job_manager import enqueue_background_job, get_job_statuses
from libraries.job_status import ENDED, Status
from libraries.svg_patterns import PATTERNS

DRAW = 'workers.svg_tasks.generate_complex_svg'
JOB_WORKER = 'libraries.job_worker.JobWorker'
WRITE_CARD = 'workers.svg_tasks.generate_postcard_svg'
SEED = 5
DEADLINE = 60.0  # seconds
COLOURS = {'started': 'cyan', 'finished': 'green', 'failed': 'red', 'scheduled': 'yellow'}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix='job-demo-') as folder, embedded_redis() as url:
        scratch = Path(folder)
        use_settings(url)
        with worker(scratch / 'worker.log'):
            jobs = enqueue_all(scratch)
            click.echo(f'{len(jobs)} jobs are queued at {url}; a worker takes them:\n')
            statuses = follow(jobs)
        show_table(jobs, statuses)
        as_expected = all(
            status['status'] == ('failed' if 'fails' in jobs[status['id']] else 'finished')
            for status in statuses
        )
        if not as_expected:
            click.echo('\nThat is not how it should end. The worker said:\n')
            click.echo((scratch / 'worker.log').read_text())
        return 0 if as_expected else 1


def use_settings(url: str) -> None:
    point_here(url)
    os.environ['JOB_TASK_MODULES'] = 'workers,examples'
    os.environ.setdefault('OUTPUT_DIR', 'output')


@contextmanager
def worker(log: Path) -> Iterator[None]:
    rq = str(Path(sys.executable).with_name('rq'))
    command = [rq, 'worker', '--worker-class', JOB_WORKER, 'high', 'default', 'low']
    with log.open('w') as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def enqueue_all(scratch: Path) -> dict[str, str]:
    """Job id → what the job is, in the order of enqueueing."""
    jobs = {}
    for queue, pattern, paper, width, height in (
        ('low', 'spiral', 'A2', 420, 594),
        *(('default', pattern, 'A4', 210, 297) for pattern in PATTERNS if pattern != 'spiral'),
        ('high', 'spiral', 'A4', 210, 297),
    ):
        job = enqueue_background_job(
            DRAW, width=width, height=height, pattern_type=pattern, seed=SEED,
            output_filename=f'demo/{pattern}-{paper}.svg', job_queue=queue,
        )  # fmt: skip
        jobs[job.id] = f'{pattern} on {paper}'
    card = enqueue_background_job(WRITE_CARD, 'Zoë', 'May your ink never run dry!', 'birthday')
    jobs[card.id] = 'a postcard'
    failing = enqueue_background_job('examples.demo_tasks.fail', 'width must be positive')
    jobs[failing.id] = 'a job that fails'
    retried = enqueue_background_job(
        'examples.demo_tasks.succeed_at_second_attempt',
        str(scratch / 'attempted'),
        job_max_retries=2,
        job_retry_delay=1,
    )
    jobs[retried.id] = 'a job that is tried twice'
    return jobs


def follow(jobs: dict[str, str]) -> list[Status]:
    """Print each job's way through its states until all have ended."""
    seen: dict[str, str] = {}
    deadline = time.monotonic() + DEADLINE
    while True:
        statuses = get_job_statuses(jobs)
        for job in statuses:
            state = job['status']
            if seen.get(job['id']) != state:
                seen[job['id']] = state
                line = f'  {time.strftime("%H:%M:%S")}  {jobs[job["id"]]:26}{job["queue"]:9}'
                click.echo(line + click.style(state, fg=COLOURS.get(state)))
        if ENDED.issuperset(seen.values()) or time.monotonic() > deadline:
            return statuses
        time.sleep(0.02)


def show_table(jobs: dict[str, str], statuses: list[Status]) -> None:
    click.echo(f'\n  {"job":26}{"queue":9}{"status":10}{"seconds":8} outcome')
    for job in statuses:
        seconds = ''
        if job['started_at'] and job['ended_at']:
            seconds = f'{(job["ended_at"] - job["started_at"]).total_seconds():.2f}'
        outcome = job['error'] or shorten(str(job['result']))
        state = click.style(f'{job["status"]:10}', fg=COLOURS.get(job['status']))
        click.echo(f'  {jobs[job["id"]]:26}{job["queue"]:9}{state}{seconds:8} {outcome}')


def shorten(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # everything that was started has been stopped on the way here
