"""Check the `job_` options of a job. docs/contract.md lists them."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Literal, Protocol, TypedDict, cast, get_args

from qdjobs.client.payload import MAX_DEPTH, check_plain
from qdjobs.config import MAX_DURATION, QUEUES, JobConfig
from qdjobs.errors import InvalidJobError, UnknownOptionError, short_repr

MAX_RETRIES = 100
MAX_RETRY_DELAY = 3600.0  # seconds: the longest backoff
MAX_ID_LENGTH = 200
MAX_PARENTS = 1000  # jobs that one job waits for

_UNITS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86_400}
_DURATION = re.compile(r'(\d{1,12}(?:\.\d{1,6})?)([smhd]?)', re.ASCII)
_JOB_ID = re.compile(r'[A-Za-z0-9_-]+')  # what RQ itself accepts


Duration = int | float | str | timedelta


class HasId(Protocol):
    """An enqueued job, of RQ or of a JobQueue."""

    @property
    def id(self) -> str: ...


After = str | HasId | Sequence[str | HasId]
AfterFailure = Literal['wait', 'run', 'cancel']
FollowerName = Literal['on_success', 'on_failure']


class Options(TypedDict, total=False):
    """The job options as a caller writes them."""

    job_queue: str
    job_timeout: Duration
    job_max_retries: int
    job_retry_delay: Duration
    job_delay: Duration
    job_at: datetime
    job_after: After
    job_after_failure: AfterFailure
    job_on_success: str
    job_on_failure: str
    job_id: str
    job_result_ttl: Duration
    job_meta: Mapping[str, Any]


FOLLOWERS: tuple[Literal['job_on_success', 'job_on_failure'], ...] = (
    'job_on_success',
    'job_on_failure',
)

_KNOWN = Options.__optional_keys__

# What other job queues call options → what they are here.
_LIKE_OPTIONS = {
    'priority': "job_queue, such as job_queue='high'",
    'at_front': "job_queue, such as job_queue='high'",
    'time_limit': 'job_timeout',
    'countdown': 'job_delay',
    'eta': 'job_at',
    'depends_on': 'job_after',
    'retry': 'job_max_retries',
    'retries': 'job_max_retries',
    'max_attempts': 'job_max_retries, which is one less, since the first attempt is no retry',
    'link': 'job_on_success',
    'link_error': 'job_on_failure',
    'task_id': 'job_id',
    'result_expires': 'job_result_ttl',
}
FOLLOWER_NAMES: tuple[FollowerName, ...] = get_args(FollowerName)  # the fields of JobOptions


@dataclass(frozen=True)
class JobOptions:
    """The checked options of one job. Durations are in seconds."""

    queue: str
    timeout: int
    max_retries: int
    retry_delay: float  # before the first retry
    start_at: datetime | None  # aware, or None for now
    after: tuple[str, ...]  # the jobs that must finish first
    after_failure: AfterFailure  # what to do if one of them ends otherwise
    on_success: str | None  # the dotted path of a task that is enqueued once the job has finished
    on_failure: str | None  # the same, once it has failed
    job_id: str | None
    result_ttl: int
    failure_ttl: int
    meta: Mapping[str, Any]


def given_options(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not None among the `locals()` of a function that has them all."""
    return {name: value for name in _KNOWN if (value := variables[name]) is not None}


def like_option(name: str) -> str | None:
    """Return what another job queue's option is here, or one without its `job_`; else None."""
    bare = name.removeprefix('job_')
    return f'job_{bare}' if f'job_{bare}' in _KNOWN else _LIKE_OPTIONS.get(bare)


def unknown_option(name: str) -> UnknownOptionError:
    """Return the error for a keyword that is no option, with the one that may be meant."""
    bare = {known.removeprefix('job_'): known for known in _KNOWN}
    near = get_close_matches(name[:100].removeprefix('job_').lower(), bare, n=1, cutoff=0.7)
    if (meant := like_option(name)) is not None:
        hint = f': write {meant}. There'
    else:
        hint = f': did you mean {bare[near[0]]}? There' if near else '; there'
    return UnknownOptionError(
        f'{name} is no option of a job{hint} are {", ".join(sorted(_KNOWN))}. '
        'Arguments of a task must not begin with job_.'
    )


def check_options(given: Mapping[str, Any]) -> None:
    """Check the options of future jobs without a configuration: any queue is accepted.

    Raises as `parse_options`.
    """
    parse_options(given, None)


def parse_options(given: Mapping[str, Any], config: JobConfig | None) -> JobOptions:
    """Check and convert job options. Raises InvalidJobError, naming the option and valid values.

    `config` has the known queues and the default lifetimes.
    """
    unknown = sorted(set(given) - _KNOWN)
    if unknown:
        raise unknown_option(unknown[0])
    result_ttl = _whole_seconds(
        'job_result_ttl', given.get('job_result_ttl', config.result_ttl if config else 1)
    )
    return JobOptions(
        queue=_queue(given, config),
        timeout=_whole_seconds('job_timeout', given.get('job_timeout', '5m')),
        max_retries=_max_retries(given.get('job_max_retries', 0)),
        retry_delay=parse_duration('job_retry_delay', given.get('job_retry_delay', 10)),
        start_at=_start_at(given),
        after=_after(given),
        after_failure=_after_failure(given.get('job_after_failure', 'wait')),
        on_success=_task_path('job_on_success', given.get('job_on_success')),
        on_failure=_task_path('job_on_failure', given.get('job_on_failure')),
        job_id=_job_id(given.get('job_id')),
        result_ttl=result_ttl,
        # A long result_ttl keeps failures as long; a short one does not shorten their lifetime.
        failure_ttl=max(config.failure_ttl if config else 1, result_ttl),
        meta=_meta(given.get('job_meta', {})),
    )


