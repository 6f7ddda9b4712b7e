"""JobWorker: RQ's worker, without the windows in which it loses a job, and warm.

`rq worker --worker-class qdjobs.worker.worker.JobWorker high default low`, or RQ_WORKER_CLASS. The
worker takes a job, started and leased, in one step (here); a work horse that lives on runs it
(`job_runner`) and records the outcome in one step (`job_recorder`); meanwhile the worker renews the
lease and watches both (`job_watcher`). Each method takes the place of RQ's, and says why.
docs/reliability.md has the whole.
"""

import contextlib
import importlib
import os
import pkgutil
import select
import signal
import time
from types import FrameType, ModuleType
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker, worker_registration
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, RQ_KEY_PREFIX
from rq.job import Job
from rq.logutils import setup_loghandlers
from rq.queue import Queue
from rq.utils import now

from qdjobs.client.payload import PlainSerializer
from qdjobs.config import JobConfig, get_config
from qdjobs.worker.horse import Horse, HorseDied, HorseFailed
from qdjobs.worker.lease import NoJob, claim_job, wait_for_wake_up
from qdjobs.worker.maintenance import Maintenance
from qdjobs.worker.supervisor import Supervisor
from qdjobs.worker.untrusted import CheckedJob, TimeLimit

SOCKET_TIMEOUT = 5.0  # seconds, at most, after which a connection that hangs is given up


