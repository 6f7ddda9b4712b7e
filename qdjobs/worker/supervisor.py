"""Supervise the running job: renew its lease, kill the horse when the job must end.

Runs in the parent.
"""

import pickle
import signal
import time
from datetime import UTC, datetime

from redis.exceptions import RedisError
from rq.callbacks import execute_stopped_callback
from rq.defaults import CALLBACK_TIMEOUT
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue

from qdjobs.config import JobConfig
from qdjobs.worker.horse import Horse, HorseDied
from qdjobs.worker.lease import Claim, Lease, release, renew
from qdjobs.worker.runner import TIMED_OUT, Runner
from qdjobs.worker.untrusted import CheckedJob

TICK = 0.2  # seconds between two checks of a running job
TIMEOUT_GRACE = 1.5  # seconds that a task has to end after its time-out, before it is killed

_NO_LIMIT = float('inf')


class Supervisor(Runner):
    """The part of JobWorker that sends a job to the horse and supervises both."""

    _config: JobConfig
    _horse: Horse | None = None
    _claimed: Claim | None = None
    _lease_until = 0.0  # when the lease expires, on the monotonic clock
    _execution_to_kill: str | None = None  # set by a command
    _stop_at_once = False  # set by a second stop signal
    _grace_until = _NO_LIMIT  # when JOB_SHUTDOWN_GRACE ends, on the monotonic clock

    def execute_job(self, job: Job, queue: Queue) -> None:
        # RQ forks a work horse here for each job.
        assert self._claimed is not None
        claim, self._claimed = self._claimed, None
        execution = Execution(claim.lease.execution_id, job.id, self.connection, self.name)
        self._stopped_job_id = None
        self.executions[execution.id] = execution  # RQ's commands find the running job here
        try:
            if self._stop_requested:
                self._release(claim.lease)
            else:
                self._run(claim)
        finally:
            self._horse_pid = 0
            self.executions.clear()

    def _run(self, claim: Claim) -> None:
        assert self._horse is not None
        horse = self._horse
        self._horse_pid = horse.pid
        horse.send(pickle.dumps(claim))
        try:
            if self._watch(horse, claim):
                if horse.jobs < self._config.horse_max_jobs:
                    return
                horse.retire()
        except HorseDied as died:
            if self._stopped_job_id == claim.lease.job_id:
                self.record_stopped(claim)
            elif not horse.has_started_job:
                self._release(claim.lease)
            else:
                self.record_crash(claim, f'HorseDied: {died} while it ran the job', died)
        self._horse = None

    def _watch(self, horse: Horse, claim: Claim) -> bool:
        """Wait until the job has ended; kill the horse if it must. Returns False if killed."""
        lease = claim.lease
        timeout = _parse_timeout(claim.fields.get(b'timeout'), self.queue_class.DEFAULT_TIMEOUT)
        must_end_at = time.monotonic() + timeout + _callback_timeout(claim.fields) + TIMEOUT_GRACE
        done = lease.execution_id.encode()
        while (answer := horse.wait(TICK)) != done:
            self._renew_when_due(lease)
            moment = time.monotonic()
            if answer == done + TIMED_OUT:
                horse.kill()  # with all processes that the task has left running
            elif moment >= self._lease_until:
                self.log.error('Worker %s: lost the lease of job %s', self.name, lease.job_id)
                horse.kill()
            elif self._stopped_job_id == lease.job_id:
                horse.kill()
                self.record_stopped(claim)
            elif self._execution_to_kill == lease.execution_id:
                horse.kill()
                self.record_crash(claim, 'HorseDied: the work horse was killed by a command')
            elif self._stop_at_once or moment >= self._grace_until:
                self.log.warning('Worker %s: requeues job %s to exit', self.name, lease.job_id)
                horse.kill()
                self._release(lease)
            elif moment >= must_end_at:
                horse.kill()
                self.record_crash(
                    claim,
                    f'JobTimeoutException: Task exceeded maximum timeout value ({timeout:g} '
                    'seconds) and did not end; its process was killed',
                )
            else:
                if moment < self._lease_until - self._config.lease / 3:  # Redis answers
                    self.heartbeat()
                continue
            return False
        return True

    def _renew_when_due(self, lease: Lease) -> None:
        duration = self._config.lease
        sent_at = time.monotonic()
        if sent_at < self._lease_until - duration * 2 / 3:
            return
        try:
            answer = renew(self.connection, lease, duration)
        except RedisError as error:
            self.log.warning('Worker %s: cannot renew its lease: %s', self.name, error)
            return
        if answer == 'lost':
            self._lease_until = 0.0
            return
        self._lease_until = sent_at + duration
        if answer == 'stop':
            self._stopped_job_id = lease.job_id

    def _release(self, lease: Lease) -> None:
        try:
            release(self.connection, lease)
        except RedisError as error:  # the job is requeued once its lease has expired
            self.log.error('Worker %s: cannot requeue job %s: %s', self.name, lease.job_id, error)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        # RQ's command thread calls this. RQ's method may signal the worker's own process group.
        # `_watch` kills the horse instead, if it still runs this job.
        if self._stopped_job_id is None:
            self._execution_to_kill = next(iter(self.executions), None)

    def record_stopped(self, claim: Claim) -> None:
        """Record a job as stopped, after its horse was killed for that."""
        self._lease = claim.lease
        self._stopped_job_id = claim.lease.job_id
        job = self._restore(claim)
        if job is not None:
            self._record_failure(job, claim, 'Job stopped by user, work-horse terminated.')
            try:  # RQ calls it before recording, but the lease could expire during the callback
                execute_stopped_callback(job, self.death_penalty_class)
            except (Exception, SystemExit):
                self.log.exception('Worker %s: the callback of job %s raised', self.name, job.id)
        self._stopped_job_id = None

    def record_crash(self, claim: Claim, error: str, died: HorseDied | None = None) -> None:
        """Record a failed attempt, after its horse has died or was killed."""
        self.log.error('Worker %s: job %s: %s', self.name, claim.lease.job_id, error)
        self._lease, self._permanent = claim.lease, False
        job = self._restore(claim)
        if job is not None:
            if died is not None:
                self.handle_work_horse_killed(job, 0, died.status, None)  # type: ignore[no-untyped-call]
            self._record_failure(job, claim, error)

    def _record_failure(self, job: CheckedJob, claim: Claim, error: str) -> None:
        job.ended_at = datetime.now(UTC)
        self.handle_job_failure(
            job, self._queue_of(job), None, error, self._execution_of(job, claim)
        )


def _callback_timeout(fields: dict[bytes, bytes]) -> float:
    """Return the seconds that the callbacks of a job may take."""
    return sum(
        _parse_timeout(fields.get(b'%b_callback_timeout' % kind), CALLBACK_TIMEOUT)
        for kind in (b'success', b'failure')
        if fields.get(b'%b_callback_name' % kind)
    )


def _parse_timeout(text: bytes | None, default: float) -> float:
    """Parse a time-out of a record. The horse fails the job if it is malformed."""
    try:
        seconds = float(text) if text else default
    except ValueError:
        return default
    return seconds if seconds > 0 else _NO_LIMIT
