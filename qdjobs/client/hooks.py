"""Keep and call the hooks that an application adds around its jobs, work horses and failures.

`JobQueue` registers the functions. They run in the context of their application.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, has_app_context

from qdjobs.progress import CurrentJob

if TYPE_CHECKING:
    from qdjobs.client.call import Call

_EXTENSION = 'qdjobs_hooks'  # the key of an application's Hooks in `app.extensions`

_DEF = 'write `def`, without a `yield`.'

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """An attempt that has failed, or a process that has died under a job."""

    job: CurrentJob
    error: str  # the traceback; for a death one line
    exception: BaseException | None  # None for a death, which only the worker's parent sees
    is_final: bool  # False: the job is tried again
    is_death: bool = False  # the work horse or the worker died, or was killed after a time-out


@dataclass(frozen=True)
class DoctorCheck:
    """A check of an application's own, which `flask jobs doctor` makes."""

    find_faults: Callable[[], Iterable[object] | None]
    queue: str | None  # on which a worker must be alive, if it enqueues a job

    @property
    def title(self) -> str:
        """What is so if there is no fault: the first line of the function's docstring."""
        function: Any = self.find_faults
        while isinstance(function, partial):  # whose docstring is that of its class
            function = function.func
        text: str = function.__doc__ or ''
        first = text.strip().partition('\n')[0].rstrip('.')
        return first.strip() or getattr(function, '__name__', type(function).__name__)

    def faults(self) -> Iterator[str]:
        """Each thing that is wrong, as soon as it is found; a single text is one."""
        found = self.find_faults()
        if isinstance(found, str):
            yield found
        elif found is not None:
            yield from map(str, found)


Manager = Callable[..., AbstractContextManager[Any]]


class Hooks:
    """The functions that one application has registered, each kind in its order."""

    def __init__(self) -> None:
        self._before_enqueue: list[Callable[[Call], object]] = []
        self._around_enqueue: list[Manager] = []
        self._around_job: list[Manager] = []
        self._around_horse: list[Manager] = []
        self._on_failure: list[Callable[[Failure], object]] = []
        self.doctor_checks: list[DoctorCheck] = []

    @property
    def has_any(self) -> bool:
        """Whether any function is registered: in most applications none is."""
        around = self._around_enqueue or self._around_job or self._around_horse
        return bool(self._before_enqueue or around or self._on_failure)

    def attach(self, app: Flask) -> None:
        """Have them called in the context of an application."""
        app.extensions[_EXTENSION] = self

    def add_before_enqueue(self, function: 'Callable[[Call], object]') -> None:
        self._before_enqueue.append(_called('before_enqueue', function))

    # What is around something is a generator function with one `yield`, or a function that returns
    # a context manager.

    def add_around_enqueue(self, function: 'Callable[[Sequence[Call]], Any]') -> None:
        self._around_enqueue.append(_as_manager('around_enqueue', function))

    def add_around_job(self, function: Callable[[CurrentJob], Any]) -> None:
        self._around_job.append(_as_manager('around_job', function))

    def add_around_horse(self, function: Callable[[], Any]) -> None:
        self._around_horse.append(_as_manager('around_horse', function))

    def add_on_failure(self, function: Callable[[Failure], object]) -> None:
        self._on_failure.append(_called('on_failure', function))

    def before_enqueue(self, calls: 'Sequence[Call]') -> None:
        """Pass on each call, and check what it is then. An error refuses all of them."""
        if not self._before_enqueue:
            return
        given = [call.dump_arguments() for call in calls]
        for function in self._before_enqueue:
            for call in calls:
                function(call)
        for call, dumped in zip(calls, given, strict=True):
            if call.dump_arguments() != dumped:
                call.check_arguments()

    @contextmanager
    def around_enqueue(self, calls: 'Sequence[Call]') -> Iterator[None]:
        """Pass on each call, and enqueue them inside all functions. An error refuses all calls."""
        self.before_enqueue(calls)
        with _inside(manager(calls) for manager in self._around_enqueue):
            yield

    @contextmanager
    def around_job(self, describe: Callable[[], CurrentJob]) -> Iterator[None]:
        """Run the code of a job inside all functions; an error of one is the job's error."""
        job = describe() if self._around_job else None
        with _inside(manager(job) for manager in self._around_job):
            yield

    def around_horse(self) -> AbstractContextManager[None]:
        """Return what is around the life of a work horse."""
        return _inside(manager() for manager in self._around_horse)

    def on_failure(self, describe: Callable[[], Failure]) -> None:
        """Report a failure. Errors are logged: the job has its own."""
        failure = None
        for function in self._on_failure:
            try:
                failure = failure or describe()
                function(failure)
            except (Exception, SystemExit):
                log.exception('A failure could not be reported')


def current_hooks() -> Hooks | None:
    """Return the hooks of the current application, or None if it has none or none is current."""
    hooks: Hooks | None = current_app.extensions.get(_EXTENSION) if has_app_context() else None
    return hooks if hooks is not None and hooks.has_any else None


def current_doctor_checks() -> list[DoctorCheck]:
    """Return the checks of the current application."""
    hooks: Hooks | None = current_app.extensions.get(_EXTENSION) if has_app_context() else None
    return hooks.doctor_checks if hooks is not None else []


def _called(hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that is called, whose body must then run. Raises TypeError."""
    body = inspect.unwrap(function)
    if inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body):
        raise TypeError(f'{hook}: {_name(function)} is `async`, and nothing would await it: {_DEF}')
    if inspect.isgeneratorfunction(body):
        raise TypeError(
            f'{hook}: {_name(function)} has a `yield`, so its body would not run: {_DEF}'
        )
    return function


def _as_manager(hook: str, function: Callable[..., Any]) -> Manager:
    """Return the context manager of a hook with a `yield`. Raises TypeError for another function.

    What is no function, such as a class or a `partial`, may return a context manager.
    """
    body = inspect.unwrap(function)
    if inspect.isgeneratorfunction(function):
        return contextmanager(function)
    if inspect.isroutine(body) and not inspect.isgeneratorfunction(body):
        raise TypeError(
            f'{hook}: {_name(function)} must be a generator function, `def` with one `yield` and '
            'not `async def`: what it is around runs at its `yield`.'
        )
    return function


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, '__qualname__', repr(function))


@contextmanager
def _inside(managers: Iterable[AbstractContextManager[Any]]) -> Iterator[None]:
    """Run code inside all of them. None of them can suppress an error of the code."""
    raised = None
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        try:
            yield
        except BaseException as error:
            raised = error
            raise
    if raised is not None:
        raise raised
