"""What arrives at Sentry, from real workers and the real SDK, with all that it enables itself."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from qdjobs import JobQueue, enqueue_background_job, get_job_status
from qdjobs.config import environment_config
from qdjobs.integrations.sentry import init_sentry
from tests.support.processes import ROOT, Worker, eventually, kill_group
from tests.support.sentry import SELL, Received, receiving

pytestmark = pytest.mark.slow  # a worker for each, with the SDK

OTHER = 'tests.support.hooked.act'  # a worker may not run it
APP = {'JOB_APP': 'tests.support.sentry:create_app', 'JOB_TASK_MODULES': 'tests.support.sentry'}
CALM = APP | {'JOB_LEASE': '10'}
TRACE = '0123456789abcdef0123456789abcdef'
TRACED = {'_sentry': {'sentry-trace': f'{TRACE}-0123456789abcdef-1'}}  # as a request leaves it
REQUEST = """
import sentry_sdk
from tests.support.sentry import create_app
print(create_app().test_client().get('/sell').text)
sentry_sdk.flush(60)  # at its exit a process waits for two seconds only
"""


@pytest.fixture
def sentry(settings: pytest.MonkeyPatch) -> Iterator[Received]:
    with receiving() as (dsn, received):
        settings.setenv('SENTRY_DSN', dsn)
        settings.setenv('JOB_TASK_MODULES', 'tests.support.sentry,tests.support.hooked')
        environment_config.cache_clear()
        yield received


def tags(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: event['tags'][name]
        for name in ('job_id', 'task', 'queue', 'attempt')
        if name in event['tags']
    }


def error(event: dict[str, Any]) -> tuple[str, str]:
    last = event['exception']['values'][-1]
    assert last['mechanism']['handled'] is False
    return last['type'], last['value']


def run_until(worker: Worker, arrived: Callable[[], bool], **environment: str) -> None:
    """Run jobs until enough has arrived. What is too much arrives before the worker has ended."""
    with worker(**CALM, **environment):
        eventually(arrived)


def test_the_trace_of_a_request_goes_on_in_its_job(sentry: Received, own_worker: Worker) -> None:
    asked = subprocess.run(
        [sys.executable, '-c', REQUEST], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert asked.returncode == 0, asked.stderr
    job_id = asked.stdout.strip()
    assert get_job_status(job_id)['meta'] == {}
    run_until(own_worker, lambda: len(sentry.transactions) == 2)
    request, job = sentry.transactions
    assert sentry.events == []
    (publish,) = (span for span in request['spans'] if span['op'] == 'queue.publish')
    assert publish['data']['messaging.message.id'] == job_id
    assert publish['description'] == job['transaction'] == SELL
    trace = job['contexts']['trace']
    assert trace['trace_id'] == request['contexts']['trace']['trace_id']
    assert trace['parent_span_id'] == publish['span_id']
    assert trace['op'] == 'queue.process'
    data = trace['data']
    assert data['messaging.message.id'] == job_id
    assert data['messaging.destination.name'] == 'default'
    assert data['messaging.message.retry.count'] == 0
    assert 0 < data['messaging.message.receive.latency'] < 600_000
    assert tags(job) == {'job_id': job_id, 'task': SELL, 'queue': 'default', 'attempt': '1'}


@pytest.mark.parametrize(
    ('choice', 'reported'),
    [({}, [2]), ({'AUTO_ENABLING_OFF': '1'}, [2]), ({'REPORT_RETRIED': '1'}, [1, 2])],
)
def test_an_error_arrives_once_per_job_and_for_retried_attempts_on_request(
    sentry: Received, own_worker: Worker, choice: dict[str, str], reported: list[int]
) -> None:
    job = enqueue_background_job(SELL, 'fail', job_max_retries=1, job_retry_delay=0)
    run_until(own_worker, lambda: len(sentry.items) >= 2 + len(reported), **choice)
    expected = {'job_id': job.id, 'task': SELL, 'queue': 'default'}
    assert [tags(event) for event in sentry.events] == [
        expected | {'attempt': str(attempt)} for attempt in reported
    ]
    assert [transaction['tags']['attempt'] for transaction in sentry.transactions] == ['1', '2']
    for event in sentry.events:
        assert error(event) == ('ValueError', 'it failed')
        assert event['exception']['values'][-1]['stacktrace']['frames'][-1]['function'] == 'act'
        assert event['transaction'] == SELL
        (own,) = (
            transaction['contexts']['trace']
            for transaction in sentry.transactions
            if transaction['tags']['attempt'] == event['tags']['attempt']
        )
        assert own['status'] == 'internal_error'
        for name in ('trace_id', 'span_id'):
            assert event['contexts']['trace'][name] == own[name]


def test_each_job_has_a_scope_of_its_own(sentry: Received, own_worker: Worker) -> None:
    ended = [enqueue_background_job(SELL, what) for what in ('nothing', '', 'itself')]
    enqueue_background_job(OTHER, job_id='refused', job_meta=TRACED)
    run_until(own_worker, lambda: len(sentry.items) >= 6)
    found = [(event['tags']['job_id'], event['tags'].get('sold')) for event in sentry.events]
    assert found == [(ended[0].id, 'nothing'), (ended[2].id, 'itself'), ('refused', None)]
    permanent, _, unknown = sentry.events
    assert error(permanent) == ('PermanentJobError', 'there is none left')
    assert error(unknown)[0] == 'UnknownTaskError'
    assert unknown['transaction'] == unknown['tags']['task'] == OTHER
    assert unknown['contexts']['trace']['trace_id'] == TRACE
    assert len(sentry.transactions) == 3


@pytest.mark.parametrize(
    ('what', 'retries', 'kind', 'message'),
    [
        ('die', 1, 'HorseDied', 'the work horse was killed by SIGABRT while it ran the job'),
        ('hang', 0, 'JobTimeoutException', 'Task exceeded maximum timeout value (# seconds)'),
    ],
)
def test_each_death_of_a_horse_arrives(
    sentry: Received, own_worker: Worker, what: str, retries: int, kind: str, message: str
) -> None:
    job = enqueue_background_job(
        SELL,
        what,
        job_timeout=1 if what == 'hang' else None,
        job_max_retries=retries,
        job_retry_delay=0,
        job_meta=TRACED,
    )
    run_until(own_worker, lambda: len(sentry.events) > retries)
    assert [event['tags']['attempt'] for event in sentry.events] == ['1', '2'][: retries + 1]
    for event in sentry.events:
        assert event['level'] == 'fatal'
        assert event['contexts']['trace']['trace_id'] == TRACE
        assert error(event)[0] == kind
        assert event['tags']['job_id'] == job.id
        assert event['transaction'] == SELL
        *group, text = event['fingerprint']
        assert group == ['qdjobs', SELL, kind]
        assert text.startswith(message)


@pytest.mark.usefixtures('sentry')
def test_a_sentry_that_does_not_answer_changes_no_job(own_worker: Worker) -> None:
    job = enqueue_background_job(SELL, 'time out', job_timeout=1)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        dsn = f'http://key@127.0.0.1:{silent.getsockname()[1]}/1'
        with own_worker('--burst', **CALM, SENTRY_DSN=dsn) as worker:
            assert worker.wait(60) == 0
    error = get_job_status(job.id)['error'] or ''
    assert error.startswith('JobTimeoutException: Task exceeded maximum timeout value (1 seconds)')
    assert 'killed' not in error  # by the worker, had the horse waited for long


def test_a_lost_worker_arrives(sentry: Received, own_worker: Worker) -> None:
    job = enqueue_background_job(SELL, 'sleep')
    with own_worker(**APP) as worker:
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(60)
    with own_worker('--max-jobs', '1', **APP) as other:
        eventually(lambda: sentry.events)
        kill_group(other.pid)
    (event,) = sentry.events
    assert error(event) == ('WorkerLostError', 'the worker died while it ran this job')
    assert event['tags']['job_id'] == job.id


def test_nothing_is_added_to_a_job_where_the_sdk_is_not_initialised(sentry: Received) -> None:
    app = Flask('a')
    init_sentry(JobQueue(app))
    with app.app_context():
        job = enqueue_background_job(SELL)
    assert job.get_meta() == {}
