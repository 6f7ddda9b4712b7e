"""Turn checked calls into jobs, and enqueue them in one atomic step."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.utils import utcformat

from qdjobs.client.call import Call, call_from_python, calls_from_python, follower_call
from qdjobs.client.hooks import current_hooks
from qdjobs.client.job import job_class
from qdjobs.client.options import (
    FOLLOWER_NAMES,
    After,
    AfterFailure,
    Duration,
    given_options,
    retry_delays,
)
from qdjobs.client.payload import (
    MAX_DEPTH,
    PlainSerializer,
    check_plain,
    decompress,
    dump_checked,
    dump_within,
)
from qdjobs.client.redis import (
    ADD,
    AFTER,
    COUNT,
    LUA,
    Script,
    get_connection,
    redis_connection,
)
from qdjobs.client.signature import typed_enqueue
from qdjobs.client.stand_in import stand_in
from qdjobs.client.tasks import TaskOrPath
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, short_repr
from qdjobs.progress import META

# What RQ raises for a malformed record of a job.
RECORD_ERRORS = (
    InvalidJobError, NoSuchJobError, ValueError, TypeError, LookupError, AttributeError,
)  # fmt: skip
MAX_BATCH = 60_000_000  # bytes that are sent in one step
MAX_META = 10_000  # bytes of a job's metadata, which each of its statuses has
# Which lua/add.lua writes.
_FIELDS_OF_SCRIPT = (
    'data', 'description', 'retry_intervals', 'status', 'created_at', 'enqueued_at',
)  # fmt: skip
_AFTER_FAILURE = {
    'wait': (),
    'run': ('allow_dependency_failures', '1'),  # RQ's own field
    'cancel': ('after_failure', 'cancel'),
}

_FIELDS_OF_FOLLOWERS = tuple(f'{name}_data' for name in FOLLOWER_NAMES)

_script = Script(LUA / 'enqueue.lua', COUNT, AFTER, ADD)


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
    job_after_failure: AfterFailure | None = None,
    job_on_success: str | None = None,
    job_on_failure: str | None = None,
    job_id: str | None = None,
    job_result_ttl: Duration | None = None,
    job_meta: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Job:
    """Check a call and enqueue it as a job, in one round trip.

    `task` is the dotted path of a public function of an allowed module, or the function itself.
    Keywords that begin with `job_` are job options (docs/contract.md lists them; None means the
    default); all others are passed to the task unchanged. Returns the job. If a job with this
    `job_id` is already waiting or running, returns that one.

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
    job_after_failure: AfterFailure | None = None,
    job_on_success: str | None = None,
    job_on_failure: str | None = None,
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


class AddRequest(msgspec.Struct, frozen=True):
    """What the jobs of one step share, for `add_jobs` of lua/add.lua."""

    queue: str
    score: str  # the time at which they are due, in seconds since 1970; '' for now
    created_at: str  # in RQ's format; '' for the time at which they are added
    shared: Sequence[str]  # fields of every job: name, value, name, value …; the first is `task`
    ids: Sequence[str]
    descriptions: Sequence[str]
    delays: Sequence[str | None]  # before retries, in JSON
    fields: Sequence[str]  # those whose values are sent apart from the request
    parents: Sequence[str]  # the jobs that must have ended first
    after_failure: str


class Packed(msgspec.Struct, frozen=True):
    """Checked calls as a script reads them: an AddRequest, and the values of its fields.

    First the first field of each job, then the second. A value may be empty.
    """

    request: bytes
    values: Sequence[bytes]


def _send(calls: Sequence[Call], repeat_id: str) -> list[Job]:
    if (other := stand_in()) is not None:
        return other.enqueue(calls, pack_arguments(calls), pack_metas(calls))
    jobs, packed = _pack(calls)
    with redis_connection(repeat_id) as connection:
        replies = send_packed(connection, packed)
    if isinstance(replies, bytes):
        raise refusal(replies.decode())
    for job, existing in zip(jobs, replies, strict=True):
        if existing == 1:
            job._status, job.enqueued_at = JobStatus.DEFERRED, None
        elif existing:
            load_fields(job, existing)
    return jobs


def send_packed(connection: Redis, packed: Packed, once_for: int = 0, once_as: str = '1') -> Any:
    """Add jobs in one atomic step, and return the reply of `add_jobs`. Raises RedisError.

    Within `once_for` seconds, unless that is 0, an id is added once, whatever becomes of its job;
    under another `once_as` it can be added again.
    """
    moment = utcformat(datetime.now(UTC))
    arguments = [moment, once_for, once_as, packed.request, *packed.values]
    return _script(connection, arguments, must_last=True)


def pack_calls(calls: Sequence[Call]) -> Packed:
    """Return calls of one task with the same options in a form that can be sent later."""
    return _pack(calls)[1]


def pack_again(packed: Packed, job_id: str) -> Packed:
    """Return the one call of `packed` as another job, which is created when it is sent."""
    request = msgspec.msgpack.decode(packed.request, type=AddRequest)
    values = list(packed.values)
    for number, field in enumerate(request.fields):
        if field in _FIELDS_OF_FOLLOWERS:  # the argument of that task is the id of this job
            path, *_ = PlainSerializer.loads(decompress(values[number]))
            values[number] = zlib.compress(dump_checked((path, None, (job_id,), {})))
    request = msgspec.structs.replace(request, ids=[job_id], created_at='')
    return Packed(msgspec.msgpack.encode(request), values)


