"""Named tasks for a Flask application: a name stands for a dotted path and default options.

There is no second queue here: `job_manager` enqueues.
"""

import inspect
import logging
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from flask import Flask
from rq.job import Job
from werkzeug.utils import import_string

from qdjobs.errors import InvalidJobError, UnknownTaskError, show
from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs.client.options import Options, check_options
from qdjobs.client.tasks import require_allowed
from qdjobs.config import get_settings

EXTENSION = 'job_queue'  # its name among `app.extensions`

# By its path, as components name tasks: libraries know nothing of components.
_HTTP_API = 'qdjobs.web.api.views:make_jobs_api'

_NAME = re.compile(r'[A-Za-z0-9_-]{1,100}')  # without a dot, so that no path is ever a name

P = ParamSpec('P')
F = TypeVar('F', bound=Callable[..., object])

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedTask:
    """What a name stands for."""

    name: str
    path: str  # dotted
    options: Options  # of its jobs, unless a call says otherwise

    def enqueue(self, /, *args: Any, **kwargs: Any) -> Job:
        """Raises as `enqueue_background_job` does."""
        return enqueue_background_job(self.path, *args, **(dict(self.options) | kwargs))


@dataclass(frozen=True)
class QueuedJob:
    """A job by its id. Each look at `status`, `result` or `error` asks Redis, and raises
    JobNotFoundError once the record has expired: for more than one, `get_job_status(job.id)`.
    """

    id: str

    @property
    def status(self) -> str:
        return get_job_status(self.id)['status']

    @property
    def result(self) -> Any:
        """What the task returned; None until it has finished."""
        return get_job_status(self.id)['result']

    @property
    def error(self) -> str | None:
        """Why it failed, in one line."""
        return get_job_status(self.id)['error']


class JobQueue:
    """`JobQueue(app)`, or `JobQueue()` and later `init_app(app)`.

    With a `url_prefix` and JOBS_API_TOKEN, the HTTP API of jobs stands there.
    """

    def __init__(self, app: Flask | None = None, url_prefix: str | None = None) -> None:
        self._url_prefix = url_prefix
        self._tasks: dict[str, NamedTask] = {}
        self._options: Options = {}  # of every call, see `using`
        self._has_app = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Raises UnknownTaskError for a task outside JOB_TASK_MODULES, of those named so far."""
        if EXTENSION in app.extensions:
            raise RuntimeError('This application has a JobQueue: use the one that is there.')
        self._has_app = True
        for task in self._tasks.values():
            require_allowed(task.path)
        app.extensions[EXTENSION] = self
        if self._url_prefix is not None:
            self._serve(app, self._url_prefix)

    def _serve(self, app: Flask, url_prefix: str) -> None:
        if (token := get_settings().api_token) is None:
            log.info('There is no HTTP API at %s: set JOBS_API_TOKEN to have one.', url_prefix)
            return
        make_api = import_string(_HTTP_API)
        app.register_blueprint(make_api(self, token), url_prefix=url_prefix)

    def task(self, name: str, **options: Unpack[Options]) -> Callable[[F], F]:
        """Name the function below, which stays what it is. The options are those of its jobs.

        Raises InvalidJobError for a name or option that cannot be, UnknownTaskError for a function
        that no worker would find.
        """
        _check_name(name)

        def register(function: F) -> F:
            self.add(name, _path_of(function), **options)
            return function

        return register

    def add(self, name: str, dotted_path: str, **options: Unpack[Options]) -> None:
        """Name a task that knows nothing of queues, such as those in `workers`, by its path.

        Nothing is imported before the first enqueue. Raises as `task` does.
        """
        _check_name(name)
        check_options(options)
        if self._has_app:
            require_allowed(dotted_path)
        before = self._tasks.get(name)
        if before is not None and before.path != dotted_path:
            raise InvalidJobError(
                f'The name {name!r} is that of {before.path}: give {dotted_path} another one.'
            )
        self._tasks[name] = NamedTask(name, dotted_path, options)

    @overload
    def enqueue(self, task: str, /, *args: Any, **kwargs: Any) -> QueuedJob: ...

    @overload
    def enqueue(
        self, task: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> QueuedJob: ...

    def enqueue(self, task: str | Callable[..., object], /, *args: Any, **kwargs: Any) -> QueuedJob:
        """Queue a call of a named task; keywords that begin with `job_` are options of this job.

        By the function itself instead of its name, type checkers check the arguments; options
        then go into `using`. Raises UnknownTaskError, or as `enqueue_background_job` does.
        """
        named = self.find(task if isinstance(task, str) else self._name_of(task))
        return QueuedJob(named.enqueue(*args, **(dict(self._options) | kwargs)).id)

    def using(self, **options: Unpack[Options]) -> 'JobQueue':
        """The same queue, with these options for every call: `queue.using(job_delay='5m')`."""
        check_options(options)
        other = copy(self)
        other._options = self._options | options
        return other

    def find(self, name: str) -> NamedTask:
        """The task of that name. Raises UnknownTaskError, which tells the names that are near."""
        try:
            return self._tasks[name]
        except KeyError:
            near = get_close_matches(name[:100], self._tasks, n=3) or sorted(self._tasks)[:20]
            raise UnknownTaskError(
                f'No task is named {show(name)}: there is {", ".join(near) or "none yet"}.'
            ) from None

    def name_for(self, path: str | None) -> str | None:
        """The first name that was given to the task of that path, or None."""
        return next((task.name for task in self._tasks.values() if task.path == path), None)

    def _name_of(self, function: Callable[..., object]) -> str:
        path = _path_of(function)
        if (name := self.name_for(path)) is None:
            raise UnknownTaskError(
                f"{path} has no name here: put @queue.task('…') above it, or queue.add('…', …)."
            )
        return name


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidJobError(
            'The name of a task is of letters, digits, dashes and underscores, as in '
            f"@queue.task('send_email'), not {show(name)}."
        )


def _path_of(function: Callable[..., object]) -> str:
    """The dotted path under which a worker finds a function."""
    module = getattr(function, '__module__', None)
    name = getattr(function, '__qualname__', None)
    if not module or not name or not inspect.isfunction(function):
        raise UnknownTaskError(f'{show(function)} is no function: only functions can be tasks.')
    if module == '__main__':
        raise UnknownTaskError(
            f'{name} is defined in the script that was started, which a worker cannot import: '
            'move it to a module, and start that with `flask --app` or import it.'
        )
    if not name.isidentifier() or name.startswith('_'):
        raise UnknownTaskError(
            f'{module}.{name} is nested, nameless or private: a task is a public function at the '
            'top of its module.'
        )
    return f'{module}.{name}'
