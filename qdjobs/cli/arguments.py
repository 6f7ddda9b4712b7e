"""Convert `key=value` pairs of a command line to the call of a task."""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from qdjobs.client.call import Call, call_from_text
from qdjobs.client.hints import decode_text
from qdjobs.client.tasks import OPTION_PREFIX
from qdjobs.errors import InvalidJobError, short_repr


def read_call(path: str, pairs: Iterable[str], defaults: Mapping[str, Any]) -> Call:
    """Return the call of a task; keys that begin with `job_` are job options.

    They go before the `defaults`. A value is JSON or text, whichever fits the hint of its
    parameter. Types that JSON lacks, such as dates, are text. Raises InvalidJobError for a
    malformed or repeated pair, and as `call_from_text`.
    """
    arguments: dict[str, str] = {}
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition('=')
        if not equals or not key.isidentifier():
            raise InvalidJobError(f'{short_repr(pair)} is no argument: write key=value.')
        if key in arguments or key in options:
            raise InvalidJobError(f'{key} is given twice: which one is meant?')
        if key.startswith(OPTION_PREFIX):
            options[key] = _read_option(key, text)
        else:
            arguments[key] = text
    return call_from_text(path, arguments, {**defaults, **options})


def _read_option(key: str, text: str) -> Any:
    """Convert the options that `parse_options` does not accept as text."""
    if key == 'job_max_retries' and text.isdecimal():
        return int(text)
    if key == 'job_after':
        value = decode_text(text)
        if isinstance(value, str):
            return [job_id.strip() for job_id in value.split(',')]
        return value if isinstance(value, list) else text
    if key == 'job_meta':
        return decode_text(text)
    if key == 'job_at':
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text)
    return text
