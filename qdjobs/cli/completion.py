"""Complete ids of recent jobs, tasks and queues after Tab. Offers nothing if Redis is away."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import wraps

import click
from click.shell_completion import CompletionItem
from flask.cli import ScriptInfo

from qdjobs.cli.text import plain
from qdjobs.client.ages import Wanted, list_by_age
from qdjobs.client.catalogue import read_task_modules
from qdjobs.client.names import named_tasks
from qdjobs.client.status import STATUSES
from qdjobs.config import get_config
from qdjobs.errors import JobError

_RECENT = 100  # jobs that are offered

_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completes(offer: Callable[[click.Context], Iterator[CompletionItem]]) -> _Complete:
    """Make a completion of what it offers: what begins as the word does, in the application."""

    @wraps(offer)
    def complete(
        context: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        # A shell reads the completions from stdout, to which a module may write at its import.
        # `flask` has left the context of the application in which it has found the command.
        app = context.ensure_object(ScriptInfo).load_app()
        with redirect_stdout(sys.stderr), app.app_context():
            try:
                items = list(offer(context))
            except (JobError, ValueError):  # Redis is away, or a setting is wrong
                return []
        return [item for item in items if str(item.value).startswith(incomplete)]

    return complete


@_completes
def complete_job(context: click.Context) -> Iterator[CompletionItem]:
    """Offer the newest jobs, but those that the command names already."""
    named = context.params.get('job_ids') or ()
    config = get_config()
    for job in list_by_age(Wanted(STATUSES, config.queues), _RECENT, oldest_first=False).jobs:
        if job['id'] not in named:
            task = (job['task'] or '?').rpartition('.')[2]
            yield CompletionItem(job['id'], help=plain(f'{job["status"]} {task}'))


@_completes
def complete_queue(_: click.Context) -> Iterator[CompletionItem]:
    for name in get_config().queues:
        yield CompletionItem(name)


@_completes
def complete_task(_: click.Context) -> Iterator[CompletionItem]:
    """Offer the names of the application, the path of every task, and its last word if unique."""
    names = {named.name: named.path for named in named_tasks()}
    paths = sorted({task.path for module in read_task_modules() for task in module.tasks})
    words = Counter(path.rpartition('.')[2] for path in paths)
    for path in paths:
        word = path.rpartition('.')[2]
        if words[word] == 1:
            names.setdefault(word, path)
    for name, path in names.items():
        yield CompletionItem(name, help=path)
    yield from map(CompletionItem, paths)
