"""The commands of `flask jobs`: enqueue, inspect and control jobs, check the set-up."""

import sys
import time
from typing import Any

import click

from qdjobs.cli.arguments import read_call
from qdjobs.cli.text import bar, describe, plain, table
from qdjobs.cli.worker import worker
from qdjobs.client.control import cancel_job, retry_job
from qdjobs.client.enqueue import enqueue_call
from qdjobs.client.json import to_json
from qdjobs.client.listing import MAX_LISTED, list_jobs
from qdjobs.client.states import ENDED
from qdjobs.client.status import STATUSES, Status, StatusName, get_job_status, wait_for_job
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobError, JobNotFoundError
from qdjobs.monitoring.doctor import Level, examine

TICK = 0.25  # seconds between two reads of a job's status
TIMED_OUT = 124  # the exit code of timeout(1)
INTERRUPTED = 130  # the exit code of a shell

_MARKS: dict[Level, tuple[str, str]] = {
    'ok': ('✓', 'green'),
    'note': ('·', 'cyan'),
    'warning': ('!', 'yellow'),
    'error': ('✗', 'red'),
}


class _Jobs(click.Group):
    """Prints every JobError in one line, and exits with code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JobError as error:
            raise click.ClickException(plain(error)) from error


@click.group(cls=_Jobs)
def jobs() -> None:
    """Enqueue, inspect and control jobs, and check the set-up."""


@jobs.command()
@click.argument('path')
@click.argument('arguments', nargs=-1, metavar='[KEY=VALUE]...')
def enqueue(path: str, arguments: tuple[str, ...]) -> None:
    """Enqueue the task of a dotted PATH, and print the id of its job.

    A value is JSON (7, true, [1, 2]) or text, whichever the task takes: 7 is text for a parameter
    that is a str. Write dates, times and durations in ISO 8601. Keys that begin with job_ are job
    options, such as job_queue=high, job_timeout=2m or job_at=2030-01-01T00:00Z.
    """
    click.echo(enqueue_call(read_call(path, arguments)).id)


@jobs.command()
@click.argument('job_id', metavar='ID')
@click.option('--json', 'as_json', is_flag=True, help='Print a JSON object.')
def status(job_id: str, as_json: bool) -> None:
    """Show the status of a job, with its result or error."""
    found = get_job_status(job_id)
    click.echo(to_json(found) if as_json else '\n'.join(describe(found)))


@jobs.command()
@click.argument('job_id', metavar='ID')
@click.option('--timeout', type=click.FloatRange(min=0), help='Wait for at most so many seconds.')
def wait(job_id: str, timeout: float | None) -> None:
    """Wait until a job has ended, and show its progress.

    Exit codes: 0 if it finished; 1 if it failed, was stopped or cancelled, or after an error; 124
    after the timeout; 130 after Ctrl-C. In the last two cases the job continues.
    """
    try:
        ended = _watch(job_id, timeout)
    except KeyboardInterrupt:
        click.echo(
            f'\nNo longer waiting; the job goes on. To end it: {_cancel_command(job_id)}', err=True
        )
        sys.exit(INTERRUPTED)
    if ended['status'] not in ENDED:
        click.echo(
            f'The time is over; the job goes on. To end it: {_cancel_command(job_id)}', err=True
        )
        sys.exit(TIMED_OUT)
    click.echo('\n'.join(describe(ended)))
    sys.exit(0 if ended['status'] == 'finished' else 1)


def _known_queue(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    queues = get_config().queues
    if name is not None and name not in queues:
        raise click.BadParameter(f'{name!r} is not one of {", ".join(queues)}.')
    return name


@jobs.command('list')
@click.option('--status', type=click.Choice(STATUSES), help='Only jobs with this status.')
@click.option('--queue', callback=_known_queue, help='Only jobs of this queue.')
@click.option(
    '--limit',
    type=click.IntRange(1, MAX_LISTED),
    default=50,
    show_default=True,
    help='The maximum number of jobs.',
)
def list_(status: StatusName | None, queue: str | None, limit: int) -> None:
    """List jobs: first the running, then the waiting, then the ended ones."""
    found = list_jobs(status, queue, limit)
    click.echo('\n'.join(table(found)) if found else 'There are none.')
    if len(found) == limit < MAX_LISTED:
        click.echo(f'There may be more: --limit {MAX_LISTED}.', err=True)


@jobs.command()
@click.argument('job_id', metavar='ID')
def cancel(job_id: str) -> None:
    """Cancel a waiting job, or stop a running one."""
    outcome = cancel_job(job_id)
    messages = {'canceled': 'It will not run.', 'stopping': 'Its worker has been told to stop it.'}
    click.echo(messages.get(outcome, f'It had ended before: {outcome}.'))


@jobs.command()
@click.argument('job_ids', metavar='ID...', nargs=-1, required=True)
def retry(job_ids: tuple[str, ...]) -> None:
    """Requeue failed, stopped or cancelled jobs.

    Exit code 1 if any of them cannot be requeued; the others are.
    """
    refused = 0
    for job_id in job_ids:
        try:
            job = retry_job(job_id)
            click.echo(f'{job.id} is queued in {plain(job.origin)}.')
        except (InvalidJobError, JobNotFoundError) as error:
            refused += 1
            click.echo(f'Error: {plain(error)}', err=True)
    sys.exit(1 if refused else 0)


@jobs.command()
def doctor() -> None:
    """Check the set-up, and say how to fix each problem. Changes nothing.

    ✓ is ok, · is a note, ! is a warning, ✗ is an error. Exit code 1 if there is any ✗.
    """
    failed = False
    for finding in examine():
        mark, colour = _MARKS[finding.level]
        click.echo(f'{click.style(mark, fg=colour)} {plain(finding.text)}')
        failed |= finding.level == 'error'
    sys.exit(1 if failed else 0)


jobs.add_command(worker)


def _watch(job_id: str, timeout: float | None) -> Status:
    """Show the job until it has ended or the time is over, and return its last status.

    Draws a bar on a terminal, else prints each change of the status.
    """
    deadline = time.monotonic() + (timeout if timeout is not None else float('inf'))
    is_terminal = sys.stdout.isatty()
    shown = ''
    while True:
        left = max(0.0, deadline - time.monotonic())
        found = wait_for_job(job_id, min(TICK, left) if shown else 0)
        line = bar(found) if is_terminal else found['status']
        if line != shown:
            click.echo(f'\r\x1b[K{line}' if is_terminal else plain(line), nl=not is_terminal)
            shown = line
        if found['status'] in ENDED or time.monotonic() >= deadline:
            if is_terminal:
                click.echo()
            return found


def _cancel_command(job_id: str) -> str:
    return f'flask jobs cancel {plain(job_id)}'
