"""The commands of `flask jobs` that read: list, show, status, wait, tasks, workers."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from qdjobs.cli.invocation import command_line
from qdjobs.cli.parameters import (
    StatusChoice,
    job_argument,
    json_option,
    queue_option,
    task_option,
)
from qdjobs.cli.selection import INTERRUPTED
from qdjobs.cli.text import align, bar, describe, describe_fully, plain, safe_json, table
from qdjobs.client.ages import Page, Wanted, list_by_age
from qdjobs.client.catalogue import TaskModule, read_task_modules
from qdjobs.client.details import Details, read_details
from qdjobs.client.listing import MAX_LISTED, MAX_SCANNED
from qdjobs.client.names import named_tasks
from qdjobs.client.status import STATUSES, Status, get_job_status, is_over, wait_for_job
from qdjobs.client.tasks import Task
from qdjobs.config import get_config
from qdjobs.monitoring.doctor import show_duration
from qdjobs.monitoring.health import WorkerHealth, read_health

TICK = 0.25  # seconds between two reads of a job's status
TIMED_OUT = 124  # the exit code of timeout(1)


@click.command('list')
@click.option('--status', type=StatusChoice(STATUSES), help='Only jobs with this status.')
@queue_option
@task_option
@click.option(
    '--limit',
    type=click.IntRange(1, MAX_LISTED),
    default=50,
    show_default=True,
    help='The maximum number of jobs.',
)
@click.option('--oldest', is_flag=True, help='The oldest first.')
@click.option('--cursor', help='The next page, as the page before names it.')
@json_option
def list_(
    status: str | None,
    queue: str | None,
    task: str | None,
    limit: int,
    oldest: bool,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List jobs, the newest first, by when they were created.

    Looks at 10,000 jobs at most. The JSON document is {"jobs": [...], "next": cursor or null}.
    Exit codes: 0; 1 after an error; 2 for a wrong option.
    """
    statuses = STATUSES if status is None else (status,)
    queues = get_config().queues if queue is None else (queue,)
    page = list_by_age(Wanted(statuses, queues, task), limit, oldest, cursor)
    if as_json:
        click.echo(safe_json({'jobs': page.jobs, 'next': page.next}))
    else:
        click.echo('\n'.join(table(page.jobs)) if page.jobs else 'There are none.')
    _tell_the_rest(page, as_json, oldest)


def _tell_the_rest(page: Page, as_json: bool, oldest: bool) -> None:
    if page.next and not as_json:
        options = click.get_current_context().params | {'cursor': page.next}
        click.echo(f'For more: {command_line("list", *_as_words(options))}', err=True)
    elif page.unread and not page.next:
        click.echo(
            f'{page.unread:,} more jobs were not looked at, only {MAX_SCANNED:,} of the '
            f'{"oldest" if oldest else "newest"}: choose with --status, --queue or --oldest.',
            err=True,
        )


def _as_words(options: dict[str, Any]) -> Iterator[str]:
    """Yield the words of a command line that mean these options."""
    for name, value in options.items():
        if value is True:
            yield f'--{name}'
        elif value is not None and value is not False:
            yield f'--{name}={value}'


@click.command()
@job_argument
@json_option
def show(job_id: str, as_json: bool) -> None:
    """Show all of a job: its arguments, and each failed attempt with its traceback.

    Of the attempts the last ten are kept. Exit codes: 0, also if the job has failed; 1 if there is
    no such job, or after another error.
    """
    found = read_details(job_id)
    click.echo(safe_json(_as_document(found)) if as_json else '\n'.join(describe_fully(found)))


def _as_document(job: Details) -> dict[str, Any]:
    attempts = [
        dict(attempt) | {'traceback': traceback}
        for attempt, traceback in zip(job.status['attempts'], job.tracebacks, strict=True)
    ]
    arguments = {'args': job.args, 'kwargs': job.kwargs, 'unreadable': job.unreadable}
    return dict(job.status) | arguments | {'attempts': attempts, 'due_at': job.due_at}


@click.command()
@job_argument
@json_option
def status(job_id: str, as_json: bool) -> None:
    """Show the status of a job, with its result or error.

    Exit codes: 0, also if the job has failed; 1 if there is no such job, or after another error.
    """
    found = get_job_status(job_id)
    click.echo(safe_json(found) if as_json else '\n'.join(describe(found)))


