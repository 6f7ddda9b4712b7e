"""The dashboard: who comes in, what may be asked from where, and that nothing in Redis acts.

Where rq-dashboard itself is at fault, a test shows that in its bare blueprint too: should one of
those go red, the fault is mended, and its guard can go.
"""

import base64
import pickle
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
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
from qdjobs.client.redis import address
from qdjobs.config import environment_config
from qdjobs.errors import JobNotFoundError
from qdjobs.monitoring import registries
from qdjobs.monitoring.registries import MAX_TEXT, SHOWN, SORTED_BY
from qdjobs.server import free_port
from qdjobs.web.dashboard import views
from qdjobs.web.dashboard.paging import SIZES
from qdjobs.worker.ending import Ending, unknown_here
from tests.support.applications import shared_app, use_redis
from tests.support.dashboard import (
    WORKER,
    bare_app,
    facts_in,
    finished_with,
    ids_in,
    rows_of,
    running,
    text_of,
)
from tests.support.hostile import PLACES, Hostile, plant
from tests.support.jobs import end_next
from tests.support.processes import eventually
from tests.support.proxy import Proxy, proxy_to
from tests.support.shared_worker import SharedWorker

Dump = Callable[[], dict[bytes, Any]]
LOGIN = 'Basic ' + base64.b64encode(b'anna:pass:word').decode()
OURS = {'Origin': 'http://localhost'}  # as Flask's test client names its host
BROWSER = {'Accept': 'text/html,application/xhtml+xml,*/*;q=0.8'}

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
    values = {'size': 8, 'page': 1, 'name': 'workers', 'filename': 'dashboard.css'}
    values |= {'address': 'nowhere', 'button': 'requeue'}
    urls = app.url_map.bind('localhost')
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith('qdjobs_dashboard.'):
            for registry in SHOWN if 'registry' in rule.arguments else ('',):
                for order in ('asc', 'dsc') if 'order' in rule.arguments else ('',):
                    given: dict[str, Any] = values | {'registry': registry, 'order': order}
                    given |= {'job_id': job_id, 'queue': queue}
                    arguments = {name: given[name] for name in rule.arguments}
                    path = urls.build(rule.endpoint, arguments)
                    found += [(method, path) for method in rule.methods or ()]
    assert len(found) > 60
    yield from sorted(found, key=lambda request: ('POST' in request, 'delete' in request[1]))


def read(client: FlaskClient, address: str = '') -> str:
    """The HTML of a page, as a browser gets it."""
    answer = client.get(f'/rq/{address}', headers=BROWSER)
    assert (answer.status_code, answer.mimetype) == (200, 'text/html'), answer.text
    return answer.text


def listed(client: FlaskClient, registry: str = 'queued', query: str = '') -> list[str]:
    """The ids of the jobs on a page of a registry, from its first row on."""
    return ids_in(read(client, f'queue/default/{registry}?{query}'))


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
    for path in ('/rq', '/rq/', '/rq/workers', '/rq/static/dashboard.js', '/rq/requeue/default'):
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


def test_a_browser_that_has_not_logged_in_learns_nothing(app: Flask) -> None:
    for path in ('/rq/', '/rq/job/nobody', '/rq/queue/default/nonsense'):
        answer = app.test_client().get(path, headers=BROWSER)
        assert (answer.status_code, answer.mimetype) == (401, 'text/html')
        for word in (address(), 'RQ', 'Redis', 'obs', 'ueue', 'static'):
            assert word not in answer.text, word


def test_the_short_address_leads_to_the_long_one(client: FlaskClient) -> None:
    answer = client.get('/rq')
    assert answer.status_code == 308
    assert answer.headers['Location'].endswith('/rq/')
    assert client.get('/rq/').status_code == 200


