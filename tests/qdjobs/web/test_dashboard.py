"""The dashboard: who comes in, what may be asked from where, and that nothing in Redis acts.

Where rq-dashboard itself is at fault, a test shows that in its bare blueprint too: should one of
those go red, the fault is mended, and its guard can go.
"""

import base64
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from werkzeug.test import TestResponse

from app import create_app
from libraries.job_manager import (
    cancel_job,
    delete_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    list_jobs,
    wait_for_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.config import environment_config
from qdjobs.errors import JobNotFoundError
from qdjobs.monitoring.registries import MAX_TEXT, SHOWN
from qdjobs.server import free_port
from qdjobs.web.dashboard.pages import REWRITES, package, read_template
from tests.support.applications import shared_app, use_redis
from tests.support.dashboard import WORKER, bare_app, finished_with, running
from tests.support.hostile import PLACES, Hostile, plant
from tests.support.processes import eventually
from tests.support.proxy import Proxy, proxy_to
from tests.support.shared_worker import SharedWorker

Dump = Callable[[], dict[bytes, Any]]
LOGIN = 'Basic ' + base64.b64encode(b'anna:pass:word').decode()
OURS = {'Origin': 'http://localhost'}  # as Flask's test client names its host

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning:flask')  # of the bare one


@pytest.fixture(autouse=True)
def login(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('DASHBOARD_USERNAME', 'anna')
    settings.setenv('DASHBOARD_PASSWORD', 'pass:word')
    environment_config.cache_clear()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return logged_in(app)


@pytest.fixture
def bare(redis_url: str) -> FlaskClient:
    """rq-dashboard as it comes."""
    return logged_in(bare_app(redis_url))


def logged_in(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base['HTTP_AUTHORIZATION'] = LOGIN
    return client


def requests(app: Flask, job_id: str = 'x', queue: str = 'default') -> Iterator[tuple[str, str]]:
    """Every route of the dashboard with every method that it takes, reading ones first."""
    values = {'instance_number': 0, 'per_page': 8, 'page': 1, 'filename': 'css/main.css'}
    urls = app.url_map.bind('localhost')
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith('qdjobs_dashboard.'):
            for registry in SHOWN if 'registry_name' in rule.arguments else ('',):
                for order in ('asc', 'dsc') if 'order' in rule.arguments else ('',):
                    given: dict[str, Any] = values | {'registry_name': registry, 'order': order}
                    given |= {'job_id': job_id, 'queue_name': queue}
                    arguments = {name: given[name] for name in rule.arguments}
                    path = urls.build(rule.endpoint, arguments)
                    found += [(method, path) for method in rule.methods or ()]
    assert len(found) > 60
    yield from sorted(found, key=lambda request: ('POST' in request, 'delete' in request[1]))


def fetch(client: FlaskClient, address: str) -> Any:
    answer = client.get(f'/rq/0/data/{address}.json')
    assert answer.status_code == 200, answer.text
    return answer.json


def rows(client: FlaskClient, registry: str = 'queued', where: str = '8/asc/1') -> Any:
    return fetch(client, f'jobs/default/{registry}/{where}')['jobs']


def failed(number: int = 1) -> list[str]:
    """The ids of so many jobs that the shared worker has failed at."""
    jobs = enqueue_background_jobs('tests.support.tasks.fail', [{}] * number)
    for job in jobs:
        assert wait_for_job(job.id, 60)['status'] == 'failed'
    return [job.id for job in jobs]


# Who comes in


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'DELETE'])
def test_without_a_login_in_the_settings_there_is_no_dashboard(
    settings: pytest.MonkeyPatch, method: str
) -> None:
    for name in ('DASHBOARD_USERNAME', 'DASHBOARD_PASSWORD'):
        settings.delenv(name)
    environment_config.cache_clear()
    client = shared_app(create_app).test_client()
    for path in ('/rq', '/rq/', '/rq/0/data/queues.json', '/rq/requeue/default'):
        assert client.open(path, buffered=True, method=method, headers=OURS).status_code == 404


def test_every_route_asks_for_the_login(app: Flask, connection: Redis) -> None:
    client = app.test_client()
    wrong = 'Basic ' + base64.b64encode(b'anna:wrong').decode()
    for method, path in requests(app):
        for given in ({}, {'Authorization': wrong}, {'Authorization': 'Bearer pass:word'}):
            answer = client.open(path, buffered=True, method=method, headers=OURS | given)
            assert answer.status_code == 401, (method, path)
            assert answer.headers['WWW-Authenticate'].startswith('Basic ')
    assert connection.dbsize() == 0


@pytest.mark.upstream
def test_the_control_upstream_lets_everybody_in_without_a_policy(redis_url: str) -> None:
    answer = bare_app(redis_url).test_client().get('/rq/')
    assert answer.status_code == 200
    assert 'Content-Security-Policy' not in answer.headers


def test_the_short_address_leads_to_the_long_one(client: FlaskClient) -> None:
    answer = client.get('/rq')
    assert answer.status_code == 308
    assert answer.headers['Location'].endswith('/rq/')
    assert client.get('/rq/').status_code == 200


def test_it_answers_where_rq_dashboard_does(app: Flask, redis_url: str) -> None:
    """A route that upstream adds must be looked at; compacting, which loses jobs, is left out."""

    def paths(of: Flask) -> set[str]:
        found = (rule.rule for rule in of.url_map.iter_rules() if '_dashboard' in rule.endpoint)
        return {
            re.sub(r'<(?:\w+:)?(\w+)>', r'<\1>', rule).replace('<instance_number>', '0')
            for rule in found
        }

    assert paths(bare_app(redis_url)) - paths(app) == {'/rq/queue/<queue_name>/compact'}
    assert paths(app) <= paths(bare_app(redis_url))


# What may be asked from where


CROSS_SITE: list[dict[str, str]] = [
    {},
    {'Origin': 'http://evil.example'},
    {'Origin': 'null'},
    {'Origin': ''},
    {'Origin': 'http://localhost:81'},
    {'Origin': 'http://localhost.evil.example'},
    {'Origin': 'http://evil.example/@localhost'},
    {'Origin': 'http://['},
    {'Origin': 'localhost'},
    {'Origin': 'http://anna@localhost'},
    {'Sec-Fetch-Site': 'cross-site'},
    {'Sec-Fetch-Site': 'same-site'},
    {'Sec-Fetch-Site': 'none'},
    {'Sec-Fetch-Site': ''},
    {'Sec-Fetch-Site': 'same-origin', 'Origin': 'http://evil.example'},
    {'Sec-Fetch-Site': 'cross-site', 'Origin': 'http://localhost'},
    {'Referer': 'http://localhost/rq/'},
]


@pytest.mark.parametrize('headers', CROSS_SITE, ids=str)
def test_nothing_changes_at_the_wish_of_another_site(
    app: Flask,
    client: FlaskClient,
    dump: Dump,
    headers: dict[str, str],
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1, job_delay=60)
    before = dump()
    for method, path in requests(app, job.id):
        if method == 'POST':
            assert client.post(path, headers=headers).status_code == 403, path
    assert dump() == before


@pytest.mark.parametrize(
    'headers',
    [
        {},
        OURS,
        {'X-HTTP-Method-Override': 'POST'} | OURS,
        {'X-HTTP-Method': 'POST', 'X-Method-Override': 'POST'} | OURS,
    ],
    ids=str,
)
def test_reading_changes_nothing(
    app: Flask, client: FlaskClient, connection: Redis, dump: Dump, headers: dict[str, str]
) -> None:
    waiting = enqueue_background_job('tests.support.tasks.add', 1)
    running(connection, waiting.id)
    connection.sadd('rq:workers', 'rq:worker:dead.1')
    gone = enqueue_background_job('tests.support.tasks.add', 1)
    connection.zadd('rq:failed:default', {gone.id: 1})  # for RQ's clean-up
    connection.hset(f'rq:job:{gone.id}', 'status', 'failed')
    connection.zadd('rq:wip:default', {f'{waiting.id}:1': 1})
    before = dump()
    for path in dict.fromkeys(path for _, path in requests(app, waiting.id)):
        for asked in ('GET', 'HEAD', 'OPTIONS'):
            answer = client.open(
                f'{path}?_method=POST', buffered=True, method=asked, headers=headers
            )
            assert answer.status_code in (200, 405), (asked, path)
    assert dump() == before


@pytest.mark.upstream
def test_the_control_upstream_requeues_by_get_and_from_any_site(
    bare: FlaskClient, shared_worker: SharedWorker
) -> None:
    first, second = failed(2)
    with shared_worker.held():
        bare.post(f'/rq/job/{first}/requeue', headers={'Origin': 'http://evil.example'})
        assert get_job_status(first)['status'] == 'queued'
        bare.get('/rq/requeue/default')
        assert get_job_status(second)['status'] == 'queued'


@pytest.mark.upstream
def test_the_control_upstream_forgets_workers_while_it_reads(
    bare: FlaskClient, connection: Redis
) -> None:
    connection.sadd('rq:workers', 'rq:worker:dead.1')
    bare.get('/rq/0/data/workers.json')
    assert not connection.exists('rq:workers')


@pytest.mark.parametrize(
    'headers',
    [
        OURS,
        {'Origin': 'https://localhost'},  # behind a proxy that ends TLS
        {'Sec-Fetch-Site': 'same-origin'},
        OURS | {'Sec-Fetch-Site': 'same-origin'},
    ],
    ids=str,
)
def test_its_own_pages_may_ask(client: FlaskClient, headers: dict[str, str]) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    assert client.post(f'/rq/job/{job.id}/delete', headers=headers).json == {'status': 'OK'}
    assert get_job_status(job.id)['status'] == 'canceled'


# What the pages may do


def test_every_answer_is_hardened(app: Flask, client: FlaskClient) -> None:
    for method, path in requests(app):
        answer = client.open(path, buffered=True, method=method)
        cache = 'no-cache' if is_file(path) and method != 'OPTIONS' else 'no-store'
        policy = answer.headers['Content-Security-Policy']
        assert answer.headers['X-Content-Type-Options'] == 'nosniff'
        assert answer.headers['Referrer-Policy'] == 'same-origin'
        assert answer.headers['Cross-Origin-Resource-Policy'] == 'same-origin'
        assert answer.headers['Cache-Control'] == cache
        assert "frame-ancestors 'none'" in policy
        if answer.mimetype != 'text/html':
            assert policy.startswith("default-src 'none'")


def is_file(path: str) -> bool:
    return '/static/' in path or path.endswith('.ico')


@pytest.mark.parametrize('name', ['', '0/view/workers', '0/view/jobs'])
def test_the_policy_of_a_page_knows_its_own_scripts_only(client: FlaskClient, name: str) -> None:
    answer, other = client.get(f'/rq/{name}'), client.get(f'/rq/{name}')
    policy = dict(
        part.strip().split(' ', 1) for part in answer.headers['Content-Security-Policy'].split(';')
    )
    source = policy['script-src'].split()
    assert source[1:] == ["'unsafe-eval'"]
    nonce = source[0].removeprefix("'nonce-").removesuffix("'")
    assert len(nonce) >= 22
    assert policy['default-src'] == "'self'"
    assert policy['form-action'] == "'self'"
    for closed in ('base-uri', 'frame-ancestors', 'object-src'):
        assert policy[closed] == "'none'"
    assert answer.text.count('<script') == answer.text.count(f'<script nonce="{nonce}" ') > 4
    assert nonce not in other.text
    assert ' src="http' not in answer.text  # nothing of other sites
    assert '<link href="http' not in answer.text


def test_the_templates_are_mended_and_still_need_it() -> None:
    folder = package() / 'templates'
    names = [str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()]
    assert len(names) > 10
    originals = ''.join((folder / name).read_text() for name in names)
    for fault, _ in REWRITES:
        assert re.search(fault, originals), f'{fault} is mended: this guard can go'
    for name in names:
        mended = read_template(f'qdjobs_dashboard/{name.partition("/")[2]}')
        assert mended is not None
        assert not re.search(r'\brq_dashboard[./]', mended)
        assert '<%=' not in mended
        assert '.text(d' not in mended
        assert 'compact_queue' not in mended
        for written in re.findall(r'\{\{(.*?)\}\}', mended) if name.endswith('.js') else ():
            assert '|tojson' in written.replace(' ', '') or 'poll_interval' in written


@pytest.mark.parametrize('name', ['../web.py', 'qdjobs_dashboard/../../../web.py', 'base.html', ''])
def test_other_templates_are_none_of_ours(name: str) -> None:
    assert read_template(name) is None


# Nothing in Redis acts


ELSEWHERE = [
    'exc_info', 'exc_string', 'description', 'success_callback_name', 'failure_callback_name',
    'stopped_callback_name', 'webhooks', 'group_id', 'retry_intervals', 'repeat_intervals',
    'dependency_ids', 'rate_limit_key', 'worker', 'execution', 'task', 'status', 'origin',
]  # fmt: skip


def plant_anywhere(connection: Redis, place: str, canary: Path) -> str:
    if place in PLACES:
        return plant(connection, place, canary)
    payload = pickle.dumps(Hostile(canary))
    job_id = enqueue_background_job('tests.support.tasks.add', 1).id
    if place == 'exc_string':
        packed = base64.b64encode(payload)
        connection.xadd(f'rq:results:{job_id}', {'type': 2, 'exc_string': packed})
    elif place in ('worker', 'execution'):
        running(connection, job_id)
        key = f'rq:worker:{WORKER}' if place == 'worker' else f'rq:execution:{job_id}:1'
        for field in ('queues', 'version', 'python_version', 'pid', 'job_id', 'current_job'):
            connection.hset(key, field, payload)
    else:
        connection.hset(f'rq:job:{job_id}', place, payload)
    return job_id


@pytest.mark.parametrize('place', [*PLACES, *ELSEWHERE])
def test_a_hostile_pickle_runs_on_no_route(
    app: Flask, client: FlaskClient, connection: Redis, tmp_path: Path, place: str
) -> None:
    canary = tmp_path / 'canary'
    job_id = plant_anywhere(connection, place, canary)
    if place not in ('worker', 'execution'):
        running(connection, job_id)
    for registry in SHOWN[1:]:
        kind = 'wip' if registry == 'started' else registry
        connection.zadd(f'rq:{kind}:default', {job_id: '+inf'})
    connection.rpush('rq:queue:default', job_id)
    for method, path in requests(app, job_id):
        if method not in ('GET', 'POST'):  # HEAD is GET, and OPTIONS is none of the views
            continue
        answer = client.open(path, buffered=True, method=method, headers=OURS)
        assert answer.status_code < 500, (method, path)
        assert not canary.exists(), (method, path)


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.upstream
def test_the_control_upstream_runs_it(
    bare: FlaskClient, connection: Redis, tmp_path: Path, place: str
) -> None:
    canary = tmp_path / 'canary'
    job_id = plant(connection, place, canary)
    running(connection, job_id)
    for address in (f'job/{job_id}', 'workers'):
        bare.get(f'/rq/0/data/{address}.json')
    assert canary.exists()


# Whatever it is, it is shown


VALUES = [
    None, True, 0, -1.5, float('nan'), float('inf'), 2**70, 10**5000, '', '<b>&amp;</b>', '\ud800',
    b'\xff\x00', [1, [2, [3]]], (1, 'x'), {1, 2}, {(1, 2): 'pair', None: 0, b'k': 1},
    datetime(2026, 1, 2, 3, 4, tzinfo=UTC), timedelta(days=1, seconds=2), Decimal('1.50'),
    UUID(int=1), datetime(1, 1, 1).date(), {'deep': [{'er': {b'x'}}]},  # noqa: DTZ001
]  # fmt: skip


@pytest.mark.parametrize('value', VALUES, ids=lambda value: str(type(value).__name__))
def test_every_plain_result_and_metadata_is_shown(
    client: FlaskClient, connection: Redis, value: Any
) -> None:
    job_id = finished_with(connection, value)
    connection.hset(f'rq:job:{job_id}', 'meta', PlainSerializer.dumps({'it': value}))
    job = fetch(client, f'job/{job_id}')
    assert job['status'] == 'finished'
    assert job['metadata'].startswith('{"it":')
    assert (job['result'] is None) == (value is None or value != value or value == float('inf'))
    assert client.get(f'/rq/0/view/job/{job_id}').status_code == 200
    assert [row['id'] for row in rows(client, 'finished')] == [job_id]


@pytest.mark.parametrize('value', [b'\xff', {1, 2}], ids=str)
@pytest.mark.upstream
def test_the_control_upstream_fails_at_it(bare: FlaskClient, connection: Redis, value: Any) -> None:
    job_id = finished_with(connection, value)
    assert bare.get(f'/rq/0/data/job/{job_id}.json').status_code == 500


def test_a_huge_value_is_cut(client: FlaskClient, connection: Redis) -> None:
    job_id = finished_with(connection, 'x' * 3_000_000)
    long: dict[str, Any] = {
        'meta': PlainSerializer.dumps({'m': 'y' * 3_000_000}),
        'description': 'd' * 3_000_000,
    }
    for field, text in long.items():
        connection.hset(f'rq:job:{job_id}', field, text)
    job = fetch(client, f'job/{job_id}')
    assert job['result'].startswith('"xxx')
    assert job['result'].endswith('… (3000002 characters)')
    for shown in (job['result'], job['metadata'], job['description']):
        assert MAX_TEXT <= len(shown) < MAX_TEXT + 50
    assert len(client.get('/rq/0/data/jobs/default/finished/8/asc/1.json').data) < 2.5 * MAX_TEXT


def test_of_a_long_traceback_the_end_is_shown(client: FlaskClient, connection: Redis) -> None:
    job_id = finished_with(connection, None)
    connection.hset(f'rq:job:{job_id}', 'status', 'failed')
    packed = base64.b64encode(b'frame\n' * 100_000 + b'ValueError: the end')
    connection.xadd(f'rq:results:{job_id}', {'type': 2, 'exc_string': packed})
    shown = fetch(client, f'job/{job_id}')['exc_info']
    assert shown.endswith('ValueError: the end')
    assert len(shown) == MAX_TEXT + 1


def test_a_traceback_is_shown(client: FlaskClient, shared_worker: SharedWorker) -> None:
    job = enqueue_background_job('tests.support.tasks.fail', 'too wide')
    wait_for_job(job.id, 60)
    shown = fetch(client, f'job/{job.id}')
    assert shown['exc_info'].startswith('Traceback (most recent call last)')
    assert shown['exc_info'].strip().endswith('ValueError: too wide')
    assert rows(client, 'failed')[0]['exc_info'] == 'ValueError: too wide'
    assert shown['origin'] == 'default'


ODD = ['status', 'created_at', 'started_at', 'ended_at', 'meta', 'origin', 'description', 'task']


@pytest.mark.parametrize('odd', [*ODD, 'no hash', 'no record', 'results', 'moment', 'id'])
def test_one_bad_record_hides_no_other(client: FlaskClient, connection: Redis, odd: str) -> None:
    bad, good = enqueue_background_jobs('tests.support.tasks.add', [{'a': 1}, {'a': 2}])
    key = f'rq:job:{bad.id}'
    if odd in ODD:
        connection.hset(key, odd, b'\xff nonsense')
    elif odd in ('no hash', 'no record'):
        connection.delete(key)
        if odd == 'no hash':
            connection.set(key, 'text')
    elif odd == 'results':
        connection.set(f'rq:results:{bad.id}', 'text')
    elif odd == 'moment':
        moment = f'{2**64 - 1}-1'
        connection.xadd(f'rq:results:{bad.id}', {'type': 2, 'exc_string': 'x'}, id=moment)
    else:
        connection.execute_command('LSET', 'rq:queue:default', 0, b'\xff/../<id>')
    running(connection, bad.id)
    connection.sadd('rq:workers', 'rq:worker:odd')
    connection.set('rq:worker:odd', 'text')
    shown = rows(client)
    assert [row['id'] for row in shown][1:] == [good.id]
    if odd.startswith('no') or odd == 'id':
        assert 'unreadable' in shown[0]['description']
    assert fetch(client, f'job/{good.id}')['status'] == 'queued'
    assert len(fetch(client, 'workers')['workers']) == 1
    assert fetch(client, 'queues')['queues'][1]['count'] == 2
    for page in (f'view/job/{bad.id}', f'data/job/{bad.id}.json'):
        expected = {'no record': 404, 'no hash': 500}.get(odd, 200)  # the last names the key
        assert client.get(f'/rq/0/{page}').status_code == expected


@pytest.mark.upstream
def test_the_control_upstream_hides_them_all(bare: FlaskClient, connection: Redis) -> None:
    bad = enqueue_background_jobs('tests.support.tasks.add', [{'a': 1}, {'a': 2}])[0]
    connection.hset(f'rq:job:{bad.id}', 'created_at', 'nonsense')
    assert bare.get('/rq/0/data/jobs/default/queued/8/asc/1.json').status_code == 500


UNKNOWN = [
    'view/job/nobody', 'data/job/nobody.json', 'data/job/no%20id.json', 'view/job/%3Cb%3E',
    'view/jobs/nowhere/queued/8/asc/1', 'data/jobs/nowhere/queued/8/asc/1.json',
    'view/jobs/default/nonsense/8/asc/1', 'data/jobs/default/nonsense/8/asc/1.json',
    'view/jobs/default/queued/8/sideways/1', 'data/jobs/default/queued/8/sideways/1.json',
    'view/jobs/default/queued/8/asc/2', 'data/jobs/default/queued/8/asc/2.json',
    'view/jobs/default/queued/8/asc/0', 'data/jobs/default/queued/8/asc/0.json',
    'view/jobs/default/queued/0/asc/1', 'data/jobs/default/queued/0/asc/1.json',
    'view/jobs/default/queued/201/asc/1', 'data/jobs/default/queued/-1/asc/1.json',
    'data/jobs/default/queued/8/asc/x.json', f'data/jobs/default/queued/8/asc/{"9" * 5000}.json',
    "view/jobs/');alert(1)/('/queued/8/asc/1",
]  # fmt: skip


@pytest.mark.parametrize('path', UNKNOWN, ids=lambda path: path[:50])
def test_what_there_is_not_is_a_404(client: FlaskClient, path: str) -> None:
    answer = client.get(f'/rq/0/{path}')
    assert (answer.status_code, answer.mimetype) == (404, 'application/problem+json')
    assert client.get(f'/rq/1/{path}').status_code == 404


@pytest.mark.parametrize('path', UNKNOWN[:2] + UNKNOWN[5:8:2])
@pytest.mark.upstream
def test_the_control_upstream_fails_at_that(bare: FlaskClient, path: str) -> None:
    expected = 200 if 'nowhere' in path else 500
    assert bare.get(f'/rq/0/{path}').status_code == expected


@pytest.mark.parametrize('order', ['asc', 'dsc'])
@pytest.mark.parametrize('registry', ['queued', 'scheduled'])
def test_pages_hold_each_job_once(client: FlaskClient, registry: str, order: str) -> None:
    delays: dict[str, Any] = {'job_delay': 60} if registry == 'scheduled' else {}
    jobs = enqueue_background_jobs(
        'tests.support.tasks.add', [{'a': n} for n in range(23)], **delays
    )
    found: list[str] = []
    for page in (1, 2, 3):
        answer = fetch(client, f'jobs/default/{registry}/10/{order}/{page}')
        found += [row['id'] for row in answer['jobs']]
        links = answer['pagination']
        assert [link['number'] for link in links['pages_in_window']] == [1, 2, 3]
        assert ('prev_page' in links, 'next_page' in links) == (page > 1, page < 3)
        for link in links['pages_in_window']:
            assert client.get(link['url']).status_code == 200
    expected = [job.id for job in jobs]
    if registry == 'scheduled':  # of the same second: in the order of their ids
        expected.sort()
    assert found == (expected if order == 'asc' else expected[::-1])


def test_what_a_job_depends_on_is_shown(client: FlaskClient, connection: Redis) -> None:
    first = enqueue_background_job('tests.support.tasks.add', 1)
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    second = queue.enqueue('tests.support.tasks.add', 1, depends_on=first)
    assert fetch(client, f'job/{second.id}')['depends_on'] == [first.id]
    assert fetch(client, f'job/{second.id}')['depends_on_status'] == ['active']
    assert [row['id'] for row in rows(client, 'deferred')] == [second.id]
    connection.delete(f'rq:job:{first.id}')
    assert fetch(client, f'job/{second.id}')['depends_on_status'] == ['expired']


def test_a_worker_is_shown_with_its_job(client: FlaskClient, shared_worker: SharedWorker) -> None:
    eventually(lambda: fetch(client, 'workers')['workers'])  # its next heartbeat registers it
    job = enqueue_background_job('tests.support.tasks.sleep', 30)
    eventually(lambda: get_job_status(job.id)['status'] == 'started')
    (worker,) = fetch(client, 'workers')['workers']
    assert worker['queues'] == ['high', 'default', 'low']
    assert worker['current_job']['job_id'] == job.id
    assert worker['current_job']['call_string'] == 'tests.support.tasks.sleep(30)'
    cancel_job(job.id)
    eventually(lambda: fetch(client, 'workers')['workers'][0]['current_job'] == 'idle')


# What its buttons do


def post(client: FlaskClient, path: str) -> TestResponse:
    return client.post(f'/rq/{path}', headers=OURS)


def test_requeueing_makes_a_job_whole_again(
    client: FlaskClient, connection: Redis, shared_worker: SharedWorker
) -> None:
    first, *others = failed(3)
    with shared_worker.held():
        assert post(client, f'job/{first}/requeue').json == {'status': 'OK'}
        assert post(client, 'requeue/default').json == {'status': 'OK', 'count': 2}
        assert connection.lrange('rq:queue:default', 0, -1) == [
            job_id.encode() for job_id in (first, *others)
        ]
        assert {connection.ttl(f'rq:job:{job_id}') for job_id in (first, *others)} == {-1}
        assert connection.zcard('rq:failed:default') == 0
        assert get_job_status(first)['attempts'] == []


@pytest.mark.upstream
def test_the_control_upstream_leaves_the_expiry(
    bare: FlaskClient, connection: Redis, shared_worker: SharedWorker
) -> None:
    (job_id,) = failed()
    with shared_worker.held():
        bare.post(f'/rq/job/{job_id}/requeue')
        assert get_job_status(job_id)['status'] == 'queued'
        assert connection.ttl(f'rq:job:{job_id}') > 0  # it can expire while it waits


def test_what_cannot_be_requeued_is_told(client: FlaskClient) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    assert post(client, f'job/{job.id}/requeue').status_code == 400
    for path in ('job/nobody/requeue', 'job/nobody/delete', 'requeue/nowhere'):
        assert post(client, path).status_code == 404
    assert post(client, 'queue/default/nonsense/empty').status_code == 404


def test_deleting_forgets_only_what_has_ended(
    client: FlaskClient, connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    begun = tmp_path / 'begun'
    slow = enqueue_background_job('tests.support.tasks.touch_and_sleep', str(begun), 60)
    eventually(begun.exists)  # the worker claims no job ahead of its end any more
    waiting = enqueue_background_job('tests.support.tasks.add', 1)
    post(client, f'job/{waiting.id}/delete')
    assert get_job_status(waiting.id)['status'] == 'canceled'
    post(client, f'job/{slow.id}/delete')
    eventually(lambda: get_job_status(slow.id)['status'] == 'stopped')
    for job in (waiting, slow):
        post(client, f'job/{job.id}/delete')
        with pytest.raises(JobNotFoundError):
            get_job_status(job.id)
        assert not list(connection.scan_iter(f'*{job.id}*'))
    assert list_jobs() == []


def test_what_others_wait_for_is_not_forgotten(connection: Redis) -> None:
    job_id = finished_with(connection, 1)
    waiting = enqueue_background_job('tests.support.tasks.add', 1)
    # As it is until a worker has looked at the dependents of a job.
    connection.hset(waiting.key, 'status', 'deferred')
    connection.sadd(f'rq:job:{job_id}:dependents', waiting.id)
    connection.sadd(f'rq:job::{waiting.id}:dependencies', job_id)
    connection.zadd('rq:pending-dependents', {job_id: 1})
    assert delete_job(job_id) == 'deleted'
    assert get_job_status(waiting.id)['status'] == 'queued'
    assert not connection.exists('rq:pending-dependents')


@pytest.mark.upstream
def test_the_control_upstream_deletes_what_runs(
    bare: FlaskClient, shared_worker: SharedWorker
) -> None:
    slow = enqueue_background_job('tests.support.tasks.sleep', 60)
    eventually(lambda: get_job_status(slow.id)['status'] == 'started')
    bare.post(f'/rq/job/{slow.id}/delete')
    with pytest.raises(JobNotFoundError):
        get_job_status(slow.id)


def test_emptying_a_queue_cancels_and_emptying_what_ended_forgets(
    client: FlaskClient, connection: Redis
) -> None:
    jobs = enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(5)])
    connection.lpush('rq:queue:default', 'gone')
    assert post(client, 'queue/default/queued/empty').json == {'status': 'OK', 'count': 5}
    assert {job['status'] for job in list_jobs()} == {'canceled'}
    assert post(client, 'queue/default/canceled/empty').json == {'status': 'OK', 'count': 5}
    assert list_jobs() == []
    assert not connection.exists(*[f'rq:job:{job.id}' for job in jobs])