def _pack(calls: Sequence[Call]) -> tuple[list[Job], Packed]:
    payloads = pack_arguments(calls)
    metas, fields = pack_metas(calls), ['data']
    values = [zlib.compress(payload) for payload in payloads]
    if metas:
        fields.append('meta')
        values += metas
    templates, follower_fields, follower_values = _pack_followers(calls, metas)
    jobs = _make_jobs(calls)
    request = _request(calls, jobs, templates, [*fields, *follower_fields])
    for job, payload in zip(jobs, payloads, strict=True):
        job.data = payload
    return jobs, Packed(msgspec.msgpack.encode(request), [*values, *follower_values])


def _make_jobs(calls: Sequence[Call]) -> list[Job]:
    kind, connection = job_class(get_config().key_prefix), get_connection()
    return [make_job(kind(call.id, connection), call) for call in calls]


def _request(
    calls: Sequence[Call],
    jobs: Sequence[Job],
    templates: Sequence[str] = (),
    fields: Sequence[str] = ('data', 'meta'),
) -> AddRequest:
    options = calls[0].options
    shared = ['task', calls[0].task.path, *templates]
    # No job needs its data here, which `to_dict` would compress.
    record = jobs[0].to_dict(include_meta=False, include_result=False)
    for field, value in record.items():
        if field not in _FIELDS_OF_SCRIPT and value != '':
            shared += (field, str(value) if type(value) is int else value)
    if options.after:
        shared += ('dependency_ids', json.dumps(options.after))
        shared += _AFTER_FAILURE[options.after_failure]
    return AddRequest(
        queue=options.queue,
        score='' if options.start_at is None else str(math.ceil(options.start_at.timestamp())),
        created_at=record['created_at'],
        shared=shared,
        ids=[job.id for job in jobs],
        descriptions=[job.description or '' for job in jobs],
        # Delays are random for each job: jobs enqueued together must not be retried together.
        delays=[json.dumps(job.retry_intervals) if job.retry_intervals else None for job in jobs],
        fields=fields,
        parents=options.after,
        after_failure=options.after_failure,
    )


def _pack_followers(
    calls: Sequence[Call], metas: Sequence[bytes]
) -> tuple[list[str], list[str], list[bytes]]:
    """Return the shared fields, the names of the others, and their values, for what is to follow.

    The script that ends a job has all that it needs to add the job of its `job_on_success` or
    `job_on_failure`.
    """
    shared: list[str] = []
    fields: list[str] = []
    values: list[bytes] = []
    for name in FOLLOWER_NAMES:
        if getattr(calls[0].options, name) is None:
            continue
        followers = [follower_call(call, name) for call in calls]
        first = followers[:1]
        template = msgspec.structs.replace(_request(first, _make_jobs(first)), created_at='')
        shared += (name, msgspec.json.encode(template).decode())
        fields += (f'{name}_data', f'{name}_delays')
        values += map(zlib.compress, pack_arguments(followers))
        values += [json.dumps(retry_delays(call.options)).encode() for call in followers]
    if fields and metas:
        fields.append('follower_meta')
        values += metas
    return shared, fields, values


def refusal(reply: str) -> InvalidJobError:
    """Return the error for the parents of jobs that the script has refused."""
    problem, _, job_id = reply.partition(' ')
    if problem == 'missing':
        return no_such_parent(job_id)
    if problem == 'cycle':
        return in_a_cycle(job_id)
    return InvalidJobError(
        f'job_after: whether job {job_id!r} would wait for itself is hard to say: too many jobs '
        'wait for one another. Enqueue it under a new job_id.',
        'job_after',
    )


def no_such_parent(job_id: str) -> InvalidJobError:
    """Return the error for a job in `job_after` that does not exist."""
    return InvalidJobError(
        f'job_after: there is no job {job_id!r}. It may have ended so long ago that its record has '
        'expired.',
        'job_after',
    )


def in_a_cycle(job_id: str) -> InvalidJobError:
    """Return the error for a job that would wait for itself."""
    return InvalidJobError(
        f'job_after: job {job_id!r} would wait for itself, since what it is to wait for waits for '
        'it. Enqueue it under a new job_id.',
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


def pack_arguments(calls: Sequence[Call]) -> list[bytes]:
    """Return the payload of each call. Raises InvalidJobError."""
    limit = get_config().max_arguments
    payloads = [_pack_call(call, limit) for call in calls]
    if sum(map(len, payloads)) > MAX_BATCH:
        raise InvalidJobError(
            f'The arguments of the batch have more than {MAX_BATCH // 1_000_000} MB: make several '
            'batches of it.'
        )
    return payloads


def _pack_call(call: Call, limit: int) -> bytes:
    advice = f"JOB_MAX_ARGUMENTS ({limit} MB): write them to a file, and pass the file's name"
    value = (call.task.path, None, call.args, call.kwargs)
    return dump_within(value, limit, f'The arguments of {call.task.path} have', advice)


def pack_metas(calls: Sequence[Call]) -> list[bytes]:
    """Return RQ's metadata of each job; an empty list if none has any. Raises InvalidJobError."""
    return [_pack_meta(call) for call in calls] if any(call.meta for call in calls) else []


def _pack_meta(call: Call) -> bytes:
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
