"""Turn checked calls into jobs, and enqueue them in one atomic step."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from qdjobs.client.call import Call, call_from_python, calls_from_python
from qdjobs.client.hooks import current_hooks
from qdjobs.client.job import job_class
from qdjobs.client.options import After, Duration, given_options, retry_delays
from qdjobs.client.payload import (
    MAX_DEPTH,
    PlainSerializer,
    check_plain,
    dump_checked,
    require_size,
)
from qdjobs.client.redis import COUNT, LUA, Script, redis_connection
from qdjobs.client.signature import typed_enqueue
from qdjobs.client.stand_in import stand_in
from qdjobs.client.tasks import TaskOrPath
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, short_repr
from qdjobs.progress import META

# What RQ raises for a malformed record of a job.
RECORD_ERRORS = (NoSuchJobError, ValueError, TypeError, LookupError, AttributeError)
MAX_BATCH = 60_000_000  # bytes that are sent in one step
MAX_META = 10_000  # bytes of a job's metadata, which each of its statuses has
_FIELDS_PER_JOB = ('data', 'description', 'retry_intervals')  # not shared by the jobs of a batch

_script = Script(LUA / 'enqueue.lua', COUNT)


@typed_enqueue
def enqueue_background_job(
    task: TaskOrPath,
    /,
    *args: Any,
    job_queue: str | None = None,
    job_timeout: Duration | None = None,
    job_max_retries: int | None = None,
    job_retry_delay: Duration | None = None,
    job_delay: Duration | None = None,
    job_at: datetime | None = None,
    job_after: After | None = None,
    job_id: str | None = None,
    job_result_ttl: Duration | None = None,
    job_meta: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Job:
    """Check a call and enqueue it as a job, in one round trip.

    `task` is the dotted path of a public function of an allowed module, or the function itself.
    Keywords that begin with `job_` are job options (README.md lists them; None means the default);
    all others are passed to the task unchanged. Returns the job. If a job with this `job_id` is
    already waiting or running, returns that one.

    A type checker checks the arguments of a function, if there are no options beside them.

    Raises UnknownTaskError or InvalidJobError before anything is written, QueueUnavailableError if
    Redis does not answer or accept: with the id to repeat the call under if the answer was lost.
    """
    options = given_options(locals())
    return enqueue_call(call_from_python(task, args, kwargs, options))


def enqueue_background_jobs(
    task: TaskOrPath,
    calls: Iterable[Mapping[str, Any]],
    /,
    *,
    job_queue: str | None = None,
    job_timeout: Duration | None = None,
    job_max_retries: int | None = None,
    job_retry_delay: Duration | None = None,
    job_delay: Duration | None = None,
    job_at: datetime | None = None,
    job_after: After | None = None,
    job_id: str | None = None,
    job_result_ttl: Duration | None = None,
    job_meta: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> list[Job]:
    """Enqueue many calls of one task in one round trip: all of them, or none.

    `calls` are at most 5,000 mappings of keyword arguments. The jobs share their options. Their
    ids are `job_id`, or a new id, followed by `-0`, `-1` … in the order of the calls. Repeating
    the batch with the same `job_id` adds no duplicates. Raises as `enqueue_background_job`.
    """
    options = given_options(locals()) | unknown
    batch_id, batch = calls_from_python(task, calls, options)
    return _enqueue(batch, batch_id) if batch else []


def enqueue_call(call: Call) -> Job:
    """Enqueue a call in one round trip. Raises QueueUnavailableError."""
    return _enqueue([call], call.id)[0]


def _enqueue(calls: Sequence[Call], repeat_id: str) -> list[Job]:
    """Enqueue calls of one task with the same options, inside the hooks of the application."""
    hooks = current_hooks()
    with hooks.around_enqueue(calls) if hooks is not None else nullcontext():
        return _send(calls, repeat_id)


def _send(calls: Sequence[Call], repeat_id: str) -> list[Job]:
    task, options = calls[0].task, calls[0].options
    metas = [_pack_meta(call) for call in calls] if any(call.meta for call in calls) else []
    config = get_config()
    payloads = [_pack(call, config.max_arguments) for call in calls]
    if sum(map(len, payloads)) > MAX_BATCH:
        raise InvalidJobError(
            f'The arguments of the batch have more than {MAX_BATCH // 1_000_000} MB: make several '
            'batches of it.'
        )
    if (other := stand_in()) is not None:
        return other.enqueue(calls, payloads, metas)
    with redis_connection(repeat_id) as connection:
        kind = job_class(config.key_prefix)
        jobs = [make_job(kind(call.id, connection), call) for call in calls]
        shared = ['task', task.path]
        # No job has its data yet, which `to_dict` would compress.
        for field, value in jobs[0].to_dict().items():
            if field not in _FIELDS_PER_JOB and value != '':
                shared += (field, str(value) if type(value) is int else value)
        score = '' if options.start_at is None else str(math.ceil(options.start_at.timestamp()))
        ids, descriptions = [job.id for job in jobs], [job.description for job in jobs]
        # Delays are random for each job: jobs enqueued together must not be retried together.
        delays = [json.dumps(job.retry_intervals) if job.retry_intervals else None for job in jobs]
        shape = (options.queue, score, shared, ids, descriptions, delays, options.after)
        request = msgspec.msgpack.encode(shape)
        for job, payload in zip(jobs, payloads, strict=True):
            job.data = payload
        data = [zlib.compress(payload) for payload in payloads]
        replies = _script(connection, [request, *data, *metas])
    if isinstance(replies, bytes):
        raise no_such_parent(replies.decode())
    for job, existing in zip(jobs, replies, strict=True):
        if existing == 1:
            job._status, job.enqueued_at = JobStatus.DEFERRED, None
        elif existing:
            load_fields(job, existing)
    return jobs


def no_such_parent(job_id: str) -> InvalidJobError:
    """Return the error for a job in `job_after` that does not exist."""
    return InvalidJobError(
        f'job_after: there is no job {job_id!r}. It may have ended so long ago that its record has '
        'expired.',
        'job_after',
    )


def load_fields(job: Job, reply: list[bytes]) -> None:
    """Set the fields of a job from its hash, as HGETALL replies. Raises InvalidJobError."""
    try:
        job.restore(dict(zip(reply[::2], reply[1::2], strict=True)))
    except RECORD_ERRORS as error:
        raise InvalidJobError(f'The record of job {job.id!r} cannot be read.') from error


def make_job(job: Job, call: Call) -> Job:
    """Fill in a new job, without its data."""
    path, options = call.task.path, call.options
    job.serializer = PlainSerializer  # if it were an argument, RQ would inspect it for each job
    job.data = b''
    job.description = describe_call(path, call.args, call.kwargs, most=10)
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


def _pack(call: Call, limit: int) -> bytes:
    data = dump_checked((call.task.path, None, call.args, call.kwargs))
    advice = f"JOB_MAX_ARGUMENTS ({limit} MB): write them to a file, and pass the file's name"
    require_size(data, limit, f'The arguments of {call.task.path} have', advice)
    return data


def _pack_meta(call: Call) -> bytes:
    """Return RQ's metadata of a new job."""
    check_plain(call.meta, 'job_meta', MAX_DEPTH - 1)
    data = dump_checked({META: call.meta})
    if len(data) > MAX_META:
        raise InvalidJobError(
            f'job_meta has {len(data)} bytes, more than {MAX_META}: it is for ids and the like, '
            'and every status has it. Pass the data as an argument.',
            'job_meta',
        )
    return data if call.meta else b''


def describe_call(
    path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], most: int | None = None
) -> str:
    """Return a call in one short line, with at most so many arguments of each kind."""
    shown = [short_repr(value) for value in args[:most]]
    shown += [f'{name}={short_repr(value)}' for name, value in islice(kwargs.items(), most)]
    return f'{path}({", ".join(shown)})'.encode(errors='backslashreplace').decode()
