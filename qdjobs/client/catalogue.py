"""Find every task of the allowed modules, and the one that may have been meant."""

import os
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from pathlib import Path

from qdjobs.client.names import named_tasks
from qdjobs.client.tasks import Task, import_module, public_functions, resolve_task
from qdjobs.config import get_config
from qdjobs.errors import JobError, UnknownTaskError, short_repr

_MOST_SHOWN = 5
_MOST_READ = 1000  # modules
_PUBLIC = re.compile(r'^(?:async )?def ([^\W_]\w*)', re.MULTILINE)


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


def find_by_end(name: str, paths: Sequence[str]) -> str | None:
    """Return the only path that ends so, or None. Raises UnknownTaskError for one of several."""
    matches = [path for path in paths if path.endswith(f'.{name}')]
    if len(matches) > 1:
        raise UnknownTaskError(
            f'{short_repr(name)} is the end of {len(matches)} tasks: did you mean '
            f'{any_of(matches)}?'
        )
    return matches[0] if matches else None


def similar_paths(name: str, paths: Sequence[str]) -> list[str]:
    """Return the paths whose last word is similar."""
    words = [path.rpartition('.')[2] for path in paths]
    close = get_close_matches(name[:100].rpartition('.')[2], set(words), n=2, cutoff=0.75)
    return [path for path, word in zip(paths, words, strict=True) if word in close]


def any_of(paths: Sequence[str]) -> str:
    """Return some of the paths, as words."""
    more = ' …' if len(paths) > _MOST_SHOWN else ''
    return ' or '.join(paths[:_MOST_SHOWN]) + more


def what_is_meant(path: str, error: UnknownTaskError) -> str:
    """Return the message of `error` for the path of a call, with what may have been meant.

    It reads the sources of the allowed modules and imports none: one may start a server.
    """
    for task in named_tasks():
        if task.name == path:
            return (
                f'{path!r} is a name, which queue.enqueue takes. The path of the task is '
                f'{task.path!r}.'
            )
    config = get_config()
    paths = _read_paths(config.task_modules, config.own_tasks)
    try:
        match = find_by_end(path, paths)
    except UnknownTaskError as several:
        return str(several)
    if match is not None:
        return f'{path!r} is only the end of a path: write {match!r}.'
    near = [each for each in similar_paths(path, paths) if each not in str(error)]
    return f'{error} Did you mean {any_of(near)}?' if near else str(error)


@lru_cache(maxsize=8)  # a request that is wrong may be repeated
def _read_paths(allowed: tuple[str, ...], own_tasks: frozenset[str]) -> list[str]:
    """Return the paths of the functions that the sources of the allowed modules define."""
    own_modules = {path.rpartition('.')[0] for path in own_tasks}
    found = set(own_tasks)
    for module in allowed:
        for spec in _find_specs(module):
            if spec.name not in own_modules:
                found.update(f'{spec.name}.{name}' for name in _PUBLIC.findall(_read_source(spec)))
    return sorted(found)


def _find_specs(name: str) -> Iterator[ModuleSpec]:
    """Yield where an allowed module is, and those inside it. Nothing is imported."""
    folders = None
    *above, _ = accumulate(name.split('.'), '{}.{}'.format)
    for package in above:
        if (found := PathFinder.find_spec(package, folders)) is None:
            return
        folders = found.submodule_search_locations or []
    if (spec := PathFinder.find_spec(name, folders)) is not None:
        yield from _find_inside(spec, set())


def _find_inside(spec: ModuleSpec, seen: set[str]) -> Iterator[ModuleSpec]:
    place = os.path.realpath(spec.origin or spec.name)
    if place in seen or len(seen) >= _MOST_READ:  # a folder can have a link to itself
        return
    seen.add(place)
    yield spec
    inside = list(spec.submodule_search_locations or ())
    for each in pkgutil.iter_modules(inside, f'{spec.name}.'):
        if (found := PathFinder.find_spec(each.name, inside)) is not None:
            yield from _find_inside(found, seen)


def _read_source(spec: ModuleSpec) -> str:
    if spec.origin is None or not spec.origin.endswith('.py'):
        return ''
    try:
        return Path(spec.origin).read_text(errors='replace')
    except OSError:
        return ''
