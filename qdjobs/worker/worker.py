"""JobWorker: RQ's worker with leases and a reused work horse, so that it loses no job.

Start it with `rq worker --worker-class qdjobs.JobWorker high default low`, or set RQ_WORKER_CLASS.
The parent claims a job in one step (this module, which runs in the parent), and supervises it
(supervisor.py). The horse runs the job (runner.py) and records its outcome in one step
(recorder.py). Methods that override RQ's say why in a comment. See docs/reliability.md.
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

SOCKET_TIMEOUT = 5.0  # seconds, at most, to wait for an answer of Redis


class JobWorker(Supervisor, Worker):
    """An RQ worker that loses no job."""

    job_class = CheckedJob
    death_penalty_class = TimeLimit

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._config = _read_config()
        super().__init__(*args, **kwargs)
        # RQ's command line passes RQ's Job and serializer, which can run code from a record.
        self.job_class = CheckedJob
        self.serializer = PlainSerializer
        for queue in self.queues:
            queue.job_class, queue.serializer = CheckedJob, PlainSerializer
        self._maintenance = Maintenance(
            self.connection,
            self.queues,
            self._config,
            lambda job: self.enqueue_dependents(job, self._queue_of(job)),
            self._release_slot_safely,
        )
        self._written_state: str | None = None
        # On the monotonic clock:
        self._next_heartbeat = 0.0
        self._stop_requested_at = 0.0
        self._last_due_check = 0.0

    def serialize(self) -> dict[Any, Any]:
        # RQ's record of a worker does not name its class.
        kind = type(self)
        return super().serialize() | {'worker_class': f'{kind.__module__}.{kind.__qualname__}'}

    def _set_connection(self, connection: Redis) -> Redis:
        # RQ's time-out is seven minutes, since its dequeue blocks. This worker must notice in time
        # that it cannot renew a lease.
        socket_timeout = min(SOCKET_TIMEOUT, self._config.lease / 3)
        connection.connection_pool.disconnect()  # connections that `rq` opened have no time-out
        connection.connection_pool.connection_kwargs |= {
            'socket_timeout': socket_timeout,
            'socket_connect_timeout': socket_timeout,
        }
        return connection

    # -- start and end ---------------------------------------------------------------------------

    def work(self, *args: Any, with_scheduler: bool = False, **kwargs: Any) -> bool:
        # Every JobWorker enqueues due jobs when it claims one, so RQ's scheduler is not needed.
        return bool(super().work(*args, **kwargs))

    def bootstrap(
        self,
        logging_level: Any = 'INFO',
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        self._stop_reader, self._stop_writer = os.pipe()  # readable after the first stop signal
        self._install_signal_handlers()  # RQ does so later; until then a signal would kill it
        for name in ('qdjobs', *self._config.task_modules):
            setup_loghandlers(logging_level, date_format, log_format, name=name)
        self._import_tasks()
        self._horse = self._new_horse()  # before RQ starts its thread, and before a job is claimed
        try:
            super().bootstrap(logging_level, date_format, log_format)
        except ValueError as error:  # another worker has its name
            self._horse.retire()
            raise SystemExit(f'Error: {error}') from None

    def _import_tasks(self) -> None:
        """Import the task modules before the fork, so that no job waits for an import."""
        packages = {name: self._import(name) for name in self._config.task_modules}
        if not any(packages.values()):  # every job that it claimed would fail
            self.log.error('Worker %s: no module of JOB_TASK_MODULES can be imported', self.name)
            raise SystemExit(1)
        for name, package in packages.items():
            for inner in pkgutil.iter_modules(getattr(package, '__path__', []), f'{name}.'):
                self._import(inner.name)

    def _import(self, name: str) -> ModuleType | None:
        try:
            return importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  # only jobs of this module will fail
            self.log.error('Worker %s: cannot import %s: %r', self.name, name, error)
            return None

    def _new_horse(self) -> Horse:
        try:
            return Horse(self.prepare_horse, self.run_message)
        except (HorseFailed, HorseDied) as error:
            self.log.error('Worker %s: %s', self.name, error)
            raise SystemExit(1) from None  # the process manager sees that no job can run

    def _install_signal_handlers(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.request_stop)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        # RQ raises an exception in the handler, which can lose a job that was just claimed.
        if not self._stop_requested:
            self._stop_requested_at = time.monotonic()  # first: a second signal may follow
            self._stop_requested = True
            os.write(self._stop_writer, b'.')  # ends a wait for a wake-up
            self._shutdown_requested_date = now()
            if self._config.shutdown_grace is not None:
                self._grace_until = time.monotonic() + self._config.shutdown_grace
            self.handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        elif time.monotonic() - self._stop_requested_at >= 1:  # a pool sends each signal twice
            self._stop_at_once = True

    def teardown(self) -> None:
        if self._horse is not None:
            self._horse.retire()
        with contextlib.suppress(RedisError):  # the worker's record expires
            super().teardown()  # type: ignore[no-untyped-call]

    def unsubscribe(self) -> None:
        # RQ's stops its thread only after it has unsubscribed: the thread may wait for another
        # subscription by then, and the worker waits a second for the thread.
        if self.pubsub_thread is not None:
            self.pubsub_thread.stop()
        super().unsubscribe()  # type: ignore[no-untyped-call]

    # -- heartbeat, state, maintenance, commands: all survive a lost Redis -----------------------

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        # RQ writes one several times per job, and an error of Redis would end the worker.
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        else:
            self._write_heartbeat_if_due()
            self._maintenance.run_if_due()

    def _write_heartbeat_if_due(self) -> None:
        moment = time.monotonic()
        if moment < self._next_heartbeat or self.birth_date is None:
            return
        self._next_heartbeat = moment + self._config.heartbeat_interval
        self.last_heartbeat = now()
        # The whole record, since Redis may have lost it.
        record = self.serialize() | {'state': self._written_state or 'idle'}
        try:
            with self.connection.pipeline() as pipe:
                pipe.hset(self.key, mapping=record)
                worker_registration.register(self, pipe)
                pipe.expire(self.key, self.worker_ttl + 60)
                pipe.execute()
        except RedisError as error:
            self.log.warning('Worker %s: cannot write its heartbeat: %s', self.name, error)

    def _write_state(self, state: str) -> None:
        """Write the state that `rq info` shows, if it has changed."""
        if state != self._written_state:
            self.set_state(state)
            self._written_state = state

    def check_for_suspension(self, burst: bool) -> None:
        """Do nothing: `claim_job` checks for a suspension in the same step."""

    def run_maintenance_tasks(self) -> None:
        # A record that RQ cannot read would end the worker.
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
        # RQ's handler ends the thread that receives commands, even after a time-out.
        if not isinstance(exc, RedisError):
            raise exc
        self.log.warning('Worker %s: cannot receive commands: %s', self.name, exc)
        time.sleep(1)

    # -- claiming a job --------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        # RQ pops the id, and starts the job several round trips later.
        burst = timeout is None
        execution_id = uuid4().hex
        idle_since = time.monotonic()
        reply_lost = False
        while not self._stop_requested:
            self.heartbeat()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            try:
                found = self._claim(execution_id, burst, reply_lost)
                if found is not None or burst:
                    return found
            except RedisError as error:
                reply_lost = True
                self.log.error('Worker %s: Redis is away: %s', self.name, error)
                select.select([self._stop_reader], [], [], 0.5)
            if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                return None
        return None

    def _claim(self, execution_id: str, burst: bool, reply_lost: bool) -> tuple[Job, Queue] | None:
        """Claim the next job. If there is none, wait for a wake-up and return None."""
        if self._horse is None or not self._horse.is_alive():
            self._horse = self._new_horse()  # first, so that no claimed job waits for it
        sent_at = time.monotonic()
        names = [queue.name for queue in self._ordered_queues]
        lease = self._config.lease
        due = burst or sent_at - self._last_due_check >= self._config.due_interval
        if due:
            self._last_due_check = sent_at
        found = claim_job(
            self.own_connection, self.name, execution_id, lease, names, reply_lost, due
        )
        if isinstance(found, NoJob):
            self._write_state('suspended' if found.suspended else 'idle')
            if not burst:
                wait = min(self._config.idle_wait, self._config.heartbeat_interval)
                wait_for_wake_up(self.connection, found.last_wake_up, wait, self._stop_reader)
            return None
        self._claimed = found
        self._lease_until = sent_at + lease
        self._write_state('busy')
        job = CheckedJob(connection=self.connection)
        job._id, job.origin = found.lease.job_id, found.lease.origin
        queue = next((q for q in self.queues if q.name == found.queue), self.queues[0])
        self.reorder_queues(queue)
        described = found.fields.get(b'description', b'')[:500].decode(errors='replace')
        shown = f'{described} ({job.id})' if self.log_job_description else job.id
        self.log.info('Worker %s: %s: %s', self.name, queue.name, shown)
        return job, queue


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
