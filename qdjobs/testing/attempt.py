"""Run an attempt of a job as a worker does, but in this process and thread."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from redis import Redis
from rq.timeouts import BaseDeathPenalty

from qdjobs.client.hooks import current_hooks
from qdjobs.client.scripts import loaded_module
from qdjobs.client.tasks import forget_tasks, resolve_function
from qdjobs.config import get_config
from qdjobs.progress import describe_job
from qdjobs.worker.ending import Ending
from qdjobs.worker.lease import Lease
from qdjobs.worker.runner import Performer, refusal
from qdjobs.worker.untrusted import CheckedJob

WORKER = 'in-process'


class NoTimeLimit(BaseDeathPenalty):
    """No time-out: it needs the main thread, and would end a debugger's session."""

    def setup_death_penalty(self) -> None:
        pass

    def cancel_death_penalty(self) -> None:
        pass


class LocalPerformer(Performer):
    """Runs jobs in the process that constructs it."""

    death_penalty_class: Any = NoTimeLimit


@contextmanager
def resolving_anew() -> Iterator[None]:
    """Resolve tasks anew in a block, and after it: a test may have put others in their place."""
    forget_tasks()
    try:
        yield
    finally:
        forget_tasks()


def require_unpatched(path: str) -> None:
    """Raise RuntimeError if a task was replaced after it was resolved."""
    module, _, name = path.rpartition('.')
    known = resolve_function(path)
    if getattr(loaded_module(module), name, None) is not known:
        raise RuntimeError(
            f'{path} was replaced, perhaps by mock.patch, after qdjobs had found it: patch what '
            'the task calls instead, or see what is enqueued with recorded_jobs.'
        )


def run_attempt(job: CheckedJob, lease: Lease, connection: Redis) -> Ending:
    """Run an attempt in the present application context, and return how it has ended.

    What no worker would record, such as KeyboardInterrupt, is raised.
    """
    performer = LocalPerformer(
        job.origin, name=WORKER, connection=connection, prepare_for_work=False
    )
    performer.config = get_config()
    performer.log_job_description = False
    job.raised, _ = refusal(job)
    if job.raised is None:
        require_unpatched(job.func_name or '')
    hooks = current_hooks()
    job.around_task = hooks.around_job(lambda: describe_job(job)) if hooks else nullcontext()
    ended = performer.run(job, lease)
    if not isinstance(job.raised, (Exception, SystemExit, type(None))):
        raise job.raised
    return ended