def test_the_addresses_of_rq_dashboard_s_pages_lead_to_ours(
    app: Flask, client: FlaskClient
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    leads = {
        '0/view/queues': '/rq/',
        '0/view/jobs': '/rq/',
        '0/view/workers': '/rq/workers',
        '0/view/jobs/default/failed/8/asc/3': '/rq/queue/default/failed',
        f'0/view/job/{job.id}': f'/rq/job/{job.id}',
    }
    for old, new in leads.items():
        answer = client.get(f'/rq/{old}')
        assert (answer.status_code, answer.headers['Location']) == (302, new)
        assert client.get(new).status_code == 200


def test_a_job_is_found_by_its_id(client: FlaskClient) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    assert client.get(f'/rq/job?id=+{job.id}+').headers['Location'] == f'/rq/job/{job.id}'
    for odd in ('a/b', 'a/../b', '//evil.example', '<b>', '/' * 3000):
        answer = client.get('/rq/job', query_string={'id': odd}, headers=BROWSER)
        assert (answer.status_code, answer.mimetype) == (404, 'text/html'), odd
        assert 'There is no job' in answer.text
    assert client.get('/rq/job?id=').headers['Location'] == '/rq/'


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
            expected = (404,) if path == '/rq/nowhere' and asked != 'OPTIONS' else (200, 302)
            assert answer.status_code in expected, (asked, path)
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
    assert client.post(f'/rq/job/{job.id}/cancel', headers=headers).json == {'status': 'OK'}
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
        assert policy.startswith("default-src 'none'")
        assert 'unsafe' not in policy


def is_button(path: str) -> bool:
    return path.startswith('/rq/requeue/') or path.endswith(
        ('/requeue', '/cancel', '/stop', '/delete', '/empty')
    )


def is_file(path: str) -> bool:
    return '/static/' in path


@pytest.mark.parametrize('name', ['', 'workers', 'queue/default/failed', 'job/nobody'])
def test_a_page_may_run_its_own_scripts_only(client: FlaskClient, name: str) -> None:
    answer = client.get(f'/rq/{name}', headers=BROWSER)
    policy = dict(
        part.strip().split(' ', 1) for part in answer.headers['Content-Security-Policy'].split(';')
    )
    for closed in ('default-src', 'base-uri', 'frame-ancestors'):
        assert policy.pop(closed) == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert 'script-src' in policy
    sources = re.findall(r'<script([^>]*)>', answer.text)
    assert sources == [' src="/rq/static/dashboard.js" defer']
    for inline in (' style=', ' onclick=', '<style', 'javascript:', 'http://', 'https://'):
        assert inline not in answer.text


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


@pytest.mark.parametrize(
    'place',
    [
        PLACES[0],
        *(pytest.param(place, marks=pytest.mark.slow) for place in [*PLACES[1:], *ELSEWHERE]),
    ],
)
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
    for name in (f'job/{job_id}', 'workers'):
        bare.get(f'/rq/0/data/{name}.json')
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
    page = read(client, f'job/{job_id}')
    assert facts_in(page)['Status'] == 'finished'
    shown = text_of(page, 'result')
    assert (shown == 'null') == (value is None or value != value or value == float('inf'))
    assert text_of(page, 'meta').startswith('{\n  "it": ')
    assert listed(client, 'finished') == [job_id]


@pytest.mark.parametrize('value', VALUES, ids=lambda value: str(type(value).__name__))
def test_every_plain_value_in_what_a_job_tells_of_itself_is_shown(
    client: FlaskClient, connection: Redis, value: Any
) -> None:
    job_id = finished_with(connection, 1)
    told = {
        'job_meta': {'it': value, 7: value},
        'progress': {'done': value, 'total': value, 'message': value},
        'attempts': value,
    }
    connection.hset(f'rq:job:{job_id}', 'meta', PlainSerializer.dumps(told))
    assert listed(client, 'finished') == [job_id]
    page = read(client, f'job/{job_id}')
    assert '"it"' in text_of(page, 'meta')
    assert 'Other metadata' not in page


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
    page = read(client, f'job/{job_id}')
    result = text_of(page, 'result')
    assert result.startswith('"xxx')
    assert result.endswith('… (3000002 characters)')
    for shown in (result, text_of(page, 'meta'), text_of(page, 'call')):
        assert MAX_TEXT <= len(shown) < MAX_TEXT + 50
    assert len(read(client, 'queue/default/finished')) < 2.5 * MAX_TEXT


def test_of_a_long_traceback_the_end_is_shown(client: FlaskClient, connection: Redis) -> None:
    job_id = finished_with(connection, None)
    connection.hset(f'rq:job:{job_id}', 'status', 'failed')
    packed = base64.b64encode(b'frame\n' * 100_000 + b'ValueError: the end')
    connection.xadd(f'rq:results:{job_id}', {'type': 2, 'exc_string': packed})
    shown = text_of(read(client, f'job/{job_id}'), 'traceback')
    assert shown.endswith('ValueError: the end')
    assert len(shown) == MAX_TEXT + 1


def test_a_traceback_is_shown(client: FlaskClient, shared_worker: SharedWorker) -> None:
    job = enqueue_background_job('tests.support.tasks.fail', 'too wide')
    wait_for_job(job.id, 60)
    page = read(client, f'job/{job.id}')
    shown = text_of(page, 'traceback')
    assert shown.startswith('Traceback (most recent call last)')
    assert shown.strip().endswith('ValueError: too wide')
    assert facts_in(page)['Queue'] == 'default'
    assert text_of(read(client, 'queue/default/failed'), 'error') == 'ValueError: too wide'


def test_each_attempt_is_shown_with_its_traceback_and_where_it_ran(
    client: FlaskClient, shared_worker: SharedWorker
) -> None:
    job = enqueue_background_job(
        'tests.support.tasks.fail', 'wide', job_max_retries=1, job_retry_delay=0
    )
    assert wait_for_job(job.id, 60)['status'] == 'failed'
    page = read(client, f'job/{job.id}')
    assert page.count('<summary>Traceback</summary>') == 2
    assert page.count('ValueError: wide\n</pre>') == 2
    host = f'{socket.gethostname()} · {shared_worker.pid}'
    assert (
        page.count(f'title="{shared_worker.name}">{host}</span>') == 3
    )  # the last one in its facts
    assert '2\n            failed attempts' in read(client, 'queue/default/failed')


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
    page = read(client, 'queue/default/queued?order=oldest')
    assert ids_in(page)[1:] == [good.id]
    if odd.startswith('no') or odd == 'id':
        assert 'unreadable' in page
    assert facts_in(read(client, f'job/{good.id}'))['Status'] == 'queued'
    assert rows_of(read(client, 'workers'), 'worker') == [WORKER]
    assert '<b>2</b>' in page
    expected = {'no record': 404, 'no hash': 500}.get(odd, 200)  # the last names the key
    assert client.get(f'/rq/job/{bad.id}').status_code == expected


@pytest.mark.upstream
def test_the_control_upstream_hides_them_all(bare: FlaskClient, connection: Redis) -> None:
    bad = enqueue_background_jobs('tests.support.tasks.add', [{'a': 1}, {'a': 2}])[0]
    connection.hset(f'rq:job:{bad.id}', 'created_at', 'nonsense')
    assert bare.get('/rq/0/data/jobs/default/queued/8/asc/1.json').status_code == 500


UNKNOWN = {
    'job/nobody': 'There is no job',
    'job/no%20id': 'There is no job',
    'job/%3Cb%3E': 'There is no job &#39;&lt;b&gt;&#39;',
    'queue/nowhere/queued': 'There is no queue &#39;nowhere&#39;',
    "queue/');alert(1)/('/queued": 'There is no queue',
    'queue/default/nonsense': 'There is no registry &#39;nonsense&#39;: it is one of queued,',
    'queue/default/queued?order=sideways': 'order is newest or oldest',
    'queue/default/queued?page=0': 'page is a number from 1 on',
    'queue/default/queued?page=x': 'page is a number from 1 on',
    f'queue/default/queued?page={"9" * 5000}': 'page is a number from 1 on',
    'queue/default/queued?size=201': 'size is one of 25, 50, 100, 200',
    'queue/default/queued?size=-1': 'size is one of',
}


@pytest.mark.parametrize('path', UNKNOWN, ids=lambda path: path[:50])
def test_what_there_is_not_is_a_page_that_says_so(client: FlaskClient, path: str) -> None:
    answer = client.get(f'/rq/{path}', headers=BROWSER)
    assert (answer.status_code, answer.mimetype) == (404, 'text/html')
    assert UNKNOWN[path] in answer.text
    answer = client.get(f'/rq/{path}')
    assert (answer.status_code, answer.mimetype) == (404, 'application/problem+json')


@pytest.mark.parametrize('path', ['view/job/nobody', 'data/job/nobody.json'])
@pytest.mark.upstream
def test_the_control_upstream_fails_at_that(bare: FlaskClient, path: str) -> None:
    assert bare.get(f'/rq/0/{path}').status_code == 500


def test_the_page_of_a_job_that_waits_for_newer_code_says_why(
    client: FlaskClient, connection: Redis
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    end_next(connection, Ending('scheduled', '', kind=2, field='exc_string', value='', delay=0.0))
    connection.zadd('rq:scheduled:default', {job.id: 1})
    end_next(connection, unknown_here(time.time(), "UnknownTaskError: 'shop.new' names none."))
    for path in (f'job/{job.id}', 'queue/default/scheduled'):
        assert 'restart the workers with the new code' in text_of(read(client, path), 'error')


@pytest.mark.parametrize('registry', ['queued', 'scheduled'])
def test_pages_hold_each_job_once_the_newest_first(client: FlaskClient, registry: str) -> None:
    delays: dict[str, Any] = {'job_delay': 60} if registry == 'scheduled' else {}
    jobs = enqueue_background_jobs(
        'tests.support.tasks.add', [{'a': n} for n in range(60)], **delays
    )
    expected = [job.id for job in jobs]
    if registry == 'scheduled':  # of the same second: in the order of their ids
        expected.sort()
    for query, order in (('', expected[::-1]), ('order=oldest&', expected)):
        pages = [listed(client, registry, f'{query}page={page}') for page in (1, 2, 3)]
        assert [len(page) for page in pages] == [25, 25, 10]
        assert [job_id for page in pages for job_id in page] == order
    page = read(client, f'queue/default/{registry}?page=2')
    for text in (
        '« first',
        '‹ previous',
        'next ›',
        'last »',
        *map(str, SIZES),
        '(?:oldest|next due|next to run)',
    ):
        (link,) = re.findall(rf'<a href="([^"]+)"[^>]*>{text}', page) or [None]
        assert link is not None, text
        assert client.get(unescape(link)).status_code == 200
    # Its jobs can have ended since: what is shown then is the end.
    assert listed(client, registry, 'page=99') == listed(client, registry, 'page=3')


def test_a_page_of_a_long_registry_costs_as_much_as_of_a_short_one(
    client: FlaskClient, connection: Redis
) -> None:
    for start in range(0, 100_000, 10_000):
        connection.rpush('rq:queue:default', *(f'job-{n}' for n in range(start, start + 10_000)))
    connection.config_resetstat()
    assert listed(client, 'queued', 'page=2000')[0] == 'job-50024'
    calls = {name: each['calls'] for name, each in connection.info('commandstats').items()}
    assert sum(calls.values()) < 100
    assert connection.info('stats')['total_net_output_bytes'] < 20_000


def test_what_a_job_depends_on_is_shown(client: FlaskClient, connection: Redis) -> None:
    first = enqueue_background_job('tests.support.tasks.add', 1)
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    second = queue.enqueue('tests.support.tasks.add', 1, depends_on=first)
    facts = facts_in(read(client, f'job/{second.id}'))
    assert (facts['Status'], facts['Waits for']) == ('deferred', first.id)
    page = read(client, 'queue/default/deferred')
    assert ids_in(page) == [second.id]
    assert f'/rq/job/{first.id}"' in page
    connection.delete(f'rq:job:{first.id}')
    assert f'{first.id} (expired)' in facts_in(read(client, f'job/{second.id}'))['Depends on']


def test_of_a_delayed_job_it_is_shown_when_it_is_due(client: FlaskClient) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1, job_delay=3600)
    due = facts_in(read(client, f'job/{job.id}'))['Due']
    moment = datetime.strptime(due, '%Y-%m-%d %H:%M:%S UTC').replace(tzinfo=UTC)
    assert 3500 < (moment - datetime.now(UTC)).total_seconds() <= 3601
    assert due in read(client, 'queue/default/scheduled')


def test_what_the_caller_knows_of_a_job_and_how_far_it_is_are_shown(
    client: FlaskClient, connection: Redis
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1, job_meta={'tenant': 'acme'})
    meta = PlainSerializer.loads(connection.hget(job.key, 'meta'))  # type: ignore[arg-type]
    meta |= {'progress': {'done': 7, 'total': 10, 'message': 'rows'}, 'stock': [1]}
    connection.hset(job.key, 'meta', PlainSerializer.dumps(meta))
    page = read(client, f'job/{job.id}')
    assert facts_in(page)['Progress'] == '7 of 10 · rows'
    assert '<progress value="7" max="10">' in page
    assert text_of(page, 'meta') == '{\n  "tenant": "acme"\n}'
    assert '<h2>Other metadata</h2>' in page
    for shown in ('{"tenant":"acme"}', '<progress value="7" max="10">'):
        assert shown in unescape(read(client, 'queue/default/queued'))


def test_a_worker_is_shown_with_its_host_its_process_and_its_job(
    client: FlaskClient, shared_worker: SharedWorker
) -> None:
    eventually(
        lambda: rows_of(read(client, 'workers'), 'worker')
    )  # its next heartbeat registers it
    job = enqueue_background_job('tests.support.tasks.sleep', 600)
    eventually(lambda: get_job_status(job.id)['status'] == 'started')
    page = read(client, 'workers')
    assert rows_of(page, 'worker') == [shared_worker.name]
    host = f'{socket.gethostname()} · {shared_worker.pid}'
    assert re.search(
        rf'<th scope="row">{re.escape(host)}\s*<small>{shared_worker.name}</small>', page
    )
    assert 'high, default, low' in page
    assert f'/rq/job/{job.id}">tests.support.tasks.sleep(600)</a>' in page
    cancel_job(job.id)
    eventually(lambda: job.id not in read(client, 'workers'))


def test_a_job_that_is_claimed_ahead_is_not_the_one_that_a_worker_runs(
    client: FlaskClient, connection: Redis
) -> None:
    jobs = enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(2)])
    for number, ahead in enumerate((jobs, jobs[::-1])):
        connection.delete(f'rq:worker:{WORKER}:executions')
        for job in jobs:
            running(connection, job.id)
            connection.hdel(f'rq:execution:{job.id}:1', 'ahead')
        connection.hset(f'rq:execution:{ahead[0].id}:1', 'ahead', '1')
        page = read(client, 'workers')
        assert ahead[1].id in page, number
        assert ahead[0].id not in page, number


