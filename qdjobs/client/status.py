"""What Redis holds of a job → what its caller is told. Reads leniently: anyone writes there."""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict

from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.results import Result

from qdjobs.errors import InvalidJobError
from qdjobs.client.payload import PlainSerializer, decompress
from qdjobs.client.redis import STATUS_FIELDS

# What RQ knows, what needs attention first: the running, the waiting, then what has ended.
STATUSES = (
    'started', 'queued', 'scheduled', 'deferred', 'rate_limited', 'ready_to_enqueue', 'created',
    'failed', 'stopped', 'canceled', 'finished',
)  # fmt: skip
ENDED = frozenset(('finished', 'failed', 'stopped', 'canceled'))

_MAX_TRACEBACK = 1024 * 1024  # bytes of it that are unpacked to find its last line
_MAX_ERROR = 500  # characters
_LAST_MOMENT = 253_402_300_799_000  # milliseconds: the end of the year 9999, as of datetime
_MODULE = re.compile(r'^(?:\w+\.)+(?=\w+(?::|$))')  # of an error's class


class Attempt(TypedDict):
    """One attempt that failed: when it ended (aware, UTC), on which worker, and how."""

    at: datetime
    worker: str
    error: str


class Status(TypedDict):
    """A job as its callers see it. Times are aware UTC datetimes, or None."""

    id: str
    status: str
    task: str | None
    queue: str
    result: Any
    error: str | None
    progress: dict[str, Any] | None
    attempts: list[Attempt]
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


def make_status(job_id: str, reply: Sequence[Any]) -> Status:
    """Build the status of a job from what the script `read_statuses` returned for it."""
    values, data, outcomes = reply
    fields = dict(zip(STATUS_FIELDS, values, strict=True))
    state = read_text(fields['status'])
    latest = _outcome(outcomes[0]) if outcomes else {}
    result = error = None
    if state == 'finished':
        result, error = _result(latest)
        state = 'finished' if error is None else 'failed'
    elif state in ('failed', 'stopped'):
        error = _error(latest)
    return Status(
        id=job_id,
        status=state,
        task=read_text(fields['task']) or _task_of(data),
        queue=read_text(fields['origin']),
        result=result,
        error=error,
        progress=_progress(fields['meta']),
        attempts=_attempts(outcomes),
        created_at=parse_moment(fields['created_at']),
        started_at=parse_moment(fields['started_at']),
        ended_at=parse_moment(fields['ended_at']),
    )


def read_traceback(reply: Sequence[Any]) -> str | None:
    """The traceback of the latest outcome in what `read_statuses` returned for a job, if any."""
    outcome = _outcome(reply[2][0]) if reply[2] else {}
    try:
        return _traceback(outcome) or None
    except (InvalidJobError, binascii.Error) as error:
        return f'The traceback cannot be read: {error}'


def last_line(traceback: str) -> str:
    """The line of a traceback that says what happened, such as `ValueError: too wide`."""
    lines = traceback.strip().splitlines() or ['no error was recorded']
    if lines[0].startswith('  + Exception Group Traceback'):  # drawn with a frame at the left
        lines = ['Traceback (most recent', *(line.removeprefix('  | ') for line in lines[1:])]
    starts = [n for n, line in enumerate(lines) if line.startswith('Traceback (most recent')]
    # After its indented frames stands the error, of which only the first line is told.
    after = lines[starts[-1] + 1 :] if starts else lines[-1:]
    message = next((line for line in after if line[:1].strip()), lines[-1])
    return _MODULE.sub('', message.strip())[:_MAX_ERROR]


def _outcome(entry: Sequence[Any]) -> dict[str, bytes]:
    names = entry[1][::2]
    return {read_text(name): value for name, value in zip(names, entry[1][1::2], strict=True)}


def _result(outcome: Mapping[str, bytes]) -> tuple[Any, str | None]:
    """(result, None), or (None, why it is none): a stock worker records a success all the same."""
    if (encoded := outcome.get('return_value')) is None:
        return None, None
    try:
        result = PlainSerializer.loads(b64decode(encoded))
    except (InvalidJobError, binascii.Error) as error:
        return None, f'InvalidJobError: the result of the task does not travel: {error}'
    if result == UNSERIALIZABLE_RETURN_VALUE_PAYLOAD:
        return None, 'InvalidJobError: the result of the task does not travel: return plain data.'
    return result, None


def _error(outcome: Mapping[str, bytes]) -> str:
    if outcome.get('type') == str(Result.Type.MAX_RETRIES_EXCEEDED.value).encode():
        return 'The task asked to be tried again more often than it may.'
    try:
        return last_line(_traceback(outcome))
    except (InvalidJobError, binascii.Error) as error:
        return f'The error of the job cannot be read: {error}'


def _traceback(outcome: Mapping[str, bytes]) -> str:
    packed = b64decode(outcome.get('exc_string', b''))
    return decompress(packed, _MAX_TRACEBACK).decode(errors='replace')


def _attempts(outcomes: Sequence[Any]) -> list[Attempt]:
    attempts = []
    for entry in reversed(outcomes):
        outcome = _outcome(entry)
        if 'exc_string' in outcome:
            milliseconds = min(int(entry[0].split(b'-')[0]), _LAST_MOMENT)
            attempts.append(
                Attempt(
                    at=datetime.fromtimestamp(milliseconds / 1000, UTC),
                    worker=read_text(outcome.get('worker_name')),
                    error=_error(outcome),
                )
            )
    return attempts


def _progress(meta: bytes | None) -> dict[str, Any] | None:
    try:
        progress = PlainSerializer.loads(meta).get('progress') if meta else None
    except (InvalidJobError, AttributeError):
        return None  # some other tool's metadata
    return progress if isinstance(progress, dict) else None


def _task_of(data: bytes | None) -> str | None:
    """The dotted path in a job's payload, for jobs that were enqueued by RQ itself."""
    try:
        path = PlainSerializer.loads(decompress(data))[0] if data else None
    except (InvalidJobError, TypeError, LookupError):
        return None
    return path if isinstance(path, str) else None


def parse_moment(text: bytes | None) -> datetime | None:
    """An aware datetime, or None for what is none; RQ writes UTC."""
    try:
        moment = datetime.fromisoformat(read_text(text)) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def read_text(value: Any) -> str:
    """Bytes as text, whatever they are; None is ''."""
    return value.decode(errors='replace') if value else ''
