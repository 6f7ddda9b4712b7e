"""Read what the dashboard shows: queues, registries, jobs in full, workers.

Reads bytes, without RQ's classes: those unpickle what they read, clean up meanwhile, and fail for
all records if one is malformed. Anyone may have written any of the records.
"""

from typing import Any

from qdjobs.client.json import to_json
from qdjobs.client.listing import count_ids, read_ids, read_members, registry_key
from qdjobs.client.options import is_job_id
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.status import (
    STATUS_FIELDS,
    make_status,
    no_such_jobs,
    parse_moment,
    read_records,
    read_statuses,
    read_text,
    read_traceback,
)
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobNotFoundError

SHOWN = ('queued', 'started', 'scheduled', 'deferred', 'finished', 'failed', 'canceled')
MAX_TEXT = 20_000  # characters of one value that are shown
MAX_DEPENDENCIES = 50  # of one job that are shown


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


def describe_jobs(job_ids: list[str]) -> list[dict[str, Any]]:
    """Return the status and description of each job, or a note that its record is unreadable."""
    statuses = read_statuses(job_ids, results=False)
    readable = [job_id for job_id, status in zip(job_ids, statuses, strict=True) if status]
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for job_id in readable:
            pipe.hget(redis_key('job', job_id), 'description')
        found = dict(zip(readable, pipe.execute(raise_on_error=False), strict=True))
    return [
        dict(status) | {'description': _description(found[job_id])}
        if status
        else {'id': job_id, 'description': 'The record of this job is gone, or is unreadable.'}
        for job_id, status in zip(job_ids, statuses, strict=True)
    ]


def _description(found: Any) -> str:
    return _cut(read_text(found)) if isinstance(found, bytes) else ''  # changed since


def describe_job(job_id: str) -> dict[str, Any]:
    """Return a job's status, with its description, metadata, traceback and dependencies.

    `meta` is JSON, or says why it cannot be read. `depends_on` maps ids to whether their record
    exists. Texts longer than MAX_TEXT are cut. Raises JobNotFoundError.
    """
    if not is_job_id(job_id):
        raise JobNotFoundError([job_id])
    key = redis_key('job', job_id)
    with redis_connection() as connection:
        (reply,) = read_records(connection, [1, job_id])
        if reply is None:
            raise no_such_jobs([job_id])
        fields: Any = connection.hmget(key, 'description', 'enqueued_at')
        needed = read_members(redis_key('job', f':{job_id}:dependencies'))[:MAX_DEPENDENCIES]
        exist = [bool(connection.exists(redis_key('job', other))) for other in needed]
    status = make_status(job_id, reply)
    status['result'] = _bounded(status['result'])
    return dict(status) | {
        'description': _cut(read_text(fields[0])),
        'enqueued_at': parse_moment(fields[1]),
        'traceback': _cut_front(read_traceback(reply) or status['error']),
        'meta': _read_meta(reply[0][STATUS_FIELDS.index('meta')]),
        'depends_on': dict(zip(needed, exist, strict=True)),
    }


def list_workers() -> list[dict[str, Any]]:
    """Return every worker alive: `name`, `state`, `queues`, `job`, and two versions."""
    with redis_connection() as connection:
        keys = read_members(f'{get_config().key_prefix}:workers')
        with connection.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, 'state', 'queues', 'version', 'python_version')
                pipe.smembers(f'{key}:executions')
            found = pipe.execute(raise_on_error=False)
    workers = []
    for key, fields, runs in zip(keys, found[::2], found[1::2], strict=True):
        if not isinstance(fields, list) or fields[0] is None:
            continue  # its record has expired: it is dead
        state, queues, version, python = (_cut(read_text(field)) for field in fields)
        job = read_text(min(runs)).split(':')[0] if isinstance(runs, set) and runs else None
        name = key.removeprefix(redis_key('worker', ''))
        row = {'name': name, 'state': state, 'queues': queues.split(','), 'job': job}
        workers.append(row | {'version': version, 'python_version': python})
    return workers


def _read_meta(meta: bytes | None) -> str:
    try:
        return _cut(to_json(PlainSerializer.loads(meta) if meta else {}))
    except InvalidJobError as error:
        return _cut(f'unreadable: {error}')


def _bounded(value: Any) -> Any:
    """Return the value itself or, if it is long, the beginning of its JSON."""
    text = to_json(value)
    return value if len(text) <= MAX_TEXT else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f'{text[:MAX_TEXT]}… ({len(text)} characters)'


def _cut_front(text: str | None) -> str | None:
    """Cut a traceback at its front: the error is at the end."""
    return text if text is None or len(text) <= MAX_TEXT else f'…{text[-MAX_TEXT:]}'