# What its buttons do


def post(client: FlaskClient, path: str) -> TestResponse:
    return client.post(f'/rq/{path}', headers=OURS)


def press(client: FlaskClient, path: str, back: str) -> str:
    """Send a form as a browser does; where its answer leads."""
    sent = {'back': back, 'confirmed': ''}
    answer = client.post(f'/rq/{path}', headers=OURS | BROWSER, data=sent)
    assert answer.status_code == 303
    return answer.headers['Location']


def test_a_browser_comes_back_to_the_page_of_the_button_which_says_what_was_done(
    client: FlaskClient,
) -> None:
    jobs = enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(3)])
    here = '/rq/queue/default/queued?page=1&order=oldest&size=50'
    back = press(client, f'job/{jobs[0].id}/cancel', here)
    assert back == f'{here}&done=canceled'
    assert '>Canceled.</p>' in client.get(back).text
    back = press(client, 'queue/default/queued/empty', back)
    assert back == f'{here}&done=canceled&count=2&of=2'
    assert '>Canceled 2 jobs.</p>' in client.get(back).text
    assert get_job_status(jobs[1].id)['status'] == 'canceled'
    answer = client.post(
        f'/rq/job/{jobs[1].id}/cancel', headers=OURS | BROWSER, data={'back': here}
    )
    assert answer.headers['Location'].endswith('done=canceled')
    answer = client.post('/rq/job/nobody/requeue', headers=OURS | BROWSER)
    assert (answer.status_code, answer.mimetype) == (404, 'text/html')
    assert 'data-poll="0"' in answer.text  # there is nothing to read again by GET


