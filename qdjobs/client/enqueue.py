"""Turn checked calls into jobs, and enqueue them in one atomic step."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any
from uuid import uuid4

import msgspec
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from qdjobs.client.job import job_class
from qdjobs.client.options import JobOptions, parse_options, retry_delays, split_options
from qdjobs.client.payload import PlainSerializer, dump_checked
from qdjobs.client.redis import LUA, Script, redis_connection
from qdjobs.client.tasks import Task, resolve_task
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, short_repr

MAX_CALLS = 5000  # jobs in one batch: Redis serves no other client meanwhile
# What RQ raises for a malformed record of a job.
RECORD_ERRORS = (NoSuchJobError, ValueError, TypeError, LookupError, AttributeError)
_FIELDS_PER_JOB = ('data', 'description', 'retry_intervals')  # not shared by the jobs of a batch

_script = Script(LUA / 'enqueue.lua')


def enqueue_background_job(dotted_path: str, /, *args: Any, **kwargs: Any) -> Job:
    """Check a call and enqueue it as a job, in one round trip.

    `dotted_path` names a public function of an allowed module. Keywords that begin with `job_`
    are job options (README.md lists them); all others are passed to the task unchanged.
    Returns the job. If a job with this `job_id` is already waiting or running, returns that one.

    Raises UnknownTaskError or InvalidJobError before anything is written, QueueUnavailableError,
    with the id to repeat the call under, if Redis does not answer or accept.
    """
    arguments, given = split_options(kwargs)
    task = resolve_task(dotted_path)
    options = parse_options(given, get_config())
    task.check(args, arguments)
    job_id = options.job_id or str(uuid4())
    return _enqueue(task, options, [(job_id, args, arguments)], job_id)[0]


def enqueue_background_jobs(
    dotted_path: str, calls: Iterable[Mapping[str, Any]], /, **job_options: Any
) -> list[Job]:
    """Enqueue many calls of one task in one round trip: all of them, or none.

    `calls` are at most 5,000 mappings of keyword arguments. The jobs share their options. Their
    ids are `job_id`, or a new id, followed by `-0`, `-1` … in the order of the calls. Repeating
    the batch with the same `job_id` adds no duplicates. Raises as `enqueue_background_job`.
    """
    task = resolve_task(dotted_path)
    options = parse_options(job_options, get_config())
    batch_id = options.job_id or str(uuid4())
    batch = [
        (f'{batch_id}-{number}', (), call) for number, call in enumerate(_check_calls(task, calls))
    ]
    return _enqueue(task, options, batch, batch_id) if batch else []


def _check_calls(task: Task, calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the keyword arguments of each call. Raises InvalidJobError for the first bad one."""
    if not isinstance(calls, Iterable):
        raise InvalidJobError(f'The calls must be a list of mappings, not {short_repr(calls)}.')
    bounded = list(islice(calls, MAX_CALLS + 1))
    if len(bounded) > MAX_CALLS:
        raise InvalidJobError(f'At most {MAX_CALLS} calls go in one step: make several of them.')
    return [_check_call(task, number, call) for number, call in enumerate(bounded)]


def _check_call(task: Task, number: int, call: Mapping[str, Any]) -> dict[str, Any]:
    try:
        if not isinstance(call, Mapping) or not all(isinstance(name, str) for name in call):
            raise InvalidJobError('a call is a mapping of keyword arguments.')
        arguments, options = split_options(call)
        if options:
            raise InvalidJobError(f'{min(options)} is an option: pass it beside the calls.')
        task.check((), arguments)
    except InvalidJobError as error:
        raise InvalidJobError(f'Call {number}, {short_repr(call)}: {error}') from error
    return arguments


def _enqueue(
    task: Task,
    options: JobOptions,
    calls: Sequence[tuple[str, tuple[Any, ...], dict[str, Any]]],
    repeat_id: str,
) -> list[Job]:
    with redis_connection(repeat_id) as connection:
        kind = job_class(get_config().key_prefix)
        jobs = [_make_job(kind(call[0], connection), task, options, call) for call in calls]
        shared = ['task', task.path]
        for field, value in jobs[0].to_dict().items():
            if field not in _FIELDS_PER_JOB and value != '':
                shared += (field, str(value) if type(value) is int else value)
        score = '' if options.start_at is None else str(math.ceil(options.start_at.timestamp()))
        ids, descriptions = [job.id for job in jobs], [job.description for job in jobs]
        # Delays are random for each job: jobs enqueued together must not be retried together.
        delays = [json.dumps(job.retry_intervals) if job.retry_intervals else None for job in jobs]
        request = msgspec.msgpack.encode((options.queue, score, shared, ids, descriptions, delays))
        data = [zlib.compress(job.data) for job in jobs]
        replies = _script(connection, [request, *data])
    for job, existing in zip(jobs, replies, strict=True):
        if existing:
            load_fields(job, existing)
    return jobs


def load_fields(job: Job, reply: list[bytes]) -> None:
    """Set the fields of a job from its hash, as HGETALL replies. Raises InvalidJobError."""
    try:
        job.restore(dict(zip(reply[::2], reply[1::2], strict=True)))
    except RECORD_ERRORS as error:
        raise InvalidJobError(f'The record of job {job.id!r} cannot be read.') from error


def _make_job(
    job: Job, task: Task, options: JobOptions, call: tuple[str, tuple[Any, ...], dict[str, Any]]
) -> Job:
    """Fill in a new job."""
    _, args, kwargs = call
    job.serializer = PlainSerializer  # if it were an argument, RQ would inspect it for each job
    job.data = dump_checked((task.path, None, args, kwargs))
    job.description = _describe(task.path, args, kwargs)
    job.origin = options.queue
    job.timeout = options.timeout
    job.result_ttl = options.result_ttl
    job.failure_ttl = options.failure_ttl
    job._status = JobStatus.SCHEDULED if options.start_at else JobStatus.QUEUED
    job.enqueued_at = None if options.start_at else job.created_at
    if options.max_retries:
        job.retries_left = options.max_retries
        job.retry_intervals = retry_delays(options)  # type: ignore[assignment]  # RQ takes floats
    return job


def _describe(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the call in one short line, for logs and the dashboard."""
    shown = [short_repr(value) for value in args[:10]]
    shown += [f'{name}={short_repr(value)}' for name, value in islice(kwargs.items(), 10)]
    return f'{path}({", ".join(shown)})'.encode(errors='backslashreplace').decode()
