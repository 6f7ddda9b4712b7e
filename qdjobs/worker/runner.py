"""What happens to a job inside the work horse: the part of JobWorker that runs there."""

import contextlib
import os
import pickle
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rq.executions import Execution
from rq.job import Job, Retry
from rq.queue import Queue
from rq.timeouts import JobTimeoutException

from qdjobs.client.payload import check_plain
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, PermanentJobError, UnknownTaskError
from qdjobs.worker.application import load_app
from qdjobs.worker.lease import Claim
from qdjobs.worker.outcome import write_failed
from qdjobs.worker.recorder import Recorder
from qdjobs.worker.untrusted import CheckedJob, restore_job

if TYPE_CHECKING:
    from flask import Flask  # a worker without JOB_APP needs none

TIMED_OUT = b' timed out'  # behind the answer of a horse that is better replaced


class Runner(Recorder):
    """Runs the jobs that the worker has taken; see the module."""

    _app: 'Flask | None' = None
    _timed_out = False

    def prepare_horse(self) -> None:
        """Once in each horse: a Redis connection of its own, and the application."""
        self._is_horse = True
        self.connection.connection_pool.reset()  # the worker's sockets are the worker's
        self._own_connection = None
        os.environ['RQ_WORKER_ID'] = self.name
        config = get_config()
        if config.app:
            self._app = load_app(config.app, config)

    def run_message(self, message: bytes) -> bytes:
        """Run the job that the worker has taken; its outcome is recorded when this returns."""
        claim: Claim = pickle.loads(message)  # noqa: S301  # from our own worker
        self._lease, self._permanent, self._timed_out = claim.lease, False, False
        os.environ['RQ_JOB_ID'] = claim.lease.job_id
        folder = os.getcwd()
        try:
            job = self._restore(claim)
            if job is not None:
                context = copy_context()  # what a task sets there is gone with it
                context.run(self._run_in_app, job, claim)
        finally:
            os.chdir(folder)
        done = claim.lease.execution_id.encode()
        return done + TIMED_OUT if self._timed_out else done

    def _run_in_app(self, job: CheckedJob, claim: Claim) -> None:
        with self._app.app_context() if self._app else contextlib.nullcontext():
            self.perform_job(job, self._queue_of(job), self._execution_of(job, claim))

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
        if self._app is None:
            _hint_at_the_application(exc_info[1])
        super()._finalize_failure(job, queue, execution, exc_info)

    def _restore(self, claim: Claim) -> CheckedJob | None:
        """The job, or None if its record is beyond reading: it has been quarantined then."""
        lease = claim.lease
        try:
            return restore_job(lease.job_id, claim.fields, self.connection)
        except Exception as error:  # a record that anyone may have written raises anything
            self.log.exception('Worker %s: job %s cannot be read', self.name, lease.job_id)
            text = f'InvalidJobError: the record of the job cannot be read: {error!r}'
            job = CheckedJob(connection=self.connection)
            job._id, job.origin = lease.job_id, lease.origin
            with self._recording(job, self._queue_of(job)) as pipe:
                write_failed(pipe, job, self._execution_of(job, claim), text)
            return None

    def _queue_of(self, job: Job) -> Queue:
        return self.queue_class(
            job.origin,
            connection=self.connection,
            job_class=CheckedJob,
            death_penalty_class=self.death_penalty_class,
        )

    def _execution_of(self, job: Job, claim: Claim) -> Execution:
        execution = Execution(claim.lease.execution_id, job.id, self.connection, self.name)
        execution._job = job
        return execution


def _hint_at_the_application(error: BaseException | None) -> None:
    """Flask's own remedies are for views and shells."""
    if isinstance(error, RuntimeError) and str(error).startswith(_NO_APP):
        error.args = (
            f'{_NO_APP}: this worker has no application. Start it with `flask jobs worker`, or '
            'with JOB_APP=module:factory.',
        )


_NO_APP = 'Working outside of application context'  # as Flask says it

# What would be the same the next time.
_PERMANENT = (PermanentJobError, InvalidJobError, UnknownTaskError)