@pytest.mark.parametrize(
    'back',
    [
        '',
        'http://evil.example/rq/',
        '//evil.example',
        '/\\evil.example',
        '/other',
        'javascript:alert(1)',
    ],
)
def test_a_button_leads_to_no_page_but_the_dashboard_s(client: FlaskClient, back: str) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    assert press(client, f'job/{job.id}/cancel', back) == '/rq/?done=canceled'


def test_an_address_makes_no_page_say_any_text(client: FlaskClient) -> None:
    for query in (
        'done=<b>pwned',
        'done=deleted&count=<b>pwned',
        'count=3',
        'done=',
        'done=x&count=1&of=1',
        'done=deleted&count=1&of=<b>pwned',
        'done=deleted&count=1&of=' + '9' * 5000,
    ):
        assert 'pwned' not in read(client, f'?{query}')


def test_requeueing_makes_a_job_whole_again(
    client: FlaskClient, connection: Redis, shared_worker: SharedWorker
) -> None:
    first, *others = failed(3)
    with shared_worker.held():
        assert post(client, f'job/{first}/requeue').json == {'status': 'OK'}
        assert post(client, 'requeue/default').json == {'status': 'OK', 'count': 2, 'of': 2}
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
    slow = enqueue_background_job('tests.support.tasks.touch_and_sleep', str(begun), 600)
    eventually(begun.exists)  # the worker claims no job ahead of its end any more
    waiting = enqueue_background_job('tests.support.tasks.add', 1)
    for job, status in ((waiting, 'queued'), (slow, 'started')):
        assert post(client, f'job/{job.id}/delete').status_code == 400
        sent = client.post(
            f'/rq/job/{job.id}/delete', headers=OURS | BROWSER, data={'back': '/rq/'}
        )
        assert sent.headers['Location'] == f'/rq/job/{job.id}?done=running'
        assert 'nothing was changed.</p>' in client.get(sent.headers['Location']).text
        assert connection.hget(f'rq:job:{job.id}', 'stop_requested') != b'1'
        assert get_job_status(job.id)['status'] == status
    shown = press(client, f'job/{slow.id}/cancel', '/rq/queue/default/queued')  # it waited there
    assert shown == f'/rq/job/{slow.id}?done=started'
    assert 'nothing was changed.</p>' in client.get(shown).text
    assert connection.hget(f'rq:job:{slow.id}', 'stop_requested') != b'1'
    assert press(client, f'job/{slow.id}/stop', shown).endswith('?done=stopping')
    post(client, f'job/{waiting.id}/cancel')
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
    slow = enqueue_background_job('tests.support.tasks.sleep', 600)
    eventually(lambda: get_job_status(slow.id)['status'] == 'started')
    bare.post(f'/rq/job/{slow.id}/delete')
    with pytest.raises(JobNotFoundError):
        get_job_status(slow.id)