def retry_delays(options: JobOptions) -> list[float]:
    """Return the seconds before each retry: exponential backoff with jitter.

    Each delay is up to a quarter shorter at random, so that jobs that failed together are not
    retried together.
    """
    return [
        round(min(options.retry_delay * 2**attempt, MAX_RETRY_DELAY) * random.uniform(0.75, 1), 3)
        for attempt in range(options.max_retries)
    ]


def _queue(given: Mapping[str, Any], config: JobConfig | None) -> str:
    name = given.get('job_queue', config.default_queue if config else '')
    if not isinstance(name, str) or (config is not None and name not in config.queues):
        known = config.queues if config is not None else QUEUES
        raise InvalidJobError(
            f'job_queue must be one of {", ".join(known)}, not {short_repr(name)}.', 'job_queue'
        )
    return name


def is_job_id(job_id: Any) -> bool:
    """Return whether this can be a job's id; other strings could name other keys in Redis."""
    return isinstance(job_id, str) and _JOB_ID.fullmatch(job_id) is not None


def _job_id(job_id: Any) -> str | None:
    if job_id is None:
        return None
    if not is_job_id(job_id) or len(job_id) > MAX_ID_LENGTH:
        raise InvalidJobError(
            f'job_id must be letters, digits, dashes and underscores, at most {MAX_ID_LENGTH}, '
            f'not {short_repr(job_id)}.',
            'job_id',
        )
    return str(job_id)


def _max_retries(retries: Any) -> int:
    if type(retries) is not int or not 0 <= retries <= MAX_RETRIES:
        raise InvalidJobError(
            f'job_max_retries must be a whole number from 0 to {MAX_RETRIES}, '
            f'not {short_repr(retries)}.',
            'job_max_retries',
        )
    return retries


def _start_at(given: Mapping[str, Any]) -> datetime | None:
    """Return when to start the job, or None for now."""
    delay, moment = given.get('job_delay'), given.get('job_at')
    if delay is not None and moment is not None:
        raise InvalidJobError('job_delay and job_at exclude each other: pass one of them.')
    if delay is not None:
        moment = datetime.now(UTC) + timedelta(seconds=parse_duration('job_delay', delay))
    elif moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
        tomorrow = f'{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%MZ}'
        raise InvalidJobError(
            'job_at must be an aware datetime, such as datetime.now(UTC) + timedelta(days=1) or, '
            f'in a shell, {tomorrow}, not {short_repr(moment)}.',
            'job_at',
        )
    if moment is None or moment <= datetime.now(UTC):
        return None
    if moment > datetime.now(UTC) + timedelta(seconds=MAX_DURATION):
        raise InvalidJobError(
            f'job_at must be within a year from now, not {moment.isoformat()}.', 'job_at'
        )
    return moment


def _after(given: Mapping[str, Any]) -> tuple[str, ...]:
    value = given.get('job_after')
    if value is None:
        return ()
    if 'job_delay' in given or 'job_at' in given:
        raise InvalidJobError('job_after excludes job_delay and job_at: pass one of them.')
    several = value if isinstance(value, (list, tuple)) else [value]
    ids = [getattr(each, 'id', each) for each in several]
    if len(ids) > MAX_PARENTS or not all(map(is_job_id, ids)):
        raise InvalidJobError(
            f'job_after must be a job, its id, or a list of up to {MAX_PARENTS} of them, not '
            f'{short_repr(value)}.',
            'job_after',
        )
    if given.get('job_id') in ids:
        raise InvalidJobError('job_after has the job_id of the job itself.', 'job_after')
    return tuple(dict.fromkeys(map(str, ids)))


def _after_failure(value: Any) -> AfterFailure:
    known = get_args(AfterFailure)
    if not isinstance(value, str) or value not in known:
        raise InvalidJobError(
            f'job_after_failure must be one of {", ".join(known)}, not {short_repr(value)}.',
            'job_after_failure',
        )
    return cast(AfterFailure, value)


def _task_path(option: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidJobError(
            f'{option} must be the dotted path of a task, not {short_repr(value)}.', option
        )
    return value


def _meta(meta: Any) -> Mapping[str, Any]:
    if not isinstance(meta, Mapping) or not all(isinstance(name, str) for name in meta):
        raise InvalidJobError(
            "job_meta must be a dict of plain data, such as {'request_id': '7'}, not "
            f'{short_repr(meta)}.',
            'job_meta',
        )
    if meta:
        check_plain(dict(meta), 'job_meta', MAX_DEPTH - 1)
    return meta


def _whole_seconds(option: str, value: Any) -> int:
    seconds = math.ceil(parse_duration(option, value, least='1 second'))
    if seconds < 1:
        raise InvalidJobError(
            f'{option} must be at least one second, not {short_repr(value)}.', option
        )
    return seconds


def parse_duration(option: str, value: Any, least: str = '0') -> float:
    """Return the seconds of a duration, such as 90 or '5m'. Raises InvalidJobError.

    Less than `least` is for the caller to refuse.
    """
    seconds: float = math.nan
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 <= seconds <= MAX_DURATION:  # also false for NaN
        raise InvalidJobError(
            f"{option} must be seconds, or a string such as '30s', '5m' or '1h', "
            f'from {least} to a year, not {short_repr(value)}.',
            option,
        )
    return float(seconds)
