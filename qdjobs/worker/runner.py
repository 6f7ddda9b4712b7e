"""Run jobs in the horse: the part of JobWorker that runs there.

The parent uses `_restore`, `_queue_of` and `_execution_of` too.
"""

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
    from flask import Flask  # a worker without JOB_APP does not need it

TIMED_OUT = b' timed out'  # ends the horse's answer after a time-out: the parent replaces it


class Runner(Recorder):
    """The part of JobWorker that runs jobs in the horse."""

    _app: 'Flask | None' = None
    _timed_out = False

    def prepare_horse(self) -> None:
        """Open the horse's own Redis connection and load the application. Called once."""
        self._is_horse = True
        self.connection.connection_pool.reset()  # the parent uses the inherited sockets
        self._own_connection = None
        os.environ['RQ_WORKER_ID'] = self.name
        config = get_config()
        if config.app:
            self._app = load_app(config.app, config)

    def run_message(self, message: bytes) -> bytes:
        """Run a claimed job and record its outcome. Returns the execution id, see TIMED_OUT."""
        claim: Claim = pickle.loads(message)  # noqa: S301  # from the parent
        self._lease, self._permanent, self._timed_out = claim.lease, False, False
        os.environ['RQ_JOB_ID'] = claim.lease.job_id
        folder = os.getcwd()
        try:
            job = self._restore(claim)
            if job is not None:
                context = copy_context()  # discards the context variables that the task sets
                context.run(self._run_in_app, job, claim)
        finally:
            os.chdir(folder)
        done = claim.lease.execution_id.encode()
        return done + TIMED_OUT if self._timed_out else done

    def _run_in_app(self, job: CheckedJob, claim: Claim) -> None:
        with self._app.app_context() if self._app else contextlib.nullcontext():
            self.perform_job(job, self._queue_of(job), self._execution_of(job, claim))

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        # RQ writes here that the job has started, which `claim_job` has done. RQ records an error
        # that is raised here as a failure of the job, so this is the place to check the record.
        assert isinstance(job, CheckedJob)
        job.require_trustworthy()

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        # RQ extends the heartbeat for the callbacks here; the parent renews the lease instead.
        job.ended_at = datetime.now(UTC)

    def _finalize_success(
        self, job: Job, queue: Queue, execution: Execution, return_value: Any
    ) -> None:
        # RQ would record a placeholder for a result that is not plain data.
        if not isinstance(return_value, Retry):
            check_plain(return_value, f'the result of {job.func_name}')
        super()._finalize_success(job, queue, execution, return_value)

    def _finalize_failure(
        self, job: Job, queue: Queue, execution: Execution, exc_info: Any
    ) -> None:
        # RQ replaces this error if the failure callback fails: read it first.
        self._permanent = isinstance(exc_info[1], _PERMANENT)
        self._timed_out = isinstance(exc_info[1], JobTimeoutException)
        if self._app is None:
            _add_application_hint(exc_info[1])
        super()._finalize_failure(job, queue, execution, exc_info)

    def _restore(self, claim: Claim) -> CheckedJob | None:
        """Return the claimed job. If its record is malformed, record a failure and return None."""
        lease = claim.lease
        try:
            return restore_job(lease.job_id, claim.fields, self.connection)
        except Exception as error:  # anyone may have written the record: it can raise anything
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


def _add_application_hint(error: BaseException | None) -> None:
    """Replace Flask's message about a missing application context by one for workers."""
    if isinstance(error, RuntimeError) and str(error).startswith(_NO_APP):
        error.args = (
            f'{_NO_APP}: this worker has no application. Start it with `flask jobs worker`, or '
            'with JOB_APP=module:factory.',
        )


_NO_APP = 'Working outside of application context'  # Flask's message

# Errors after which a retry would fail too.
_PERMANENT = (PermanentJobError, InvalidJobError, UnknownTaskError)