def test_emptying_a_queue_cancels_and_emptying_what_ended_forgets(
    client: FlaskClient, connection: Redis
) -> None:
    jobs = enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(5)])
    connection.lpush('rq:queue:default', 'gone')
    done = {'status': 'OK', 'count': 5, 'of': 6}  # one has no record
    assert post(client, 'queue/default/queued/empty').json == done
    assert {job['status'] for job in list_jobs()} == {'canceled'}
    done = {'status': 'OK', 'count': 5, 'of': 5}
    assert post(client, 'queue/default/canceled/empty').json == done
    assert list_jobs() == []
    assert not connection.exists(*[f'rq:job:{job.id}' for job in jobs])


MOVES = {  # what has become of a job since its registry was read, by the registry and the button
    ('failed', 'queue/default/failed/empty'): ['queued', 'started', 'finished', 'canceled'],
    ('finished', 'queue/default/finished/empty'): ['queued', 'started', 'failed'],
    ('failed', 'requeue/default'): ['queued', 'started', 'finished', 'canceled'],
    ('queued', 'queue/default/queued/empty'): ['started', 'scheduled', 'failed'],
    ('scheduled', 'queue/default/scheduled/empty'): ['queued', 'started'],
    ('started', 'queue/default/started/empty'): ['queued', 'scheduled', 'canceled'],
}


