"""Convert `key=value` pairs of a command line to arguments of a task and job options."""

import contextlib
import inspect
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from qdjobs.client.hints import HintCheck
from qdjobs.client.options import split_options
from qdjobs.client.tasks import Task
from qdjobs.errors import InvalidJobError, short_repr


def read_arguments(task: Task, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the keywords for `enqueue_background_job`, which checks them.

    A value is JSON or text, whichever fits the hint of its parameter. Types that JSON lacks, such
    as dates, are text. Raises InvalidJobError for a malformed or repeated pair.
    """
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition('=')
        if not equals or not key.isidentifier():
            raise InvalidJobError(f'{short_repr(pair)} is no argument: write key=value.')
        if key in given:
            raise InvalidJobError(f'{key} is given twice: which one is meant?')
        given[key] = text
    arguments, options = split_options(given)
    read = {key: _read(_check_of(task, key), text) for key, text in arguments.items()}
    for key, text in options.items():
        read[key] = _read_option(key, text)
    return read


def _check_of(task: Task, key: str) -> HintCheck | None:
    for name, parameter in task.signature.parameters.items():
        if name == key or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return task.checks.get(name)
    return None


def _read(check: HintCheck | None, text: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except ValueError:
        value = text
    if check is None or Any in check.hints:
        return value
    if not isinstance(value, str) and check.problem(value) is None:
        return value
    for candidate in (text, value):  # the text first: it keeps the digits of 1.10
        with contextlib.suppress(ValueError):  # the enqueue call reports it
            return check.read_json(candidate)
    return value


def _read_option(key: str, text: str) -> Any:
    """Convert the options that `parse_options` does not accept as text."""
    if key == 'job_max_retries' and text.isdecimal():
        return int(text)
    if key == 'job_at':
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text)
    return text
