"""What a worker does beside jobs, busy or idle: say that it lives, and mend what others left.

Any worker may do any of it at any time: each step is one script, or safe to do twice.
"""

import contextlib
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq import worker_registration
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import NoSuchJobError
from rq.queue import Queue
from rq.registry import ScheduledJobRegistry
from rq.utils import now

from qdjobs.config import get_config
from qdjobs.worker.lease import PENDING_DEPENDENTS, keep_waiting, recover
from qdjobs.worker.untrusted import CheckedJob

if TYPE_CHECKING:
    from qdjobs.worker.worker import JobWorker

PAGE = 1000  # waiting jobs that one round of tidying looks at, from each end and in between

_TIDYING = f'{RQ_KEY_PREFIX}:tidying'


class Maintenance:
    """Keeps the times of one worker's duties."""

    def __init__(self, worker: 'JobWorker') -> None:
        self._worker = worker
        self._config = get_config()
        self._next_beat = self._next_recovery = 0.0
        self._positions: dict[str, int] = {}
        self.state: str | None = None

    def do_what_is_due(self) -> None:
        """Never raises for a Redis that is away: the next round will do it."""
        moment = time.monotonic()
        settings = self._config
        try:
            if moment >= self._next_beat:
                self._next_beat = moment + settings.heartbeat_interval
                self._beat()
            if moment >= self._next_recovery:
                self._next_recovery = moment + min(2 * settings.tidy_interval, settings.lease / 3)
                for job_id in recover(
                    self._worker.connection, settings.max_worker_deaths, settings.failure_ttl
                ):
                    self._free_slot(job_id)
                length = int(settings.tidy_interval * 1000)
                if self._worker.connection.set(_TIDYING, 1, nx=True, px=length):
                    self._tidy()
        except RedisError as error:
            self._worker.log.warning('Worker %s: Redis is away: %s', self._worker.name, error)
        except Exception:  # whatever stands in Redis, a worker does not end by it
            self._worker.log.exception('Worker %s: its upkeep failed', self._worker.name)

    def show_state(self, state: str) -> None:
        """What `rq info` shows of the worker; written when it changes."""
        if state != self.state:
            self._worker.set_state(state)
            self.state = state

    def _beat(self) -> None:
        # The whole of it, since Redis may have come back without it.
        worker = self._worker
        if worker.birth_date is None:
            return
        worker.last_heartbeat = now()
        with worker.connection.pipeline() as pipe:
            pipe.hset(worker.key, mapping=worker.serialize() | {'state': self.state or 'idle'})
            worker_registration.register(worker, pipe)
            pipe.expire(worker.key, worker.worker_ttl + 60)
            pipe.execute()

    def _free_slot(self, job_id: str) -> None:
        """RQ's rate limit counts a job until it has ended."""
        with contextlib.suppress(NoSuchJobError):
            job = CheckedJob.fetch(job_id, self._worker.connection)
            if job.has_rate_limit:
                self._worker._release_slot_safely(job)

    def _tidy(self) -> None:
        for queue in self._worker.queues:
            self._keep_waiting(queue.name)
            self._enqueue_rate_limited(queue)
        self._enqueue_forgotten_dependents()

    def _keep_waiting(self, queue: str) -> None:
        connection = self._worker.connection
        keep_waiting(connection, queue, 0, PAGE - 1)
        keep_waiting(connection, queue, -PAGE, -1)
        position = self._positions.get(queue, PAGE)
        seen = keep_waiting(connection, queue, position, position + PAGE - 1)
        self._positions[queue] = position + PAGE if seen else PAGE

    def _enqueue_rate_limited(self, queue: Queue) -> None:
        """Scheduled jobs under RQ's rate limit, which `take` leaves to RQ's own code."""
        worker = self._worker
        registry = ScheduledJobRegistry(queue=queue)
        for job_id in registry.get_jobs_to_schedule(chunk_size=100):
            with worker.connection.pipeline() as pipe:
                registry.remove(job_id, pipeline=pipe)
                try:
                    job = CheckedJob.fetch(job_id, worker.connection)
                    queue._enqueue_rate_limited_job(job, pipeline=pipe)
                except NoSuchJobError:
                    pass  # its entry goes
                except Exception:  # noqa: BLE001  # unreadable: whoever takes it will say why
                    pipe.hset(f'{RQ_KEY_PREFIX}:job:{job_id}', 'status', 'queued')
                    queue.push_job_id(job_id, pipeline=pipe)
                pipe.execute()

    def _enqueue_forgotten_dependents(self) -> None:
        """Dependents of jobs that ended just before their worker did."""
        worker = self._worker
        old = time.time() - self._config.tidy_interval
        found: Any = worker.connection.zrangebyscore(PENDING_DEPENDENTS, 0, old)
        for member in found:
            try:
                job = CheckedJob.fetch(member.decode(), worker.connection)
            except RedisError:
                raise  # the note stays for the next time
            except Exception:  # noqa: BLE001  # gone, or not to be read: nothing can be done for it
                worker.connection.zrem(PENDING_DEPENDENTS, member)
            else:
                worker.enqueue_dependents(job, worker._queue_of(job))