@pytest.mark.parametrize(
    ('registry', 'button', 'now'),
    [(*which, now) for which, states in MOVES.items() for now in states],
)
def test_a_button_of_a_registry_touches_no_job_that_has_left_it(
    client: FlaskClient, connection: Redis, dump: Dump, registry: str, button: str, now: str
) -> None:
    """As between reading the ids of a registry and changing each."""
    job = enqueue_background_job('tests.support.tasks.add', 1)
    connection.delete('rq:queue:default')
    connection.hset(job.key, mapping={'status': now, 'worker_name': WORKER})
    if registry == 'queued':
        connection.rpush('rq:queue:default', job.id)
    else:
        kind = 'wip' if registry == 'started' else registry
        connection.zadd(f'rq:{kind}:default', {f'{job.id}:1' if kind == 'wip' else job.id: 1})
    before = dump()
    answer = post(client, button)
    assert dump() == before
    assert answer.json == {'status': 'OK', 'count': 0, 'of': 1}


def test_a_button_of_a_registry_touches_no_job_that_is_in_another_queue_now(
    client: FlaskClient, connection: Redis, dump: Dump
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1, job_queue='low')
    connection.rpush('rq:queue:default', job.id)
    before = dump()
    answer = post(client, 'queue/default/queued/empty')
    assert dump() == before
    assert answer.json == {'status': 'OK', 'count': 0, 'of': 1}


