"""Recover the jobs of dead workers, and clean up after interrupted steps.

Runs in the parent of every worker, busy or idle. Several workers can do so at the same time: each
step is one script, or safe to repeat.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.defaults import RQ_KEY_PREFIX
from rq.queue import Queue
from rq.registry import ScheduledJobRegistry

from qdjobs.client.keys import find_wrong_keys, is_wrong_type
from qdjobs.client.states import ENDED
from qdjobs.config import JobConfig
from qdjobs.errors import wrong_key
from qdjobs.worker.contact import REPORT_INTERVAL
from qdjobs.worker.lease import (
    LOST,
    claim_of,
    late_leases,
    persist_waiting,
    recover,
    settle_deferred,
)
from qdjobs.worker.runner import FollowUp
from qdjobs.worker.successors import (
    enqueue_all_dependents,
    enqueue_limited,
    enqueue_pending_dependents,
    free_slot,
    rate_limit_of,
)

DEFERRED_PAGE = 100  # deferred jobs that one round checks
PAGE = 1000  # waiting jobs that one round checks: at each end of a queue, and in between
RECOVERED_AT_ONCE = 100  # leases in one step
LATE_LEASES = 1000  # leases that one round looks at


log = logging.getLogger(__name__)


class Recovery:
    """Requeues jobs whose workers have died.

    An expired lease alone does not mean that: after an outage of Redis, a step of its clock, or
    when this worker itself was frozen, all leases can have expired while their workers live. So a
    lease is recovered only if this worker has seen it twice, unrenewed, a third of a lease apart by
    its own clock: a living worker has renewed it by then.
    """

    def __init__(
        self, connection: Redis, config: JobConfig, report: Callable[[FollowUp], None]
    ) -> None:
        """`report` has a horse tell the application about a death."""
        self._connection = connection
        self._config = config
        self._report = report
        self._seen: dict[str, tuple[float, float]] = {}  # member: its expiry, when first seen

    def run(self) -> bool:
        """Recover what can be. Returns whether there may be more. Raises RedisError."""
        lease = self._config.lease
        late = late_leases(self._connection, lease / 2, LATE_LEASES)
        moment = time.monotonic()
        self._seen = {
            member: (expiry, self._first_seen(member, expiry, moment))
            for member, expiry in late.items()
        }
        ripe = [
            (member, expiry)
            for member, (expiry, first) in self._seen.items()
            if moment - first >= lease * 0.3
        ]
        for start in range(0, len(ripe), RECOVERED_AT_ONCE):
            self._recover(dict(ripe[start : start + RECOVERED_AT_ONCE]))
        return len(late) == LATE_LEASES

    def _first_seen(self, member: str, expiry: float, moment: float) -> float:
        known = self._seen.get(member)
        return known[1] if known is not None and known[0] == expiry else moment

    def _recover(self, leases: dict[str, float]) -> None:
        for found in recover(self._connection, leases, self._config.max_worker_deaths):
            job_id, state = found.job_id, found.state
            if state == 'lost':  # the job was deleted or cancelled meanwhile
                continue
            log.warning('Job %s is %s: its worker has died.', job_id, state)
            if found.has_dependents:
                enqueue_all_dependents(self._connection, job_id, self._config.lease / 6)
            if state in ENDED and (limit := rate_limit_of(self._connection, job_id)):
                free_slot(self._connection, limit, job_id)
            if found.is_death and state not in ENDED:
                self._report(FollowUp(claim_of(self._connection, job_id), LOST))


class Maintenance:
    """Does a round when it is due."""

    def __init__(
        self,
        connection: Redis,
        queues: Sequence[Queue],
        config: JobConfig,
        report: Callable[[FollowUp], None],
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._config = config
        self._recovery = Recovery(connection, config, report)
        names = ','.join(sorted(queue.name for queue in queues))
        self._lock = f'{RQ_KEY_PREFIX}:tidying:{names}'
        self._next_round = 0.0  # on the monotonic clock
        self._next_report = 0.0
        self._positions: dict[str, int] = {}  # by queue: the first index of the next page
        self._deferred: dict[str, int] = {}  # the same for its deferred jobs

    def run_if_due(self) -> None:
        """Do one round if it is due. Logs all errors: they must not end the worker."""
        moment = time.monotonic()
        if moment < self._next_round:
            return
        config = self._config
        self._next_round = moment + min(config.tidy_interval, config.lease / 6)
        try:
            self._report_wrong_keys()
            if self._recovery.run():
                self._next_round = moment
            # Of workers with the same queues only one at a time does the rest.
            if self._connection.set(self._lock, 1, nx=True, px=int(config.tidy_interval * 1000)):
                self._tidy()
        except RedisError as error:
            log.warning('Maintenance is interrupted: %s', error)
        except Exception:
            log.exception('Maintenance failed')

    def _tidy(self) -> None:
        for queue in self._queues:
            self._pass_over_wrong_keys(self._persist_waiting, queue.name)
            self._pass_over_wrong_keys(self._enqueue_rate_limited, queue)
            self._pass_over_wrong_keys(self._settle_deferred, queue.name)
        self._pass_over_wrong_keys(self._enqueue_pending_dependents)

    def _pass_over_wrong_keys(self, step: Callable[..., None], *arguments: Any) -> None:
        """Do a step. A key of another type must not keep the others from theirs."""
        try:
            step(*arguments)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            log.debug('A step of maintenance meets a key of another type: %s', error)

    def _report_wrong_keys(self) -> None:
        """Log which keys have another type than they should, and what to do about it."""
        moment = time.monotonic()
        if moment < self._next_report:
            return
        self._next_report = moment + max(self._config.tidy_interval, REPORT_INTERVAL)
        names = [queue.name for queue in self._queues]
        for key, found in find_wrong_keys(self._connection, RQ_KEY_PREFIX, names):
            log.error('%s', wrong_key(key, found))

    def _persist_waiting(self, queue: str) -> None:
        """Remove the expiry that waiting jobs have if RQ has requeued them."""
        if not persist_waiting(self._connection, queue, 0, PAGE - 1):
            return
        persist_waiting(self._connection, queue, -PAGE, -1)
        position = self._positions.get(queue, PAGE)
        seen = persist_waiting(self._connection, queue, position, position + PAGE - 1)
        self._positions[queue] = position + PAGE if seen else PAGE

    def _settle_deferred(self, queue: str) -> None:
        """Queue jobs whose parents RQ's tools have deleted; nobody else would."""
        deadline = time.monotonic() + self._config.lease / 30
        first, removed = self._deferred.get(queue, 0), DEFERRED_PAGE
        while removed and time.monotonic() < deadline:  # there may be many of one parent
            last = first + DEFERRED_PAGE - 1
            seen, removed = settle_deferred(self._connection, queue, first, last)
            first = first + seen - removed if seen == DEFERRED_PAGE else 0
        self._deferred[queue] = first

    def _enqueue_rate_limited(self, queue: Queue) -> None:
        """Enqueue due jobs under RQ's rate limit, which `claim_job` skips, with RQ's code."""
        for job_id in ScheduledJobRegistry(queue=queue).get_jobs_to_schedule(chunk_size=100):
            # Claims enqueue the others, and another worker may just have started one.
            if rate_limit_of(self._connection, job_id) is not None:
                enqueue_limited(self._connection, job_id, queue)

    def _enqueue_pending_dependents(self) -> None:
        """Settle dependents of ended jobs whose worker died, or lost Redis, before it did so."""
        old = time.time() - self._config.tidy_interval
        # This worker may run a job meanwhile.
        enqueue_pending_dependents(self._connection, old, self._config.lease / 6)