def test_nothing_compacts_a_queue(client: FlaskClient, bare: FlaskClient) -> None:
    enqueue_background_job('tests.support.tasks.add', 1)
    assert post(client, 'queue/default/compact').status_code == 404
    page = '/rq/0/view/jobs/default/queued/8/asc/1'
    assert 'Compact' not in client.get(page).text
    assert 'Compact' in bare.get(page).text


@pytest.fixture
def proxy(redis_url: str, settings: pytest.MonkeyPatch, app: Flask) -> Iterator[Proxy]:
    with proxy_to(redis_url) as proxy:
        use_redis(settings, proxy.url, app)
        yield proxy


def test_emptying_that_is_cut_off_loses_nothing(client: FlaskClient, proxy: Proxy) -> None:
    jobs = enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(5)])
    proxy.cut_after, proxy.max_cuts = jobs[2].id.encode(), 1
    assert post(client, 'queue/default/queued/empty').status_code == 503
    proxy.cut_after = None
    found = [get_job_status(job.id)['status'] for job in jobs]
    assert found[3:] == ['queued'] * 2
    assert post(client, 'queue/default/queued/empty').status_code == 200
    assert {get_job_status(job.id)['status'] for job in jobs} == {'canceled'}


@pytest.mark.upstream
def test_the_control_upstream_s_compacting_loses_a_queue(proxy: Proxy, redis_url: str) -> None:
    enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(5)])
    proxy.cut_after = b'RENAME'
    assert logged_in(bare_app(proxy.url)).post('/rq/queue/default/compact').status_code == 500
    assert Redis.from_url(redis_url).llen('rq:queue:default') == 0