def test_a_browser_without_scripts_is_asked_before_all_jobs_of_a_registry_are_changed(
    client: FlaskClient, connection: Redis
) -> None:
    enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(2)])
    here = '/rq/queue/default/queued?size=50'
    sent = {'back': here}
    button = '/rq/queue/default/queued/empty'
    page = client.post(button, headers=OURS | BROWSER, data=sent)
    assert (page.status_code, page.mimetype) == (200, 'text/html')
    assert '<h1>Cancel all 2 jobs?</h1>' in page.text
    assert f'<a href="{here}">No, back</a>' in page.text
    assert connection.llen('rq:queue:default') == 2
    sent = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
    answer = client.post(button, headers=OURS | BROWSER, data=sent)
    assert answer.headers['Location'] == f'{here}&done=canceled&count=2&of=2'
    assert connection.llen('rq:queue:default') == 0


def test_what_is_said_of_a_large_registry_is_what_one_press_does(
    client: FlaskClient, connection: Redis, settings: pytest.MonkeyPatch
) -> None:
    settings.setattr(views, 'MAX_SCANNED', 2)
    enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(3)])
    here = '/rq/queue/default/queued'
    assert 'data-confirm="Cancel 2 of 3 jobs?"' in read(client, 'queue/default/queued')
    back = press(client, 'queue/default/queued/empty', here)
    assert '>Canceled 2 of 3 jobs: press again for the rest.</p>' in client.get(back).text
    back = press(client, 'queue/default/queued/empty', here)
    assert '>Canceled 1 job.</p>' in client.get(back).text
    connection.zadd('rq:canceled:default', {'gone': 1})
    settings.setattr(views, 'MAX_SCANNED', 10)
    back = press(client, 'queue/default/canceled/empty', here)
    note = 'Deleted 3 of 4 jobs: the others have changed meanwhile.'
    assert f'>{note}</p>' in client.get(back).text
    note = '>Deleted 10,000 of 12,001 jobs: press again for the rest.</p>'
    assert note in read(client, '?done=deleted&count=10000&of=12001')


def test_a_page_that_refreshes_without_scripts_says_once_what_was_done(
    client: FlaskClient,
) -> None:
    for path, kept in (
        (
            'queue/default/failed?page=1&order=oldest&done=deleted&count=1&of=1',
            '?page=1&amp;order=oldest',
        ),
        ('queue/default/failed?done=deleted&_scheme=javascript&queue=x', ''),
    ):
        (refresh,) = re.findall('http-equiv="refresh" content="([^"]*)"', read(client, path))
        assert refresh == f'5; url=/rq/queue/default/failed{kept}'
    assert 'http-equiv="refresh" content="5"' in read(client, 'queue/default/failed')


def test_an_address_that_does_not_exist_is_a_page_for_a_browser(client: FlaskClient) -> None:
    for path in ('nowhere', 'job/a/b', 'workers/1', 'queue/default'):
        answer = client.get(f'/rq/{path}', headers=BROWSER)
        assert (answer.status_code, answer.mimetype) == (404, 'text/html'), path
        assert 'To the queues</a>' in answer.text
        assert client.get(f'/rq/{path}').mimetype == 'application/problem+json'


def test_loading_the_answer_to_a_button_again_leads_to_its_page(client: FlaskClient) -> None:
    for button in ('requeue', 'cancel', 'delete'):
        answer = client.get(f'/rq/job/x/{button}', headers=BROWSER)
        assert (answer.status_code, answer.headers['Location']) == (302, '/rq/job/x')
    for button in ('requeue/default', 'queue/default/failed/empty'):
        answer = client.get(f'/rq/{button}', headers=BROWSER)
        assert answer.headers['Location'] == '/rq/queue/default/failed'


