"""Run claimed jobs, and report to the parent how they ended. Runs in the horse.

`Runner` answers the messages of the parent. `Performer` is the RQ worker that RQ's `perform_job`
needs, for RQ's callbacks and exception handlers and for tools that patch it, such as Sentry's SDK.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from redis import Redis
from rq import Worker
from rq.callbacks import execute_stopped_callback
from rq.executions import Execution
from rq.job import Job, Retry
from rq.queue import Queue
from rq.timeouts import JobTimeoutException

from qdjobs.client.hooks import Failure, current_hooks
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.status import last_line
from qdjobs.client.tasks import is_own_task
from qdjobs.config import JobConfig
from qdjobs.errors import (
    InvalidJobError,
    JobError,
    PermanentJobError,
    UnfitHereError,
    UnknownHereError,
    UnknownTaskError,
)
from qdjobs.progress import describe_job
from qdjobs.schedule.entries import Plan, Refused, make_plans
from qdjobs.worker import ending, logs
from qdjobs.worker.application import ApplicationError, load_app
from qdjobs.worker.ending import Encoded, Ending
from qdjobs.worker.horse import Marks
from qdjobs.worker.lease import Claim, Lease
from qdjobs.worker.surroundings import Surroundings, resident_megabytes
from qdjobs.worker.untrusted import CheckedJob, TimeLimit, restore_job

log = logging.getLogger(__name__)

Fate = Literal['keep', 'retire', 'kill']


class PoisonJobError(Exception):
    """Too many workers have died under a job."""


class FollowUp(msgspec.Struct, frozen=True, tag=True):
    """What a horse does once the end of a run is recorded.

    It calls the callback of a stop, or reports a death to the application.
    """

    claim: Claim
    death: str = ''  # the error; empty if the job was stopped
    is_final: bool = False  # whether the job has failed by that death


class Answer(msgspec.Struct, frozen=True):
    """What the horse tells the parent about a job."""

    ending: Encoded  # empty for a follow-up
    fate: Fate = 'keep'  # of the horse; killed after a time-out, with what the task has started


class Performer(Worker):
    """RQ's worker inside the horse: it keeps how a job ended, which RQ would write to Redis.

    The docstring of this package lists the overrides of RQ.
    """

    job_class = CheckedJob
    death_penalty_class = TimeLimit

    ending: Ending | None = None
    error = ''
    config: JobConfig

    def run(self, job: CheckedJob, lease: Lease) -> Ending:
        """Run an attempt of a job, and return how it has ended.

        An attempt that has failed is reported to the application in whose context this is called.
        """
        self.error = ''
        self.perform_job(job, self._queue_of(job), self._execution_of(job, lease))
        ended, self.ending = self.ending, None
        assert ended is not None
        if self.error:
            _report(job, self.error, is_final=ended.status == 'failed')
        return ended

    def _queue_of(self, job: Job) -> Queue:
        queue = Queue(
            job.origin,
            connection=self.connection,
            job_class=CheckedJob,
            death_penalty_class=self.death_penalty_class,
        )
        queue.serializer = PlainSerializer  # as an argument, RQ would inspect it for each job
        return queue

    def _execution_of(self, job: Job, lease: Lease) -> Execution:
        execution = Execution(lease.execution_id, job.id, self.connection, lease.worker)
        execution._job = job
        return execution

    # -- overrides of RQ -------------------------------------------------------------------------

    def _set_connection(self, connection: Redis) -> Redis:
        return connection

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        assert isinstance(job, CheckedJob)
        if job.raised is not None:
            raise job.raised

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        job.ended_at = datetime.now(UTC)

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution
    ) -> None:
        assert isinstance(job, CheckedJob)
        result_ttl = job.get_result_ttl(self.default_result_ttl)
        try:
            self.ending = ending.finished(job, result_ttl, self.config)
        except InvalidJobError as error:  # the result is too large: RQ records it as a failure
            job.raised = error
            raise

    def handle_job_retry(
        self,
        job: Job,
        queue: Queue,
        retry: Retry,
        started_job_registry: Any,
        execution: Execution,
    ) -> None:
        self.ending = ending.asked_again(job, self.name, retry)
        if self.ending.status == 'failed':
            self.error = ending.TOO_MANY_REQUESTED

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = '',
        execution: Execution | None = None,
    ) -> None:
        assert isinstance(job, CheckedJob)
        self.error = exc_string.encode(errors='backslashreplace').decode()
        if job.should_retry and not isinstance(job.raised, _PERMANENT):
            self.ending = ending.retried(job, self.name, exc_string)
        else:
            is_unregistered = self.disable_default_exception_handler
            self.ending = ending.failed(job, self.name, exc_string, is_unregistered=is_unregistered)


class Runner:
    """Runs one message of the parent after another, for the whole life of a horse."""

    def __init__(
        self, worker: Worker, performer: type[Performer], config: JobConfig, marks: Marks
    ) -> None:
        """Take over in a newly forked horse, and load the application. `worker` is the parent's."""
        self._config = config
        self._marks = marks
        self._connection = worker.connection
        self._connection.connection_pool.reset()  # the parent uses the inherited sockets
        self._performer = performer(
            worker.queues,
            name=worker.name,
            connection=self._connection,
            exception_handlers=worker._exc_handlers,
            default_result_ttl=worker.default_result_ttl,
            disable_default_exception_handler=worker.disable_default_exception_handler,
            log_job_description=worker.log_job_description,
            prepare_for_work=False,
        )
        self._performer.config = self._config
        self._performer._is_horse = True
        os.environ['RQ_WORKER_ID'] = worker.name
        logs.flush_each_line()
        with logs.configurable():
            self._app = load_app(self._config.app, self._config) if self._config.app else None
        logs.quieten_rq(worker.log_job_description)
        self._around = contextlib.ExitStack()
        with self._in_app():
            if (hooks := current_hooks()) is not None:
                self._around.enter_context(hooks.around_horse())
            self.news = msgspec.msgpack.encode(_plans(worker.queue_names()))
        self._surroundings = Surroundings.now()
        self._decoder = msgspec.msgpack.Decoder(Claim | FollowUp)

    def answer(self, message: bytes, number: int) -> bytes:
        """Run a claimed job, or follow up one. `number` is the job's for this horse."""
        work: Claim | FollowUp = self._decoder.decode(message)
        os.environ['RQ_JOB_ID'] = work.lease.job_id if isinstance(work, Claim) else ''
        context = copy_context()  # discards the context variables that the task sets
        if isinstance(work, Claim):
            answer = context.run(self._run, work, number)
        else:
            answer = context.run(self._follow_up, work)
        logs.leave()
        return msgspec.msgpack.encode(answer)

    def end(self) -> None:
        """Leave the hooks around this horse. Once left, they are left."""
        with self._in_app():
            try:
                self._around.close()
            except Exception:
                log.exception('What an application does at the end of a work horse failed')

    def _in_app(self) -> contextlib.AbstractContextManager[object]:
        return self._app.app_context() if self._app else contextlib.nullcontext()

    def _run(self, claim: Claim, number: int) -> Answer:
        lease, limit = claim.lease, self._config.max_worker_deaths
        poison = PoisonJobError(f'{limit} workers died while they ran this job')
        deaths = _whole(claim.fields.get(b'worker_deaths'))
        if deaths > limit:  # its record or its callbacks are lethal too
            log.error('Job %s failed: %s', lease.job_id, poison, extra=_ended_unread(lease))
            return Answer(_unread(claim, f'PoisonJobError: {poison}', self._connection).encode())
        try:
            job = restore_job(lease.job_id, claim.fields, self._connection)
        except Exception as error:  # anyone may have written the record: it can raise anything
            log.exception('Job %s cannot be read', lease.job_id, extra=_ended_unread(lease))
            return Answer(unreadable(claim, error, self._connection).encode())
        self._marks.enter(number)  # what the import of its module does to the horse is its doing
        logs.enter(job)
        refused, may_fit_elsewhere = refusal(job)
        job.raised = refused or (poison if deaths == limit else None)
        self._marks.enter(0)
        if may_fit_elsewhere and (release := self._release(job, claim)):
            return Answer(release.encode())
        job.around_task = self._around_task(job, number)
        self._log_start(job)
        started_at = time.monotonic()
        with self._in_app():
            if job.raised is not None:
                self._marks.enter(number)  # its failure callback may be as lethal as a task
            ended = self._performer.run(job, lease)
        has_succeeded = ended.counter == 'successful_job_count'  # also if it repeats
        status = 'finished' if has_succeeded else ended.status
        self._log_end(job, ended, status, time.monotonic() - started_at)
        if (fate := self._fate(job)) == 'kill':  # at once, by the parent
            self.end()
        return Answer(ended.encode(), fate)

    def _log_start(self, job: CheckedJob) -> None:
        if self._performer.log_job_description:
            described = (job.description or '')[:500]
            log.log(_level(job), 'Job %s started: %s', job.id, described, extra=_STARTED)
        else:
            log.log(_level(job), 'Job %s started', job.id, extra=_STARTED)

    def _log_end(self, job: CheckedJob, ended: Ending, status: str, seconds: float) -> None:
        if status == 'finished':
            extra = logs.ended(status, seconds)
            log.log(_level(job), 'Job %s finished in %.3f s', job.id, seconds, extra=extra)
            return
        error = last_line(self._performer.error or 'the task has returned Retry')
        if status == 'failed':
            extra = logs.ended(status, seconds)
            log.info('Job %s failed in %.3f s: %s', job.id, seconds, error, extra=extra)
            return
        log.info(
            'Job %s failed in %.3f s, is tried again after %.1f s: %s',
            job.id,
            seconds,
            ended.delay or 0,
            error,
            extra=logs.ended('retried', seconds),
        )

    def _release(self, job: CheckedJob, claim: Claim) -> Ending | None:
        """Return the ending of a job for other workers, or None once the grace has passed."""
        since = _number(claim.fields.get(b'unknown_since')) or time.time()
        if time.time() - since >= self._config.unknown_task_grace:
            return None
        why = ' '.join(f'{type(job.raised).__name__}: {job.raised}'.split()).rstrip('.')
        log.warning(
            'Job %s is released for a worker of another version: %s. Restart the workers with the '
            'new code; if that cannot run the job either, cancel it.',
            job.id,
            why,
        )
        return ending.unknown_here(since, f'{why}.')

    @contextlib.contextmanager
    def _around_task(self, job: CheckedJob, number: int) -> Iterator[None]:
        self._marks.enter(number)
        hooks = current_hooks()
        try:
            with hooks.around_job(lambda: describe_job(job)) if hooks else _NOTHING:
                yield
        except RuntimeError as error:
            if self._app is None:
                _add_application_hint(error)
            raise
        finally:
            self._marks.leave(number)

    def _fate(self, job: CheckedJob) -> Fate:
        """Restore what the task has changed in this process, and say what becomes of it."""
        limit = self._config.horse_max_memory
        if isinstance(job.raised, JobTimeoutException):
            return 'kill'
        if not self._surroundings.restore() or (limit and resident_megabytes() > limit):
            return 'retire'
        return 'keep'

    def _follow_up(self, work: FollowUp) -> Answer:
        with self._in_app():
            try:
                job = restore_job(work.claim.lease.job_id, work.claim.fields, self._connection)
                logs.enter(job)
                if work.death:
                    _report(job, work.death, work.is_final, is_death=True)
                else:
                    job.require_trustworthy()
                    job.ended_at = datetime.now(UTC)
                    execute_stopped_callback(job, TimeLimit)
            except (Exception, SystemExit):
                log.exception('What follows the end of job %s failed', work.claim.lease.job_id)
        return Answer((b'', b''))


