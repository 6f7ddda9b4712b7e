"""Reads statuses, by id or from where RQ keeps them; bounded, and without RQ's cleanup."""

from collections.abc import Iterator, Sequence
from typing import Any

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.utils import as_text

from libraries import job_store
from libraries.job_options import is_job_id
from libraries.job_status import Status, make_status
from libraries.job_store import reaching_redis

# Where the jobs of a queue stand, by status: a list for the waiting, else a sorted set.
_REGISTRIES = {
    'queued': 'queue',
    'started': 'wip',
    'deferred': 'deferred',
    'scheduled': 'scheduled',
    'ready_to_enqueue': 'ready',
    'finished': 'finished',
    'failed': 'failed',
    'stopped': 'failed',
    'canceled': 'canceled',
}
_PAGE = 200  # ids that one step reads
_MAX_PAGES = 50  # of one registry; whoever wants more looks into the dashboard


def read_statuses(job_ids: Sequence[str]) -> list[Status | None]:
    """The status of each job, or None where there is no such job, in one round trip."""
    asked = [job_id for job_id in job_ids if is_job_id(job_id)]
    with reaching_redis() as connection:
        replies = job_store.read_statuses(connection, asked) if asked else []
    found = {
        job_id: make_status(job_id, reply)
        for job_id, reply in zip(asked, replies, strict=True)
        if reply is not None
    }
    return [found.get(job_id) if is_job_id(job_id) else None for job_id in job_ids]


def iterate_jobs(statuses: Sequence[str], queues: Sequence[str]) -> Iterator[Status]:
    """Jobs of these statuses and queues, status by status, queue by queue, each job once."""
    seen: set[str] = set()
    for status in statuses:
        for key in _keys(status, queues):
            for job_ids in _pages(key):
                for job in read_statuses([job_id for job_id in job_ids if job_id not in seen]):
                    # A registry may lag behind the job, and some are shared.
                    if job and job['status'] == status and job['queue'] in queues:
                        seen.add(job['id'])
                        yield job


def _keys(status: str, queues: Sequence[str]) -> list[str]:
    if status == 'rate_limited':  # kept by limit, not by queue
        with reaching_redis() as connection:
            limits = sorted(map(as_text, connection.smembers(f'{RQ_KEY_PREFIX}:rl-keys')))
        return [f'{RQ_KEY_PREFIX}:rl:{limit}:rate_limited' for limit in limits]
    if status not in _REGISTRIES:  # `created`: RQ keeps no list of what was never enqueued
        return []
    return [f'{RQ_KEY_PREFIX}:{_REGISTRIES[status]}:{queue}' for queue in queues]


def _pages(key: str) -> Iterator[list[str]]:
    for page in range(_MAX_PAGES):
        with reaching_redis() as connection:
            job_ids = _read_page(connection, key, page * _PAGE)
        if not job_ids:
            return
        yield job_ids


def _read_page(connection: Redis, key: str, start: int) -> list[str]:
    read: Any = connection.zrange
    if key.startswith(f'{RQ_KEY_PREFIX}:queue:'):
        read = connection.lrange
    # A started job stands there as `id:execution`.
    return [as_text(entry).split(':')[0] for entry in read(key, start, start + _PAGE - 1)]
