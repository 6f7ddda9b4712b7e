"""Read what the dashboard shows: queues, registries, jobs in full, workers.

Reads bytes, without RQ's classes: those unpickle what they read, clean up meanwhile, and fail for
all records if one is malformed. Anyone may have written any of the records.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from qdjobs.client.json import to_json
from qdjobs.client.listing import count_ids, read_ids, read_members, registry_key
from qdjobs.client.options import is_job_id
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.status import (
    STATUS_FIELDS,
    Status,
    due_moment,
    make_status,
    no_such_jobs,
    parse_moment,
    read_records,
    read_statuses,
    read_text,
    read_tracebacks,
)
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobNotFoundError
from qdjobs.progress import META

SHOWN = ('queued', 'started', 'scheduled', 'deferred', 'finished', 'failed', 'canceled')
# By what the jobs of a registry are sorted: RQ orders these by expiry, or not at all.
SORTED_BY = {
    'started': 'started_at',
    'deferred': 'created_at',
    'finished': 'ended_at',
    'failed': 'ended_at',
    'canceled': 'ended_at',
}
MAX_SORTED = 1000  # jobs of a registry that are sorted as a whole; of more, those of each page
MAX_TEXT = 20_000  # characters of one value that are shown
MAX_DEPENDENCIES = 50  # of one job that are shown
IN_STATUS = (META, 'progress', 'attempts')  # of RQ's metadata
WORKER_FIELDS = (
    'state', 'queues', 'hostname', 'pid', 'birth', 'last_heartbeat', 'version', 'python_version',
    'successful_job_count', 'failed_job_count',
)  # fmt: skip
WORKER_MOMENTS = ('birth', 'last_heartbeat')

_NO_MOMENT = datetime.min.replace(tzinfo=UTC)


def list_queues() -> list[str]:
    """Return the names of all queues, the configured ones first."""
    keys = read_members(f'{get_config().key_prefix}:queues')
    names = {key.removeprefix(redis_key('queue', '')) for key in keys}
    configured = get_config().queues
    return [*configured, *sorted(names.difference(configured))]


def count_jobs(queues: list[str]) -> list[dict[str, int]]:
    """Return the number of jobs in each registry of each queue."""
    counts = count_ids(registry_key(registry, queue) for queue in queues for registry in SHOWN)
    return [
        {registry: counts[registry_key(registry, queue)] for registry in SHOWN} for queue in queues
    ]


def read_registry(
    queue: str, registry: str, start: int, size: int, from_end: bool = False
) -> list[str]:
    """Return the ids of jobs in a registry, in its order or, with `from_end`, backwards."""
    first, last = (-start - size, -start - 1) if from_end else (start, start + size - 1)
    ids = read_ids(registry_key(registry, queue), first, last)
    return ids[::-1] if from_end else ids


def read_sorted(
    queue: str, registry: str, count: int, start: int, size: int, from_end: bool = False
) -> list[str]:
    """Return what `read_registry` does of a registry with `count` jobs, sorted by time.

    `queued` and `scheduled` keep their order, which is that in which the jobs run.
    """
    if registry not in SORTED_BY:
        return read_registry(queue, registry, start, size, from_end)
    if count > MAX_SORTED:
        job_ids = read_registry(queue, registry, start, size, from_end)
        return _sort(job_ids[::-1] if from_end else job_ids, SORTED_BY[registry], from_end)
    job_ids = read_registry(queue, registry, 0, MAX_SORTED)
    return _sort(job_ids, SORTED_BY[registry], from_end)[start : start + size]


def _sort(job_ids: list[str], field: str, from_end: bool) -> list[str]:
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hmget(redis_key('job', job_id), field, 'created_at')
        found = pipe.execute(raise_on_error=False)  # a record can be gone, or of another type
    moments = [
        next(filter(None, map(parse_moment, fields)), _NO_MOMENT)
        if isinstance(fields, list)
        else _NO_MOMENT
        for fields in found
    ]
    order = sorted(range(len(job_ids)), key=moments.__getitem__)
    return [job_ids[n] for n in (reversed(order) if from_end else order)]


def describe_jobs(job_ids: list[str]) -> list[dict[str, Any]]:
    """Return the status and description of each job, or a note that its record is unreadable.

    A scheduled job has `due_at` too.
    """
    statuses = read_statuses(job_ids, results=False)
    more = _read_more([status for status in statuses if status])
    return [
        dict(status) | more[job_id]
        if status
        else {'id': job_id, 'description': 'The record of this job is gone, or is unreadable.'}
        for job_id, status in zip(job_ids, statuses, strict=True)
    ]


def _read_more(statuses: Sequence[Status]) -> dict[str, dict[str, Any]]:
    """Return by id the description of each job, and when it is due."""
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for status in statuses:
            pipe.hget(redis_key('job', status['id']), 'description')
            pipe.zscore(registry_key('scheduled', status['queue']), status['id'])
        found = pipe.execute(raise_on_error=False)
    return {
        status['id']: {
            'description': _cut(_text_of(description)),
            'due_at': due_moment(status, score),
        }
        for status, description, score in zip(statuses, found[::2], found[1::2], strict=True)
    }


def describe_job(job_id: str) -> dict[str, Any]:
    """Return all that a monitor shows of one job. Raises JobNotFoundError.

    That is its status, and `description`, `enqueued_at`, `due_at`, `timeout`, `worker`, the
    `traceback` of each attempt, `other_meta` (RQ's metadata beside what the status has), and
    `depends_on`, which maps ids to whether their record exists. `result` and `other_meta` are
    JSON, or say why they cannot be read. Texts longer than MAX_TEXT are cut.
    """
    if not is_job_id(job_id):
        raise JobNotFoundError([job_id])
    key = redis_key('job', job_id)
    with redis_connection() as connection:
        (reply,) = read_records(connection, [1, job_id])
        if reply is None:
            raise no_such_jobs([job_id])
        fields: Any = connection.hmget(key, 'enqueued_at', 'timeout')
        needed = read_members(redis_key('job', f':{job_id}:dependencies'))[:MAX_DEPENDENCIES]
        exist = [bool(connection.exists(redis_key('job', other))) for other in needed]
    status = make_status(job_id, reply)
    tracebacks = read_tracebacks(reply)
    return (
        dict(status)
        | _read_more([status])[job_id]
        | {
            'result': _shown(status['result']),
            'enqueued_at': parse_moment(fields[0]),
            'timeout': _cut(read_text(fields[1])),
            'worker': _cut(status['worker'] or ''),
            'attempts': [
                dict(attempt) | {'traceback': _cut_front(traceback)}
                for attempt, traceback in zip(status['attempts'], tracebacks, strict=True)
            ],
            'meta': _shown(status['meta']) if status['meta'] else '',
            'other_meta': _read_meta(reply[0][STATUS_FIELDS.index('meta')]),
            'depends_on': dict(zip(needed, exist, strict=True)),
        }
    )


def list_workers() -> list[dict[str, Any]]:
    """Return every worker alive, by host: its record's fields, and the `job` that it runs."""
    with redis_connection() as connection:
        keys = read_members(f'{get_config().key_prefix}:workers')
        with connection.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, WORKER_FIELDS)
                pipe.smembers(f'{key}:executions')
            found = pipe.execute(raise_on_error=False)
    workers = []
    for key, fields, runs in zip(keys, found[::2], found[1::2], strict=True):
        if not isinstance(fields, list) or fields[0] is None:
            continue  # its record has expired: it is dead
        texts = (_cut(read_text(field)) for field in fields)
        worker: dict[str, Any] = dict(zip(WORKER_FIELDS, texts, strict=True))
        name = key.removeprefix(redis_key('worker', ''))
        worker |= {'name': name, 'queues': worker['queues'].split(',')}
        worker |= {moment: parse_moment(worker[moment].encode()) for moment in WORKER_MOMENTS}
        workers.append(worker | {'job': _running(runs if isinstance(runs, set) else set())})
    return sorted(workers, key=lambda worker: (worker['hostname'], worker['pid'], worker['name']))