def _plans(queues: Sequence[str]) -> list[Plan | Refused]:
    """Return what is periodic in a worker of these queues. Raises ApplicationError."""
    try:
        plans = make_plans(queues)
    except JobError as error:
        raise ApplicationError(f'The schedule cannot be used: {error}') from error
    for plan in plans:
        if isinstance(plan, Refused):
            log.error('%s', plan.error)
    return plans


def unreadable(claim: Claim, error: Exception, connection: Redis) -> Ending:
    """Return the ending of a job whose record cannot be read."""
    text = f'InvalidJobError: the record of the job cannot be read: {error!r}'
    return _unread(claim, text, connection)


def _ended_unread(lease: Lease) -> dict[str, Any]:
    return {'job_id': lease.job_id, 'queue': lease.origin, **logs.ended('failed', 0.0)}


def _unread(claim: Claim, error: str, connection: Redis) -> Ending:
    job = CheckedJob(connection=connection)
    job._id, job.origin = claim.lease.job_id, claim.lease.origin
    return ending.failed(job, claim.lease.worker, error)


def refusal(job: CheckedJob) -> tuple[Exception | None, bool]:
    """Return why the task must not be entered, or None; and whether other code may enter it."""
    try:
        job.require_trustworthy()
    except UnknownHereError as error:
        return UnknownTaskError(str(error)), True
    except UnfitHereError as error:
        # Arguments that nobody has checked are the mistake of the code that has enqueued the job.
        return TypeError(str(error)), job.was_checked
    except Exception as error:  # noqa: BLE001  # recorded as the job's failure
        return error, False
    return None, False


def _report(job: CheckedJob, error: str, is_final: bool, is_death: bool = False) -> None:
    """Report a failure to the application."""
    if (hooks := current_hooks()) is not None:
        hooks.on_failure(lambda: Failure(describe_job(job), error, job.raised, is_final, is_death))


def _level(job: CheckedJob) -> int:
    """Return the level at which a run is logged that has not failed."""
    return logging.DEBUG if job.raised is None and is_own_task(job.func_name) else logging.INFO


def _whole(text: bytes | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _number(text: bytes | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _add_application_hint(error: RuntimeError) -> None:
    """Replace Flask's message about a missing application context by one for workers."""
    if str(error).startswith(_NO_APP):
        error.args = (
            f'{_NO_APP}: this worker has no application. Start it with `flask jobs worker`, or '
            'with JOB_APP=module:factory.',
        )


_NOTHING = contextlib.nullcontext()
_STARTED = {'event': 'job_started'}  # `extra` of the line about the start of a run
_NO_APP = 'Working outside of application context'  # Flask's message

# Errors after which a retry would fail too.
_PERMANENT = (PermanentJobError, InvalidJobError, UnknownTaskError, PoisonJobError)
