"""The commands of `flask jobs` that change jobs or workers."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import click

from qdjobs.cli.arguments import read_call
from qdjobs.cli.completion import complete_task
from qdjobs.cli.names import find_task
from qdjobs.cli.parameters import (
    StatusChoice,
    jobs_argument,
    json_option,
    queue_option,
    read_seconds,
    since_option,
    task_option,
)
from qdjobs.cli.selection import Report, Selection, confirm, require_ids_or_all
from qdjobs.cli.text import safe_json
from qdjobs.client.control import (
    cancel_job,
    cancel_waiting_job,
    delete_ended_job,
    pause_workers,
    resume_workers,
    retry_job,
)
from qdjobs.client.enqueue import enqueue_call
from qdjobs.client.status import STATUSES

F = TypeVar('F', bound=Callable[..., Any])

_TERMINAL = ('failed', 'stopped', 'canceled', 'finished')
_RETRIED = _TERMINAL[:3]
_WAITING = tuple(status for status in STATUSES if status not in ('started', *_TERMINAL))


@click.command()
@click.argument('task', shell_complete=complete_task)
@click.argument('arguments', nargs=-1, metavar='[KEY=VALUE]...')
@json_option
def enqueue(task: str, arguments: tuple[str, ...], as_json: bool) -> None:
    """Enqueue a TASK, and print the id of its job.

    A task is named by its dotted path, by its name in the application, or by the end of its path
    if no other task has the same: generate_pdf. A value is JSON (7, true, [1, 2]) or text,
    whichever the task takes: 7 is text for a parameter that is a str. Write dates, times and
    durations in ISO 8601. Keys that begin with job_ are job options, such as job_queue=high,
    job_timeout=2m, job_at=2027-01-31T08:00Z or job_after=ID,ID.

    Exit codes: 0, also if a job with this job_id is already waiting or running, which stderr
    says; 1 if the task or its arguments are refused, or Redis is away; 2 for a wrong
    option.
    """
    path, options = find_task(task)
    call, began_at = read_call(path, arguments, options), datetime.now(UTC)
    job = enqueue_call(call)
    # An existing job is older, unless the clock of another machine is ahead.
    is_new = job.created_at >= began_at
    state = job.get_status(refresh=False).value
    document = {'id': job.id, 'task': path, 'queue': job.origin, 'status': state, 'new': is_new}
    click.echo(safe_json(document) if as_json else job.id)
    if not is_new and not as_json:
        click.echo(f'Job {job.id} exists already ({state}): nothing was enqueued.', err=True)


def _all_options(command: F) -> F:
    """Add the options of a command that can change all jobs of a kind."""
    for option in (
        json_option,
        click.option('--yes', is_flag=True, help='Do not ask.'),
        since_option,
        task_option,
        queue_option,
        click.option('--all', 'all_', is_flag=True, help='Every such job, after a question.'),
        jobs_argument,
    ):
        command = option(command)
    return command


@click.command()
@_all_options
@click.option('--running', is_flag=True, help='With --all: running jobs too.')
def cancel(
    job_ids: tuple[str, ...],
    all_: bool,
    queue: str | None,
    task: str | None,
    since: datetime | None,
    yes: bool,
    running: bool,
    as_json: bool,
) -> None:
    """Cancel waiting jobs, or stop running ones.

    --all means every waiting job; --since those that were created since, such as 2h or
    2026-11-01T08:00Z. Exit codes: 0, also for a job that had ended before; 1 if any job could not
    be cancelled, or after another error; 2 for a wrong option; 130 after Ctrl-C.
    """
    require_ids_or_all(job_ids, all_, queue=queue, task=task, since=since, running=running)
    statuses = (*_WAITING, 'started') if running else _WAITING
    selection = Selection(statuses, queue, task, since, 'created_at')
    if all_:
        confirm(selection, 'cancelled', yes)
    with Report(as_json, is_brief=all_) as report:
        # A job that has started meanwhile is one of the running.
        cancel_one = cancel_waiting_job if all_ and not running else cancel_job
        report.change(selection if all_ else job_ids, partial(_cancel, cancel_one))


def _cancel(cancel_one: Callable[[str], str], job_id: str) -> tuple[str, str]:
    outcome = cancel_one(job_id)
    lines = {'canceled': 'will not run', 'stopping': 'is being stopped by its worker'}
    return outcome, f'{job_id} {lines.get(outcome, f"had ended before: {outcome}")}.'


@click.command()
@_all_options
@click.option(
    '--status',
    type=StatusChoice(_TERMINAL),
    help='With --all: which jobs.',
)
def delete(
    job_ids: tuple[str, ...],
    all_: bool,
    queue: str | None,
    task: str | None,
    since: datetime | None,
    yes: bool,
    status: str | None,
    as_json: bool,
) -> None:
    """Delete jobs that have ended, with their outcome.

    --all needs a --status; --since means those that ended since, such as 2h or
    2026-11-01T08:00Z. Exit codes: 0; 1 if any job could not be deleted, or after another error;
    2 for a wrong option; 130 after Ctrl-C.
    """
    require_ids_or_all(job_ids, all_, queue=queue, task=task, since=since, status=status)
    if all_ and status is None:
        raise click.UsageError(f'--all needs --status, one of {", ".join(_TERMINAL)}.')
    selection = Selection((status or '',), queue, task, since, 'ended_at')
    if all_:
        confirm(selection, 'deleted', yes)
    with Report(as_json, is_brief=all_) as report:
        report.change(selection if all_ else job_ids, _delete)


def _delete(job_id: str) -> tuple[str, str]:
    delete_ended_job(job_id)
    return 'deleted', f'{job_id} is deleted.'


@click.command()
@_all_options
@click.option(
    '--status',
    type=click.Choice(_RETRIED),
    default='failed',
    show_default=True,
    help='With --all: which jobs.',
)
def retry(
    job_ids: tuple[str, ...],
    all_: bool,
    queue: str | None,
    task: str | None,
    since: datetime | None,
    yes: bool,
    status: str,
    as_json: bool,
) -> None:
    """Requeue failed, stopped or cancelled jobs.

    --all means every failed job; --since those that ended since, such as 2h or
    2026-11-01T08:00Z. Exit codes: 0; 1 if any job could not be requeued (the others are), or after
    another error; 2 for a wrong option; 130 after Ctrl-C.
    """
    require_ids_or_all(job_ids, all_, queue=queue, task=task, since=since)
    selection = Selection((status,), queue, task, since, 'ended_at')
    if all_:
        confirm(selection, 'requeued', yes)
    with Report(as_json, is_brief=all_) as report:
        report.change(selection if all_ else job_ids, _retry)


def _retry(job_id: str) -> tuple[str, str]:
    job = retry_job(job_id)
    outcome = str(job.get_status(refresh=False).value)
    return outcome, f'{job.id} is {outcome} in {job.origin}.'


@click.command()
@click.option(
    '--for',
    'seconds',
    metavar='DURATION',
    callback=read_seconds,
    help='Resume by themselves after so long, such as 10m.',
)
@json_option
def pause(seconds: float | None, as_json: bool) -> None:
    """Have all workers take no further job. Running jobs go on; others wait.

    Exit codes: 0; 1 if Redis is away; 2 for a wrong option.
    """
    whole = None if seconds is None else max(1, math.ceil(seconds))
    pause_workers(whole)
    if as_json:
        click.echo(safe_json({'paused': True, 'seconds': whole}))
    else:
        until = 'until they are resumed' if whole is None else f'for {whole} s'
        click.echo(f'The workers take no job {until}.')


@click.command()
@json_option
def resume(as_json: bool) -> None:
    """Have the workers take jobs again.

    Exit codes: 0, also if they were not paused; 1 if Redis is away.
    """
    was_paused = resume_workers()
    if as_json:
        click.echo(safe_json({'paused': False, 'was_paused': was_paused}))
    else:
        click.echo('The workers take jobs again.' if was_paused else 'They were not paused.')
