"""What Prometheus reads: true, behind a token, and bought with a bounded number of commands."""

import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from rq import Queue

from app import create_app
from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    wait_for_job,
)
from qdjobs.config import environment_config
from qdjobs.server import free_port
from tests.support.applications import shared_app, use_redis
from tests.support.jobs import done
from tests.support.load import commands, fill
from tests.support.processes import ROOT, Worker, eventually, kill_group
from tests.support.shared_worker import SharedWorker

TOKEN = 's3cret'
ADD = 'tests.support.tasks.add'
DASHBOARD = ROOT / 'docs' / 'grafana.json'


@pytest.fixture
def scrape(settings: pytest.MonkeyPatch) -> Callable[..., float]:
    """The value of one sample; without a name, the number of all samples."""
    settings.setenv('METRICS_TOKEN', TOKEN)
    environment_config.cache_clear()
    client = shared_app(create_app).test_client()

    def read(name: str = '', **labels: str) -> float:
        answer = client.get('/metrics', headers={'Authorization': f'Bearer {TOKEN}'})
        assert (answer.status_code, answer.mimetype) == (200, 'text/plain')
        families = text_string_to_metric_families(answer.text)
        samples = [sample for family in families for sample in family.samples]
        if not name:
            return len(samples)
        [value] = [s.value for s in samples if s.name == name and s.labels == labels]
        return value

    return read


Scrape = Callable[..., float]


def ask(client: FlaskClient, **headers: str) -> int:
    return client.get('/metrics', headers=headers).status_code


# Who may read it


def test_without_a_token_there_are_no_metrics(client: FlaskClient) -> None:
    assert ask(client) == 404
    assert ask(client, Authorization='Bearer ') == 404


@pytest.mark.parametrize('header', ['', 'Bearer', 'Bearer wrong', f'Basic {TOKEN}', TOKEN])
def test_only_who_has_the_token_reads_them(scrape: Scrape, header: str) -> None:
    client = shared_app(create_app).test_client()
    assert ask(client, Authorization=header) == 401
    assert ask(client) == 401
    assert ask(client, Authorization=f'Bearer {TOKEN}') == 200


# What they say


def test_jobs_are_counted_by_queue_and_status(scrape: Scrape, shared_worker: SharedWorker) -> None:
    for job in (
        enqueue_background_job('tests.support.tasks.fail', job_queue='low'),
        enqueue_background_job(ADD, 1, job_queue='low'),
    ):
        wait_for_job(job.id, 60)
    with shared_worker.held():
        enqueue_background_jobs(ADD, [{'a': 1}] * 3, job_queue='high')
        enqueue_background_job(ADD, 1, job_delay=60)
        cancel_job(enqueue_background_job(ADD, 1).id)
        for queue, status, number in [
            ('high', 'queued', 3),
            ('default', 'queued', 0),
            ('default', 'scheduled', 1),
            ('default', 'canceled', 1),
            ('low', 'finished', 1),
            ('low', 'failed', 1),
            ('low', 'started', 0),
        ]:
            assert scrape('jobs', queue=queue, status=status) == number, (queue, status)


def test_what_has_expired_is_not_counted(scrape: Scrape, connection: Redis) -> None:
    for registry in ('finished', 'failed', 'canceled'):
        connection.zadd(f'rq:{registry}:default', {'gone': 1, 'kept': '+inf'})
        assert scrape('jobs', queue='default', status=registry) == 1


def test_the_oldest_is_found_behind_what_was_put_back(scrape: Scrape, connection: Redis) -> None:
    assert scrape('jobs_oldest_waiting_seconds', queue='default') == 0
    old = enqueue_background_job(ADD, 1)
    put_back = enqueue_background_job(ADD, 1)
    connection.lmove('rq:queue:default', 'rq:queue:default', 'RIGHT', 'LEFT')
    assert connection.lindex('rq:queue:default', 0) == put_back.id.encode()
    connection.hset(f'rq:job:{old.id}', 'enqueued_at', '2020-01-01T00:00:00.000000Z')
    assert scrape('jobs_oldest_waiting_seconds', queue='default') > 365 * 86_400
    assert scrape('jobs_oldest_waiting_seconds', queue='high') == 0


