"""Record the outcome of a job in one step, and only while its lease holds.

Runs in the horse; for crashed and stopped jobs in the parent. Overrides RQ's methods that write an
outcome in several steps, or without checking that the job is still this worker's.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq.executions import Execution
from rq.job import Job, JobStatus, Retry
from rq.queue import Queue
from rq.repeat import Repeat
from rq.results import Result
from rq.worker import BaseWorker

from qdjobs.config import get_config
from qdjobs.worker.lease import PENDING_DEPENDENTS, Lease, finish, record
from qdjobs.worker.outcome import MAX_TTL, pack_result, write_failed, write_finished, write_retry

DELETED_AFTER = 60  # seconds that a job with a result TTL of 0 is kept, to enqueue its dependents


class Recorder(BaseWorker):
    """The part of JobWorker that records outcomes."""

    log_result_lifespan = False  # RQ would log the same line for every job
    _lease: Lease | None = None
    _permanent = False
    _own_connection: Redis | None = None

    @property
    def own_connection(self) -> Redis:
        """A dedicated connection, which saves the pool's overhead for each command."""
        if self._own_connection is None:  # not earlier: Redis may be away when the horse starts
            self._own_connection = self.connection.client()
        return self._own_connection

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution
    ) -> None:
        result_ttl = min(job.get_result_ttl(self.default_result_ttl), MAX_TTL)
        if job.repeats_left:  # `finish` does not schedule the next run
            with self._recording(job, queue) as pipe:
                write_finished(pipe, job, execution, result_ttl or DELETED_AFTER)
                self.increment_successful_job_count(pipe)
                self._add_working_time(job, pipe)
                Repeat.schedule(job, queue, pipeline=pipe)
            return
        assert job.started_at
        assert job.ended_at
        started, ended = job.started_at.timestamp(), job.ended_at.timestamp()
        result = pack_result(job._result)
        recorded = self._write_until_recorded(
            lambda lease: finish(
                self.own_connection, lease, started, ended, result, result_ttl or DELETED_AFTER
            )
        )
        self._follow_up(recorded, job, queue)
        if result_ttl == 0 and recorded != 'lost':
            job.delete(remove_from_queue=False)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = '',
        execution: Execution | None = None,
    ) -> None:
        if execution is None:  # called by RQ's maintenance, for a job that a stock worker has lost
            super().handle_job_failure(job, queue, started_job_registry, exc_string)
            return
        stopped = self._stopped_job_id == job.id
        retry = job.should_retry and not stopped and not self._permanent
        with self._recording(job, queue) as pipe:
            self.increment_failed_job_count(pipe)
            self._add_working_time(job, pipe)
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
        # For a task that returns RQ's Retry. RQ's method sets the status in a step of its own.
        done = job.number_of_retries or 0
        if done >= retry.max:
            with self._recording(job, queue) as pipe:
                self.increment_failed_job_count(pipe)
                self._add_working_time(job, pipe)
                error = f'Retry: the task asked to be tried again, more than {retry.max} times'
                write_failed(pipe, job, execution, error, kind=Result.Type.MAX_RETRIES_EXCEEDED)
            job.send_webhooks(JobStatus.FAILED, exc_string=error)
            return
        job.number_of_retries = done + 1
        delay = Retry.get_interval(done, retry.intervals)
        with self._recording(job, queue) as pipe:
            self.increment_failed_job_count(pipe)
            self._add_working_time(job, pipe)
            error = 'Retry: the task asked to be tried again'
            write_retry(pipe, job, execution, error, delay, retry.enqueue_at_front)

    @contextlib.contextmanager
    def _recording(self, job: Job, queue: Queue) -> Iterator[Pipeline]:
        """Collect the commands of an outcome, then run them in one step if the lease holds."""
        with self.connection.pipeline() as pipe:
            yield pipe
            recorded = self._write_until_recorded(
                lambda lease: record(self.connection, lease, pipe)
            )
        self._follow_up(recorded, job, queue)

    def _follow_up(self, recorded: str, job: Job, queue: Queue) -> None:
        """Enqueue dependents and free a rate limit's slot, once an outcome is recorded."""
        if recorded == 'lost':
            job.webhooks = []  # the worker that records the outcome sends them
            self.log.error(
                'Worker %s: discards the outcome of job %s: its lease is lost, or the outcome is '
                'recorded already',
                self.name,
                job.id,
            )
        elif recorded == 'dependents':
            self.enqueue_dependents(job, queue)
        if job.has_rate_limit:
            self._release_slot_safely(job)

    def _write_until_recorded(self, write: Callable[[Lease], str]) -> str:
        """Call `write` until Redis answers. Repeating is safe: the first write ends the lease.

        Returns what `lease.record` returns; 'lost' also once the lease must have expired.
        """
        assert self._lease is not None
        give_up_at = time.monotonic() + get_config().lease
        while True:
            try:
                return write(self._lease)
            except RedisError as error:
                self.log.error('Worker %s: cannot record an outcome: %s', self.name, error)
                if time.monotonic() > give_up_at:
                    return 'lost'
                time.sleep(0.2)

    def enqueue_dependents(self, job: Job, queue: Queue) -> None:
        """Enqueue the jobs that wait for this one. Maintenance repeats it if it is interrupted."""
        self._enqueue_dependents_safely(queue, job)
        with contextlib.suppress(RedisError):
            self.connection.zrem(PENDING_DEPENDENTS, job.id)

    def _add_working_time(self, job: Job, pipe: Pipeline) -> None:
        if job.started_at and job.ended_at:
            self.increment_total_working_time(job.ended_at - job.started_at, pipe)