@click.command()
@job_argument
@click.option('--timeout', type=click.FloatRange(min=0), help='Wait for at most so many seconds.')
@json_option
def wait(job_id: str, timeout: float | None, as_json: bool) -> None:
    """Wait until a job has ended, and show its progress.

    The JSON document is the last status. Exit codes: 0 if the job finished; 1 if it failed, was
    stopped or cancelled, if the outbox refuses its row, or after an error; 124 after the timeout;
    130 after Ctrl-C. In the last two cases the job continues.
    """
    try:
        last = _watch(job_id, timeout, is_silent=as_json)
    except KeyboardInterrupt:
        _say_it_goes_on('\nNo longer waiting', job_id)
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(safe_json(last))
    if not is_over(last):
        _say_it_goes_on('The time is over', job_id)
        sys.exit(TIMED_OUT)
    if not as_json:
        click.echo('\n'.join(describe(last)))
    sys.exit(0 if last['status'] == 'finished' else 1)


def _say_it_goes_on(why: str, job_id: str) -> None:
    end = command_line('cancel', plain(job_id))
    click.echo(f'{why}; the job goes on. To end it: {end}', err=True)


def _watch(job_id: str, timeout: float | None, is_silent: bool) -> Status:
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
        if line != shown and not is_silent:
            click.echo(f'\r\x1b[K{line}' if is_terminal else plain(line), nl=not is_terminal)
        shown = line
        if is_over(found) or time.monotonic() >= deadline:
            if is_terminal and not is_silent:
                click.echo()
            return found


@click.command()
@json_option
def tasks(as_json: bool) -> None:
    """List every task: its path, signature, names in the application, and what it does.

    Exit codes: 0; 1 if a module cannot be imported, which stderr says.
    """
    modules = list(read_task_modules())
    names: dict[str, list[str]] = {}
    for named in named_tasks():
        names.setdefault(named.path, []).append(named.name)
    found = [task for module in modules for task in module.tasks]
    if as_json:
        click.echo(safe_json({'tasks': [_task_document(task, names) for task in found]}))
    else:
        for task in found:
            _print_task(task, names.get(task.path, []))
    sys.exit(1 if _print_failures(modules) else 0)


def _print_failures(modules: Sequence[TaskModule]) -> bool:
    failures = [module.error for module in modules if module.error]
    for error in failures:
        click.echo(f'Error: {plain(error)}', err=True)
    return bool(failures)


def _task_document(task: Task, names: dict[str, list[str]]) -> dict[str, Any]:
    return {
        'task': task.path,
        'names': names.get(task.path, []),
        'signature': str(task.signature),
        'summary': _summary(task),
    }


def _print_task(task: Task, names: list[str]) -> None:
    also = f'  [{", ".join(names)}]' if names else ''
    click.echo(plain(f'{task.path}{task.signature}{also}'))
    if summary := _summary(task):
        click.echo(f'    {plain(summary)}')


def _summary(task: Task) -> str:
    """Return the first line of a task's docstring, or ''."""
    return (task.function.__doc__ or '').strip().partition('\n')[0]


@click.command()
@json_option
def workers(as_json: bool) -> None:
    """List the workers: state, queues, current job, jobs done, last heartbeat.

    Exit codes: 0, also if there are none; 1 after an error.
    """
    health = read_health()
    if as_json:
        documents = [_worker_document(worker) for worker in health.workers]
        click.echo(safe_json({'workers': documents, 'paused': health.suspended}))
        return
    header = ('NAME', 'HOST', 'STATE', 'DONE', 'HEARTBEAT', 'QUEUES', 'JOB')
    rows = [_worker_row(worker) for worker in health.workers]
    click.echo('\n'.join(align([header, *rows])) if health.workers else 'There are none.')
    if health.suspended:
        click.echo(f'They are paused. To go on: {command_line("resume")}', err=True)


def _worker_row(worker: WorkerHealth) -> tuple[str, ...]:
    heartbeat = f'{show_duration(worker.silence)} ago'
    queues = ','.join(worker.queues)
    job = worker.job or '-'
    return worker.name, worker.host, worker.state, str(worker.done), heartbeat, queues, job


def _worker_document(worker: WorkerHealth) -> dict[str, Any]:
    return {
        'name': worker.name,
        'host': worker.host,
        'state': worker.state,
        'queues': worker.queues,
        'job': worker.job,
        'done': worker.done,
        'seconds_since_heartbeat': round(worker.silence, 1),
    }
