"""List jobs from RQ's queues and registries. Bounded, and without RQ's clean-up."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence

from redis.exceptions import ResponseError

from qdjobs.client.keys import is_wrong_type
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.stand_in import stand_in
from qdjobs.client.status import STATUSES, Status, StatusName, read_statuses, read_text
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, short_repr, wrong_key

# The keys that hold the jobs of a queue, by status. `queue` is a list, the others are sorted sets.
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
# What clients of other APIs call a status → what it is here.
LIKE_STATUSES = {'pending': 'queued', 'running': 'started', 'completed': 'finished'}
MAX_SCANNED = 10_000  # ids that a listing reads, of one registry and in total

_CURSOR = re.compile(r'(\w+)\.(\d{1,5})\.(\d{1,5})', re.ASCII)  # status, number of its list, index
_START = ('', 0, 0)
_PAGE = 500  # ids read in one round trip, at most
MAX_LISTED = 1000  # jobs that one call lists

log = logging.getLogger(__name__)


def list_jobs(
    status: StatusName | None = None, queue: str | None = None, limit: int = 50
) -> list[Status]:
    """List at most `limit` (≤ 1000) jobs, without their results.

    `status` is any RQ status, `queue` a configured queue; None means all. Running and waiting jobs
    come first. Within a status and queue the order is RQ's: the next to run, the next to start, or
    the first to expire comes first. Changes nothing, and reads at most 10,000 ids. Raises
    InvalidJobError for an unknown status or queue.
    """
    return list_jobs_page(status, queue, limit)[0]


def list_jobs_page(
    status: StatusName | None = None,
    queue: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[Status], str | None]:
    """Return a page of `list_jobs`, and the cursor of the next page or None.

    Pass the cursor with the same status and queue. A cursor is a position in a registry: a job
    that changes its state between two pages can be listed twice, or not at all.
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
    """Return at most `limit` jobs of these statuses and queues, and the cursor of the next or None.

    Ordered by status, then by queue. Results are left out to keep pages small. Raises
    InvalidJobError for a cursor of another listing.
    """
    if (other := stand_in()) is not None:
        return other.read_page(statuses, queues, limit), None
    position = _START if cursor is None else _parse_cursor(cursor, statuses)
    found: list[Status] = []
    for job_cursor, job in _iterate(statuses, queues, position, limit + 1):
        if job is None or len(found) == limit:
            return found, job_cursor
        found.append(job)
    return found, None


def _iterate(
    statuses: Sequence[str], queues: Sequence[str], position: tuple[str, int, int], wanted: int
) -> Iterator[tuple[str, Status | None]]:
    """Yield each job once, with its cursor; None for the job once MAX_SCANNED ids were read.

    Reads little more than the jobs that are `wanted`, unless registries lag behind their jobs.
    """
    seen: set[str] = set()
    scanned = 0
    for status, number, key, begin in _existing(list(_lists(statuses, queues, position))):
        for start, job_ids in _pages(key, begin, wanted):
            if scanned >= MAX_SCANNED:
                yield f'{status}.{number}.{start}', None
                return
            scanned += len(job_ids)
            new = {job_id: i for i, job_id in enumerate(job_ids, start) if job_id not in seen}
            for job in read_statuses(list(new), results=False):
                # A registry may lag behind the job, or hold other statuses or queues too.
                if job and job['status'] == status and job['queue'] in queues:
                    seen.add(job['id'])
                    yield f'{status}.{number}.{new[job["id"]]}', job


def _lists(
    statuses: Sequence[str], queues: Sequence[str], position: tuple[str, int, int]
) -> Iterator[tuple[str, int, str, int]]:
    """Yield what to read from a position on: status, number of its list, key, first index."""
    first, skipped, start = position
    for status in statuses[statuses.index(first) :] if first else statuses:
        for number, key in enumerate(registry_keys(status, queues)):
            if status != first or number > skipped:
                yield status, number, key, 0
            elif number == skipped:
                yield status, number, key, start


def _existing(lists: list[tuple[str, int, str, int]]) -> list[tuple[str, int, str, int]]:
    """Return the lists that exist, in one round trip: most do not."""
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


