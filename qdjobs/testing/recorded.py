"""Record what is enqueued, and assert about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, overload

from qdjobs.client.enqueue import describe_call
from qdjobs.client.hints import HintCheck, ObjectCheck
from qdjobs.client.options import JobOptions, parse_options
from qdjobs.client.stand_in import using
from qdjobs.client.tasks import OPTION_PREFIX, Task, TaskOrPath, path_of, resolve_in
from qdjobs.config import known_configs
from qdjobs.errors import InvalidJobError, short_repr
from qdjobs.testing.attempt import resolving_anew
from qdjobs.testing.memory import Memory, Record

_NEAR = timedelta(seconds=1)  # between the delays of two calls that name the same


@dataclass(frozen=True)
class RecordedJob:
    """A job that was enqueued: the dotted path of its task, its arguments and its options."""

    id: str
    task: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: JobOptions
    meta: Mapping[str, Any]

    def __str__(self) -> str:
        options = self.options
        due = f', due at {options.start_at:%Y-%m-%d %H:%M:%S %Z}' if options.start_at else ''
        return f'{describe_call(self.task, self.args, self.kwargs)} in {options.queue}{due}'


class RecordedJobs(Sequence[RecordedJob]):
    """The jobs that were enqueued in a block, in their order."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def __len__(self) -> int:
        return len(self._memory.history)

    @overload
    def __getitem__(self, index: int) -> RecordedJob: ...

    @overload
    def __getitem__(self, index: slice) -> list[RecordedJob]: ...

    def __getitem__(self, index: int | slice) -> RecordedJob | list[RecordedJob]:
        found = self._memory.history[index]
        return [*map(_make, found)] if isinstance(found, list) else _make(found)

    def __repr__(self) -> str:
        return f'<{_describe(self._memory.history)}>'

    def assert_enqueued(self, task: TaskOrPath, /, *args: Any, **kwargs: Any) -> RecordedJob:
        """Return the first job of this task with these arguments and options, if there is one.

        Arguments, options and metadata that are not named can have any value. Raises
        AssertionError, which says what was enqueued instead, and these options of it;
        UnknownTaskError or InvalidJobError for a task, an argument or an option that does not
        exist.
        """
        found = self._matching(task, args, kwargs)
        if not found:
            wanted = describe_call(path_of(task), args, kwargs)
            others = _describe(self._memory.history, _options(kwargs))
            raise AssertionError(f'{wanted} was not enqueued. {others}')
        return _make(found[0])

    def refute_enqueued(self, task: TaskOrPath, /, *args: Any, **kwargs: Any) -> None:
        """Raise AssertionError if `assert_enqueued` would find a job."""
        if found := self._matching(task, args, kwargs):
            wanted = describe_call(path_of(task), args, kwargs)
            raise AssertionError(f'{wanted} was enqueued. {_describe(found)}')

    def _matching(
        self, named: TaskOrPath, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[Record]:
        path, history = path_of(named), list(self._memory.history)
        known = (record.call.task for record in history if record.call.task.path == path)
        task = next(known, None) or resolve_in(path, _task_modules())
        given = {name: kwargs[name] for name in _options(kwargs)}
        own = {name: value for name, value in kwargs.items() if name not in given}
        arguments = _bind(task, args, own, _packed)
        options, now = _parse(given, history), datetime.now(UTC)
        return [
            record
            for record in history
            if record.call.task.path == path
            and _fits(arguments, _bind(task, *record.arguments, _unchanged))
            and all(_option_fits(name, options, now, record) for name in given)
        ]


@contextmanager
def recorded_jobs() -> Iterator[RecordedJobs]:
    """Record the jobs that are enqueued in the block: nothing reaches Redis, and no task runs.

    Every check of a real enqueue happens. The status of such a job is `queued`, or `scheduled`.
    """
    memory = Memory()
    with using(memory), resolving_anew():
        yield RecordedJobs(memory)


def _task_modules() -> tuple[str, ...]:
    return tuple({module: None for config in known_configs() for module in config.task_modules})


def _parse(options: Mapping[str, Any], history: Sequence[Record]) -> JobOptions:
    """Parse the options of an assertion. Raises InvalidJobError, also for a queue nobody has."""
    queues = {queue for config in known_configs() for queue in config.queues}
    queues.update(record.call.options.queue for record in history)
    if (queue := options.get('job_queue')) is not None and queue not in queues:
        raise InvalidJobError(
            f'There is no queue {short_repr(queue)}: {", ".join(sorted(queues))}.'
        )
    return parse_options(options, None)


def _options(arguments: Iterable[str]) -> list[str]:
    return [name for name in arguments if name.startswith(OPTION_PREFIX)]


def _bind(
    task: Task,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    convert: Callable[[HintCheck | None, Any, str], Any],
) -> dict[str, Any]:
    """Return some arguments of a task by name, as they travel."""
    try:
        task.signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise InvalidJobError(f'{task.path}: {error}.') from None
    bound = {}
    for parameter, name, value in task.parameters.match(args, kwargs):
        check = task.checks.get(parameter)
        bound[name] = convert(check, value, f'{task.path}: {name}')
    return bound


def _packed(check: HintCheck | None, value: Any, where: str) -> Any:
    """Return a value of an assertion as it travels. Raises InvalidJobError if it cannot be."""
    problem = check.problem(value) if check is not None else None
    if isinstance(check, ObjectCheck):
        try:
            return check.pack(value)
        except ValueError as error:  # an object's plain form may be given instead
            problem = problem and str(error)
    if problem:
        raise InvalidJobError(f'{where}: {problem}.')
    return value


def _unchanged(_: HintCheck | None, value: Any, __: str) -> Any:
    return value


def _fits(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(name in given and given[name] == value for name, value in wanted.items())


def _option_fits(name: str, wanted: JobOptions, now: datetime, record: Record) -> bool:
    given = _option(name, record)
    if name == 'job_meta':
        return _fits(wanted.meta, given)
    if name == 'job_id':
        return bool(given == wanted.job_id)
    if name == 'job_at':
        return bool(given == wanted.start_at)
    if name == 'job_after':
        return set(wanted.after) <= set(given)
    if name == 'job_delay':
        delay = (wanted.start_at or now) - now
        return bool(abs((given or timedelta()) - delay) < _NEAR)
    return bool(given == getattr(wanted, name.removeprefix(OPTION_PREFIX)))


def _option(name: str, record: Record) -> Any:
    """Return an option of a job that was enqueued; None for no time or delay."""
    call, options = record.call, record.call.options
    if name == 'job_meta':
        return call.meta
    if name == 'job_id':
        return call.id
    if name == 'job_at':
        return options.start_at
    if name == 'job_delay':
        return options.start_at and options.start_at - record.made_at
    return getattr(options, name.removeprefix(OPTION_PREFIX))


def _make(record: Record) -> RecordedJob:
    call = record.call
    return RecordedJob(call.id, call.task.path, *record.arguments, call.options, call.meta)


def _describe(records: Sequence[Record], options: Iterable[str] = ()) -> str:
    """Return a line for each job, with those of its options that are named."""
    if not records:
        return 'Nothing was enqueued.'
    shown = [name for name in options if name != 'job_queue']  # which every line has
    lines = [
        ', '.join((f'    {_make(record)}', *(_show(name, record) for name in shown)))
        for record in records
    ]
    return '\n'.join(('Enqueued:', *lines))


def _show(name: str, record: Record) -> str:
    value = _option(name, record)
    if isinstance(value, timedelta):
        value = round(value.total_seconds())
    return f'{name}={short_repr(value)}'
