"""JobWorker: RQ's worker with leases and a reused work horse, so that it loses no job.

Start it with `rq worker --worker-class qdjobs.JobWorker high default low`, or set RQ_WORKER_CLASS.
See docs/reliability.md.
"""

import contextlib
import copy
import importlib
import os
import pkgutil
import signal
import time
from types import ModuleType
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from rq import Worker
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, RQ_KEY_PREFIX
from rq.utils import now, utcformat
from rq.worker import DequeueStrategy

from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import NO_CLUSTER
from qdjobs.config import JobConfig, get_config
from qdjobs.worker import logs
from qdjobs.worker.claims import Claims
from qdjobs.worker.contact import Contact
from qdjobs.worker.horse import Horse, HorseDied, HorseFailed
from qdjobs.worker.lease import Claim, remove_expired
from qdjobs.worker.maintenance import Maintenance
from qdjobs.worker.orders import Orders
from qdjobs.worker.presence import Presence
from qdjobs.worker.pulse import Pulse
from qdjobs.worker.recorder import RETRY_INTERVAL, Outcome, Recorder
from qdjobs.worker.runner import Performer, Runner
from qdjobs.worker.supervisor import Run, Supervisor
from qdjobs.worker.ticks import Ticks
from qdjobs.worker.untrusted import CheckedJob

SOCKET_TIMEOUT = 5.0  # seconds, at most, to wait for an answer of Redis
BEAT_INTERVAL = 0.05  # seconds, at least, between two looks at what is due
EXPIRED_AT_ONCE = 10_000  # entries of registries that one step removes
OUTAGE_PAUSE = 0.5  # seconds between two attempts to claim while Redis is away


