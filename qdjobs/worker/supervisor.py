"""Supervise one claimed job: send it to the horse, renew its lease, kill the horse if it must end.

Lives in the parent.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.exceptions import RedisError
from rq import Worker
from rq.defaults import CALLBACK_TIMEOUT
from rq.executions import Execution
from rq.queue import Queue

from qdjobs.worker import ending, logs
from qdjobs.worker.claims import LATE, Claims
from qdjobs.worker.contact import Contact
from qdjobs.worker.ending import Ending
from qdjobs.worker.horse import Horse, HorseDied
from qdjobs.worker.lease import Claim, renew
from qdjobs.worker.orders import NO_LIMIT, Orders
from qdjobs.worker.recorder import Outcome, Recorder
from qdjobs.worker.runner import Answer, FollowUp, unreadable
from qdjobs.worker.untrusted import CheckedJob, restore_job

TICK = 0.2  # seconds between two checks of a running job
TIMEOUT_GRACE = 1.5  # seconds that a task has to end after its time-out, before it is killed
MAX_EARLY_DEATHS = 3  # in a row, of horses that had not entered a task
FOLLOW_UP_TIMEOUT = 60.0  # seconds for the callback of a stop, or the report of a death

log = logging.getLogger(__name__)


@dataclass
class Run:
    """A job that the horse runs. Times are on the monotonic clock."""

    claim: Claim
    started_at: float
    timeout: float
    must_end_at: float
    lease_until: float
    has_left_task: bool = False
    said_stopping: bool = False


class Supervisor:
    """Runs claimed jobs in a horse, and sees that each of them ends."""

    def __init__(
        self,
        contact: Contact,
        orders: Orders,
        claims: Claims,
        recorder: Recorder,
        worker: Worker,
        new_horse: Callable[[], Horse],
        pulse: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        """`worker` is RQ's, for its commands and handlers.

        While a job runs, `pulse` is called, and `beat` too if Redis answers.
        """
        self._contact = contact
        self._config = contact.config
        self._orders = orders
        self._claims = claims
        self._recorder = recorder
        self._worker = worker
        self._new_horse = new_horse
        self._pulse = pulse
        self._beat = beat
        self._early_deaths = 0
        self._horse: Horse | None = None

    # -- the horse -------------------------------------------------------------------------------

    @property
    def has_horse(self) -> bool:
        """Whether a horse is ready for another job."""
        return self._horse is not None

    def require_horse(self) -> Horse:
        """Return a living horse; fork one if need be. Call it before a job is claimed."""
        if self._horse is None or not self._horse.is_alive():
            self._horse = self._new_horse()
        return self._horse

    def end(self) -> None:
        """Let the horse exit."""
        if self._horse is not None:
            self._horse.retire()
            self._horse = None

    def _kill_horse(self) -> None:
        if self._horse is not None:
            self._horse.kill()
            self._horse = None

    # -- one job ---------------------------------------------------------------------------------

    def start(self, claim: Claim) -> Run:
        """Send a claimed job to the horse."""
        assert self._horse is not None
        lease = claim.lease
        self._worker.executions.clear()
        self._worker.executions[lease.execution_id] = Execution(
            lease.execution_id, lease.job_id, self._contact.connection, self._contact.worker
        )
        self._horse.send(msgspec.msgpack.encode(claim))
        moment = time.monotonic()
        timeout = _parse_timeout(claim.fields.get(b'timeout'), Queue.DEFAULT_TIMEOUT)
        must_end_at = moment + timeout + _callback_timeout(claim.fields) + TIMEOUT_GRACE
        return Run(claim, moment, timeout, must_end_at, claim.claimed_at + self._config.lease)

    def watch(self, run: Run) -> Outcome:
        """Wait until the job has ended. Kills the horse if the job must end."""
        assert self._horse is not None
        try:
            while True:
                self._pulse()
                answer = self._horse.wait(LATE if self._claims.ahead else TICK)
                if answer is not None:
                    return self._read(run, answer)
                self._release_late(run)
                checked_at = time.monotonic()
                self._renew_if_due(run)
                self._recorder.retry_if_due()
                if time.monotonic() - checked_at > self._config.lease * 2 / 3 + TICK:
                    continue  # this process was frozen: try to renew before giving up
                outcome = self._end_if_needed(run)
                if outcome is not None:
                    self._kill_horse()
                    return outcome
                if time.monotonic() < run.lease_until - self._config.lease / 3:  # Redis answers
                    self._beat()
        except HorseDied as died:
            return self._read_death(run, died)
        finally:
            self._worker.executions.pop(run.claim.lease.execution_id, None)

    def _read(self, run: Run, message: bytes) -> Outcome:
        answer = msgspec.msgpack.decode(message, type=Answer)
        self._early_deaths = 0
        self._claims.note_duration(time.monotonic() - run.started_at)
        assert self._horse is not None
        if answer.fate == 'kill':
            self._kill_horse()
        elif answer.fate == 'retire' or self._horse.jobs >= self._config.horse_max_jobs:
            self.end()
        return Outcome(answer.ending)

    def _read_death(self, run: Run, died: HorseDied) -> Outcome:
        horse, self._horse = self._horse, None
        assert horse is not None
        if self._orders.execution_to_kill == run.claim.lease.execution_id:
            return self._killed_by_command(run)
        if horse.has_entered_task:
            self._early_deaths = 0
            error = f'HorseDied: {died} while it ran the job'
            return self._crashed(run, error, died)
        self._early_deaths += 1
        job_id = run.claim.lease.job_id
        log.error('Worker %s: %s before it ran job %s', self._contact.worker, died, job_id)
        return Outcome(ending.released().encode())

    @property
    def is_broken(self) -> bool:
        """Whether horse after horse dies before it has entered a task."""
        return self._early_deaths >= MAX_EARLY_DEATHS

    def _end_if_needed(self, run: Run) -> Outcome | None:
        """Return how the job ends if it must end now, whatever the task does."""
        lease, orders = run.claim.lease, self._orders
        moment = time.monotonic()
        if moment >= run.lease_until:
            text = 'Worker %s: lost the lease of job %s'
            log.error(text, self._contact.worker, lease.job_id, extra=_ended(run, 'released'))
            return Outcome(ending.released().encode())
        if orders.execution_to_kill == lease.execution_id:
            return self._killed_by_command(run)
        if orders.at_once or moment >= orders.grace_until:
            text = 'Worker %s: requeues job %s to exit'
            log.warning(text, self._contact.worker, lease.job_id, extra=_ended(run, 'released'))
            return Outcome(ending.released().encode())
        if self._is_overdue(run, moment):
            error = (
                f'JobTimeoutException: Task exceeded maximum timeout value ({run.timeout:g} '
                'seconds) and did not end; its process was killed'
            )
            return self._crashed(run, error)
        return None

    def _is_overdue(self, run: Run, moment: float) -> bool:
        if moment < run.must_end_at:
            return False
        assert self._horse is not None
        if self._horse.has_left_task and not run.has_left_task:
            # It was in time. What it does now, such as saving its metadata, may wait for Redis.
            run.has_left_task = True
            run.must_end_at = moment + _callback_timeout(run.claim.fields) + self._config.lease
            return False
        return True

    def _renew_if_due(self, run: Run) -> None:
        duration, sent_at = self._config.lease, time.monotonic()
        is_due = sent_at >= run.lease_until - duration * 2 / 3
        if not is_due and run.said_stopping == self._orders.stop:
            return
        is_stopping = self._orders.stop
        leases = [run.claim.lease, *self._recorder.leases]
        try:
            state = renew(self._contact.connection, leases, duration, is_stopping)[0]
        except RedisError as error:
            self._contact.failed(f'renew the lease of job {run.claim.lease.job_id}', error)
            return
        self._contact.restored()
        run.said_stopping = is_stopping
        run.lease_until = 0.0 if state == 'lost' else sent_at + duration
        if state == 'stop':
            self._orders.kill(run.claim.lease.execution_id, is_stop=True)

    def _release_late(self, run: Run) -> None:
        """Release a job claimed ahead if the present one is long, or the worker must exit."""
        if self._claims.ahead is None:
            return
        if self._orders.stop or time.monotonic() - run.started_at >= LATE:
            self.release_ahead()

    def release_ahead(self) -> None:
        """Release a job that was claimed ahead, untouched."""
        ahead = self._claims.take_ahead()
        if ahead is not None:
            self.release(ahead)

    def release(self, claim: Claim) -> None:
        """Release a job that has not begun."""
        self._recorder.record(claim, Outcome(ending.released().encode()))

    # -- ends that the horse does not tell -------------------------------------------------------

    def _killed_by_command(self, run: Run) -> Outcome:
        claim = run.claim
        if not self._orders.is_kill_a_stop:
            return self._crashed(run, 'HorseDied: the work horse was killed by a command')
        job = self._restore(claim)
        if isinstance(job, Ending):
            return Outcome(job.encode())
        text = 'Worker %s: job %s was stopped'
        log.info(text, self._contact.worker, job.id, extra=_ended(run, 'stopped', job))
        follow_up = FollowUp(claim) if job._stopped_callback_name else None
        return Outcome(ending.stopped(job, self._contact.worker).encode(), follow_up)

    def _crashed(self, run: Run, error: str, died: HorseDied | None = None) -> Outcome:
        claim, text = run.claim, 'Worker %s: job %s: %s'
        job = self._restore(claim)
        if isinstance(job, Ending):
            extra = _ended(run, 'failed')
            log.error(text, self._contact.worker, claim.lease.job_id, error, extra=extra)
            return Outcome(job.encode())
        extra = _ended(run, 'retried' if job.should_retry else 'failed', job)
        log.error(text, self._contact.worker, job.id, error, extra=extra)
        if died is not None:
            self._worker.handle_work_horse_killed(job, 0, died.status, None)
        if job.should_retry:
            ended = ending.retried(job, self._contact.worker, error)
        else:
            ended = ending.failed(job, self._contact.worker, error)
        return Outcome(ended.encode(), FollowUp(claim, error, is_final=not job.should_retry))

    def _restore(self, claim: Claim) -> CheckedJob | Ending:
        """Return the claimed job, or its ending if the record cannot be read."""
        try:
            job = restore_job(claim.lease.job_id, claim.fields, self._contact.connection)
        except Exception as error:
            log.exception(
                'Worker %s: job %s cannot be read', self._contact.worker, claim.lease.job_id
            )
            return unreadable(claim, error, self._contact.connection)
        job.ended_at = datetime.now(UTC)
        return job

    # -- after the end ---------------------------------------------------------------------------

    def follow_up(self, work: FollowUp) -> None:
        """Have the horse call the callback of a stop, or report a death. No lease is held."""
        horse = self.require_horse()
        horse.send(msgspec.msgpack.encode(work))
        deadline = time.monotonic() + FOLLOW_UP_TIMEOUT
        try:
            while horse.wait(TICK) is None:
                self._pulse()
                self._beat()
                moment = time.monotonic()
                if moment >= min(deadline, self._orders.grace_until) or self._orders.at_once:
                    log.error(
                        'Worker %s: gives up what follows the end of job %s',
                        self._contact.worker,
                        work.claim.lease.job_id,
                    )
                    self._kill_horse()
                    return
        except HorseDied as died:
            log.error('Worker %s: after the end of job: %s', self._contact.worker, died)
            self._horse = None


def _ended(run: Run, outcome: str, job: CheckedJob | None = None) -> dict[str, Any]:
    """Return the `extra` fields of the line about the end of a run that the horse does not log."""
    fields = {'job_id': run.claim.lease.job_id, 'queue': run.claim.lease.origin}
    if job is not None:
        # Not from its data: reading that may be what has killed the horse.
        job._func_name = run.claim.fields.get(b'task', b'').decode(errors='replace')
        fields = logs.fields_of(job)
    return fields | logs.ended(outcome, time.monotonic() - run.started_at)


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
    return seconds if seconds > 0 else NO_LIMIT