# Redis


def test_the_url_s_password_stands_on_no_page(
    settings: pytest.MonkeyPatch, connection: Redis, redis_url: str
) -> None:
    connection.acl_setuser('anna', True, passwords=['+hush-hush'], keys=['*'], categories=['+@all'])
    try:
        for url in (
            redis_url.replace('://', '://anna:hush-hush@'),
            f'{redis_url}?username=anna&password=hush-hush',
        ):
            use_redis(settings, url)
            app = create_app()
            client = logged_in(app)
            job = enqueue_background_job('tests.support.tasks.add', 1)
            for method, path in requests(app, job.id):
                answer = client.open(path, buffered=True, method=method, headers=OURS)
                assert answer.status_code < 500
                assert b'hush' not in answer.data
            assert urlsplit(redis_url).path in client.get('/rq/').text
    finally:
        connection.acl_deluser('anna')


def test_without_redis_every_route_is_a_503_that_tells_nothing(
    app: Flask, client: FlaskClient, settings: pytest.MonkeyPatch
) -> None:
    use_redis(settings, f'redis://:hush-hush@127.0.0.1:{free_port()}/0', app)
    for method, path in requests(app):
        answer = client.open(path, buffered=True, method=method, headers=OURS)
        # These two pages hold no data.
        alone = (
            is_file(path)
            or method == 'OPTIONS'
            or path.endswith(('/', 'view', 'queues', 'workers'))
        )
        assert answer.status_code == (200 if alone else 503), (method, path)
        assert b'Traceback' not in answer.data
        assert b'hush' not in answer.data


@pytest.mark.upstream
def test_the_control_upstream_fails_without_redis() -> None:
    bare = bare_app(f'redis://127.0.0.1:{free_port()}/0').test_client()
    assert bare.get('/rq/0/data/queues.json').status_code == 500


def test_variables_of_rq_dashboard_itself_mean_nothing(
    client: FlaskClient, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv('RQ_DASHBOARD_REDIS_URL', 'redis://evil.example')
    settings.setenv('RQ_DASHBOARD_SETTINGS', '/nowhere')
    job = enqueue_background_job('tests.support.tasks.add', 1)
    assert [row['id'] for row in rows(client)] == [job.id]
    assert 'evil.example' not in client.get('/rq/').text