def _running(executions: set[bytes]) -> str | None:
    """Return the job that a worker runs, and not the one that it has claimed ahead."""
    members = sorted(map(read_text, executions))
    if len(members) > 1:
        with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
            for member in members:
                pipe.hexists(redis_key('execution', member), 'ahead')
            claimed = pipe.execute(raise_on_error=False)
        members = [run for run, ahead in zip(members, claimed, strict=True) if ahead != 1]
    return members[0].split(':')[0] if members else None


def name_workers(names: set[str]) -> dict[str, str]:
    """Return for the name of each worker that has a record its host and process id."""
    known = sorted(names)
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for name in known:
            pipe.hmget(redis_key('worker', name), 'hostname', 'pid')
        found = pipe.execute(raise_on_error=False)
    return {
        name: f'{_cut(read_text(fields[0]))} · {_cut(read_text(fields[1]))}'
        for name, fields in zip(known, found, strict=True)
        if isinstance(fields, list) and fields[0]
    }


def _text_of(value: Any) -> str:
    return read_text(value) if isinstance(value, bytes) else ''


def _read_meta(meta: bytes | None) -> str:
    """Return RQ's metadata without what the status of a job has of it; '' if that is all."""
    try:
        found = PlainSerializer.loads(meta) if meta else {}
    except InvalidJobError as error:
        return _cut(f'unreadable: {error}')
    if isinstance(found, dict):
        found = {name: value for name, value in found.items() if name not in IN_STATUS}
    return _shown(found) if found else ''


def _shown(value: Any) -> str:
    """Return a value as indented JSON or, if it is long, the beginning of its JSON."""
    text = to_json(value)
    return msgspec.json.format(text, indent=2) if len(text) <= MAX_TEXT else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f'{text[:MAX_TEXT]}… ({len(text)} characters)'


def _cut_front(text: str | None) -> str | None:
    """Cut a traceback at its front: the error is at the end."""
    return text if text is None or len(text) <= MAX_TEXT else f'…{text[-MAX_TEXT:]}'