def registry_keys(status: str, queues: Sequence[str]) -> list[str]:
    """Return the keys that hold the jobs of these queues with this status."""
    if status == 'rate_limited':  # RQ keeps a registry per rate limit, not per queue
        limits = read_members(f'{get_config().key_prefix}:rl-keys')
        return [redis_key('rl', f'{limit}:rate_limited') for limit in limits]
    if status not in REGISTRIES:  # `created`: RQ has no registry of jobs that were never enqueued
        return []
    return [registry_key(status, queue) for queue in queues]


def _pages(key: str, begin: int, wanted: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the ids of a queue or registry in pages, each with the index of its first id."""
    start, size = begin, min(wanted, _PAGE)
    while start < MAX_SCANNED:
        job_ids = read_ids(key, start, min(start + size, MAX_SCANNED) - 1)
        if job_ids:
            yield start, job_ids
        if len(job_ids) < size:
            return
        start, size = start + size, min(2 * size, _PAGE)


def count_waiting_jobs(queue: str) -> int:
    """Return the number of jobs in a queue that wait for a worker, in one round trip.

    Raises InvalidJobError for an unknown queue.
    """
    _one_of('queue', queue, get_config().queues)
    if (other := stand_in()) is not None:
        return len(other.read_page(['queued'], [queue], MAX_LISTED))
    key = registry_key('queued', queue)
    return count_ids([key])[key]


def walk_jobs(statuses: Sequence[str], queues: Sequence[str]) -> Iterator[Status]:
    """Yield every job that has one of these statuses now, without results, in bounded pages.

    For a caller that changes each of them: reads every list from its newer end, so that what leaves
    a list moves nothing that is still to be read. A job that other processes move meanwhile may be
    left out, or come again.
    """
    keys = dict.fromkeys(key for status in statuses for key in registry_keys(status, queues))
    for key, length in count_ids(keys).items():
        for end in range(length, 0, -_PAGE):
            for job in read_statuses(read_ids(key, max(0, end - _PAGE), end - 1), results=False):
                if job and job['status'] in statuses and job['queue'] in queues:
                    yield job


def registry_key(status: str, queue: str) -> str:
    """Return the key that holds the jobs of a queue with this status, one of REGISTRIES."""
    return redis_key(REGISTRIES[status], queue)


def count_ids(keys: Iterable[str]) -> dict[str, int]:
    """Return the number of ids in each queue or registry, in one round trip."""
    wanted = list(keys)
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for key in wanted:
            count = pipe.llen if _is_queue(key) else pipe.zcard
            count(key)
        # A key of the wrong type answers with an error: it holds no jobs.
        counts = [n if isinstance(n, int) else 0 for n in pipe.execute(raise_on_error=False)]
    return dict(zip(wanted, counts, strict=True))


def _is_queue(key: str) -> bool:
    return key.startswith(redis_key('queue', ''))


def read_ids(key: str, first: int, last: int) -> list[str]:
    """Return the ids between two indexes of a queue or registry, both included."""
    entries = _read_if_fit('lrange' if _is_queue(key) else 'zrange', key, first, last)
    # The registry of started jobs has entries `id:execution`.
    return [read_text(entry).split(':')[0] for entry in entries]


def read_members(key: str) -> list[str]:
    """Return the members of a set, sorted."""
    return sorted(map(read_text, _read_if_fit('smembers', key)))


def _read_if_fit(command: str, key: str, *arguments: int) -> Iterable[bytes]:
    """Return what a key holds; nothing if it has another type, so that others can be listed."""
    with redis_connection() as connection:
        try:
            found: Iterable[bytes] = getattr(connection, command)(key, *arguments)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            log.error('%s', wrong_key(key, read_text(connection.type(key))))
            return ()
        return found


def _one_of(name: str, value: str | None, known: Sequence[str]) -> Sequence[str]:
    if value is None:
        return known
    if value not in known:
        meant = LIKE_STATUSES.get(value) if name == 'status' and isinstance(value, str) else None
        hint = f' Write {meant!r}.' if meant else ''
        raise InvalidJobError(
            f'{name} must be one of {", ".join(known)}, not {short_repr(value)}.{hint}', name
        )
    return (value,)
