"""Recover the jobs of dead workers, and clean up after interrupted steps.

Runs in the parent of every worker, busy or idle. Several workers can do so at the same time: each
step is one script, or safe to repeat.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.queue import Queue
from rq.registry import ScheduledJobRegistry

from qdjobs.config import JobConfig
from qdjobs.worker.lease import PENDING_DEPENDENTS, persist_waiting, recover
from qdjobs.worker.untrusted import CheckedJob

PAGE = 1000  # waiting jobs that one round checks: at each end of a queue, and in between

_TIDYING = f'{RQ_KEY_PREFIX}:tidying'

log = logging.getLogger(__name__)


class Maintenance:
    """Does a round when it is due. `enqueue_dependents` and `release_slot` are the worker's."""

    def __init__(
        self,
        connection: Redis,
        queues: Sequence[Queue],
        config: JobConfig,
        enqueue_dependents: Callable[[Job], None],
        release_slot: Callable[[Job], None],
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._config = config
        self._enqueue_dependents = enqueue_dependents
        self._release_slot = release_slot
        self._next_round = 0.0  # on the monotonic clock
        self._positions: dict[str, int] = {}  # by queue: the first index of the next page

    def run_if_due(self) -> None:
        """Do one round if it is due. Logs all errors: they must not end the worker."""
        moment = time.monotonic()
        if moment < self._next_round:
            return
        config = self._config
        self._next_round = moment + min(2 * config.tidy_interval, config.lease / 3)
        try:
            for job_id in recover(self._connection, config.max_worker_deaths, config.failure_ttl):
                self._free_slot(job_id)
            # Only one worker at a time does the rest.
            if self._connection.set(_TIDYING, 1, nx=True, px=int(config.tidy_interval * 1000)):
                self._tidy()
        except RedisError as error:
            log.warning('Redis is away: %s', error)
        except Exception:
            log.exception('Maintenance failed')

    def _free_slot(self, job_id: str) -> None:
        """Release the job's slot in RQ's rate limit, if it has one."""
        with contextlib.suppress(NoSuchJobError):
            job = CheckedJob.fetch(job_id, self._connection)
            if job.has_rate_limit:
                self._release_slot(job)

    def _tidy(self) -> None:
        for queue in self._queues:
            self._persist_waiting(queue.name)
            self._enqueue_rate_limited(queue)
        self._enqueue_pending_dependents()

    def _persist_waiting(self, queue: str) -> None:
        """Remove the expiry that waiting jobs have if RQ has requeued them."""
        persist_waiting(self._connection, queue, 0, PAGE - 1)
        persist_waiting(self._connection, queue, -PAGE, -1)
        position = self._positions.get(queue, PAGE)
        seen = persist_waiting(self._connection, queue, position, position + PAGE - 1)
        self._positions[queue] = position + PAGE if seen else PAGE

    def _enqueue_rate_limited(self, queue: Queue) -> None:
        """Enqueue due jobs under RQ's rate limit, which `claim_job` skips, with RQ's code."""
        registry = ScheduledJobRegistry(queue=queue)
        for job_id in registry.get_jobs_to_schedule(chunk_size=100):
            with self._connection.pipeline() as pipe:
                registry.remove(job_id, pipeline=pipe)
                try:
                    job = CheckedJob.fetch(job_id, self._connection)
                    queue._enqueue_rate_limited_job(job, pipeline=pipe)
                except NoSuchJobError:
                    pass  # its entry is removed
                except Exception:  # noqa: BLE001  # malformed: it fails with the cause once claimed
                    pipe.hset(f'{RQ_KEY_PREFIX}:job:{job_id}', 'status', 'queued')
                    queue.push_job_id(job_id, pipeline=pipe)
                pipe.execute()

    def _enqueue_pending_dependents(self) -> None:
        """Enqueue dependents of ended jobs whose worker died before it did so."""
        old = time.time() - self._config.tidy_interval
        found: Any = self._connection.zrangebyscore(PENDING_DEPENDENTS, 0, old)
        for member in found:
            try:
                job = CheckedJob.fetch(member.decode(), self._connection)
            except RedisError:
                raise  # the entry stays for the next round
            except Exception:  # noqa: BLE001  # deleted or malformed: nothing can be enqueued
                self._connection.zrem(PENDING_DEPENDENTS, member)
            else:
                self._enqueue_dependents(job)
