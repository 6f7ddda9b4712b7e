"""Read the status of jobs from Redis. Tolerates malformed records of other writers."""

import binascii
import re
import time
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict, get_args

from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.results import Result

from qdjobs.client.keys import compare_types
from qdjobs.client.options import is_job_id
from qdjobs.client.outboxes import current_outbox
from qdjobs.client.payload import PlainSerializer, decompress, load_plain
from qdjobs.client.redis import LUA, Script, redis_connection, redis_key
from qdjobs.client.stand_in import stand_in
from qdjobs.client.states import ENDED
from qdjobs.errors import (
    InvalidJobError,
    JobError,
    JobNotFoundError,
    WrongKeyError,
    short_repr,
)
from qdjobs.progress import META, Progress

# RQ's statuses in the order of listings: running, waiting, terminal states.
StatusName = Literal[
    'started', 'queued', 'scheduled', 'deferred', 'rate_limited', 'ready_to_enqueue', 'created',
    'failed', 'stopped', 'canceled', 'finished',
]  # fmt: skip
STATUSES: tuple[StatusName, ...] = get_args(StatusName)

# The fields of a job's hash that read_statuses.lua returns, in its order.
STATUS_FIELDS = (
    'status', 'origin', 'created_at', 'started_at', 'ended_at', 'meta', 'task', 'blocked_by',
    'worker_name', 'unknown_why',
)  # fmt: skip

_BATCH = 1000  # jobs read in one round trip; between two, Redis can serve other clients
_MAX_TRACEBACK = 1024 * 1024  # bytes of a decompressed traceback
_MAX_ERROR = 500  # characters
_META_UNFOLDED = 100_000  # bytes: each status of a job has its metadata
_LAST_MOMENT = 253_402_300_799_000  # milliseconds: the end of the year 9999, datetime's maximum
# The first lines of a traceback and of that of an exception group.
_STARTS = ('Traceback (most recent', '  + Exception Group Traceback (most recent')
_UNKNOWN = 'Waits for a worker of another version: restart the workers with the new code.'
_MODULE = re.compile(r'^(?:\w+\.)+(?=\w+(?::|$))')  # of an exception class

read_records = Script(LUA / 'read_statuses.lua')  # `make_status` reads its replies


class Attempt(TypedDict):
    """A failed attempt: when it ended (aware, UTC), its worker, and its error."""

    at: datetime
    worker: str
    error: str


class Status(TypedDict):
    """The status of a job as callers see it. Times are aware UTC datetimes, or None.

    `worker` is the name of the one that runs the job, or has run it last. `waits_for` has ids of
    jobs that a deferred one waits for: up to 100, and fewer in a list.
    """

    id: str
    status: StatusName
    task: str | None
    queue: str
    result: Any
    error: str | None
    progress: Progress | None
    meta: dict[str, Any]
    attempts: list[Attempt]
    worker: str | None
    waits_for: list[str]
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


def get_job_status(job_id: str) -> Status:
    """Return the status of a job, with its result or error. Raises JobNotFoundError."""
    return get_job_statuses([job_id])[0]


def get_job_statuses(job_ids: Iterable[str]) -> list[Status]:
    """Return the statuses of many jobs in the order of the ids, in one round trip per 1,000.

    Raises JobNotFoundError, naming all missing ids.
    """
    if isinstance(job_ids, str) or not isinstance(job_ids, Iterable):
        raise InvalidJobError('get_job_statuses takes a list of ids: for one, get_job_status.')
    wanted = list(job_ids)
    found = read_statuses(wanted)
    missing = [job_id for job_id, status in zip(wanted, found, strict=True) if status is None]
    if missing:
        raise no_such_jobs(missing)
    return [status for status in found if status is not None]


