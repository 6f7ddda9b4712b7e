"""`make demo`: run real jobs with a worker, a Valkey and a mail server, all on free ports.

Everything that it starts ends with it.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
from aiosmtpd.controller import Controller

from examples.http_client import ENDED
from examples.mail_server import ShowMails
from libraries.drawing.patterns import PATTERNS
from libraries.job_manager import (
    Status,
    enqueue_background_job,
    get_job_status,
    get_job_statuses,
)
from qdjobs.server import HOST, embedded_redis, free_port, point_here

JOB_WORKER = 'qdjobs.JobWorker'
DRAW = 'workers.svg_tasks.generate_complex_svg'
SEED = 5
DEADLINE = 300.0  # seconds, for a busy machine
COLOURS = {'started': 'cyan', 'finished': 'green', 'failed': 'red', 'scheduled': 'yellow'}


def main() -> int:
    arrived = io.StringIO()
    with tempfile.TemporaryDirectory(prefix='job-demo-') as folder, embedded_redis() as url:
        scratch = Path(folder)
        use_settings(url, scratch)
        with mail_server(arrived), worker(scratch / 'worker.log'):
            jobs = enqueue_drawings() | enqueue_others() | enqueue_failing(scratch)
            click.echo(f'{len(jobs)} jobs are queued at {url}; a worker takes them:\n')
            statuses = follow(jobs)
            show_table(jobs, statuses)
            show_mail(arrived)
            statuses.append(show_progress())
        as_expected = all(
            status['status'] == ('failed' if 'fails' in jobs.get(status['id'], '') else 'finished')
            for status in statuses
        )
        if not as_expected:
            click.echo('\nA job did not end as expected. The log of the worker:\n')
            click.echo((scratch / 'worker.log').read_text())
        return 0 if as_expected else 1


def use_settings(url: str, scratch: Path) -> None:
    """Set the environment of this process and its children; write the files that jobs read."""
    point_here(url)
    os.environ['JOB_TASK_MODULES'] = 'workers,examples'
    os.environ['UPLOAD_DIR'] = str(scratch)
    os.environ.setdefault('OUTPUT_DIR', 'output')
    (scratch / 'pens.csv').write_text('pen,width,ink\n007,0.3,"black, India"\n012,0.5,sepia\n')
    (scratch / 'broken.csv').write_text('pen,width\n007,0.3\n012\n')


@contextmanager
def mail_server(arrived: TextIO) -> Iterator[None]:
    """Run a mail server that writes each mail to `arrived`, and point SMTP_URL at it."""
    server = Controller(ShowMails(arrived), hostname=HOST, port=free_port())
    server.start()
    os.environ['SMTP_URL'] = f'smtp://{HOST}:{server.port}'
    try:
        yield
    finally:
        server.stop()


@contextmanager
def worker(log: Path) -> Iterator[None]:
    """Run a JobWorker that writes its log to `log`."""
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


def enqueue_drawings() -> dict[str, str]:
    """Enqueue one job per pattern; return descriptions by job id, in order."""
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
    return jobs


def enqueue_others() -> dict[str, str]:
    """Enqueue a postcard, a mail, a table and a report; return as enqueue_drawings does."""
    small = [{'pattern_type': name, 'width': 105, 'height': 148, 'seed': SEED} for name in PATTERNS]
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        'a postcard': (
            'workers.svg_tasks.generate_postcard_svg',
            {
                'recipient': 'Zoë',
                'message': 'May your ink never run dry!',
                'template_name': 'birthday',
            },
        ),
        'a mail': (
            'workers.email_tasks.send_notification',
            {
                'recipient': 'zoe@example.com',
                'subject': 'Your drawings are complete',
                'template': 'order_complete',
                'name': 'Zoë',
                'order_id': 7,
            },
        ),
        'a table, CSV to JSON': ('workers.data_tasks.process_file', {'file_path': 'pens.csv'}),
        'a report as PDF': (
            'workers.report_tasks.generate_report',
            {
                'report_type': 'drawings',
                'params': {'title': 'Drawings of the demo', 'drawings': small},
            },
        ),
    }
    return {
        enqueue_background_job(task, **arguments).id: what
        for what, (task, arguments) in calls.items()
    }


def enqueue_failing(scratch: Path) -> dict[str, str]:
    """Enqueue jobs that fail, in part or at first; return as enqueue_drawings does."""
    failing = enqueue_background_job('examples.demo_tasks.fail', 'width must be positive')
    retried = enqueue_background_job(
        'examples.demo_tasks.succeed_at_second_attempt',
        str(scratch / 'attempted'),
        job_max_retries=2,
        job_retry_delay=1,
    )
    batch = enqueue_background_job(
        'workers.file_tasks.process_batch', ['pens.csv', 'broken.csv'], 'convert_to_parquet'
    )
    return {
        failing.id: 'a job that fails',
        retried.id: 'a job that is tried twice',
        batch.id: 'a batch, one file fails',
    }


def follow(jobs: dict[str, str]) -> list[Status]:
    """Print each change of a job's status until all jobs have ended."""
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
        if set(ENDED).issuperset(seen.values()) or time.monotonic() > deadline:
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


def show_mail(arrived: TextIO) -> None:
    arrived.seek(0)
    click.echo('\nThe mail, as the server received it:')
    for line in arrived:
        click.echo(f'  {line.rstrip()}')


def show_progress() -> Status:
    """Run a long job and show its progress as `flask jobs wait` does."""
    drawings = [
        {
            'pattern_type': pattern,
            'width': 297,
            'height': 420,
            'seed': seed,
            'output_filename': f'demo/batch/{pattern}-{seed}.svg',
        }
        for seed in range(2)
        for pattern in PATTERNS
    ]
    job = enqueue_background_job('workers.svg_tasks.batch_generate_svgs', drawings)
    click.echo(f'\n{len(drawings)} drawings in one job, and how far it is:\n')
    live, deadline, shown = sys.stdout.isatty(), time.monotonic() + DEADLINE, ''
    while True:
        status = get_job_status(job.id)
        now = bar(status)
        if now != shown:
            click.echo(f'\r\x1b[K  {now}' if live else f'  {now}', nl=not live)
            shown = now
        if status['status'] in ENDED or time.monotonic() > deadline:
            click.echo(nl=live)
            return status
        time.sleep(0.1)


def bar(status: Status) -> str:
    """The progress of a job in one line."""
    progress = status['progress']
    if not progress or not progress['total']:
        return status['status']
    done, total, message = progress['done'], progress['total'], progress['message']
    drawn = '#' * (30 * done // total)
    return f'{status["status"]:9} [{drawn:-<30}] {done / total:4.0%}  {done}/{total} {message}'


def shorten(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # the context managers have stopped everything
