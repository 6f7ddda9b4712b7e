"""List jobs by when they were created, newest or oldest first. Bounded, without RQ's clean-up."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from qdjobs.client.listing import MAX_SCANNED, count_ids, read_ids, registry_keys
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.status import Status, parse_moment, read_statuses, read_text
from qdjobs.errors import InvalidJobError, short_repr

_CURSOR = re.compile(r'(\d{1,18})\.([A-Za-z0-9_-]+)', re.ASCII)  # of the last job of a page
_PAGE = 1000  # jobs read in one round trip
_NUMBERED = re.compile(r'(.*-)([0-9]{1,9})')  # an id in a batch, whose jobs have one time

_Age = tuple[int, str, int, str]  # of a job: microseconds, then its place in a batch; its id


@dataclass(frozen=True)
class Wanted:
    """What a listing selects: jobs of these statuses and queues, and of this task or any."""

    statuses: Sequence[str]
    queues: Sequence[str]
    task: str | None = None

    def includes(self, job: Status) -> bool:
        return (
            job['status'] in self.statuses
            and job['queue'] in self.queues
            and self.task in (None, job['task'])
        )


@dataclass(frozen=True)
class Page:
    """Jobs without their results, the cursor of the next page or None, and the ids not looked at.

    If there are any, a page has what is at the newer (or older) end of each list.
    """

    jobs: list[Status]
    next: str | None
    unread: int


def list_by_age(wanted: Wanted, limit: int, oldest_first: bool, cursor: str | None = None) -> Page:
    """Return the newest (or oldest) jobs of all statuses, by the time of their creation.

    Pass a cursor with the same `wanted` and order. It is the age of a job: what was enqueued or has
    changed its status between two pages is neither listed twice nor left out. Looks at 10,000 ids
    at most, those at the newer (or older) end of each queue and registry. A queue ends with what
    was enqueued last, a registry of ended jobs with what expires last: with lifetimes that are all
    the same, what ended last. Raises InvalidJobError for a cursor of another listing.
    """
    after = _parse_cursor(cursor)
    job_ids, unread = _candidates(wanted, oldest_first)
    ages = sorted(_ages(job_ids, wanted), reverse=not oldest_first)
    if after is not None:
        ages = [age for age in ages if (age > after if oldest_first else age < after)]
    found = list(islice(_read(ages, wanted, limit + 1), limit + 1))
    is_last = len(found) <= limit
    following = None if is_last else _cursor_of(found[limit - 1])
    return Page(found[:limit], following, unread)


def _candidates(wanted: Wanted, oldest_first: bool) -> tuple[list[str], int]:
    """Return at most MAX_SCANNED ids, and the number of those beyond that.

    A short list is read as a whole, the long ones share what is left.
    """
    keys = [key for status in wanted.statuses for key in registry_keys(status, wanted.queues)]
    lengths = sorted(count_ids(dict.fromkeys(keys)).items(), key=lambda item: item[1])
    job_ids: dict[str, None] = {}
    left = MAX_SCANNED
    for number, (key, length) in enumerate(lengths):
        share = min(length, left // (len(lengths) - number))
        if share:
            ids = read_ids(key, 0, share - 1) if oldest_first else read_ids(key, -share, -1)
            job_ids |= dict.fromkeys(ids)
        left -= share
    return list(job_ids), sum(length for _, length in lengths) - (MAX_SCANNED - left)


def _ages(job_ids: Sequence[str], wanted: Wanted) -> Iterator[_Age]:
    """Yield the age of each job that may be wanted. A registry may lag behind its jobs."""
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        for start in range(0, len(job_ids), _PAGE):
            chunk = job_ids[start : start + _PAGE]
            for job_id in chunk:
                pipe.hmget(redis_key('job', job_id), 'status', 'origin', 'task', 'created_at')
            for job_id, fields in zip(chunk, pipe.execute(raise_on_error=False), strict=True):
                if isinstance(fields, list) and _may_be(fields, wanted):
                    yield _age(_micros(parse_moment(fields[3])), job_id)


def _may_be(fields: list[Any], wanted: Wanted) -> bool:
    status, origin, task = map(read_text, fields[:3])
    # A job that RQ itself has enqueued has its task in its payload only.
    is_task = wanted.task is None or not task or task == wanted.task
    return is_task and status in wanted.statuses and origin in wanted.queues


def _read(ages: Sequence[_Age], wanted: Wanted, size: int) -> Iterator[Status]:
    """Yield the jobs of these ages that are wanted, reading `size` in one round trip."""
    for start in range(0, len(ages), size):
        for job in read_statuses([age[-1] for age in ages[start : start + size]], False):
            if job is not None and wanted.includes(job):
                yield job


def _age(micros: int, job_id: str) -> _Age:
    match = _NUMBERED.fullmatch(job_id)
    return (micros, match[1], int(match[2]), job_id) if match else (micros, job_id, 0, job_id)


def _micros(moment: datetime | None) -> int:
    return max(0, round(moment.timestamp() * 1_000_000)) if moment else 0


def _cursor_of(job: Status) -> str:
    return f'{_micros(job["created_at"])}.{job["id"]}'


def _parse_cursor(cursor: str | None) -> _Age | None:
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidJobError(
            f'cursor must be what the page before has named, not {short_repr(cursor)}.', 'cursor'
        )
    return _age(int(match[1]), match[2])
