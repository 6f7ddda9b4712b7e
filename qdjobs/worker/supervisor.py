"""The worker beside its horse: it renews the lease of the job, and ends what must end."""

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

TICK = 0.2  # seconds between two looks at a running job
TIMEOUT_GRACE = 1.5  # seconds that a task has to end after its time-out

_NO_LIMIT = float('inf')


class Supervisor(Runner):
    """Hands a job to the horse and watches both; see the module."""

    _config: JobConfig
    _horse: Horse | None = None
    _claimed: Claim | None = None
    _lease_until = 0.0  # on this machine's monotonic clock
    _doomed_execution: str | None = None  # which a command wants killed
    _forced = False  # told twice to stop
    _give_up_at = _NO_LIMIT  # when a deploy waits no longer, on the same clock

    def execute_job(self, job: Job, queue: Queue) -> None:
        # RQ forks here, for each job.
        assert self._claimed is not None
        claim, self._claimed = self._claimed, None
        execution = Execution(claim.lease.execution_id, job.id, self.connection, self.name)
        self._stopped_job_id = None
        self.executions[execution.id] = execution  # RQ's commands look here for what runs
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
            elif not horse.has_begun:
                self._release(claim.lease)
            else:
                self.record_crash(claim, f'HorseDied: {died} while it ran the job', died)
        self._horse = None

    def _watch(self, horse: Horse, claim: Claim) -> bool:
        """Until the job has ended, or must. False if the horse has been killed for it."""
        lease = claim.lease
        timeout = _seconds(claim.fields.get(b'timeout'), self.queue_class.DEFAULT_TIMEOUT)
        must_end_at = time.monotonic() + timeout + _callbacks(claim.fields) + TIMEOUT_GRACE
        done = lease.execution_id.encode()
        while (answer := horse.wait(TICK)) != done:
            self._renew_when_due(lease)
            moment = time.monotonic()
            if answer == done + TIMED_OUT:
                horse.kill()  # with whatever the task has left running
            elif moment >= self._lease_until:
                self.log.error('Worker %s: job %s is lost to another', self.name, lease.job_id)
                horse.kill()
            elif self._stopped_job_id == lease.job_id:
                horse.kill()
                self.record_stopped(claim)
            elif self._doomed_execution == lease.execution_id:
                horse.kill()
                self.record_crash(claim, 'HorseDied: the work horse was killed by a command')
            elif self._forced or moment >= self._give_up_at:
                self.log.warning('Worker %s: puts job %s back to end', self.name, lease.job_id)
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
                if moment < self._lease_until - self._config.lease / 3:  # Redis is there
                    self.heartbeat()
                continue
            return False
        return True

    def _renew_when_due(self, lease: Lease) -> None:
        length = self._config.lease
        if time.monotonic() < self._lease_until - length * 2 / 3:
            return
        asked_at = time.monotonic()
        try:
            answer = renew(self.connection, lease, length)
        except RedisError as error:
            self.log.warning('Worker %s: cannot renew its lease: %s', self.name, error)
            return
        if answer == 'lost':
            self._lease_until = 0.0
            return
        self._lease_until = asked_at + length
        if answer == 'stop':
            self._stopped_job_id = lease.job_id

    def _release(self, lease: Lease) -> None:
        try:
            release(self.connection, lease)
        except RedisError as error:  # its lease will end
            self.log.error('Worker %s: cannot put job %s back: %s', self.name, lease.job_id, error)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        # Called by RQ's thread for commands, and RQ's own signals whatever group it finds, the
        # worker's included. `_watch` does it, for the job that was meant.
        if self._stopped_job_id is None:
            self._doomed_execution = next(iter(self.executions), None)

    def record_stopped(self, claim: Claim) -> None:
        """The horse was killed since somebody stopped the job."""
        self._lease = claim.lease
        self._stopped_job_id = claim.lease.job_id
        job = self._restore(claim)
        if job is not None:
            self._end(job, claim, 'Job stopped by user, work-horse terminated.')
            try:  # RQ calls it first: while it takes its time, the lease would run out
                execute_stopped_callback(job, self.death_penalty_class)
            except (Exception, SystemExit):
                self.log.exception('Worker %s: the callback of job %s raised', self.name, job.id)
        self._stopped_job_id = None

    def record_crash(self, claim: Claim, error: str, died: HorseDied | None = None) -> None:
        """The horse is gone, and the job with it."""
        self.log.error('Worker %s: job %s: %s', self.name, claim.lease.job_id, error)
        self._lease, self._permanent = claim.lease, False
        job = self._restore(claim)
        if job is not None:
            if died is not None:
                self.handle_work_horse_killed(job, 0, died.status, None)  # type: ignore[no-untyped-call]
            self._end(job, claim, error)

    def _end(self, job: CheckedJob, claim: Claim, error: str) -> None:
        job.ended_at = datetime.now(UTC)
        self.handle_job_failure(
            job, self._queue_of(job), None, error, self._execution_of(job, claim)
        )


def _callbacks(fields: dict[bytes, bytes]) -> float:
    """Seconds that the callbacks of a job may take after it."""
    return sum(
        _seconds(fields.get(b'%b_callback_timeout' % kind), CALLBACK_TIMEOUT)
        for kind in (b'success', b'failure')
        if fields.get(b'%b_callback_name' % kind)
    )


def _seconds(text: bytes | None, default: float) -> float:
    """A time-out as it stands in a record; the horse will complain if it is none."""
    try:
        seconds = float(text) if text else default
    except ValueError:
        return default
    return seconds if seconds > 0 else _NO_LIMIT
