"""The Flask extension: configure an application, name tasks, mount the blueprints.

Jobs are enqueued by `enqueue_background_job`.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import click
from flask import Blueprint, Flask

from qdjobs.cli.commands import jobs
from qdjobs.client.call import Call, call_from_python
from qdjobs.client.enqueue import enqueue_call
from qdjobs.client.hooks import DoctorCheck, Failure, Hooks
from qdjobs.client.names import NamedTask, TaskNames, check_name
from qdjobs.client.options import (
    After,
    AfterFailure,
    Duration,
    Options,
    check_options,
    given_options,
    parse_options,
)
from qdjobs.client.outboxes import attach_outbox, current_outbox
from qdjobs.client.scripts import own_module
from qdjobs.client.signature import typed_enqueue
from qdjobs.client.status import StatusName, get_job_status
from qdjobs.client.tasks import RELAY_OUTBOX, TaskOrPath, defined_path, is_allowed, path_of
from qdjobs.config import JobConfig, allow_own_task, configure, read_app_config
from qdjobs.errors import UnknownTaskError, needs_extra
from qdjobs.progress import CurrentJob
from qdjobs.schedule.entries import (
    Overlap,
    Periodic,
    When,
    attach,
    every,
    make_when,
    require_callable,
)
from qdjobs.web.api.views import close_jobs_api, make_jobs_api
from qdjobs.web.problems import answer_job_errors

if TYPE_CHECKING:
    from qdjobs.outbox import JobOutbox

RELAY_INTERVAL = 5  # seconds between two looks of the workers at an outbox
EXTENSION = 'job_queue'  # the key of an application's JobQueue in `app.extensions`

F = TypeVar('F', bound=Callable[..., object])
BeforeEnqueue = TypeVar('BeforeEnqueue', bound=Callable[[Call], object])
AroundEnqueue = TypeVar('AroundEnqueue', bound=Callable[[Sequence[Call]], object])
AroundJob = TypeVar('AroundJob', bound=Callable[[CurrentJob], object])
AroundHorse = TypeVar('AroundHorse', bound=Callable[[], object])
OnFailure = TypeVar('OnFailure', bound=Callable[[Failure], object])
FindFaults = TypeVar('FindFaults', bound=Callable[[], Iterable[str] | None])


@dataclass(frozen=True)
class QueuedJob:
    """An enqueued job.

    Each of `status`, `result` and `error` reads from Redis, and raises JobNotFoundError once the
    record has expired. To read several of them at once, use `get_job_status(job.id)`.
    """

    id: str

    @property
    def status(self) -> StatusName:
        return get_job_status(self.id)['status']

    @property
    def result(self) -> Any:
        """The return value of the task; None until it has finished."""
        return get_job_status(self.id)['result']

    @property
    def error(self) -> str | None:
        """Why the job failed, in one line."""
        return get_job_status(self.id)['error']


class JobQueue:
    """Background jobs of a Flask application: `JobQueue(app)`, or `JobQueue()` and `init_app(app)`.

    Mounts the HTTP API, the dashboard and the metrics under their prefixes if their secrets are
    set: JOBS_API_TOKEN, DASHBOARD_USERNAME and DASHBOARD_PASSWORD, METRICS_TOKEN. With the prefix
    None, one is never mounted. Without its token, the API answers 401 and says what to set. With
    `db`, which is Flask-SQLAlchemy's SQLAlchemy or a JobOutbox, there is an outbox.
    """

    def __init__(
        self,
        app: Flask | None = None,
        url_prefix: str | None = '/api/jobs',
        *,
        db: Any = None,
        dashboard_prefix: str | None = '/rq',
        metrics_prefix: str | None = '/metrics',
    ) -> None:
        self._prefixes = (url_prefix, dashboard_prefix, metrics_prefix)
        self._names = TaskNames()
        self._hooks = Hooks()
        self._periodic: dict[str, Periodic] = {}  # by name
        self._options: Options = {}  # of every call; `using` sets them
        self._apps: list[tuple[Flask, JobConfig]] = []
        self._outbox: JobOutbox | None = None  # of the last application that has one
        if app is not None:
            self.init_app(app, db)

    def init_app(self, app: Flask, db: Any = None) -> None:
        """Read the application's configuration, and add commands, error handler and blueprints.

        The commands are `flask jobs`. The error handler answers JobErrors that a client or
        Redis causes. With `db` there is an outbox: call `db.init_app(app)` before.

        Raises ValueError for an invalid setting, RuntimeError for a second JobQueue,
        ModuleNotFoundError for a missing extra, UnknownTaskError for a named task outside
        JOB_TASK_MODULES.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError('This application has a JobQueue: use the one that is there.')
        with shown_by_flask():
            config = read_app_config(app.config)
            for task in self._names.all():
                config = _allow_own(app, config, task.path)
            self._names.check(config)
            blueprints = list(self._blueprints(config))  # which may lack an extra
            outbox = self._make_outbox(app, db) if db is not None else None
        self._apps.append((app, config))
        configure(app, config)
        app.extensions[EXTENSION] = self
        self._hooks.attach(app)
        periodic: Mapping[str, Periodic] = self._periodic
        if outbox is not None:
            self._outbox = outbox
            attach_outbox(app, outbox)
            periodic = ChainMap(_relay(config), self._periodic)  # which can still grow
        attach(app, periodic)
        answer_job_errors(app)
        # An application may have a command of that name already.
        app.cli.add_command(jobs, 'qdjobs' if 'jobs' in app.cli.commands else 'jobs')
        for blueprint, prefix in blueprints:
            app.register_blueprint(blueprint, url_prefix=prefix)
        if self._prefixes[0] is not None and not config.api_token:
            close_jobs_api(app, self._prefixes[0])

    def _make_outbox(self, app: Flask, db: Any) -> 'JobOutbox':
        with needs_extra('sqlalchemy'):
            from qdjobs.outbox.application import make_outbox
        return make_outbox(app, db, self.find)

    @property
    def outbox(self) -> 'JobOutbox':
        """The outbox of the current application. Raises RuntimeError if there is none."""
        outbox = cast('JobOutbox | None', current_outbox()) or self._outbox
        if outbox is None:
            raise RuntimeError(
                'This JobQueue has no outbox: make it by init_job_queue(app, db), where db is the '
                'SQLAlchemy of Flask-SQLAlchemy or a JobOutbox.'
            )
        return outbox

    def _blueprints(self, config: JobConfig) -> Iterator[tuple[Blueprint, str]]:
        """What to mount, and where. An extra is imported only if it is used."""
        api, dashboard, metrics = self._prefixes
        if api is not None and config.api_token:
            yield make_jobs_api(self._names, config.api_token), api
        if dashboard is not None and config.dashboard_login:
            from qdjobs.web.dashboard import views

            yield views.dashboard, dashboard
        if metrics is not None and config.metrics_token:
            with needs_extra('metrics'):
                from qdjobs.web.metrics import make_metrics
            yield make_metrics(config.metrics_token), metrics

    def task(
        self,
        name: str,
        *,
        every: Duration | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        overlap: Overlap | None = None,
        **options: Unpack[Options],
    ) -> Callable[[F], F]:
        """Decorate a function to name it as a task, with default job options.

        With `every='1h'`, or `cron='0 3 * * *'` and its `timezone` (UTC), workers enqueue it at
        each tick, without arguments. With `overlap='queue'` they do so even if the job of the tick
        before has not ended.

        The function itself does not change. Raises InvalidJobError for an invalid name, option or
        rule, UnknownTaskError for a function that a worker cannot import.
        """
        check_name(name)
        when = _when(every, cron, timezone, overlap, options)

        def register(function: F) -> F:
            self._add(name, defined_path(function), function, options, when)
            return function

        return register

    def add(
        self,
        name: str,
        task: TaskOrPath,
        *,
        every: Duration | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        overlap: Overlap | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Name a task by its function, or by its dotted path without importing it.

        For tasks in modules that do not import the JobQueue. Takes and raises what `task` does.
        """
        when = _when(every, cron, timezone, overlap, options)
        self._add(name, path_of(task), task, options, when)

    def _add(
        self, name: str, path: str, task: TaskOrPath, options: Options, when: When | None
    ) -> None:
        if when is not None and not isinstance(task, str):
            require_callable(task, (), {})
        named = NamedTask(name, path, options)
        for number, (app, before) in enumerate(self._apps):
            config = _allow_own(app, before, path)
            named.check(config)
            if config is not before:
                configure(app, config)
                self._apps[number] = app, config
        self._names.add(named)
        self._periodic.pop(name, None)
        if when is not None:
            self._periodic[name] = when.run(path)

    def before_enqueue(self, function: BeforeEnqueue) -> BeforeEnqueue:
        """Decorate a function that gets each Call before it becomes a job.

        It can add to `call.meta`, or raise to refuse the call; of a batch, all of it. This and the
        other hooks are called in the context of the queue's application, also for calls by
        `enqueue_background_job`.
        """
        self._hooks.add_before_enqueue(function)
        return function

    def around_enqueue(self, function: AroundEnqueue) -> AroundEnqueue:
        """Decorate a generator function in whose `yield` calls are sent to Redis.

        It gets the calls, one or a batch, after `before_enqueue`, and can add to their `meta` too.
        """
        self._hooks.add_around_enqueue(function)
        return function

    def around_job(self, function: AroundJob) -> AroundJob:
        """Decorate a generator function in whose `yield` each job of a worker runs.

        It gets the CurrentJob. The task's exception is raised at the `yield`, and fails the job
        even if it is caught there. An exception of the function itself fails the job too.
        """
        self._hooks.add_around_job(function)
        return function

    def around_horse(self, function: AroundHorse) -> AroundHorse:
        """Decorate a generator function in whose `yield` a work horse runs its jobs.

        The first half runs once the application is loaded; an error there ends the worker. The
        second half must be quick: a horse that does not end is killed. It does not run if the
        horse dies, or is killed under a job.
        """
        self._hooks.add_around_horse(function)
        return function

    def on_failure(self, function: OnFailure) -> OnFailure:
        """Decorate a function that gets each Failure, in the worker.

        That is each failed attempt, and each death of a process that ran a job. Errors of the
        function are logged.
        """
        self._hooks.add_on_failure(function)
        return function

    def doctor_check(
        self, misplaced: None = None, /, *, queue: str | None = None
    ) -> Callable[[FindFaults], FindFaults]:
        """Decorate a function that checks the set-up for `flask jobs doctor`.

        It returns, or yields, a sentence for each thing that is wrong, with what to do about it.
        The first line of its docstring says what is so if there is none. If it waits for a job,
        `queue` names that job's queue: it is called only while a worker is alive there, and must
        end within seconds all the same.
        """
        if misplaced is not None:
            raise TypeError(
                "Write @queue.doctor_check() with parentheses, and a queue as queue='low'."
            )

        def add(function: FindFaults) -> FindFaults:
            self._hooks.doctor_checks.append(DoctorCheck(function, queue))
            return function

        return add

    @typed_enqueue
    def enqueue(
        self,
        task: TaskOrPath,
        /,
        *args: Any,
        job_queue: str | None = None,
        job_timeout: Duration | None = None,
        job_max_retries: int | None = None,
        job_retry_delay: Duration | None = None,
        job_delay: Duration | None = None,
        job_at: datetime | None = None,
        job_after: After | None = None,
        job_after_failure: AfterFailure | None = None,
        job_on_success: str | None = None,
        job_on_failure: str | None = None,
        job_id: str | None = None,
        job_result_ttl: Duration | None = None,
        job_meta: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> QueuedJob:
        """Enqueue a call of a named task; keywords that begin with `job_` are job options.

        They take precedence over those of `using`, and these over those of the name; None means
        not given. The tasks of `job_on_success` and `job_on_failure` can be named too. A type
        checker checks the arguments if the function is passed instead of its name, and its options
        with `using`. Raises UnknownTaskError, or as `enqueue_background_job` does.
        """
        given = given_options(locals())
        named = self.find(task if isinstance(task, str) else self._name_of(task))
        options = Options(**{**named.options, **self._options, **given})  # type: ignore[typeddict-item]
        options = self._names.resolve_followers(options)
        call = call_from_python(named.path, args, kwargs, options)
        return QueuedJob(enqueue_call(call).id)

    def using(self, **options: Unpack[Options]) -> 'JobQueue':
        """Return this queue with options for every call: `queue.using(job_delay='5m')`."""
        check_options(options)
        for _, config in self._apps:
            parse_options(options, config)
        other = copy(self)
        other._options = self._options | options
        return other

    def find(self, name: str) -> NamedTask:
        """Return the task with this name. Raises UnknownTaskError, which lists similar names."""
        return self._names.find(name)

    def named_tasks(self) -> list[NamedTask]:
        """Return every named task, in the order in which they were added."""
        return self._names.all()

    def name_for(self, path: str | None) -> str | None:
        """Return the first name that was added for this path, or None."""
        return self._names.name_for(path)

    def _name_of(self, function: Callable[..., object]) -> str:
        path = path_of(function)
        if (name := self.name_for(path)) is None:
            raise UnknownTaskError(
                f"{path} has no name here: put @queue.task('…') above it, or queue.add('…', …)."
            )
        return name


def _allow_own(app: Flask, config: JobConfig, path: str) -> JobConfig:
    """Allow an application of one file to name tasks there, unless JOB_TASK_MODULES is set.

    Raises UnknownTaskError, or ClickException on a command line, if that lists others only.
    """
    module = path.rpartition('.')[0]
    if module != own_module(app):
        return config
    if config.own_tasks or 'JOB_TASK_MODULES' not in config.variables:
        return allow_own_task(config, path)
    if not is_allowed(path, config.task_modules):
        message = (
            f'{path!r} is outside the allowed task modules ({", ".join(config.task_modules)}). '
            'JOB_TASK_MODULES is set, so it must list this file too: '
            f'JOB_TASK_MODULES={",".join((*config.task_modules, module))}'
        )
        if click.get_current_context(silent=True) is None:
            raise UnknownTaskError(message)
        raise click.ClickException(message)  # `flask` prints it in one line
    return config


def _relay(config: JobConfig) -> dict[str, Periodic]:
    """Return the periodic job by which workers relay an outbox, each in a queue that it serves."""
    options = Options(job_queue=config.queues[0], job_timeout='2m', job_result_ttl=1)
    entry = every(RELAY_INTERVAL, **options).run(RELAY_OUTBOX)
    return {'qdjobs-outbox': replace(entry, is_anywhere=True)}


def _when(
    every: Duration | None,
    cron: str | None,
    timezone: str | None,
    overlap: Overlap | None,
    options: Options,
) -> When | None:
    """Return when a task is due, or None if it is not periodic. Raises InvalidJobError."""
    if every is None and cron is None and timezone is None and overlap is None:
        return None
    return make_when(every, cron, timezone, 'skip' if overlap is None else overlap, options)


def init_job_queue(app: Flask, db: Any = None) -> JobQueue:
    """Return `JobQueue(app, db=db)` with default prefixes.

    `db` is Flask-SQLAlchemy's SQLAlchemy, or a JobOutbox: then the queue has an outbox.
    """
    return JobQueue(app, db=db)


@contextmanager
def shown_by_flask() -> Iterator[None]:
    """Have the command line show a bad setting or a missing extra in one line.

    For whatever an application checks while it is made.
    """
    try:
        yield
    except (ValueError, ModuleNotFoundError) as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise click.ClickException(str(error)) from None  # `flask` prints it in one line
