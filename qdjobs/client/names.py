"""Named tasks: a name for a dotted path with default options."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from flask import current_app, has_app_context

from qdjobs.client.options import FOLLOWERS, Options, check_options, parse_options
from qdjobs.client.scripts import imported_twice, script_imported_twice
from qdjobs.client.tasks import require_allowed
from qdjobs.config import JobConfig
from qdjobs.errors import InvalidJobError, UnknownNameError, short_repr

_NAME = re.compile(r'[A-Za-z0-9_-]{1,100}')  # without a dot, so that no path is ever a name


@dataclass(frozen=True)
class NamedTask:
    """The dotted path and the default options behind a name."""

    name: str
    path: str
    options: Options  # a call's own options override them

    def check(self, config: JobConfig) -> None:
        """Raise UnknownTaskError for a task outside the allowed modules, InvalidJobError for a
        queue that does not exist. Imports no task.
        """
        require_allowed(self.path, config.task_modules)
        parse_options(self.options, config)


class TaskNames:
    """The named tasks of one JobQueue."""

    def __init__(self) -> None:
        self._tasks: dict[str, NamedTask] = {}

    def add(self, task: NamedTask) -> None:
        """Add a task. Raises InvalidJobError for a bad name or option, or a name in use."""
        before = self._tasks.get(check_name(task.name))
        check_options(task.options)
        if before is not None and before.path != task.path:
            raise InvalidJobError(
                f'The name {task.name!r} is that of {before.path}: give {task.path} another one.'
            )
        self._tasks[task.name] = task

    def check(self, config: JobConfig) -> None:
        """Check every task as `NamedTask.check` does."""
        for task in self._tasks.values():
            task.check(config)

    def find(self, name: str) -> NamedTask:
        """Return the task with this name. Raises UnknownTaskError, which lists similar names."""
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownNameError(self._unknown(name)) from None

    def _unknown(self, name: str) -> str:
        """Return that there is no task of this name, and which there are."""
        words = [f'No task is named {short_repr(name)}:']
        if '.' in name:
            words.append('a task is passed by its name here, not by its dotted path, and')
        if (own := self.name_for(name)) is not None:
            near = [own]
        else:
            near = get_close_matches(name[:100], self._tasks, n=3) or sorted(self._tasks)[:20]
        words.append(f'there is {", ".join(near) or "none yet"}.')
        if (script := script_imported_twice()) is not None:
            words.append(imported_twice(script))
        return ' '.join(words)

    def resolve_followers(self, options: Options) -> Options:
        """Return options in which names of tasks that are to follow are dotted paths.

        Raises UnknownTaskError.
        """
        paths = Options()
        for option in FOLLOWERS:
            named = options.get(option)
            if isinstance(named, str) and '.' not in named:
                paths[option] = self.find(named).path
        return {**options, **paths}

    def all(self) -> list[NamedTask]:
        """Return every named task, in the order in which they were added."""
        return list(self._tasks.values())

    def name_for(self, path: str | None) -> str | None:
        """Return the first name that was added for this path, or None."""
        return next((task.name for task in self._tasks.values() if task.path == path), None)


class _JobQueue(Protocol):
    """What this needs of the extension, which imports this module."""

    def named_tasks(self) -> Sequence[NamedTask]: ...


def named_tasks() -> Sequence[NamedTask]:
    """Return the tasks that the current application has named."""
    queue: _JobQueue | None = current_app.extensions.get('job_queue') if has_app_context() else None
    return queue.named_tasks() if queue is not None else ()


def check_name(name: str) -> str:
    """Return the name. Raises InvalidJobError if it cannot be the name of a task."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidJobError(
            'The name of a task is of letters, digits, dashes and underscores, as in '
            f"@queue.task('send_email'), not {short_repr(name)}."
        )
    return name
