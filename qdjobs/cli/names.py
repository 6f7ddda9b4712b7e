"""Find the task that a shell means: by its dotted path, its name in the application, or its end."""

from collections.abc import Sequence
from difflib import get_close_matches

from qdjobs.cli.invocation import command_line
from qdjobs.client.catalogue import any_of, find_by_end, read_task_modules, similar_paths
from qdjobs.client.names import named_tasks
from qdjobs.client.options import Options
from qdjobs.client.tasks import resolve_task
from qdjobs.errors import JobError, UnknownTaskError, short_repr


def find_task(name: str) -> tuple[str, Options]:
    """Return the dotted path of a task to enqueue, and its default options.

    Imports every task module if the name is no path and no name of the application. Raises
    UnknownTaskError, which says what may have been meant.
    """
    for task in named_tasks():
        if task.name == name:
            return task.path, task.options
    try:
        return resolve_task(name).path, Options()
    except UnknownTaskError as error:
        return _find_by_end(name, error), Options()


def find_path(name: str) -> str:
    """Return the dotted path of the task whose jobs are meant. Raises UnknownTaskError.

    A name with a dot can also be the path of a task that this version of the code does not have.
    """
    try:
        return find_task(name)[0]
    except JobError:
        if '.' in name:
            return name
        raise


def _find_by_end(name: str, error: UnknownTaskError) -> str:
    """Return the only task whose path ends so. Raises UnknownTaskError, as `error` for a path."""
    modules = list(read_task_modules())
    paths = sorted({task.path for module in modules for task in module.tasks})
    if (match := find_by_end(name, paths)) is not None:
        return match
    near = _similar(name, paths)
    if '.' in name:
        hint = f' Did you mean {any_of(near)}?' if near else ''
        raise UnknownTaskError(f'{error}{hint}') from error
    hint = f'did you mean {any_of(near)}?' if near else f'see {command_line("tasks")}'
    broken = ', '.join(module.name for module in modules if module.error)
    unread = f' ({broken} cannot be imported.)' if broken else ''
    raise UnknownTaskError(f'There is no task {short_repr(name)}: {hint}{unread}') from error


def _similar(name: str, paths: Sequence[str]) -> list[str]:
    """Return the paths whose last word is similar, or else the similar names of the application."""
    return similar_paths(name, paths) or get_close_matches(
        name[:100], [task.name for task in named_tasks()]
    )
