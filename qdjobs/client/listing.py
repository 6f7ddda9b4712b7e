"""Listings of jobs, read from RQ's queues and registries: bounded, and without RQ's cleanup."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.status import STATUSES, Status, read_statuses, read_text
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, short_repr

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
MAX_SCANNED = 10_000  # ids that a listing looks at, of one registry and in all

_CURSOR = re.compile(r'(\w+)\.(\d{1,5})\.(\d{1,5})', re.ASCII)  # status, its list, place in it
_START = ('', 0, 0)
_PAGE = 500  # ids that one step of a listing reads
MAX_LISTED = 1000  # jobs that one call lists


def list_jobs(status: str | None = None, queue: str | None = None, limit: int = 50) -> list[Status]:
    """At most `limit` (≤ 1000) jobs, in the order in which RQ keeps them: of each queue the next
    to run, the next to start, or the first to expire, first. Without their results.

    `status` is any that RQ has, `queue` one of ours; None means all, the running and waiting
    first. Changes nothing, and looks at no more than 10,000 jobs. Raises InvalidJobError for a
    status or queue that does not exist.
    """
    return list_jobs_page(status, queue, limit)[0]


def list_jobs_page(
    status: str | None = None, queue: str | None = None, limit: int = 50, cursor: str | None = None
) -> tuple[list[Status], str | None]:
    """The jobs of `list_jobs`, and the cursor to read on from with the same status and queue, or
    None if these are all.

    A cursor is a place in a registry, and jobs move between registries: one that moves while
    somebody reads page by page can be told twice, or not at all.
    """
    statuses = _one_of('status', status, STATUSES)
    queues = _one_of('queue', queue, get_config().queues)
    if type(limit) is not int or not 1 <= limit <= MAX_LISTED:
        raise InvalidJobError(
            f'limit must be a number from 1 to {MAX_LISTED}, not {short_repr(limit)}.', 'limit'
        )
    return read_page(statuses, queues, limit, cursor)


def read_page(
    statuses: Sequence[str], queues: Sequence[str], limit: int, cursor: str | None
) -> tuple[list[Status], str | None]:
    """At most `limit` jobs of these statuses and queues, status by status, queue by queue, and the
    cursor of the next one, or None. Raises InvalidJobError for a cursor that is none of theirs.

    Their results are left out: a listing of a hundred jobs must not carry a hundred results.
    """
    place = _START if cursor is None else _parse_cursor(cursor, statuses)
    found: list[Status] = []
    for here, job in _iterate(statuses, queues, place):
        if job is None or len(found) == limit:
            return found, here
        found.append(job)
    return found, None


def _iterate(
    statuses: Sequence[str], queues: Sequence[str], place: tuple[str, int, int]
) -> Iterator[tuple[str, Status | None]]:
    """Each job once, with the cursor of its place; None where enough has been looked at."""
    seen: set[str] = set()
    scanned = 0
    for status, number, key, begin in _existing(list(_lists(statuses, queues, place))):
        for start, job_ids in _pages(key, begin):
            if scanned >= MAX_SCANNED:
                yield f'{status}.{number}.{start}', None
                return
            scanned += len(job_ids)
            new = {job_id: at for at, job_id in enumerate(job_ids, start) if job_id not in seen}
            for job in read_statuses(list(new), results=False):
                # A registry may lag behind the job, and some are shared.
                if job and job['status'] == status and job['queue'] in queues:
                    seen.add(job['id'])
                    yield f'{status}.{number}.{new[job["id"]]}', job


def _lists(
    statuses: Sequence[str], queues: Sequence[str], place: tuple[str, int, int]
) -> Iterator[tuple[str, int, str, int]]:
    """Where to read from that place on: status, number among its lists, key, index."""
    first, skipped, start = place
    for status in statuses[statuses.index(first) :] if first else statuses:
        for number, key in enumerate(_keys(status, queues)):
            if status != first or number > skipped:
                yield status, number, key, 0
            elif number == skipped:
                yield status, number, key, start


def _existing(lists: list[tuple[str, int, str, int]]) -> list[tuple[str, int, str, int]]:
    """Those that are there: most are not, and to ask each by itself takes a round trip."""
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for _, _, key, _ in lists:
            pipe.exists(key)
        return [one for one, there in zip(lists, pipe.execute(), strict=True) if there]


def _parse_cursor(cursor: str, statuses: Sequence[str]) -> tuple[str, int, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None or match[1] not in statuses:
        raise InvalidJobError(
            f'cursor must be what the page before has named, not {short_repr(cursor)}.', 'cursor'
        )
    return match[1], int(match[2]), int(match[3])


def _keys(status: str, queues: Sequence[str]) -> list[str]:
    if status == 'rate_limited':  # kept by limit, not by queue
        with redis_connection() as connection:
            limits = sorted(
                map(read_text, connection.smembers(f'{get_config().key_prefix}:rl-keys'))
            )
        return [redis_key('rl', f'{limit}:rate_limited') for limit in limits]
    if status not in REGISTRIES:  # `created`: RQ keeps no list of what was never enqueued
        return []
    return [registry_key(status, queue) for queue in queues]


def _pages(key: str, begin: int) -> Iterator[tuple[int, list[str]]]:
    """The ids that stand there, page by page, each page with the place of its first."""
    for start in range(begin, MAX_SCANNED, _PAGE):
        job_ids = read_ids(key, start, start + _PAGE - 1)
        if not job_ids:
            return
        yield start, job_ids


def registry_key(status: str, queue: str) -> str:
    """Where the jobs of a queue stand that have this status, one of REGISTRIES."""
    return redis_key(REGISTRIES[status], queue)


def read_ids(key: str, first: int, last: int) -> list[str]:
    """The ids from one place in a queue or registry to another, both included."""
    with redis_connection() as connection:
        read: Any = connection.zrange
        if key.startswith(redis_key('queue', '')):
            read = connection.lrange
        # A started job stands there as `id:execution`.
        return [read_text(entry).split(':')[0] for entry in read(key, first, last)]


def _one_of(name: str, value: str | None, known: Sequence[str]) -> Sequence[str]:
    if value is None:
        return known
    if value not in known:
        raise InvalidJobError(
            f'{name} must be one of {", ".join(known)}, not {short_repr(value)}.', name
        )
    return (value,)