def test_a_button_while_redis_is_away_leads_back_by_itself(
    app: Flask, client: FlaskClient, settings: pytest.MonkeyPatch
) -> None:
    use_redis(settings, f'redis://127.0.0.1:{free_port()}/0', app)
    answer = client.post('/rq/job/x/requeue', headers=OURS | BROWSER)
    assert (answer.status_code, answer.mimetype) == (503, 'text/html')
    assert 'leads back by itself' in answer.text
    assert 'tries again' not in answer.text
    assert 'data-poll="0"' not in answer.text


# In which order jobs are shown


def ended(connection: Redis, registry: str, hours: list[int], scores: list[float]) -> list[str]:
    """The ids of jobs in a registry which ended so many hours ago, with these scores."""
    jobs = enqueue_background_jobs('tests.support.tasks.add', [{'a': 1}] * len(hours))
    connection.delete('rq:queue:default')
    for job, ago, score in zip(jobs, hours, scores, strict=True):
        moment = datetime.now(UTC) - timedelta(hours=ago)
        written = moment.strftime('%Y-%m-%dT%H:%M:%S.%fZ')
        connection.hset(job.key, 'status', registry)
        for field in ('created_at', 'started_at', 'ended_at'):
            connection.hset(job.key, field, written)
        kind = 'wip' if registry == 'started' else registry
        connection.zadd(f'rq:{kind}:default', {job.id: score})
    return [job.id for job in jobs]


@pytest.mark.parametrize('registry', SORTED_BY)
def test_jobs_are_shown_by_their_time_and_not_by_their_expiry(
    client: FlaskClient, connection: Redis, registry: str
) -> None:
    first, second, third = ended(connection, registry, [3, 2, 1], [9e9, float('inf'), 1])
    assert listed(client, registry) == [third, second, first]
    assert listed(client, registry, 'order=oldest') == [first, second, third]
    connection.zadd('rq:finished:default', {'gone': 5})
    connection.set('rq:job:gone', 'no hash')
    assert read(client, 'queue/default/finished').count('unreadable') == 1


def test_a_small_registry_is_sorted_across_its_pages(
    client: FlaskClient, connection: Redis
) -> None:
    job_ids = ended(connection, 'finished', list(range(40)), [float(n) for n in range(40)])
    assert listed(client, 'finished') == job_ids[:25]
    assert listed(client, 'finished', 'page=2') == job_ids[25:]
    assert 'within each page' not in read(client, 'queue/default/finished')


def test_of_a_large_registry_each_page_is_sorted(
    client: FlaskClient, connection: Redis, settings: pytest.MonkeyPatch
) -> None:
    settings.setattr(registries, 'MAX_SORTED', 30)
    settings.setattr(views, 'MAX_SORTED', 30)
    job_ids = ended(connection, 'finished', list(range(40)), [float(n) for n in range(40)])
    assert listed(client, 'finished') == job_ids[15:]
    assert listed(client, 'finished', 'page=2') == job_ids[:15]
    assert listed(client, 'finished', 'order=oldest') == job_ids[:25][::-1]
    assert 'within each page' in read(client, 'queue/default/finished')


def test_nothing_compacts_a_queue(client: FlaskClient, bare: FlaskClient) -> None:
    enqueue_background_job('tests.support.tasks.add', 1)
    assert post(client, 'queue/default/compact').status_code == 405
    assert 'ompact' not in read(client, 'queue/default/queued')
    assert 'Compact' in bare.get('/rq/0/view/jobs/default/queued/8/asc/1').text


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
        leads = '/0/view/' in path or path == '/rq/job' or (method != 'POST' and is_button(path))
        expected = 200 if is_file(path) or method == 'OPTIONS' else 302 if leads else 503
        expected = 404 if path == '/rq/nowhere' and method != 'OPTIONS' else expected
        assert answer.status_code == expected, (method, path)
        assert b'Traceback' not in answer.data
        assert b'hush' not in answer.data
    page = client.get('/rq/', headers=BROWSER)
    assert (page.status_code, page.mimetype) == (503, 'text/html')
    assert f'Redis at {address()} does not answer' in page.text
    assert 'tries again by itself' in page.text
    assert 'hush' not in page.text


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
    assert listed(client) == [job.id]
    assert 'evil.example' not in client.get('/rq/').text
