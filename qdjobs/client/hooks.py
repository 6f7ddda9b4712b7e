"""What an application adds around its jobs: at enqueue, around each run, and after a failure.

`JobQueue` registers the functions. They run in the context of their application.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, has_app_context

from qdjobs.progress import CurrentJob

if TYPE_CHECKING:
    from qdjobs.client.call import Call

_EXTENSION = 'qdjobs_hooks'  # the key of an application's Hooks in `app.extensions`

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """An attempt that has failed, or a process that has died under a job."""

    job: CurrentJob
    error: str  # the traceback; for a death one line
    exception: BaseException | None  # None for a death, which only the worker's parent sees
    is_final: bool  # False: the job is tried again
    is_death: bool = False  # the work horse or the worker died, or was killed after a time-out


AroundJob = Callable[[CurrentJob], AbstractContextManager[Any]]


class Hooks:
    """The functions that one application has registered, each kind in its order."""

    def __init__(self) -> None:
        self._before_enqueue: list[Callable[[Call], object]] = []
        self._around_job: list[AroundJob] = []
        self._on_failure: list[Callable[[Failure], object]] = []

    def attach(self, app: Flask) -> None:
        """Have them called in the context of an application."""
        app.extensions[_EXTENSION] = self

    def add_before_enqueue(self, function: 'Callable[[Call], object]') -> None:
        self._before_enqueue.append(function)

    def add_around_job(self, function: Callable[[CurrentJob], Any]) -> None:
        """Add a generator function with one `yield`, or one that returns a context manager."""
        is_generator = inspect.isgeneratorfunction(function)
        self._around_job.append(contextmanager(function) if is_generator else function)

    def add_on_failure(self, function: Callable[[Failure], object]) -> None:
        self._on_failure.append(function)

    def before_enqueue(self, calls: 'Sequence[Call]') -> None:
        """Pass on each call. An error refuses all of them."""
        for function in self._before_enqueue:
            for call in calls:
                function(call)

    @contextmanager
    def around_job(self, describe: Callable[[], CurrentJob]) -> Iterator[None]:
        """Run the code of a job inside all functions; an error of one is the job's error."""
        raised = None
        with ExitStack() as stack:
            job = describe() if self._around_job else None
            for function in self._around_job:
                assert job is not None
                stack.enter_context(function(job))
            try:
                yield
            except BaseException as error:
                raised = error
                raise
        if raised is not None:  # a function has caught it, but the job has failed all the same
            raise raised

    def on_failure(self, describe: Callable[[], Failure]) -> None:
        """Report a failure. Errors are logged: the job has its own."""
        if not self._on_failure:
            return
        try:
            failure = describe()
            for function in self._on_failure:
                function(failure)
        except Exception:
            log.exception('A failure could not be reported')


def current_hooks() -> Hooks | None:
    """Return the hooks of the current application; outside of its context there are none."""
    return current_app.extensions.get(_EXTENSION) if has_app_context() else None