def test_nonsense_in_redis_is_no_error(scrape: Scrape, connection: Redis) -> None:
    job = enqueue_background_job(ADD, 1)
    connection.hset(f'rq:job:{job.id}', 'enqueued_at', b'\xff nonsense')
    connection.set('rq:job:text', 'no hash')
    connection.hset('rq:metrics', b'\xff', 'many')
    connection.rpush('rq:queue:default', 'text', b'\xff')
    connection.hset('rq:worker:x"y', mapping={'birth': '?', 'state': 'a"}\n', 'queues': b'\xff'})
    connection.sadd('rq:workers', 'rq:worker:x"y', 'rq:worker:gone')
    assert scrape('jobs', queue='default', status='queued') == 3
    assert scrape('jobs_oldest_waiting_seconds', queue='default') == 0


def test_workers_are_counted_by_state(
    scrape: Scrape, own_worker: Worker, connection: Redis
) -> None:
    assert scrape('jobs_workers', state='idle') == 0
    with own_worker() as worker:
        eventually(lambda: scrape('jobs_workers', state='idle') == 1)
        job = enqueue_background_job('tests.support.tasks.sleep', 600)
        eventually(lambda: scrape('jobs_workers', state='busy') == 1)
        assert scrape('jobs', queue='default', status='started') == 1
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        [key] = connection.smembers('rq:workers')
        connection.hset(key, 'last_heartbeat', '2020-01-01T00:00:00.000000Z')  # a minute goes by
        assert scrape('jobs_workers', state='lost') == 1
        assert scrape('jobs_workers', state='busy') == 0
    assert get_job_status(job.id)['status'] == 'started'


def test_failures_are_counted_once_and_for_ever(
    scrape: Scrape, shared_worker: SharedWorker, connection: Redis
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ('tests.support.tasks.fail', {'job_max_retries': 2, 'job_retry_delay': 0}),
        ('tests.support.tasks.segfault', {}),
        ('tests.support.tasks.add', {'a': 1}),
    ]
    for task, options in calls:
        wait_for_job(enqueue_background_job(task, job_queue='high', **options).id, 60)
    connection.delete('rq:failed:high', 'rq:workers')  # the dead letters expire, workers change
    for task, failed in (('fail', 1), ('segfault', 1), ('add', 0)):
        labels = {'queue': 'high', 'task': f'tests.support.tasks.{task}'}
        assert scrape('jobs_failed_total', **labels) == failed
    assert scrape('jobs_retried_total', queue='high', task='tests.support.tasks.fail') == 2
    assert scrape('jobs_failed_total', queue='low', task='other') == 0


@pytest.mark.slow
def test_a_poison_pill_is_a_failure_and_a_stopped_job_is_none(
    scrape: Scrape, own_worker: Worker
) -> None:
    with own_worker(JOB_MAX_WORKER_DEATHS='1') as worker:
        job = enqueue_background_job('tests.support.tasks.sleep', 600)
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        kill_group(worker.pid)
    with own_worker(JOB_MAX_WORKER_DEATHS='1'):
        assert wait_for_job(job.id, 60)['status'] == 'failed'
        stopped = enqueue_background_job('tests.support.tasks.sleep', 600)
        eventually(lambda: get_job_status(stopped.id)['status'] == 'started')
        cancel_job(stopped.id)
        assert wait_for_job(stopped.id, 60)['status'] == 'stopped'
    labels = {'queue': 'default', 'task': 'tests.support.tasks.sleep'}
    assert scrape('jobs_failed_total', **labels) == 1
    assert scrape('jobs_stopped_total', **labels) == 1
    assert scrape('jobs_lost_total', **labels) == 1


