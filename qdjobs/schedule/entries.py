"""Declare periodic jobs: in a JobQueue, or in the table PERIODIC of the module JOB_SCHEDULE.

PERIODIC = {
    'cleanup': every('1h').run('shop.tasks.cleanup', days=30),
    'report': cron('0 3 * * *', timezone='Europe/Berlin', job_queue='low').run('shop.tasks.report'),
}
"""

import importlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, ParamSpec, Unpack, cast, get_args, overload

import msgspec
from flask import Flask, current_app, has_app_context

from qdjobs.client.call import Call, call_from_python
from qdjobs.client.enqueue import Packed, pack_calls
from qdjobs.client.hooks import current_hooks
from qdjobs.client.names import check_name
from qdjobs.client.options import Duration, Options, check_options
from qdjobs.client.tasks import OPTION_PREFIX, TaskOrPath, is_own_task, path_of
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobError, UnknownTaskError, short_repr
from qdjobs.schedule.rules import Rule, make_rule

MAX_ENTRIES = 1000  # Redis serves no other client while a worker says that it serves them
TABLE = 'PERIODIC'  # its name in the module
_EXTENSION = 'qdjobs_schedule'  # the key of an application's entries in `app.extensions`
_OF_ONE_JOB = ('job_id', 'job_at', 'job_delay', 'job_after', 'job_after_failure')

log = logging.getLogger(__name__)

P = ParamSpec('P')
Overlap = Literal['skip', 'queue']


@dataclass(frozen=True)
class Periodic:
    """A call of a task that is enqueued at each tick of a rule."""

    rule: Rule
    overlap: Overlap  # what to do at a tick while the job of the one before has not ended
    path: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Options
    is_anywhere: bool = False  # in the first queue of whatever worker enqueues it

    def names(self, name: str) -> list[str]:
        """Return the names under which workers enqueue it, if `name` is its own."""
        return [_in_queue(name, q) for q in get_config().queues] if self.is_anywhere else [name]