class JobWorker(Supervisor, Worker):
    """The worker of this project; see the module."""

    job_class = CheckedJob
    death_penalty_class = TimeLimit

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._config = _read_config()
        super().__init__(*args, **kwargs)
        # RQ's command line passes its own Job and serializer: they would run what they read.
        self.job_class = CheckedJob
        self.serializer = PlainSerializer
        self.queues = [self._trusting_nobody(queue) for queue in self.queues]
        self._ordered_queues = self.queues[:]
        self._maintenance = Maintenance(
            self.connection,
            self.queues,
            self._config,
            lambda job: self.enqueue_dependents(job, self._queue_of(job)),
            self._release_slot_safely,
        )
        self._shown_state: str | None = None
        self._next_beat = 0.0
        self._stop_asked_at = 0.0
        self._looked_for_due = 0.0

    def _trusting_nobody(self, queue: Queue) -> Queue:
        queue.job_class, queue.serializer = CheckedJob, PlainSerializer
        return queue

    def serialize(self) -> dict[Any, Any]:
        # RQ writes nothing by which a stock worker could be told from this one.
        kind = type(self)
        return super().serialize() | {'worker_class': f'{kind.__module__}.{kind.__qualname__}'}

    def _set_connection(self, connection: Redis) -> Redis:
        # RQ waits seven minutes for an answer, since it blocks so long. We must know in time that
        # a lease cannot be renewed.
        socket_timeout = min(SOCKET_TIMEOUT, self._config.lease / 3)
        connection.connection_pool.disconnect()  # what `rq` has opened waits for ever
        connection.connection_pool.connection_kwargs |= {
            'socket_timeout': socket_timeout,
            'socket_connect_timeout': socket_timeout,
        }
        return connection

    # -- start and end ---------------------------------------------------------------------------

    def work(self, *args: Any, with_scheduler: bool = False, **kwargs: Any) -> bool:
        # Every JobWorker enqueues what is due when it takes a job: a scheduler process of RQ's
        # would only be one more thing that can die.
        return bool(super().work(*args, **kwargs))

    def bootstrap(
        self,
        logging_level: Any = 'INFO',
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        self._wake_up, self._wake_up_end = os.pipe()  # readable from the first signal on
        self._install_signal_handlers()  # RQ does so later, and dies of a signal until then
        for name in ('qdjobs', *self._config.task_modules):
            setup_loghandlers(logging_level, date_format, log_format, name=name)
        self._import_tasks()
        self._horse = self._new_horse()  # before RQ starts its thread, and before any job is ours
        super().bootstrap(logging_level, date_format, log_format)

    def _import_tasks(self) -> None:
        """Import what tasks need before the horse is forked, so that no job waits for it."""
        for name in self._config.task_modules:
            if (package := self._import(name)) is not None:
                for inner in pkgutil.iter_modules(getattr(package, '__path__', []), f'{name}.'):
                    self._import(inner.name)

    def _import(self, name: str) -> ModuleType | None:
        try:
            return importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  # its jobs will fail with it; others run
            self.log.error('Worker %s: cannot import %s: %r', self.name, name, error)
            return None

    def _new_horse(self) -> Horse:
        try:
            return Horse(self.prepare_horse, self.run_message)
        except (HorseFailed, HorseDied) as error:
            self.log.error('Worker %s: %s', self.name, error)
            raise SystemExit(1) from None  # a supervisor sees that no job can run here

    def _install_signal_handlers(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.request_stop)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        # RQ raises out of whatever is being done, a job that has just been taken included.
        if not self._stop_requested:
            self._stop_asked_at = time.monotonic()  # first: the next signal may come any moment
            self._stop_requested = True
            os.write(self._wake_up_end, b'.')  # ends a wait, or keeps one from beginning
            self._shutdown_requested_date = now()
            if self._config.shutdown_grace is not None:
                self._give_up_at = time.monotonic() + self._config.shutdown_grace
            self.handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        elif time.monotonic() - self._stop_asked_at >= 1:
            self._forced = True  # a pool sends each signal twice; this is another one

    def teardown(self) -> None:
        if self._horse is not None:
            self._horse.retire()
        with contextlib.suppress(RedisError):  # if Redis is away, our record there expires
            super().teardown()  # type: ignore[no-untyped-call]

    def unsubscribe(self) -> None:
        # RQ's stops its thread after it has unsubscribed: the thread may wait for another
        # subscription by then, and the worker a second for the thread.
        if self.pubsub_thread is not None:
            self.pubsub_thread.stop()
        super().unsubscribe()  # type: ignore[no-untyped-call]

    # -- Redis, which may be away ----------------------------------------------------------------

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        # RQ writes one several times a job; a worker that is cut off must not end by it either.
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        else:
            self._beat_if_due()
            self._maintenance.run_if_due()

    def _beat_if_due(self) -> None:
        moment = time.monotonic()
        if moment < self._next_beat or self.birth_date is None:
            return
        self._next_beat = moment + self._config.heartbeat_interval
        self.last_heartbeat = now()
        # The whole record, since Redis may have come back without it.
        record = self.serialize() | {'state': self._shown_state or 'idle'}
        try:
            with self.connection.pipeline() as pipe:
                pipe.hset(self.key, mapping=record)
                worker_registration.register(self, pipe)
                pipe.expire(self.key, self.worker_ttl + 60)
                pipe.execute()
        except RedisError as error:
            self.log.warning('Worker %s: no heartbeat: %s', self.name, error)

    def _show_state(self, state: str) -> None:
        """What `rq info` shows of the worker; written when it changes."""
        if state != self._shown_state:
            self.set_state(state)
            self._shown_state = state

    def check_for_suspension(self, burst: bool) -> None:
        """Nothing to do: `take` looks for a suspension in the same step as it takes a job."""

    def run_maintenance_tasks(self) -> None:
        # One record that RQ cannot read would end the worker.
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except Exception:
            self.log.exception("Worker %s: RQ's maintenance failed", self.name)
            self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ's own type

    def handle_payload(self, message: Any) -> None:
        # What one message raises would end the thread for commands, and anyone may publish one.
        try:
            super().handle_payload(message)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001
            self.log.warning('Worker %s: ignores a command: %r', self.name, error)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        # RQ's ends the thread, and with it all commands, on a time-out too.
        if not isinstance(exc, RedisError):
            raise exc
        self.log.warning('Worker %s: no commands for now: %s', self.name, exc)
        time.sleep(1)

    # -- taking a job ----------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        # RQ pops the id into its memory, and starts the job some round trips later.
        burst = timeout is None
        execution_id = uuid4().hex
        idle_since = time.monotonic()
        unheard = False
        while not self._stop_requested:
            self.heartbeat()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            try:
                found = self._claim(execution_id, burst, unheard)
                if found is not None or burst:
                    return found
            except RedisError as error:
                unheard = True
                self.log.error('Worker %s: Redis is away: %s', self.name, error)
                select.select([self._wake_up], [], [], 0.5)
            if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                return None
        return None

    def _claim(self, execution_id: str, burst: bool, unheard: bool) -> tuple[Job, Queue] | None:
        """The next job, or None after a wait in which none came."""
        if self._horse is None or not self._horse.is_alive():
            self._horse = self._new_horse()  # before there is a job that would wait for it
        asked_at = time.monotonic()
        names = [queue.name for queue in self._ordered_queues]
        lease = self._config.lease
        due = burst or asked_at - self._looked_for_due >= self._config.due_interval
        if due:
            self._looked_for_due = asked_at
        found = claim_job(self.own_connection, self.name, execution_id, lease, names, unheard, due)
        if isinstance(found, NoJob):
            self._show_state('suspended' if found.suspended else 'idle')
            if not burst:
                wait = min(self._config.idle_wait, self._config.heartbeat_interval)
                wait_for_wake_up(self.connection, found.last_wake_up, wait, self._wake_up)
            return None
        self._claimed = found
        self._lease_until = asked_at + lease
        self._show_state('busy')
        job = CheckedJob(connection=self.connection)
        job._id, job.origin = found.lease.job_id, found.lease.origin
        queue = next((q for q in self.queues if q.name == found.queue), self.queues[0])
        self.reorder_queues(queue)
        described = found.fields.get(b'description', b'')[:500].decode(errors='replace')
        shown = f'{described} ({job.id})' if self.log_job_description else job.id
        self.log.info('Worker %s: %s: %s', self.name, queue.name, shown)
        return job, queue


def _read_config() -> JobConfig:
    """The configuration, or the end of a worker that cannot have one, in one line."""
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
