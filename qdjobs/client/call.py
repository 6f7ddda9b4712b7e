"""A call of a task as one checked value: from Python, from JSON (HTTP) or from text (shell).

Each way resolves the task once, checks each argument once and parses the options once.
"""

import pickle
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from uuid import uuid4

from qdjobs.client.catalogue import what_is_meant
from qdjobs.client.options import (
    FOLLOWER_NAMES,
    FollowerName,
    JobOptions,
    parse_options,
    unknown_option,
)
from qdjobs.client.tasks import OPTION_PREFIX, Task, TaskOrPath, resolve_task
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, UnknownTaskError, short_repr

MAX_CALLS = 5000  # jobs in one batch: Redis serves no other client meanwhile
MAX_PAIRS = 20_000  # of a job and one that it waits for, in one batch
FOLLOWER_RETRIES = 3  # of a job that follows the end of another


@dataclass(frozen=True)
class Call:
    """A checked call: what a job runs, how, and under which id."""

    task: Task
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: JobOptions
    id: str
    meta: dict[str, Any]  # plain data beside the job; hooks can add to it

    @classmethod
    def of(
        cls,
        task: Task,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: JobOptions,
        job_id: str,
    ) -> 'Call':
        """Return the call of checked arguments. Raises InvalidJobError as `Task.accept` does."""
        task.accept(args, kwargs)
        return cls(task, args, kwargs, options, job_id, deepcopy(dict(options.meta)))

    def dump_arguments(self) -> bytes:
        """Return the arguments as bytes, which change with them. Raises InvalidJobError."""
        self.task.require_plain(self.args, self.kwargs)
        return pickle.dumps((self.args, dict(self.kwargs)), protocol=4)

    def check_arguments(self) -> None:
        """Raise InvalidJobError unless the arguments, which are plain, are what the task takes."""
        self.task.unpack(self.args, self.kwargs)
        self.task.accept(self.args, self.kwargs)


def follower_call(call: Call, name: FollowerName) -> Call:
    """Return the call of the task that is to follow an end of a job, which must have one."""
    given = {'job_queue': call.options.queue, 'job_max_retries': FOLLOWER_RETRIES}
    follower = call_from_python(getattr(call.options, name), (call.id,), {}, given)
    return replace(follower, id=f'{call.id}-{name.replace("_", "-")}', meta=call.meta)


def _parse(given: Mapping[str, Any]) -> JobOptions:
    """Return the options of calls. Raises InvalidJobError, or UnknownTaskError for what follows."""
    options = parse_options(given, get_config())
    for name in FOLLOWER_NAMES:
        if (path := getattr(options, name)) is not None:
            _check_follower(path, f'{OPTION_PREFIX}{name}')
    return options


def _check_follower(path: str, option: str) -> None:
    """Check a task that is to follow the end of a job. Raises as `call_from_python`."""
    try:
        task = _resolve(path)
        task.accept(*task.pack(('7',), {}))
    except UnknownTaskError as error:
        raise UnknownTaskError(f'{option}: {error}') from error
    except InvalidJobError as error:
        raise InvalidJobError(
            f'{option}: the task gets one argument, the id of the job that has ended, as in '
            f'`def {path.rpartition(".")[2]}(ended_id: str)`. {error}',
            option,
        ) from error


def _resolve(task: TaskOrPath) -> Task:
    """Return the task of a call from Python. Raises UnknownTaskError with what may be meant."""
    try:
        return resolve_task(task)
    except UnknownTaskError as error:
        if not isinstance(task, str) or error.__cause__ is not None:  # its module is there
            raise
        raise type(error)(what_is_meant(task, error)) from None


def call_from_python(
    task_or_path: TaskOrPath,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Call:
    """Return the call of a task with Python values; `given` are the job options.

    Raises UnknownTaskError or InvalidJobError.
    """
    task = _resolve(task_or_path)
    if unknown := _option_names(kwargs):
        raise unknown_option(unknown[0])
    options = _parse(given)
    return Call.of(task, *task.pack(args, kwargs), options, options.job_id or str(uuid4()))


def call_from_json(path: str, params: Mapping[str, Any], given: Mapping[str, Any]) -> Call:
    """Return the call of a task with values from JSON, in the types of the task's hints.

    Raises UnknownTaskError, or InvalidJobError with the argument or option.
    """
    task = resolve_task(path)
    kwargs = task.read_json(params)
    options = _parse(given)
    return Call.of(task, (), kwargs, options, options.job_id or str(uuid4()))


def call_from_text(path: str, texts: Mapping[str, str], given: Mapping[str, Any]) -> Call:
    """Return the call of a task with values from text, in the types of the task's hints.

    Raises UnknownTaskError or InvalidJobError.
    """
    task = resolve_task(path)
    options = _parse(given)
    kwargs = task.read_text(texts)
    return Call.of(task, (), kwargs, options, options.job_id or str(uuid4()))


def calls_from_python(
    task_or_path: TaskOrPath, calls: Iterable[Mapping[str, Any]], given: Mapping[str, Any]
) -> tuple[str, list[Call]]:
    """Return the id of a batch, and its calls of one task with the same options.

    The ids of the calls are the batch's, followed by `-0`, `-1` … Raises UnknownTaskError or
    InvalidJobError.
    """
    task = _resolve(task_or_path)
    options = _parse(given)
    if not isinstance(calls, Iterable):
        raise InvalidJobError(f'The calls must be a list of mappings, not {short_repr(calls)}.')
    bounded = list(islice(calls, MAX_CALLS + 1))
    if len(bounded) > MAX_CALLS:
        raise InvalidJobError(f'At most {MAX_CALLS} calls go in one step: make several of them.')
    batch_id = options.job_id or str(uuid4())
    _check_parents(batch_id, len(bounded), options)
    return batch_id, [
        _member(task, number, kwargs, options, f'{batch_id}-{number}')
        for number, kwargs in enumerate(bounded)
    ]


def _check_parents(batch_id: str, calls: int, options: JobOptions) -> None:
    """Check what a batch waits for. Redis serves no other client while it notes each pair."""
    parents = len(options.after)
    if parents * calls > MAX_PAIRS:
        raise InvalidJobError(
            f'{calls} calls that wait for {parents} jobs are {calls * parents} pairs, more than '
            f'{MAX_PAIRS}: have one job wait for these, and the batch for that one.',
            'job_after',
        )
    if not {f'{batch_id}-{number}' for number in range(calls)}.isdisjoint(options.after):
        raise InvalidJobError('job_after has a job of the batch itself.', 'job_after')


def _member(
    task: Task, number: int, kwargs: Mapping[str, Any], options: JobOptions, job_id: str
) -> Call:
    """Return a call of a batch. Raises InvalidJobError with its number."""
    try:
        if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
            raise InvalidJobError('a call is a mapping of keyword arguments.')
        if unknown := _option_names(kwargs):
            raise InvalidJobError(f'{unknown[0]} is an option: pass it beside the calls.')
        return Call.of(task, *task.pack((), kwargs), options, job_id)
    except InvalidJobError as error:
        raise InvalidJobError(f'Call {number}, {short_repr(kwargs)}: {error}') from error


def _option_names(arguments: Iterable[str]) -> list[str]:
    return sorted(name for name in arguments if name.startswith(OPTION_PREFIX))
