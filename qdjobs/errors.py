"""The errors of qdjobs: one class for each way in which a caller can react."""

import reprlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import islice
from typing import Any


class _ShortRepr(reprlib.Repr):
    """Python's shortened `repr`, which reads no more of a large value than it shows.

    reprlib takes the whole `repr` of bytes and decimals, and sorts all items of dicts and sets.
    """

    _MOST_SORTED = 1000  # items
    _MOST_BYTES = 10_000  # of a Decimal in memory

    def repr_bytes(self, value: bytes, level: int) -> str:
        ends = value[: self.maxother] + value[-self.maxother :]
        return self.repr_instance(ends if len(ends) < len(value) else value, level)

    repr_bytearray = repr_bytes

    def repr_Decimal(self, value: Decimal, level: int) -> str:
        if sys.getsizeof(value) > self._MOST_BYTES:
            return 'a huge Decimal'
        return self.repr_instance(value, level)

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        if len(value) > self._MOST_SORTED:
            value = dict(islice(value.items(), self._MOST_SORTED))
        return super().repr_dict(value, level)

    def repr_set(self, value: set[Any], level: int) -> str:
        if len(value) > self._MOST_SORTED:
            value = set(islice(value, self._MOST_SORTED))
        return super().repr_set(value, level)


_short = _ShortRepr()


def short_repr(value: object) -> str:
    """Return a shortened `repr` of any value, in a time that does not grow with its size."""
    try:
        return _short.repr(value)
    except ValueError:  # an integer with more digits than Python converts
        return f'a huge {type(value).__name__}'


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn the failed import of an optional package into an error that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith('qdjobs'):
            raise
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'qdjobs[{extra}]'.", name=error.name
        ) from None


class JobError(Exception):
    """The base class of the errors of qdjobs."""


class UnknownTaskError(JobError):
    """There is no task with this name or path, or it is outside the allowed modules."""


class UnknownNameError(UnknownTaskError):
    """There is no task of this name, which a client may have chosen. Not public."""


class UnknownHereError(UnknownTaskError):
    """This version of the code has no such task, but another version may have it. Not public.

    In a rolling deploy a worker may be older than the process that enqueued a job.
    """


class UnfitHereError(TypeError):
    """This version of a task does not take these arguments, but another may do so. Not public."""


class InvalidJobError(JobError):
    """The arguments, options, data or current state of a job do not allow the call.

    `argument` is the name of the invalid argument or option, or None.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class UnknownOptionError(InvalidJobError):
    """There is no option of this name, which no client chooses. Not public."""


class JobNotFoundError(JobError):
    """There is no job with this id, or its record has expired."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        super().__init__(_not_found(job_ids))
        self.job_ids = tuple(job_ids)


def _not_found(job_ids: Sequence[Any]) -> str:
    for job_id in job_ids:
        if not isinstance(job_id, str):
            return f'The id of a job is text, not {short_repr(job_id)}: pass job.id.'
    named = ', '.join(repr(job_id) for job_id in job_ids[:5])
    more = f' and {len(job_ids) - 5} more' if len(job_ids) > 5 else ''
    return f'There is no job {named}{more}: the id is wrong, or the record has expired.'


class PermanentJobError(JobError):
    """Raised by a task to fail its job at once, since a retry would not help."""


class QueueUnavailableError(JobError):
    """Redis does not answer, or does not accept a command.

    After an enqueue whose answer was lost, the job may have been accepted under the id `job_id`:
    enqueueing it again with this `job_id` is safe. Where `job_id` is None, nothing was accepted.
    """

    def __init__(self, message: str, job_id: str | None = None) -> None:
        if job_id is not None:
            message += f' The job may have been accepted: repeat it with job_id={job_id!r}.'
        super().__init__(message)
        self.job_id = job_id


class WrongKeyError(QueueUnavailableError):
    """A key in Redis has another type than it should, which an operator has to look at. Not public.

    `key` is its name, or None.
    """

    def __init__(self, key: str | None, found: str = '') -> None:
        super().__init__(
            'A key in Redis has another type than it should. To see which: flask jobs doctor'
            if key is None
            else wrong_key(key, found)
        )
        self.key = key


def wrong_key(key: str, found: str) -> str:
    """Return what is wrong with a key that holds a `found`, and what to do about it."""
    quoted = shlex.quote(key)
    return (
        f'The key {key!r} in Redis holds a {found}, which qdjobs and RQ have not written. Look '
        f'at it: redis-cli TYPE {quoted} — and if nobody needs it: redis-cli DEL {quoted}'
    )