@dataclass(frozen=True)
class When:
    """A rule and the options of its jobs: what is left to say is the call."""

    rule: Rule
    overlap: Overlap
    options: Options

    @overload
    def run(self, task: str, /, *args: Any, **kwargs: Any) -> Periodic: ...
    @overload
    def run(self, task: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Periodic: ...
    def run(self, task: TaskOrPath, /, *args: Any, **kwargs: Any) -> Periodic:
        """Return the entry that calls a task, a function or its dotted path, with these arguments.

        Raises InvalidJobError if a function does not take them; of a path, a worker says so.
        """
        if options := [name for name in kwargs if name.startswith(OPTION_PREFIX)]:
            raise InvalidJobError(f'{options[0]} is an option: pass it to every(…) or cron(…).')
        if not isinstance(task, str):
            require_callable(task, args, kwargs)
        return Periodic(self.rule, self.overlap, path_of(task), args, kwargs, self.options)


def every(interval: Duration, /, *, overlap: Overlap = 'skip', **options: Unpack[Options]) -> When:
    """Return the rule of a tick every interval: seconds, or a string such as '15m' or '1h'.

    `options` are those of each job. Raises InvalidJobError.
    """
    return make_when(interval, None, None, overlap, options)


def cron(
    line: str, /, *, timezone: str = 'UTC', overlap: Overlap = 'skip', **options: Unpack[Options]
) -> When:
    """Return the rule of a cron line, such as `0 3 * * *`, on the wall clock of a time zone.

    `options` are those of each job. Raises InvalidJobError.
    """
    return make_when(None, line, timezone, overlap, options)


def make_when(
    every: Duration | None,
    cron: str | None,
    timezone: str | None,
    overlap: str,
    options: Options,
) -> When:
    """Check all but the call. Raises InvalidJobError."""
    rule = make_rule(every, cron, timezone)
    if overlap not in get_args(Overlap):
        raise InvalidJobError(
            f"overlap must be 'skip' or 'queue', not {short_repr(overlap)}.", 'overlap'
        )
    check_options(options)
    if unfit := [name for name in _OF_ONE_JOB if name in options]:
        raise InvalidJobError(
            f'{unfit[0]} is for a single job: a periodic one is due at each tick, under an id of '
            'its own.',
            unfit[0],
        )
    return When(rule, cast(Overlap, overlap), options)


def require_callable(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Raise InvalidJobError unless a function takes these arguments, and needs no others."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(function, '__qualname__', short_repr(function))
        raise InvalidJobError(
            f'A tick would call {name} with what is given here: {error}.'
        ) from None


def attach(app: Flask, entries: Mapping[str, Periodic]) -> None:
    """Give an application its entries. Others can be added to them later."""
    app.extensions[_EXTENSION] = entries


def read_schedule() -> dict[str, Periodic]:
    """Return the entries of the current application, and of JOB_SCHEDULE, by name.

    Raises InvalidJobError, or UnknownTaskError.
    """
    own: Mapping[str, Periodic] = {}
    if has_app_context():
        own = current_app.extensions.get(_EXTENSION, own)
    module = get_config().schedule
    table = _read_table(module) if module else {}
    if twice := sorted(own.keys() & table.keys()):
        raise InvalidJobError(
            f'JOB_SCHEDULE: {module} has {twice[0]!r}, which the JobQueue has too: rename one.'
        )
    if len(own) + len(table) > MAX_ENTRIES:
        raise InvalidJobError(f'There are more than {MAX_ENTRIES} periodic jobs.')
    return {**own, **table}


def _read_table(name: str) -> dict[str, Periodic]:
    table = getattr(_import(name), TABLE, None)
    if not isinstance(table, dict) or not all(isinstance(e, Periodic) for e in table.values()):
        raise InvalidJobError(
            f"JOB_SCHEDULE: {name} needs a dict {TABLE} = {{'cleanup': every('1h').run("
            "'shop.tasks.cleanup')}, with every and cron of qdjobs.schedule."
        )
    for key in table:
        try:
            check_name(key)
        except InvalidJobError as error:
            raise InvalidJobError(f'JOB_SCHEDULE: {name}: {error}') from None
    return table


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except JobError as error:
        raise InvalidJobError(f'JOB_SCHEDULE: {name}: {error}') from error
    except (Exception, SystemExit) as error:
        raise InvalidJobError(
            f'JOB_SCHEDULE: importing {name} failed: {type(error).__name__}: {error}'
        ) from error


class Plan(msgspec.Struct, frozen=True, tag=True):
    """A checked entry as plain data, for a process that cannot make its call."""

    name: str
    rule: Rule
    overlap: Overlap
    packed: Packed  # a job of it, whose id is another at each tick
    is_own: bool = False  # a task of qdjobs itself


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An entry whose call a hook of the application has refused."""

    name: str
    error: str  # one line


def make_plans(queues: Sequence[str] = ()) -> list[Plan | Refused]:
    """Return what a worker of these queues enqueues. Raises as `read_schedule` and `plan`."""
    return plan(_place(read_schedule(), queues))


def plan(schedule: Mapping[str, Periodic]) -> list[Plan | Refused]:
    """Return the plan of each entry. Imports the modules of their tasks.

    The hook `before_enqueue` of the current application gets each call, once for all ticks; but
    not that of the outbox's relay, which is no call of the application.

    Raises InvalidJobError or UnknownTaskError, which names the entry.
    """
    calls = make_calls(schedule)
    return [_plan(name, schedule[name], call) for name, call in calls.items()]


def _plan(name: str, entry: Periodic, call: Call) -> Plan | Refused:
    is_own = is_own_task(entry.path)
    with _naming(name):
        packed = pack_calls([call])
    hooks = current_hooks()
    if hooks is not None and not is_own:
        try:
            hooks.before_enqueue([call])
            packed = pack_calls([call])
        except (Exception, SystemExit) as error:  # costs this entry only
            log.debug('before_enqueue refuses periodic job %s', name, exc_info=True)
            return Refused(name, _in_one_line(name, error))
    return Plan(name, entry.rule, entry.overlap, packed, is_own)


def _in_one_line(name: str, error: BaseException) -> str:
    said = next(iter(str(error).splitlines()), '')
    return (
        f'Periodic job {name!r} is not enqueued: before_enqueue has raised '
        f'{type(error).__name__}: {said}'
    )


def _place(schedule: Mapping[str, Periodic], queues: Sequence[str]) -> dict[str, Periodic]:
    """Put what may be anywhere into the first of these queues that the application knows.

    Under a name of that queue: a job that waits there, and that nobody runs any more, must not have
    the workers of other queues skip theirs.
    """
    known = get_config().queues
    queue = next((name for name in queues if name in known), known[0])
    placed = {}
    for name, entry in schedule.items():
        if entry.is_anywhere:
            options = Options(**entry.options)
            options['job_queue'] = queue
            placed[_in_queue(name, queue)] = replace(entry, options=options)
        else:
            placed[name] = entry
    return placed


def _in_queue(name: str, queue: str) -> str:
    return f'{name}-{queue.replace(".", "_")}'  # a job's id begins with it, and has no dot


def make_calls(schedule: Mapping[str, Periodic]) -> dict[str, Call]:
    """Return the checked call of each entry. Imports the modules of their tasks.

    Raises InvalidJobError or UnknownTaskError, which names the entry.
    """
    return {name: _make_call(name, entry) for name, entry in schedule.items()}


def _make_call(name: str, entry: Periodic) -> Call:
    with _naming(name):
        options = {**entry.options, 'job_id': name}
        return call_from_python(entry.path, entry.args, entry.kwargs, options)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Have an error name the entry."""
    try:
        yield
    except UnknownTaskError as error:
        raise UnknownTaskError(f'Periodic job {name!r}: {error}') from error
    except InvalidJobError as error:
        raise InvalidJobError(f'Periodic job {name!r}: {error}') from error