def no_such_jobs(job_ids: Sequence[str]) -> JobError:
    """Return the error for jobs that were not found. Raises QueueUnavailableError."""
    if stand_in() is None:
        keys = [redis_key('job', job_id) for job_id in filter(is_job_id, job_ids)]
        with redis_connection() as connection:
            for key, found in compare_types(connection, dict.fromkeys(keys, 'hash')):
                return WrongKeyError(key, found)
    return JobNotFoundError(job_ids)


def wait_for_job(job_id: str, timeout: float) -> Status:
    """Poll a job until it has ended or `timeout` seconds have passed, and return its status.

    A job whose row the outbox refuses is `queued` with an error, and is not waited for.

    For scripts and tests. In a web request, answer 202 and let the client poll.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise InvalidJobError(f'timeout must be seconds, not {short_repr(timeout)}.')
    deadline = time.monotonic() + timeout
    pause = 0.01
    while not is_over(status := get_job_status(job_id)):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.25)
    return status


def is_over(status: Status) -> bool:
    """Return whether a job goes no further by itself: it has ended, or the outbox refuses it."""
    is_refused = status['status'] == 'queued' and status['error'] is not None
    return status['status'] in ENDED or is_refused


def read_statuses(job_ids: Sequence[str], results: bool = True) -> list[Status | None]:
    """Return the status of each job, None for a missing one, in one round trip per 1,000 jobs.

    What Redis does not have is looked for in the outbox of the application, if it has one.
    """
    if (other := stand_in()) is not None:
        return other.read_statuses(job_ids)
    valid_ids = [job_id for job_id in job_ids if is_job_id(job_id)]
    found = _read_from_redis(valid_ids, results)
    outbox = current_outbox()
    if outbox is not None and (missing := [each for each in valid_ids if each not in found]):
        found |= outbox.read_statuses(missing)
        if missing := [each for each in missing if each not in found]:
            found |= _read_from_redis(missing, results)  # they may have become jobs in between
    return [found.get(job_id) if is_job_id(job_id) else None for job_id in job_ids]


def _read_from_redis(job_ids: Sequence[str], results: bool) -> dict[str, Status]:
    found: dict[str, Status] = {}
    rest = list(job_ids)
    with redis_connection() as connection:
        while rest:
            chunk, rest = rest[:_BATCH], rest[_BATCH:]
            replies = dict(
                zip(chunk, read_records(connection, [int(results), *chunk]), strict=True)
            )
            # Those behind large results: at least the first is read each time.
            rest = [job_id for job_id in chunk if replies[job_id] == b'later'] + rest
            found |= {
                job_id: make_status(job_id, reply)
                for job_id, reply in replies.items()
                if reply is not None and reply != b'later'
            }
    return found


def make_status(job_id: str, reply: Sequence[Any]) -> Status:
    """Return the status of a job from its reply of `read_records`."""
    values, data, outcomes, awaited = reply
    fields = dict(zip(STATUS_FIELDS, values, strict=True))
    meta = _metadata(fields['meta'])
    state = _state(read_text(fields['status']))
    latest = _outcome(outcomes[0]) if outcomes else {}
    result = error = None
    if state == 'finished':
        result, error = _result(latest)
        state = 'finished' if error is None else 'failed'
    elif state in ('failed', 'stopped'):
        error = _error(latest)
    elif state == 'canceled' and fields['blocked_by']:
        blocked_by = read_text(fields['blocked_by'])
        error = f'Canceled: job {blocked_by!r}, which had to finish first, has not.'
    elif state == 'scheduled' and fields['unknown_why']:
        error = f'{_UNKNOWN} {read_text(fields["unknown_why"])}'[:_MAX_ERROR]
    return Status(
        id=job_id,
        status=state,
        task=read_text(fields['task']) or _task_of(data),
        queue=read_text(fields['origin']),
        result=result,
        error=error,
        progress=_progress(_part(meta, 'progress')),
        meta=_public(_part(meta, META) or {}),
        attempts=_attempts(outcomes),
        worker=read_text(fields['worker_name']) or None,
        waits_for=[read_text(job_id) for job_id in awaited],
        created_at=parse_moment(fields['created_at']),
        started_at=parse_moment(fields['started_at']),
        ended_at=parse_moment(fields['ended_at']),
    )


def read_tracebacks(reply: Sequence[Any]) -> list[str | None]:
    """Return the traceback of each of the `attempts` of a job's status, in their order."""
    outcomes = map(_outcome, reversed(reply[2]))
    return [_readable_traceback(outcome) for outcome in outcomes if 'exc_string' in outcome]


