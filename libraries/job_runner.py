"""What happens to a job inside the work horse, and how each end of it is recorded.

The second half of JobWorker: these methods take the place of RQ's wherever RQ writes an outcome in
more than one step, or without asking whether the job is still its own.
"""

import contextlib
import importlib
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq.callbacks import execute_stopped_callback
from rq.executions import Execution
from rq.job import Job, JobStatus, Retry
from rq.queue import Queue
from rq.repeat import Repeat
from rq.results import Result
from rq.timeouts import JobTimeoutException
from rq.worker import BaseWorker

from libraries.job_errors import InvalidJobError, PermanentJobError, UnknownTaskError
from libraries.job_horse import HorseDied
from libraries.job_lease import PENDING_DEPENDENTS, Lease, Taken, finish, record
from libraries.job_outcome import MAX_TTL, pack_result, write_failed, write_finished, write_retry
from libraries.job_payload import check_plain
from libraries.job_record import CheckedJob, restore_job
from libraries.settings import get_settings

if TYPE_CHECKING:
    from flask import Flask  # a worker without JOB_APP needs none

TIMED_OUT = b' timed out'  # behind the answer of a horse that is better replaced
DELETED_AFTER = 60  # seconds that a job with no time to live is kept for what follows its end


class JobRunner(BaseWorker):
    """Runs jobs in the work horse, and records how they end."""

    log_result_lifespan = False  # the same line for every job
    _lease: Lease | None = None
    _app: 'Flask | None' = None
    _own_connection: Redis | None = None
    _permanent = False
    _timed_out = False

    @property
    def own_connection(self) -> Redis:
        """One connection for every job, without the pool's work for each command."""
        if self._own_connection is None:  # not sooner: Redis may be away when a horse is born
            self._own_connection = self.connection.client()
        return self._own_connection

    # -- in the horse ----------------------------------------------------------------------------

    def prepare_horse(self) -> None:
        """Once in each horse: a Redis connection of its own, and the application."""
        self._is_horse = True
        self.connection.connection_pool.reset()  # the worker's sockets are the worker's
        self._own_connection = None
        os.environ['RQ_WORKER_ID'] = self.name
        if path := get_settings().app:
            module, _, factory = path.partition(':')
            self._app = getattr(importlib.import_module(module), factory or 'create_app')()

    def run_message(self, message: bytes) -> bytes:
        """Run the job that the worker has taken; its outcome is recorded when this returns."""
        taken: Taken = pickle.loads(message)  # noqa: S301  # from our own worker
        self._lease, self._permanent, self._timed_out = taken.lease, False, False
        os.environ['RQ_JOB_ID'] = taken.lease.job_id
        folder = os.getcwd()
        try:
            job = self._restore(taken)
            if job is not None:
                context = copy_context()  # what a task sets there is gone with it
                context.run(self._run_in_app, job, taken)
        finally:
            os.chdir(folder)
        done = taken.lease.execution_id.encode()
        return done + TIMED_OUT if self._timed_out else done

    def _run_in_app(self, job: CheckedJob, taken: Taken) -> None:
        with self._app.app_context() if self._app else contextlib.nullcontext():
            self.perform_job(job, self._queue_of(job), self._execution_of(job, taken))

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        # RQ writes here that the job has started; `take` has done that. This is where RQ turns
        # what is raised into a failure of the job, so it is here that the record is judged.
        assert isinstance(job, CheckedJob)
        job.require_trustworthy()

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        # RQ sends a heartbeat for the time of the callbacks; the worker renews the lease.
        job.ended_at = datetime.now(UTC)

    def _finalize_success(
        self, job: Job, queue: Queue, execution: Execution, return_value: Any
    ) -> None:
        # RQ would record a placeholder as the result.
        if not isinstance(return_value, Retry):
            check_plain(return_value, f'the result of {job.func_name}')
        super()._finalize_success(job, queue, execution, return_value)

    def _finalize_failure(
        self, job: Job, queue: Queue, execution: Execution, exc_info: Any
    ) -> None:
        # Before RQ puts the error of a failing callback in the place of this one.
        self._permanent = isinstance(exc_info[1], _PERMANENT)
        self._timed_out = isinstance(exc_info[1], JobTimeoutException)
        super()._finalize_failure(job, queue, execution, exc_info)

    # -- outcomes --------------------------------------------------------------------------------

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution
    ) -> None:
        result_ttl = min(job.get_result_ttl(self.default_result_ttl), MAX_TTL)
        if job.repeats_left:  # RQ's own writes, in one step
            with self._recording(job, queue) as pipe:
                write_finished(pipe, job, execution, result_ttl or DELETED_AFTER)
                self.increment_successful_job_count(pipe)
                self._count_time(job, pipe)
                Repeat.schedule(job, queue, pipeline=pipe)
            return
        assert job.started_at
        assert job.ended_at
        started, ended = job.started_at.timestamp(), job.ended_at.timestamp()
        result = pack_result(job._result)
        answer = self._persist(
            lambda lease: finish(
                self.own_connection, lease, started, ended, result, result_ttl or DELETED_AFTER
            )
        )
        self._follow_up(answer, job, queue)
        if result_ttl == 0 and answer != 'lost':
            job.delete(remove_from_queue=False)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = '',
        execution: Execution | None = None,
    ) -> None:
        if execution is None:  # RQ's maintenance, about a job that a stock worker had popped
            super().handle_job_failure(job, queue, started_job_registry, exc_string)
            return
        stopped = self._stopped_job_id == job.id
        retry = job.should_retry and not stopped and not self._permanent
        with self._recording(job, queue) as pipe:
            self.increment_failed_job_count(pipe)
            self._count_time(job, pipe)
            if retry:
                delay = job.get_retry_interval()
                assert job.retries_left
                job.retries_left -= 1
                at_front = job.enqueue_at_front_on_retry
                write_retry(pipe, job, execution, exc_string, delay, at_front)
            elif self.disable_default_exception_handler and not stopped:
                job.set_status(JobStatus.FAILED, pipeline=pipe)
            else:
                status = 'stopped' if stopped else 'failed'
                write_failed(pipe, job, execution, exc_string, status)
        if not retry and not stopped:
            job.send_webhooks(JobStatus.FAILED, exc_string=exc_string)

    def handle_job_retry(
        self,
        job: Job,
        queue: Queue,
        retry: Retry,
        started_job_registry: Any,
        execution: Execution,
    ) -> None:
        # A task that returns RQ's Retry. RQ's own sets the status before the rest.
        done = job.number_of_retries or 0
        if done >= retry.max:
            with self._recording(job, queue) as pipe:
                self.increment_failed_job_count(pipe)
                self._count_time(job, pipe)
                error = f'Retry: the task asked to be tried again, more than {retry.max} times'
                write_failed(pipe, job, execution, error, kind=Result.Type.MAX_RETRIES_EXCEEDED)
            job.send_webhooks(JobStatus.FAILED, exc_string=error)
            return
        job.number_of_retries = done + 1
        delay = Retry.get_interval(done, retry.intervals)
        with self._recording(job, queue) as pipe:
            self.increment_failed_job_count(pipe)
            self._count_time(job, pipe)
            error = 'Retry: the task asked to be tried again'
            write_retry(pipe, job, execution, error, delay, retry.enqueue_at_front)

    @contextlib.contextmanager
    def _recording(self, job: Job, queue: Queue) -> Iterator[Pipeline]:
        """Collect the commands of an outcome, and run them in one step if the job is ours."""
        with self.connection.pipeline() as pipe:
            yield pipe
            answer = self._persist(lambda lease: record(self.connection, lease, pipe))
        self._follow_up(answer, job, queue)

    def _follow_up(self, answer: str, job: Job, queue: Queue) -> None:
        """What others wait for, once an outcome is recorded."""
        if answer == 'lost':
            job.webhooks = []  # it is not for us to tell
            self.log.error(
                'Worker %s: the outcome of job %s is dropped: the job is not its own any more, '
                'or the outcome stands there already',
                self.name,
                job.id,
            )
        elif answer == 'dependents':
            self.enqueue_dependents(job, queue)
        if job.has_rate_limit:
            self._release_slot_safely(job)

    def _persist(self, write: Callable[[Lease], str]) -> str:
        """Write, and write again if Redis is away: safe, since the lease ends with the first."""
        assert self._lease is not None
        give_up_at = time.monotonic() + get_settings().lease
        while True:
            try:
                return write(self._lease)
            except RedisError as error:
                self.log.error('Worker %s: cannot record an outcome: %s', self.name, error)
                if time.monotonic() > give_up_at:
                    return 'lost'
                time.sleep(0.2)

    def enqueue_dependents(self, job: Job, queue: Queue) -> None:
        """Jobs that wait for this one. If this dies half-way, the worker's upkeep does it again."""
        self._enqueue_dependents_safely(queue, job)
        with contextlib.suppress(RedisError):
            self.connection.zrem(PENDING_DEPENDENTS, job.id)

    # -- ends that only the worker sees ----------------------------------------------------------

    def record_stopped(self, taken: Taken) -> None:
        """The horse was killed since somebody stopped the job."""
        self._lease = taken.lease
        self._stopped_job_id = taken.lease.job_id
        job = self._restore(taken)
        if job is not None:
            self._end(job, taken, 'Job stopped by user, work-horse terminated.')
            try:  # RQ calls it first: while it takes its time, the lease would run out
                execute_stopped_callback(job, self.death_penalty_class)
            except (Exception, SystemExit):
                self.log.exception('Worker %s: the callback of job %s raised', self.name, job.id)
        self._stopped_job_id = None

    def record_crash(self, taken: Taken, error: str, died: HorseDied | None = None) -> None:
        """The horse is gone, and the job with it."""
        self.log.error('Worker %s: job %s: %s', self.name, taken.lease.job_id, error)
        self._lease, self._permanent = taken.lease, False
        job = self._restore(taken)
        if job is not None:
            if died is not None:
                self.handle_work_horse_killed(job, 0, died.status, None)  # type: ignore[no-untyped-call]
            self._end(job, taken, error)

    def _end(self, job: CheckedJob, taken: Taken, error: str) -> None:
        job.ended_at = datetime.now(UTC)
        self.handle_job_failure(
            job, self._queue_of(job), None, error, self._execution_of(job, taken)
        )

    def _restore(self, taken: Taken) -> CheckedJob | None:
        """The job, or None if its record is beyond reading: it has been quarantined then."""
        lease = taken.lease
        try:
            return restore_job(lease.job_id, taken.fields, self.connection)
        except Exception as error:  # a record that anyone may have written raises anything
            self.log.exception('Worker %s: job %s cannot be read', self.name, lease.job_id)
            text = f'InvalidJobError: the record of the job cannot be read: {error!r}'
            job = CheckedJob(connection=self.connection)
            job._id, job.origin = lease.job_id, lease.origin
            with self._recording(job, self._queue_of(job)) as pipe:
                write_failed(pipe, job, self._execution_of(job, taken), text)
            return None

    def _queue_of(self, job: Job) -> Queue:
        return self.queue_class(
            job.origin,
            connection=self.connection,
            job_class=CheckedJob,
            death_penalty_class=self.death_penalty_class,
        )

    def _execution_of(self, job: Job, taken: Taken) -> Execution:
        execution = Execution(taken.lease.execution_id, job.id, self.connection, self.name)
        execution._job = job
        return execution

    def _count_time(self, job: Job, pipe: Pipeline) -> None:
        if job.started_at and job.ended_at:
            self.increment_total_working_time(job.ended_at - job.started_at, pipe)


# What would be the same the next time.
_PERMANENT = (PermanentJobError, InvalidJobError, UnknownTaskError)