def test_times_are_histograms_by_task(scrape: Scrape, shared_worker: SharedWorker) -> None:
    done(enqueue_background_job('tests.support.tasks.sleep', 0.03))
    task = {'task': 'tests.support.tasks.sleep'}
    for name in ('jobs_waiting_seconds', 'jobs_running_seconds'):
        assert scrape(f'{name}_bucket', le='+Inf', **task) == 1
        assert scrape(f'{name}_bucket', le='3600.0', **task) == 1
        assert scrape(f'{name}_count', **task) == 1
    assert scrape('jobs_running_seconds_bucket', le='0.025', **task) == 0
    assert scrape('jobs_running_seconds_sum', **task) >= 0.03


def test_redis_away_is_told_not_hidden(
    request: pytest.FixtureRequest, settings: pytest.MonkeyPatch
) -> None:
    use_redis(settings, f'redis://127.0.0.1:{free_port()}/0')
    scrape: Scrape = request.getfixturevalue('scrape')
    assert scrape('jobs_redis_up') == 0
    assert scrape() == 1


# What they are called, and what they cost


@pytest.fixture
def families(scrape: Scrape, shared_worker: SharedWorker) -> list[Metric]:
    """What is exposed once jobs have run."""
    done(enqueue_background_job(ADD, 1))
    client = shared_app(create_app).test_client()
    text = client.get('/metrics', headers={'Authorization': f'Bearer {TOKEN}'}).text
    return list(text_string_to_metric_families(text))


def test_names_are_as_prometheus_wants_them(families: list[Metric]) -> None:
    for family in families:
        assert re.fullmatch(r'jobs(_[a-z]+)*', family.name)
        assert family.documentation.endswith('.')
        for sample in family.samples:
            assert sample.name.endswith('_total') is (family.type == 'counter')


def test_the_documentation_lists_every_metric_with_its_labels(families: list[Metric]) -> None:
    page = (ROOT / 'docs' / 'metrics.md').read_text()
    listed = re.findall(r'^\| `(jobs\w*)(?:{(.*?)})?`', page, re.MULTILINE)
    own = [pair for pair in listed if not pair[0].startswith('jobs_outbox')]  # in test_operations
    assert {name: set(filter(None, labels.split(','))) for name, labels in own} == {
        name_of(family): {*family.samples[0].labels} - {'le'} for family in families
    }


def test_the_dashboard_and_the_alerts_ask_for_what_is_exposed(families: list[Metric]) -> None:
    labels = {sample.name: {*sample.labels} for family in families for sample in family.samples}
    queries = [*dashboard_queries(), *alert_queries()]
    assert len(queries) > 10
    for query in queries:
        names = re.findall(r'\bjobs\w*', query)
        assert names, query
        used = re.findall(r'(\w+)=', query) + re.findall(r'by \(([\w, ]+)\)', query)
        assert set(names) <= set(labels), query
        known = set().union(*(labels[name] for name in names))
        assert set(', '.join(used).split(', ')) - {''} <= known, query


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())['panels']
    assert len({panel['id'] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for at in [panel['gridPos']]
        for x in range(at['x'], at['x'] + at['w'])
        for y in range(at['y'], at['y'] + at['h'])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24  # columns


def name_of(family: Metric) -> str:
    return f'{family.name}_total' if family.type == 'counter' else family.name


def dashboard_queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())['panels']
    return [target['expr'] for panel in panels for target in panel['targets']]


def alert_queries() -> list[str]:
    page = (ROOT / 'docs' / 'metrics.md').read_text()
    return re.findall(r'^ +expr: (.*)$', page, re.MULTILINE)


def test_a_scrape_costs_the_same_however_many_jobs_there_are(
    scrape: Scrape, connection: Redis
) -> None:
    scrape()  # from now on the server knows the script
    fill(connection, 20)
    few = commands(connection, scrape)
    fill(connection, 5_000)
    many = commands(connection, scrape)
    assert many == few
    assert few['evalsha'] == few['hgetall'] == 1
    assert sum(few.values()) < 150
    assert Queue(connection=connection).count == 5_020


def test_a_scrape_changes_nothing(
    scrape: Scrape, connection: Redis, dump: Callable[[], dict[bytes, Any]]
) -> None:
    fill(connection, 3)
    connection.zadd('rq:finished:default', {'gone': 1})
    connection.sadd('rq:workers', 'rq:worker:gone')
    before = dump()
    scrape()
    assert dump() == before
