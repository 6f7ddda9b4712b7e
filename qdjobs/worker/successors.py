"""Let jobs run that wait for the end of another: dependents, and those under its rate limit.

Runs in the parent.
"""

import logging
import time

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.queue import Queue
from rq.rate_limit import RateLimitRegistry

from qdjobs.worker.lease import enqueue_dependents, forget_pending, pending_dependents
from qdjobs.worker.untrusted import CheckedJob

PAGE = 100  # dependents in one step: Redis serves no other client meanwhile

log = logging.getLogger(__name__)


def enqueue_all_dependents(connection: Redis, parent: str | bytes, seconds: float) -> bool:
    """Enqueue the dependents of an ended job, for at most about `seconds`.

    Returns whether that was all. Until then, a note has maintenance repeat it. Raises RedisError.
    """
    deadline = time.monotonic() + seconds
    cursor = '0'
    while True:
        cursor, limited = enqueue_dependents(connection, parent, cursor, PAGE)
        for job_id in limited:
            enqueue_limited(connection, job_id, _queue_of(connection, job_id))
        if cursor == '0' and not limited:  # else the script has kept its note
            return True
        if time.monotonic() >= deadline:
            return False


def enqueue_pending_dependents(connection: Redis, latest: float, seconds: float) -> None:
    """Settle the dependents of jobs for which that was due by `latest`, for about `seconds`.

    Raises RedisError.
    """
    deadline = time.monotonic() + seconds
    # What is cancelled here can have dependents of its own.
    while found := pending_dependents(connection, latest, PAGE):
        for parent in found:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                enqueue_all_dependents(connection, parent, left)
            except ResponseError as error:  # its key has another type: nothing can be enqueued
                log.error('Dependents of job %r cannot be enqueued: %s', parent, error)
                forget_pending(connection, parent)


def enqueue_limited(connection: Redis, job_id: str, queue: Queue) -> None:
    """Enqueue a due or deferred job under RQ's rate limit, with RQ's code: it may wait for a slot.

    `queue` is the job's. A malformed job is queued: it fails with the cause once claimed.
    """
    with connection.pipeline() as pipe:
        pipe.zrem(queue.scheduled_job_registry.key, job_id)
        pipe.zrem(queue.deferred_job_registry.key, job_id)
        try:
            job = CheckedJob.fetch(job_id, connection)
            queue._enqueue_rate_limited_job(job, pipeline=pipe)
        except NoSuchJobError:
            pass  # its entries are removed
        except RedisError:
            raise
        except Exception:
            log.exception('Job %s, under a rate limit, cannot be enqueued', job_id)
            pipe.hset(Job.key_for(job_id), 'status', 'queued')
            queue.push_job_id(job_id, pipeline=pipe)
        pipe.execute()


def _queue_of(connection: Redis, job_id: str) -> Queue:
    origin = connection.hget(Job.key_for(job_id), 'origin')
    name = origin.decode(errors='replace') if isinstance(origin, bytes) else 'default'
    return Queue(name, connection=connection, job_class=CheckedJob)


def free_slot(connection: Redis, rate_limit: str, job_id: str) -> None:
    """Free the slot of an ended job in RQ's rate limit; RQ's maintenance does so too."""
    try:
        RateLimitRegistry(rate_limit, connection).release_stale_and_enqueue(job_id)
    except RedisError as error:
        log.warning('The slot of job %s in its rate limit is not free yet: %s', job_id, error)


def rate_limit_of(connection: Redis, job_id: str) -> str | None:
    """Return the key of the rate limit of a job, or None."""
    found = connection.hget(Job.key_for(job_id), 'rate_limit_key')
    return found.decode(errors='replace') if isinstance(found, bytes) else None
