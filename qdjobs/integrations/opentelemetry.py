"""Trace jobs with OpenTelemetry, by its conventions for messaging.

docs/tracing.md says what arrives.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from weakref import WeakSet

from qdjobs import __version__
from qdjobs.client.call import Call
from qdjobs.client.hooks import Failure
from qdjobs.client.status import last_line
from qdjobs.errors import needs_extra
from qdjobs.extension import JobQueue, shown_by_flask
from qdjobs.integrations.tracing import FLUSH_TIMEOUT, carried, queue_latency
from qdjobs.progress import CurrentJob

with shown_by_flask(), needs_extra('opentelemetry'):
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context, attach, detach
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

_CONTEXT = '_opentelemetry'  # in the metadata of a job

# The span of the attempt that has just failed in this context, and when: in nanoseconds, as the
# SDK has it.
_failed: ContextVar[tuple[Span, int] | None] = ContextVar('_failed', default=None)
_queues: WeakSet[JobQueue] = WeakSet()


def trace_jobs(queue: JobQueue, tracer_provider: TracerProvider | None = None) -> None:
    """Make spans of enqueueing the jobs of a queue, and of running them.

    Without a `tracer_provider` it is the global one, which can be set later. A second call for a
    queue has no effect.
    """
    if queue in _queues:  # an application factory can run more than once
        return
    _queues.add(queue)
    tracing = _Tracing(tracer_provider)
    queue.around_horse(tracing.around_horse)
    queue.around_enqueue(tracing.around_enqueue)
    queue.around_job(tracing.around_job)
    queue.on_failure(tracing.on_failure)


class _Tracing:
    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer = trace.get_tracer('qdjobs', __version__, provider)

    def around_horse(self) -> Iterator[None]:
        yield
        self._flush()

    def around_enqueue(self, calls: Sequence[Call]) -> Iterator[None]:
        call = calls[0]
        attributes = _attributes('send', call.options.queue, call.task.path)
        if len(calls) == 1:
            attributes['messaging.message.id'] = call.id
        else:  # one span: up to thousands of jobs are sent in one step
            attributes['messaging.batch.message_count'] = len(calls)
        with self._tracer.start_as_current_span(
            f'send {call.options.queue}', kind=SpanKind.PRODUCER, attributes=attributes
        ):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            if headers:
                for call in calls:
                    call.meta[_CONTEXT] = headers
            yield

    def around_job(self, job: CurrentJob) -> Iterator[None]:
        context = propagate.extract(carried(job, _CONTEXT))
        span = self._start(job, context)
        span.set_attribute('qdjobs.queue_latency', queue_latency(job))
        token = attach(context)  # for its baggage
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException:
            _failed.set((span, time.time_ns()))  # `on_failure` knows whether it is final
            raise
        else:
            span.set_attribute('qdjobs.outcome', 'finished')
            span.end()
        finally:
            detach(token)

    def on_failure(self, failure: Failure) -> None:
        """End the span of the attempt; for a death or a refused job, start and end one."""
        job, error = failure.job, last_line(failure.error)
        if (failed := _failed.get()) is not None:
            span, ended_at = failed
        else:
            ended_at = time.time_ns()
            span = self._start(job, propagate.extract(carried(job, _CONTEXT)))
        span.set_attribute('error.type', error.partition(':')[0])
        span.set_attribute('qdjobs.outcome', 'failed' if failure.is_final else 'retried')
        span.set_attribute('qdjobs.is_death', failure.is_death)
        if failure.exception is not None:
            span.record_exception(failure.exception, timestamp=ended_at)
        span.set_status(Status(StatusCode.ERROR, error))
        span.end(ended_at)
        if failure.is_death:
            self._flush()  # the next attempt may end this process too

    def _start(self, job: CurrentJob, context: Context) -> Span:
        attributes = _attributes('process', job.queue, job.task) | {
            'messaging.message.id': job.id,
            'qdjobs.attempt': job.attempt,
        }
        return self._tracer.start_span(
            f'process {job.queue}', context, SpanKind.CONSUMER, attributes
        )

    def _flush(self) -> None:
        provider = self._provider or trace.get_tracer_provider()
        if (flush := getattr(provider, 'force_flush', None)) is not None:  # not in the API
            # The SDK waits for the exporter as long as that likes, whatever the time-out.
            thread = threading.Thread(target=flush, daemon=True)
            thread.start()
            thread.join(FLUSH_TIMEOUT)


def _attributes(operation: str, queue: str, task: str) -> dict[str, str | int | float]:
    return {
        'messaging.system': 'rq',
        'messaging.operation.name': operation,
        'messaging.operation.type': operation,
        'messaging.destination.name': queue,
        'code.function.name': task,
    }
