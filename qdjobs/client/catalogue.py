"""Find every task of the allowed modules."""

import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qdjobs.client.tasks import Task, import_module, public_functions, resolve_task
from qdjobs.config import get_config
from qdjobs.errors import JobError


@dataclass(frozen=True)
class TaskModule:
    """A module of JOB_TASK_MODULES, or one inside such a package."""

    name: str
    tasks: Sequence[Task] = ()
    refused: Sequence[JobError] = ()  # for each public function that cannot be a task: why
    error: JobError | None = None  # why the module cannot be imported


def read_task_modules() -> Iterator[TaskModule]:
    """Import every module that may have tasks, and yield what it has."""
    for name in get_config().task_modules:
        yield from _read_module(name)


def _read_module(name: str) -> Iterator[TaskModule]:
    try:
        module = import_module(name, name)
    except JobError as error:
        yield TaskModule(name, error=error)
        return
    tasks: list[Task] = []
    refused: list[JobError] = []
    paths = [f'{name}.{function}' for function in public_functions(module)]
    own = get_config().own_tasks
    if not own.isdisjoint(paths):
        paths = [path for path in paths if path in own]  # the others are views, and what they use
    for path in paths:
        try:
            tasks.append(resolve_task(path))
        except JobError as error:
            refused.append(error)
    yield TaskModule(name, tasks, refused)
    for inner in pkgutil.iter_modules(getattr(module, '__path__', []), f'{name}.'):
        if not inner.name.endswith('.__main__'):  # importing it would run it
            yield from _read_module(inner.name)
