"""An application that uses the SDK of OpenTelemetry, and writes its spans to a file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from qdjobs import JobQueue, enqueue_background_job, enqueue_background_jobs
from qdjobs.integrations.opentelemetry import trace_jobs
from tests.support.hooked import act

ROW = 'tests.support.opentelemetry.row'

queue = JobQueue()


class FileExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with Path(os.environ['SPANS']).open('a') as file:
            file.writelines(f'{span.to_json(indent=None)}\n' for span in spans)
        return SpanExportResult.SUCCESS


def read_spans() -> list[dict[str, Any]]:
    path = Path(os.environ['SPANS'])
    whole = path.read_text().rpartition('\n')[0] if path.exists() else ''
    return [json.loads(line) for line in whole.splitlines()]


def create_app() -> Flask:
    provider = TracerProvider()
    delay = float(os.environ.get('SPAN_DELAY', '100'))
    provider.add_span_processor(BatchSpanProcessor(FileExporter(), schedule_delay_millis=delay))
    trace.set_tracer_provider(provider)
    app = Flask('boat')
    queue.init_app(app)
    for _ in range(2):  # as if this function had run twice
        trace_jobs(queue)
    app.add_url_rule('/row', view_func=order)
    return app


def order() -> list[str]:
    """Enqueue one job and then two, inside the span of a request."""
    token = attach(baggage.set_baggage('tenant', 'ada'))
    with trace.get_tracer('boat').start_as_current_span('GET /row'):
        jobs = [enqueue_background_job(ROW), *enqueue_background_jobs(ROW, [{}, {}])]
    detach(token)
    return [job.id for job in jobs]


def row(what: str = '') -> object:
    with trace.get_tracer('boat').start_as_current_span('stroke'):
        act(what)
    return baggage.get_baggage('tenant')
