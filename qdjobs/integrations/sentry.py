"""Report failed jobs and deaths to Sentry, and continue the traces of requests in jobs.

docs/tracing.md says what arrives.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import WeakSet

from qdjobs.client.call import Call
from qdjobs.client.hooks import Failure
from qdjobs.client.status import last_line
from qdjobs.errors import needs_extra
from qdjobs.extension import JobQueue, shown_by_flask
from qdjobs.integrations.tracing import FLUSH_TIMEOUT, carried, queue_latency
from qdjobs.progress import CurrentJob

with shown_by_flask(), needs_extra('sentry'):
    import sentry_sdk
    from sentry_sdk.integrations.logging import ignore_logger
    from sentry_sdk.scope import use_isolation_scope
    from sentry_sdk.tracing import Span
    from sentry_sdk.utils import event_from_exception

if TYPE_CHECKING:
    from sentry_sdk.types import Event

_HEADERS = '_sentry'  # in the metadata of a job
_ORIGIN = 'auto.queue.qdjobs'

# The scope and the transaction of the attempt that has just run in this context.
_attempt: ContextVar[tuple[sentry_sdk.Scope, Span] | None] = ContextVar('_attempt', default=None)
_queues: WeakSet[JobQueue] = WeakSet()


def init_sentry(queue: JobQueue, *, report_retried: bool = False) -> None:
    """Report the failures of a queue's jobs, and trace them. The application initialises the SDK.

    With `report_retried` also failures of attempts that are followed by another. Deaths of
    processes are always reported. A second call for a queue has no effect.
    """
    if queue in _queues:  # an application factory can run more than once
        return
    _queues.add(queue)
    ignore_logger('rq.worker')  # RQ logs each failed attempt as an error

    queue.around_horse(_around_horse)
    queue.around_enqueue(_around_enqueue)
    queue.around_job(_around_job)

    @queue.on_failure
    def report(failure: Failure) -> None:
        if failure.is_final or failure.is_death or report_retried:
            _report(failure)


def _around_horse() -> Iterator[None]:
    # The SDK enables its integration of RQ wherever RQ is installed. It would make a second
    # transaction of each job, and wait after each until all is sent.
    sentry_sdk.get_client().integrations.pop('rq', None)
    # What it does after a failure it does all the same, and outside of the scope of the job.
    sentry_sdk.get_global_scope().add_error_processor(_drop_event_of_rq)
    yield
    sentry_sdk.flush(timeout=FLUSH_TIMEOUT)


def _drop_event_of_rq(event: 'Event', _: object) -> 'Event | None':
    errors = event.get('exception', {}).get('values', [])
    is_of_rq = any((error.get('mechanism') or {}).get('type') == 'rq' for error in errors)
    return None if is_of_rq else event


def _around_enqueue(calls: Sequence[Call]) -> Iterator[None]:
    if sentry_sdk.get_current_span() is None:
        _add_headers(calls)
        yield
        return
    call = calls[0]
    with sentry_sdk.start_span(op='queue.publish', name=call.task.path, origin=_ORIGIN) as span:
        span.set_data('messaging.system', 'rq')
        span.set_data('messaging.destination.name', call.options.queue)
        if len(calls) == 1:
            span.set_data('messaging.message.id', call.id)
        else:
            span.set_data('messaging.batch.message_count', len(calls))
        _add_headers(calls)
        yield


def _add_headers(calls: Sequence[Call]) -> None:
    if not sentry_sdk.is_initialized():
        return
    headers = dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers())
    for call in calls:
        call.meta[_HEADERS] = headers


def _around_job(job: CurrentJob) -> Iterator[None]:
    if not sentry_sdk.is_initialized():
        yield
        return
    with _scope_for(job) as scope:
        transaction = sentry_sdk.continue_trace(
            carried(job, _HEADERS), op='queue.process', name=job.task, source='task', origin=_ORIGIN
        )
        with sentry_sdk.start_transaction(transaction) as span:
            span.set_data('messaging.system', 'rq')
            span.set_data('messaging.destination.name', job.queue)
            span.set_data('messaging.message.id', job.id)
            span.set_data('messaging.message.retry.count', job.attempt - 1)
            span.set_data('messaging.message.receive.latency', round(queue_latency(job) * 1000))
            _attempt.set((scope, span))
            yield


@contextmanager
def _scope_for(job: CurrentJob) -> Iterator[sentry_sdk.Scope]:
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        scope.set_tags(
            {'job_id': job.id, 'task': job.task, 'queue': job.queue, 'attempt': str(job.attempt)}
        )
        yield scope


def _report(failure: Failure) -> None:
    if not sentry_sdk.is_initialized():
        return
    with _scope_of_attempt(failure.job):
        if failure.exception is None:
            sentry_sdk.capture_event(_without_traceback(failure))
        else:
            event, hint = event_from_exception(
                failure.exception,
                client_options=sentry_sdk.get_client().options,
                mechanism=_MECHANISM,
            )
            sentry_sdk.capture_event(event, hint=hint)
    sentry_sdk.flush(timeout=FLUSH_TIMEOUT)  # the next job may end this process


@contextmanager
def _scope_of_attempt(job: CurrentJob) -> Iterator[None]:
    """Capture in the scope of the attempt; for a death or a refused job in one like it."""
    if (attempt := _attempt.get()) is not None:
        scope, span = attempt
        with use_isolation_scope(scope):
            sentry_sdk.get_current_scope().span = span
            yield
    else:
        with _scope_for(job) as scope:
            sentry_sdk.continue_trace(carried(job, _HEADERS))
            scope.set_transaction_name(job.task, source='task')
            yield


def _without_traceback(failure: Failure) -> 'Event':
    kind, _, message = last_line(failure.error).partition(': ')
    return {
        'level': 'fatal' if failure.is_death else 'error',
        'exception': {'values': [{'type': kind, 'value': message, 'mechanism': _MECHANISM}]},
        # Deaths of the same kind, whatever the time-out or the exit code of the one job.
        'fingerprint': ['qdjobs', failure.job.task, kind, re.sub(r'\d[\d.]*', '#', message)],
    }


_MECHANISM = {'type': 'qdjobs', 'handled': False}