def _readable_traceback(outcome: Mapping[str, bytes]) -> str | None:
    try:
        return _traceback(outcome) or None
    except (InvalidJobError, binascii.Error) as error:
        return f'The traceback cannot be read: {error}'


def last_line(traceback: str) -> str:
    """Return the line of a traceback that states the error, such as `ValueError: too wide`."""
    lines = traceback.rstrip().splitlines() or ['no error was recorded']
    starts = [n for n, line in enumerate(lines) if line.startswith(_STARTS)]
    # The error follows the indented frames; of its lines the first is enough. Those of a group
    # have a margin, and those of its members a deeper one.
    after = lines[starts[-1] + 1 :] if starts else lines[-1:]
    unmargined = (line.removeprefix('  | ') for line in after)
    message = next((line for line in unmargined if line[:1].strip()), lines[-1])
    return _MODULE.sub('', message.strip())[:_MAX_ERROR]


def _outcome(entry: Sequence[Any]) -> dict[str, bytes]:
    names = entry[1][::2]
    return {read_text(name): value for name, value in zip(names, entry[1][1::2], strict=True)}


def _result(outcome: Mapping[str, bytes]) -> tuple[Any, str | None]:
    """Return (result, None), or (None, error) if a stock worker could not serialize the result."""
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
        return 'The task requested more attempts than it may have.'
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


def _metadata(packed: bytes | None) -> Any:
    """Return RQ's metadata of a job, which any tool can have written; None if unreadable."""
    try:
        return load_plain(packed, _META_UNFOLDED) if packed else None
    except InvalidJobError:
        return None


def _part(metadata: Any, name: str) -> dict[str, Any] | None:
    part = metadata.get(name) if isinstance(metadata, dict) else None
    return part if isinstance(part, dict) else None


def _state(text: str) -> StatusName:
    """Return a record's status; for an unknown one 'created', as of jobs in no registry."""
    return text if text in STATUSES else 'created'


def _progress(part: dict[str, Any] | None) -> Progress | None:
    """Return a progress that `report_progress` may have written, else None."""
    if part is None or type(done := part.get('done')) is not int:
        return None
    total, message = part.get('total'), part.get('message')
    return Progress(
        done=done,
        total=total if type(total) is int else None,
        message=message if isinstance(message, str) else '',
    )


def _public(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a job without what is for code only, such as the trace it is of."""
    return {name: value for name, value in meta.items() if not str(name).startswith('_')}


def _task_of(data: bytes | None) -> str | None:
    """Return the dotted path in a job's payload, for jobs that RQ itself enqueued."""
    try:
        path = PlainSerializer.loads(decompress(data))[0] if data else None
    except (InvalidJobError, TypeError, LookupError):
        return None
    return path if isinstance(path, str) else None


def parse_moment(text: bytes | None) -> datetime | None:
    """Parse a time that RQ wrote, in UTC, to an aware datetime; None if it is malformed."""
    try:
        moment = datetime.fromisoformat(read_text(text)) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def due_moment(status: Status, score: Any) -> datetime | None:
    """Return when a delayed job is due, by its score among the delayed ones of its queue."""
    if status['status'] != 'scheduled' or not isinstance(score, float):
        return None
    try:
        return datetime.fromtimestamp(score, UTC)
    except (ValueError, OverflowError, OSError):  # anyone may have written it
        return None


def read_text(value: Any) -> str:
    """Decode bytes, whatever they hold; None becomes ''."""
    return value.decode(errors='replace') if value else ''
