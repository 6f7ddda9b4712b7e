"""Let a task check its arguments beyond its hints, when it is enqueued."""

import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec('P')
R = TypeVar('R')

_CHECK = '__qdjobs_check__'


def checked_by(check: Callable[P, object]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a task with a check of its arguments, which runs in the process that enqueues.

    `check` has the task's parameters. Whatever it raises refuses the call with an InvalidJobError,
    which is shown to callers. The task itself does not change: a worker does not call the check.
    """

    if inspect.iscoroutinefunction(check):
        raise TypeError(f'{check.__name__} is a coroutine, which nobody would wait for.')

    def mark(task: Callable[P, R]) -> Callable[P, R]:
        setattr(task, _CHECK, check)
        return task

    return mark


def own_check(task: Callable[..., object]) -> Callable[..., object] | None:
    """Return the check that `checked_by` has given a task, or None."""
    return getattr(task, _CHECK, None)
