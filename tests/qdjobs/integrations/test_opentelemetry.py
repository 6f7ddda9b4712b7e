"""What arrives at an exporter of OpenTelemetry, from real workers and the real SDK."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from qdjobs import JobQueue, enqueue_background_job, get_job_status
from qdjobs.config import environment_config
from qdjobs.integrations.opentelemetry import trace_jobs
from tests.support.opentelemetry import ROW, read_spans
from tests.support.processes import ROOT, Worker, eventually, kill_group

pytestmark = pytest.mark.slow  # a worker for each, with the SDK

Span = dict[str, Any]

OTHER = 'tests.support.hooked.act'  # a worker may not run it
MODULE = 'tests.support.opentelemetry'
APP = {'JOB_APP': f'{MODULE}:create_app', 'JOB_TASK_MODULES': MODULE}
CALM = APP | {'JOB_LEASE': '10'}
TRACE, PARENT = '0123456789abcdef0123456789abcdef', '0123456789abcdef'
TRACED = {'_opentelemetry': {'traceparent': f'00-{TRACE}-{PARENT}-01'}}  # as a request leaves it
REQUEST = """
import os
os.environ['REDIS_URL'] = os.environ.get('OTHER_REDIS') or os.environ['REDIS_URL']
from opentelemetry import trace
from tests.support.opentelemetry import create_app
print(create_app().test_client().get('/row').text)
trace.get_tracer_provider().force_flush()
"""


@pytest.fixture(autouse=True)
def files(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings.setenv('SPANS', str(tmp_path / 'spans'))
    settings.setenv('JOB_TASK_MODULES', f'{MODULE},tests.support.hooked')
    environment_config.cache_clear()


def request(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, '-c', REQUEST],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(name: str) -> list[Span]:
    return [span for span in read_spans() if span['name'] == name]


def identity(span: Span) -> tuple[str, str]:
    return span['context']['trace_id'], span['context']['span_id']


def trace_of(span: Span) -> tuple[str, str]:
    """The trace of a span, and its parent."""
    return span['context']['trace_id'], span['parent_id']


def run_until(worker: Worker, count: int) -> None:
    """Run jobs until there are so many spans of attempts."""
    with worker(**CALM):
        eventually(lambda: len(named('process default')) >= count)


def test_the_trace_of_a_request_goes_on_in_its_jobs(own_worker: Worker) -> None:
    ids = json.loads(request())
    run_until(own_worker, 3)
    (web,) = named('GET /row')
    one, two = named('send default')
    assert trace_of(one) == trace_of(two) == identity(web)
    assert one['kind'] == two['kind'] == 'SpanKind.PRODUCER'
    shared = {
        'messaging.system': 'rq',
        'messaging.operation.name': 'send',
        'messaging.operation.type': 'send',
        'messaging.destination.name': 'default',
        'code.function.name': ROW,
    }
    assert one['attributes'] == shared | {'messaging.message.id': ids[0]}
    assert two['attributes'] == shared | {'messaging.batch.message_count': 2}
    jobs = named('process default')
    assert [trace_of(job) for job in jobs] == [identity(one), identity(two), identity(two)]
    for job, job_id in zip(jobs, ids, strict=True):
        assert job['kind'] == 'SpanKind.CONSUMER'
        assert job['status'] == {'status_code': 'UNSET'}
        assert 0 < job['attributes'].pop('qdjobs.queue_latency') < 600
        assert job['attributes'] == shared | {
            'messaging.operation.name': 'process',
            'messaging.operation.type': 'process',
            'messaging.message.id': job_id,
            'qdjobs.attempt': 1,
            'qdjobs.outcome': 'finished',
        }
        status = get_job_status(job_id)
        assert (status['result'], status['meta']) == ('ada', {})  # the baggage travels too
    assert [trace_of(stroke) for stroke in named('stroke')] == [identity(job) for job in jobs]


def test_a_call_that_is_not_enqueued_is_an_error() -> None:
    request(OTHER_REDIS='redis://127.0.0.1:1/0')
    (sent,) = named('send default')
    assert sent['status']['status_code'] == 'ERROR'
    assert sent['events'][0]['attributes']['exception.type'].endswith('QueueUnavailableError')


def test_each_attempt_is_a_span_with_its_outcome(own_worker: Worker) -> None:
    job = enqueue_background_job(ROW, 'fail', job_max_retries=1, job_retry_delay=0)
    run_until(own_worker, 2)
    spans = named('process default')
    seen = [(span['attributes']['qdjobs.attempt'], outcome(span)) for span in spans]
    assert seen == [(1, 'retried'), (2, 'failed')]
    for span, stroke in zip(spans, named('stroke'), strict=True):
        assert span['attributes']['messaging.message.id'] == job.id
        assert span['attributes']['error.type'] == 'ValueError'
        assert span['status'] == {'status_code': 'ERROR', 'description': 'ValueError: it failed'}
        (event,) = span['events']
        assert 'in act' in event['attributes']['exception.stacktrace']
        assert trace_of(stroke) == identity(span)
    assert identity(spans[0])[0] != identity(spans[1])[0]  # there was no request


def test_a_refused_job_is_a_failed_span(own_worker: Worker) -> None:
    enqueue_background_job(OTHER, job_meta=TRACED)
    run_until(own_worker, 1)
    (span,) = named('process default')
    assert trace_of(span) == (f'0x{TRACE}', f'0x{PARENT}')
    assert span['attributes']['code.function.name'] == OTHER
    assert span['attributes']['error.type'] == 'UnknownTaskError'
    assert (outcome(span), span['attributes']['qdjobs.is_death']) == ('failed', False)


@pytest.mark.parametrize(
    ('what', 'kind', 'outcomes'),
    [('die', 'HorseDied', ['retried', 'failed']), ('hang', 'JobTimeoutException', ['failed'])],
)
def test_each_death_of_a_horse_is_a_failed_span(
    own_worker: Worker, what: str, kind: str, outcomes: list[str]
) -> None:
    enqueue_background_job(
        ROW,
        what,
        job_timeout=1 if what == 'hang' else None,
        job_max_retries=len(outcomes) - 1,
        job_retry_delay=0,
        job_meta=TRACED,
    )
    run_until(own_worker, len(outcomes))
    spans = named('process default')
    assert [outcome(span) for span in spans] == outcomes
    for span in spans:
        is_a_death(span, kind)


def test_a_lost_worker_is_a_failed_span(own_worker: Worker) -> None:
    job = enqueue_background_job(ROW, 'sleep', job_meta=TRACED)
    with own_worker(**APP) as worker:
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(60)
    with own_worker('--max-jobs', '1', **APP) as other:
        eventually(lambda: named('process default'))
        kill_group(other.pid)
    (span,) = named('process default')
    is_a_death(span, 'WorkerLostError')
    assert outcome(span) == 'retried'


@pytest.mark.parametrize('what', ['', 'time out'])
def test_a_horse_that_ends_loses_no_span(own_worker: Worker, what: str) -> None:
    enqueue_background_job(ROW, what, job_timeout=1 if what else None)
    with own_worker('--burst', **CALM, SPAN_DELAY='600000') as worker:
        assert worker.wait(60) == 0
    assert {span['name'] for span in read_spans()} == {'stroke', 'process default'}


def test_nothing_is_added_to_a_job_where_there_is_no_sdk() -> None:
    app = Flask('a')
    trace_jobs(JobQueue(app))
    with app.app_context():
        job = enqueue_background_job(ROW)
    assert job.get_meta() == {}


def outcome(span: Span) -> Any:
    return span['attributes']['qdjobs.outcome']


def is_a_death(span: Span, kind: str) -> None:
    assert trace_of(span) == (f'0x{TRACE}', f'0x{PARENT}')
    assert span['attributes']['error.type'] == kind
    assert span['attributes']['qdjobs.is_death'] is True
    assert span['status']['status_code'] == 'ERROR'
    assert span['status']['description'].startswith(f'{kind}: ')