class JobWorker(Worker):
    """An RQ worker that loses no job: the adapter that RQ calls. Lives in the parent.

    It composes the parts of this package, whose docstring lists the overrides of RQ.
    """

    job_class = CheckedJob
    performer_class = Performer  # what runs jobs in the horse; for subclasses

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._config = _read_config()
        super().__init__(*args, **kwargs)
        # RQ's command line passes RQ's Job and serializer, which can run code from a record.
        self.job_class = CheckedJob
        self.serializer = PlainSerializer
        self.queues = [copy.copy(queue) for queue in self.queues]  # the caller may use its own
        self._ordered_queues = self.queues[:]
        for queue in self.queues:
            queue.job_class, queue.serializer = CheckedJob, PlainSerializer
        self._next_beat = 0.0  # on the monotonic clock
        self._compose()

    def _compose(self) -> None:
        self._orders = Orders(self._config.shutdown_grace, self._on_stop)
        self._contact = Contact(self.name, self.connection, self._config)
        self._pulse = Pulse(self._config)
        self._presence = Presence(self._contact, self.worker_ttl, self._describe)
        self._claims = Claims(
            self._contact, self._orders, lambda: [queue.name for queue in self._ordered_queues]
        )
        self._recorder = Recorder(self._contact)
        self._maintenance = Maintenance(
            self.connection, self.queues, self._config, self._recorder.follow_ups.append
        )
        self._ticks = Ticks(self._contact)
        self._supervisor = Supervisor(
            self._contact,
            self._orders,
            self._claims,
            self._recorder,
            self,
            self._new_horse,
            self._pulse.beat_if_due,
            self._beat,
        )

    def _set_connection(self, connection: Redis) -> Redis:
        # This worker must notice in time that it cannot renew a lease.
        socket_timeout = min(SOCKET_TIMEOUT, self._config.lease / 3)
        # Connections that `rq` opened have no time-out. A thread may be using one of them.
        connection.connection_pool.disconnect(inuse_connections=False)
        connection.connection_pool.connection_kwargs |= {
            'socket_timeout': socket_timeout,
            'socket_connect_timeout': socket_timeout,
        }
        # A repeated claim must say that it is one.
        connection.set_retry(Retry(NoBackoff(), 0))
        return connection

    # -- start and end ---------------------------------------------------------------------------

    def work(
        self,
        burst: bool = False,
        logging_level: Any = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Run jobs until a request to stop, or as the arguments say, which are RQ's.

        `with_scheduler` has no effect: every JobWorker enqueues due jobs.
        Returns whether any job was run. Raises SystemExit after a second request to stop.
        """
        self._dequeue_strategy = dequeue_strategy
        self._orders.install()  # first: a signal would kill the process
        try:
            logs.set_up(self._config, logging_level, date_format, log_format)
        except ValueError as error:
            raise SystemExit(f'Error: {error}') from None
        self._require_rq_keys()
        self._require_one_server()
        with logs.configurable():
            self._import_tasks()
        self._supervisor.require_horse()  # before RQ starts its thread, and before a job is claimed
        try:
            self._announce()
            done = self._run_jobs(burst, max_jobs, max_idle_time)
        finally:
            self._end()
        if self._orders.at_once:
            raise SystemExit(0)  # as RQ's does: a program that goes on would have to look
        return done > 0

    def _require_rq_keys(self) -> None:
        """Exit if a queue class keeps its queues under other keys: their jobs would never run."""
        for queue in self.queues:
            if queue.key != f'{RQ_KEY_PREFIX}:queue:{queue.name}':
                self.log.error('Worker %s: serves no queue under %s', self.name, queue.key)
                raise SystemExit(1)

    def _require_one_server(self) -> None:
        """Exit if Redis is a node of a cluster, which would keep some of the keys elsewhere."""
        with contextlib.suppress(RedisError):  # it is away, or this user may not know
            if self.connection.info('cluster').get('cluster_enabled'):
                raise SystemExit(f'Error: Redis is a node of a cluster. {NO_CLUSTER}')

    def _import_tasks(self) -> None:
        """Import the task modules before the fork, so that no job waits for an import."""
        packages = {name: self._import(name) for name in self._config.task_modules}
        if not any(packages.values()):  # every job that it claimed would fail
            self.log.error(
                'Worker %s: no module of JOB_TASK_MODULES can be imported. '
                '`flask --app … jobs worker` knows those of an application.',
                self.name,
            )
            raise SystemExit(1)
        for name, package in packages.items():
            for inner in pkgutil.iter_modules(getattr(package, '__path__', []), f'{name}.'):
                self._import(inner.name)

    def _import(self, name: str) -> ModuleType | None:
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # only jobs of this module are affected
            self.log.error('Worker %s: cannot import %s: %r', self.name, name, error)
            return None

    def _new_horse(self) -> Horse:
        self._supervisor.release_ahead()  # a new horse may take long
        try:
            horse = Horse(
                lambda marks: Runner(self, self.performer_class, self._config, marks),
                patience=self._config.lease / 3,
                pulse=self._pulse.beat_if_due,
            )
        except (HorseFailed, HorseDied) as error:
            self.log.error('Worker %s: %s', self.name, error)
            raise SystemExit(1) from None  # the process manager sees that no job can run
        self._horse_pid = horse.pid
        self._ticks.serve(horse.news)
        return horse

    def _announce(self) -> None:
        """Register in Redis, and listen to RQ's commands. Exits if another worker has the name."""
        self.birth_date = now()
        try:
            self._presence.begin(self.key)
        except ValueError as error:
            raise SystemExit(f'Error: {error}') from None
        except ResponseError as error:
            if 'compiling script' not in str(error):
                raise
            raise SystemExit('Error: Redis 7 or Valkey, or newer, is needed.') from error
        self._pulse.begin()
        self.log.info('Worker %s: started with PID %d', self.name, os.getpid())
        self.subscribe()  # type: ignore[no-untyped-call]
        self.log.info('*** Listening on %s...', ', '.join(self.queue_names()))

    def _describe(self) -> tuple[list[str], dict[str, Any]]:
        """Return the queues, and RQ's record of this worker with what RQ leaves out."""
        self.last_heartbeat = now()
        kind = type(self)
        record = self.serialize() | {'worker_class': f'{kind.__module__}.{kind.__qualname__}'}
        if self._shutdown_requested_date is not None:
            record['shutdown_requested_date'] = utcformat(self._shutdown_requested_date)
        return self.queue_names(), record

    def _on_stop(self) -> None:
        self._stop_requested = True  # RQ's names
        self._shutdown_requested_date = now()
        self._presence.hurry()
        self.handle_warm_shutdown_request()  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        self._supervisor.end()
        if self.pubsub_thread is not None:
            # RQ stops the thread only after it has unsubscribed: by then it may wait again.
            self.pubsub_thread.stop()
        with contextlib.suppress(RedisError):  # the worker's record expires
            self.teardown()  # type: ignore[no-untyped-call]

    # -- the loop --------------------------------------------------------------------------------

    def _run_jobs(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> int:
        """Run one job after the other. Returns how many."""
        done, run = 0, None
        while max_jobs is None or done < max_jobs:
            if run is None:
                claim = self._wait_for_claim(burst, max_idle_time)
                if claim is None:
                    break
                run = self._start(claim)
                if run is None:
                    continue
            elif max_jobs is None and self._can_claim_ahead():  # jobs follow one another
                self._claims.claim_ahead()
            outcome = self._supervisor.watch(run)
            done += 1
            run = self._go_on(run, outcome, is_last=done == max_jobs)
            self._beat()
        if done == max_jobs:
            self.log.info('Worker %s: finished executing %d jobs, quitting', self.name, done)
        self._settle()
        return done

    def _wait_for_claim(self, burst: bool, max_idle_time: int | None) -> Claim | None:
        """Wait for a job. Returns None if the worker has to end."""
        idle_since = time.monotonic()
        while True:
            self._pulse.beat_if_due()
            self._beat()
            self._settle()
            if self._orders.stop:
                self.log.info('Worker %s: stopping on request', self.name)
                self._release_unanswered()
                return None
            self._supervisor.require_horse()
            try:
                claim = self._claims.try_once(is_due_check=burst)
                if claim is not None:
                    return claim
                if burst and not self._claims.has_more:
                    self.log.info('Worker %s: done, quitting', self.name)
                    return None
                self._presence.show('suspended' if self._claims.is_suspended else 'idle')
                self._claims.wait(self._ticks.seconds_left())
            except RedisError as error:
                self._contact.failed('claim a job', error)
                self._orders.pause(OUTAGE_PAUSE)
            if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                self.log.info('Worker %s: idle for %d seconds, quitting', self.name, max_idle_time)
                self._release_unanswered()
                return None

    def _release_unanswered(self) -> None:
        """Release the job that this worker may have claimed without having heard of it."""
        if not self._claims.is_unanswered:
            return
        try:
            claim = self._claims.try_once()
        except RedisError as error:  # once the lease has expired, another worker recovers the job
            self._contact.failed('release a job', error)
            return
        if claim is not None:
            self._supervisor.release(claim)

    def _start(self, claim: Claim) -> Run | None:
        """Start a claimed job, or release it if the worker is to stop."""
        if self._orders.stop:
            self._supervisor.release(claim)
            return None
        run = self._supervisor.start(claim)
        queue = next((q for q in self.queues if q.name == claim.queue), self.queues[0])
        self.reorder_queues(queue)
        self._presence.show('busy')
        return run

    def _can_claim_ahead(self) -> bool:
        claims = self._claims
        return (
            claims.has_short_jobs
            and claims.ahead is None
            and not claims.found_nothing
            and not claims.is_unanswered
            and not self._recorder.is_behind
            and not self._orders.stop
        )

    def _go_on(self, run: Run, outcome: Outcome, is_last: bool) -> Run | None:
        """Start the job claimed ahead, then record how this one has ended, and claim another.

        Returns the run that has begun, if any.
        """
        can_go_on = (
            self._supervisor.has_horse
            and outcome.follow_up is None
            and not self._recorder.follow_ups  # of deaths that this worker has found
            and not is_last
            and not self._orders.stop
            and not self._recorder.is_behind
            and not self._claims.is_unanswered
        )
        if not can_go_on:
            self._supervisor.release_ahead()
            self._recorder.record(run.claim, outcome)
            return None
        ahead = self._claims.take_ahead()
        following = self._start(ahead) if ahead is not None else None
        request = None
        # An ending that waits for replicas may have to be repeated, and its claim would be lost.
        can_claim = self._config.wait_replicas is None
        if can_claim and (following is None or self._claims.has_short_jobs):
            request = self._claims.request(is_ahead=following is not None)
        ended = self._recorder.record(run.claim, outcome, ahead, request)
        if request is None:
            return following
        if ended is None or ended.claimed is None:
            self._claims.lose_reply(request)
            return following
        claim = self._claims.read(ended.claimed)
        if claim is None:
            return following
        if following is None:
            return self._start(claim)
        self._claims.ahead = claim
        return following

    def _settle(self) -> None:
        """Wait until all endings are recorded, and follow them up. Exits if no horse survives."""
        deadline = time.monotonic() + 2 * self._config.lease
        while self._recorder.is_behind:
            self._pulse.beat_if_due()
            self._recorder.retry_if_due()
            if self._orders.at_once or (self._orders.stop and time.monotonic() >= deadline):
                self.log.error('Worker %s: ends before Redis has recorded all', self.name)
                return
            if self._recorder.is_behind:
                time.sleep(RETRY_INTERVAL)
        while self._recorder.follow_ups:
            self._supervisor.follow_up(self._recorder.follow_ups.pop(0))
        if self._supervisor.is_broken:
            self.log.error('Worker %s: its work horses die before they run a job', self.name)
            raise SystemExit(1)

    def _beat(self) -> None:
        """Do what a living worker does now and then. Logs all errors of Redis."""
        moment = time.monotonic()
        if moment < self._next_beat or self._recorder.is_behind:
            return
        self._next_beat = moment + BEAT_INTERVAL
        self._presence.beat_if_due()
        self._ticks.run_if_due()
        self._maintenance.run_if_due()
        if self.should_run_maintenance_tasks:
            try:
                # RQ removes all that has expired in one command: first in steps, one each beat.
                if remove_expired(self.connection, self.queue_names(), EXPIRED_AT_ONCE):
                    self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
            except Exception:  # a record that RQ cannot read must not end the worker
                self.log.exception("Worker %s: RQ's maintenance failed", self.name)
                self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ's own type

    # -- RQ's commands, which arrive in a thread -------------------------------------------------

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Have the horse killed if it still runs the present job."""
        stopped, self._stopped_job_id = self._stopped_job_id, None
        execution = next(iter(self.executions), None)
        self._orders.kill(execution, is_stop=stopped is not None)

    def handle_payload(self, message: Any) -> None:
        """Handle a command. Ignores what is none: anyone may publish a message."""
        try:
            super().handle_payload(message)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001
            self.log.warning('Worker %s: ignores a command: %r', self.name, error)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        if not isinstance(exc, RedisError):
            raise exc
        self.log.debug('Worker %s: cannot receive commands: %s', self.name, exc)
        time.sleep(1)


def _read_config() -> JobConfig:
    """Return the configuration. Exit with a one-line error if it is invalid."""
    try:
        config = get_config()
    except ValueError as error:
        raise SystemExit(f'Error: {error}') from None
    if config.key_prefix != RQ_KEY_PREFIX:
        raise SystemExit(
            f'Error: JOB_KEY_PREFIX is {config.key_prefix!r}, but RQ uses {RQ_KEY_PREFIX!r}: start '
            f'the worker with `flask jobs worker`, or set RQ_KEY_PREFIX={config.key_prefix} too.'
        )
    return config
