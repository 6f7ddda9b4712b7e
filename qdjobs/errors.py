"""What can go wrong between a caller and its job, one class for each thing to do about it."""

import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def short_repr(value: object) -> str:
    """The `repr` of a value for an error message: short, whatever the value is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python will write
        return f'a huge {type(value).__name__}'


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failing import of an optional package into one sentence that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith('qdjobs'):
            raise
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'qdjobs[{extra}]'.", name=error.name
        ) from None


class JobError(Exception):
    """The base of every error that the job layer raises on purpose."""


class UnknownTaskError(JobError):
    """The name or path names no task: none such, or one outside the allowed modules."""


class InvalidJobError(JobError):
    """The job cannot be accepted as asked for: arguments, options, data or its present state.

    `argument` is the name of the one argument that is at fault, where it is one.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class JobNotFoundError(JobError):
    """There is no job of that id, or what was kept of it has expired."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        named = ', '.join(repr(job_id) for job_id in job_ids[:5])
        more = f' and {len(job_ids) - 5} more' if len(job_ids) > 5 else ''
        super().__init__(
            f'There is no job {named}{more}: the id is wrong, or the record has expired.'
        )
        self.job_ids = tuple(job_ids)


class PermanentJobError(JobError):
    """Raised by a task: trying again would not help, so no further attempt is made."""


class QueueUnavailableError(JobError):
    """Redis does not answer or does not accept.

    After an enqueue `job_id` is the id under which the job may have been accepted all the
    same; to enqueue again with it as `job_id` is safe.
    """

    def __init__(self, message: str, job_id: str | None = None) -> None:
        if job_id is not None:
            message += f' The job may have been accepted: repeat it with job_id={job_id!r}.'
        super().__init__(message)
        self.job_id = job_id
