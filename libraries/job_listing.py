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
REGISTRIES = {
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
MAX_SCANNED = 10_000  # ids of one registry that a listing looks at

_PAGE = 200  # ids that one step of a listing reads
_TOGETHER = 1000  # jobs that are read in one round trip, so that Redis serves others between


def read_statuses(job_ids: Sequence[str], results: bool = True) -> list[Status | None]:
    """The status of each job, or None where there is no such job; a round trip for 1,000 jobs."""
    asked = [job_id for job_id in job_ids if is_job_id(job_id)]
    replies: list[Any] = []
    with reaching_redis() as connection:
        for start in range(0, len(asked), _TOGETHER):
            chunk = asked[start : start + _TOGETHER]
            replies += job_store.read_statuses(connection, [int(results), *chunk])
    found = {
        job_id: make_status(job_id, reply)
        for job_id, reply in zip(asked, replies, strict=True)
        if reply is not None
    }
    return [found.get(job_id) if is_job_id(job_id) else None for job_id in job_ids]


def iterate_jobs(statuses: Sequence[str], queues: Sequence[str], limit: int) -> Iterator[Status]:
    """Jobs of these statuses and queues, status by status, queue by queue, each job once.

    Their results are left out: a listing of a hundred jobs must not carry a hundred results.
    """
    page = min(limit, _PAGE)
    seen: set[str] = set()
    for status in statuses:
        for key in _keys(status, queues):
            for job_ids in _pages(key, page):
                new = [job_id for job_id in job_ids if job_id not in seen]
                for job in read_statuses(new, results=False):
                    # A registry may lag behind the job, and some are shared.
                    if job and job['status'] == status and job['queue'] in queues:
                        seen.add(job['id'])
                        yield job


def _keys(status: str, queues: Sequence[str]) -> list[str]:
    if status == 'rate_limited':  # kept by limit, not by queue
        with reaching_redis() as connection:
            limits = sorted(map(as_text, connection.smembers(f'{RQ_KEY_PREFIX}:rl-keys')))
        return [f'{RQ_KEY_PREFIX}:rl:{limit}:rate_limited' for limit in limits]
    if status not in REGISTRIES:  # `created`: RQ keeps no list of what was never enqueued
        return []
    return [f'{RQ_KEY_PREFIX}:{REGISTRIES[status]}:{queue}' for queue in queues]


def _pages(key: str, size: int) -> Iterator[list[str]]:
    for start in range(0, MAX_SCANNED, size):
        with reaching_redis() as connection:
            job_ids = _read_page(connection, key, start, size)
        if not job_ids:
            return
        yield job_ids


def _read_page(connection: Redis, key: str, start: int, size: int) -> list[str]:
    read: Any = connection.zrange
    if key.startswith(f'{RQ_KEY_PREFIX}:queue:'):
        read = connection.lrange
    # A started job stands there as `id:execution`.
    return [as_text(entry).split(':')[0] for entry in read(key, start, start + size - 1)]
