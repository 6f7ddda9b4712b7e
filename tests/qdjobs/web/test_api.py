"""The HTTP API: who may use it, what it queues, and everything that it refuses."""

import io
import json
import logging
import random
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq.job import Job
from werkzeug.test import TestResponse

from app import create_app
from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    wait_for_job,
)
from qdjobs.client.payload import MAX_DEPTH, PlainSerializer
from qdjobs.config import QUEUES, environment_config
from qdjobs.extension import JobQueue
from qdjobs.server import free_port
from qdjobs.web.api.request import LARGEST_BODY
from tests.support.applications import shared_app, use_redis
from tests.support.pairs import every_pair
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.random_requests import random_body
from tests.support.shared_worker import SharedWorker

JOBS = '/api/jobs'
TOKEN = 's3cret'
Arguments = Callable[[TestResponse], Any]


@pytest.fixture(autouse=True)
def token(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOBS_API_TOKEN', TOKEN)
    environment_config.cache_clear()


def make_app() -> Flask:
    app = create_app()
    queue: JobQueue = app.extensions['job_queue']
    for name in ('add', 'echo', 'typed', 'fail', 'sleep', 'convert', 'touch_and_sleep'):
        queue.add(name, f'tests.support.tasks.{name}')
    queue.add('careful', 'tests.support.tasks.fail', job_max_retries=3, job_queue='low')
    return app


@pytest.fixture
def app() -> Flask:
    return shared_app(make_app)


def with_token(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base['HTTP_AUTHORIZATION'] = f'Bearer {TOKEN}'
    return client


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return with_token(app)


@pytest.fixture
def stranger(app: Flask) -> FlaskClient:
    return app.test_client()


def post(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post(JOBS, json=body)


def post_raw(client: FlaskClient, body: str | bytes) -> TestResponse:
    return client.post(JOBS, data=body, content_type='application/json')


def assert_problem(answer: TestResponse, status: int, field: str | None = None) -> str:
    assert (answer.status_code, answer.mimetype) == (status, 'application/problem+json'), (
        answer.text
    )
    problem = json.loads(answer.data)
    assert problem['status'] == status
    assert problem.get('field') == field, problem
    assert answer.headers['Cache-Control'] == 'no-store'
    assert 'Access-Control-Allow-Origin' not in answer.headers
    return str(problem['detail'])


def stored(connection: Redis, answer: TestResponse) -> Job:
    assert answer.status_code == 201, answer.text
    return Job.fetch(answer.get_json()['job_id'], connection, PlainSerializer)


# Who may come in


@pytest.mark.parametrize(
    ('method', 'path', 'header'),
    every_pair(
        ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'],
        ['', '/', '/some-id', '/some-id/retry', '/a/b/c', '?limit=x'],
        [None, 'Bearer wrong', f'Basic {TOKEN}', f'Bearer {TOKEN}x'],
    ),
)
def test_without_the_token_nobody_learns_anything(
    stranger: FlaskClient, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {'Authorization': header}
    answer = stranger.open(JOBS + path, method=method, headers=headers, data='{"task": 1}')
    if method == 'HEAD':
        assert answer.status_code == 401
    else:
        assert_problem(answer, 401)
    assert answer.headers['WWW-Authenticate'].startswith('Bearer ')
    assert 'Allow' not in answer.headers


def test_without_the_token_no_body_is_read(stranger: FlaskClient) -> None:
    class Untouchable(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            raise AssertionError('the body was read')

        readline = readinto = read  # type: ignore[assignment]

    body = Untouchable(b'{}')
    answer = stranger.post(
        JOBS, input_stream=body, content_length=2, content_type='application/json'
    )
    assert_problem(answer, 401)


def test_without_a_token_in_the_settings_no_token_opens_the_api(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.delenv('JOBS_API_TOKEN')
    environment_config.cache_clear()
    client = create_app().test_client()
    for header in ('Bearer', 'Bearer ', 'Bearer None', f'Bearer {TOKEN}'):
        for path in (JOBS, f'{JOBS}/some-id', f'{JOBS}/some-id/retry'):
            for method in ('GET', 'POST', 'DELETE', 'OPTIONS'):
                answer = client.open(path, method=method, headers={'Authorization': header})
                assert answer.status_code == 401


@pytest.mark.parametrize(
    ('method', 'path', 'allowed'),
    [
        ('PUT', '', {'GET', 'HEAD', 'POST'}),
        ('OPTIONS', '', {'GET', 'HEAD', 'POST'}),
        ('POST', '/some-id', {'GET', 'HEAD', 'DELETE'}),
        ('GET', '/some-id/retry', {'POST'}),
        ('HEAD', '/some-id/retry', {'POST'}),
    ],
)
def test_with_it_a_method_that_does_not_fit_says_which_do(
    client: FlaskClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.open(JOBS + path, method=method)
    assert answer.status_code == 405
    assert set(answer.headers['Allow'].split(', ')) == allowed


@pytest.mark.parametrize('path', ['/a/b', '/a/b/c', '/a/retry/', '/..', '/%00/x'])
def test_what_is_not_there_is_a_problem(client: FlaskClient, path: str) -> None:
    assert client.get(JOBS + path).status_code in (404, 405)


# Enqueue


def test_a_job_goes_all_the_way_round(client: FlaskClient, shared_worker: SharedWorker) -> None:
    answer = post(client, task='add', params={'a': 2, 'b': 40})
    assert answer.status_code == 201
    assert answer.headers['Cache-Control'] == 'no-store'
    body = answer.get_json()
    assert body == {'job_id': str(UUID(body['job_id'])), 'status': 'queued'}
    assert answer.headers['Location'] == f'{JOBS}/{body["job_id"]}'
    eventually(lambda: client.get(answer.location).get_json()['status'] == 'finished')
    shown = client.get(answer.location).get_json()
    assert set(shown) == {
        'job_id', 'status', 'task', 'queue', 'result', 'error', 'progress', 'meta', 'attempts',
        'worker', 'waits_for', 'created_at', 'started_at', 'ended_at',
    }  # fmt: skip
    assert (shown['job_id'], shown['task'], shown['result']) == (body['job_id'], 'add', 42)
    assert shown['created_at'] <= shown['started_at'] <= shown['ended_at']


def test_the_other_words_for_the_same_are_understood(
    client: FlaskClient, connection: Redis
) -> None:
    job = stored(connection, post(client, task_name='echo', payload={'x': 1}))
    assert (job.func_name, job.kwargs) == ('tests.support.tasks.echo', {'x': 1})
    assert post(client, task='echo').status_code == 201
    for first, second in (('task', 'task_name'), ('task_name', 'task'), ('payload', 'params')):
        body = f'{{"{first}": {{}}, "{second}": {{}}}}'  # in this order
        answer = client.post(JOBS, data=body, content_type='application/json')
        said = assert_problem(answer, 400, second)
        assert f'{first} and {second} are the same field' in said


def test_a_dotted_path_is_refused_with_the_name_that_fits(client: FlaskClient) -> None:
    said = assert_problem(post(client, task='tests.support.tasks.echo'), 400, 'task')
    assert 'by its name here, not by its dotted path, and there is echo.' in said
    said = assert_problem(post(client, task='os.system'), 400, 'task')
    assert 'not by its dotted path, and there is add, ' in said


def test_options_stand_beside_the_arguments(client: FlaskClient, connection: Redis) -> None:
    names = {'queue': 'mine', 'delay': 1, 'id': 2, 'task': 3, 'self': 4, 'max_retries': 5}
    answer = post(client, task='echo', params=names, queue='high', max_retries=2, id='my-id')
    job = stored(connection, answer)
    assert (job.id, job.origin, job.retries_left, job.kwargs) == ('my-id', 'high', 2, names)


def test_a_name_s_options_hold_unless_the_request_says_otherwise(
    client: FlaskClient, connection: Redis
) -> None:
    job = stored(connection, post(client, task='careful', max_retries=1))
    assert (job.origin, job.retries_left) == ('low', 1)


@pytest.mark.parametrize(('delay', 'seconds'), [(90, 90), (1.5, 1.5), ('5m', 300), ('1h', 3600)])
def test_a_delay_is_seconds_or_a_duration(
    client: FlaskClient, connection: Redis, delay: Any, seconds: float
) -> None:
    answer = post(client, task='add', params={'a': 1}, delay=delay)
    assert answer.get_json()['status'] == 'scheduled'
    at = connection.zscore('rq:scheduled:default', answer.get_json()['job_id'])
    assert at is not None
    wanted = datetime.now(UTC) + timedelta(seconds=seconds)
    assert abs(float(at) - wanted.timestamp()) < 30


def test_an_id_that_waits_already_adds_nothing(client: FlaskClient, connection: Redis) -> None:
    answers = [post(client, task='add', params={'a': 1}, id='once') for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert {answer.get_json()['job_id'] for answer in answers} == {'once'}
    assert {answer.location for answer in answers} == {f'{JOBS}/once'}
    assert connection.llen('rq:queue:default') == 1


def test_json_becomes_what_the_hints_want(client: FlaskClient, connection: Redis) -> None:
    job = stored(
        connection,
        post(
            client,
            task='convert',
            params={
                'moment': '2030-01-02T03:04:05Z',
                'day': '2030-01-02',
                'span': 'PT90S',
                'key': '12345678-1234-5678-1234-567812345678',
                'price': '9.90',
                'data': 'aGk=',
                'pair': [1, 'x'],
                'tags': ['a', 'b', 'a'],
                'counts': {'1': 2, '3': 4},
                'points': [{'x': 1, 'day': '2030-01-02'}],
                'either': '2030-01-02',
                'anything': {'day': '2030-01-02'},
                'others': '2030-01-03',
            },
        ),
    )
    assert job.kwargs == {
        'moment': datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        'day': date(2030, 1, 2),
        'span': timedelta(seconds=90),
        'key': UUID('12345678-1234-5678-1234-567812345678'),
        'price': Decimal('9.90'),
        'data': b'hi',
        'pair': (1, 'x'),
        'tags': {'a', 'b'},
        'counts': {1: 2, 3: 4},
        'points': [{'x': 1, 'day': date(2030, 1, 2)}],
        'either': '2030-01-02',  # it fits as it is
        'anything': {'day': '2030-01-02'},
        'others': date(2030, 1, 3),
    }


@pytest.mark.parametrize(
    ('params', 'field'),
    [
        ({'moment': 'soon'}, 'params.moment'),
        ({'moment': 5}, 'params.moment'),
        ({'day': '2030-02-30'}, 'params.day'),
        ({'key': 'x'}, 'params.key'),
        ({'price': 'cheap'}, 'params.price'),
        ({'data': '!'}, 'params.data'),
        ({'pair': [1]}, 'params.pair'),
        ({'pair': [1, 2]}, 'params.pair'),
        ({'tags': [[1]]}, 'params.tags'),
        ({'things': [{}]}, 'params.things'),
        ({'counts': {'x': 1}}, 'params.counts'),
        ({'points': [{'x': 1, 'z': 2}]}, 'params.points'),
        ({'points': [{'day': '2030-01-02'}]}, 'params.points'),
        ({'either': 1.5}, 'params.either'),
        ({'others': 'x'}, 'params.others'),
    ],
)
def test_what_does_not_fit_is_named(
    client: FlaskClient, connection: Redis, params: dict[str, Any], field: str
) -> None:
    assert_problem(post(client, task='convert', params=params), 400, field)
    assert connection.dbsize() == 0


NESTED: Any = 1
for _ in range(MAX_DEPTH):
    NESTED = [NESTED]

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({}, 'task'),
    ({'task': None}, 'task'),
    ({'task': 7}, 'task'),
    ({'task': ['add']}, 'task'),
    ({'task': ''}, 'task'),
    ({'task': 'ad'}, 'task'),
    ({'task': 'tests.support.tasks.add', 'params': {'a': 1}}, 'task'),
    ({'task': 'workers.svg_tasks.generate_complex_svg'}, 'task'),
    ({'task': 'os.system', 'params': {'command': 'true'}}, 'task'),
    ({'task': 'a' * 500_000}, 'task'),
    ({'task': 'add'}, 'params.a'),
    ({'task': 'add', 'params': None}, 'params'),
    ({'task': 'add', 'params': [1]}, 'params'),
    ({'task': 'add', 'params': {'a': '1'}}, 'params.a'),
    ({'task': 'add', 'params': {'a': True}}, 'params.a'),
    ({'task': 'add', 'params': {'a': 1.5}}, 'params.a'),
    ({'task': 'add', 'params': {'a': None}}, 'params.a'),
    ({'task': 'add', 'params': {'a': 1, 'c': 1}}, 'params.c'),
    ({'task': 'echo', 'params': {'x': NESTED}}, 'params.x'),
    ({'task': 'echo', 'params': {'job_id': 'mine'}}, 'params.job_id'),
    ({'task': 'echo', 'params': {'job_at': 1}}, 'params.job_at'),
    ({'task': 'echo', 'params': {'job_': 1}}, 'params.job_'),
    ({'task': 'generate_complex_svg', 'params': {
        'width': -1, 'height': 99, 'pattern_type': 'grid', 'output_filename': 'x.svg'}},
        'params.width'),
    ({'task': 'generate_complex_svg', 'params': {
        'width': 99, 'height': 99, 'pattern_type': 'none', 'output_filename': 'x.svg'}},
        'params.pattern_type'),
    ({'task': 'echo', 'queue': 'urgent'}, 'queue'),
    ({'task': 'echo', 'queue': None}, 'queue'),
    ({'task': 'echo', 'queue': {'high': 1}}, 'queue'),
    ({'task': 'echo', 'max_retries': -1}, 'max_retries'),
    ({'task': 'echo', 'max_retries': 10**9}, 'max_retries'),
    ({'task': 'echo', 'max_retries': True}, 'max_retries'),
    ({'task': 'echo', 'max_retries': '3'}, 'max_retries'),
    ({'task': 'echo', 'delay': 'soon'}, 'delay'),
    ({'task': 'echo', 'delay': -1}, 'delay'),
    ({'task': 'echo', 'delay': 1e300}, 'delay'),
    ({'task': 'echo', 'delay': True}, 'delay'),
    ({'task': 'echo', 'delay': [5]}, 'delay'),
    ({'task': 'echo', 'id': 'a b'}, 'id'),
    ({'task': 'echo', 'id': ''}, 'id'),
    ({'task': 'echo', 'id': 'a' * 201}, 'id'),
    ({'task': 'echo', 'id': 7}, 'id'),
    ({'task': 'echo', 'timeout': 5}, 'timeout'),
    ({'task': 'echo', 'job_queue': 'high'}, 'job_queue'),
    ({'task': 'echo', '': 5}, ''),
    ({'task': 'echo', 'x' * 100_000: 5}, 'x' * 200),
]  # fmt: skip


@pytest.mark.parametrize(('body', 'field'), REFUSALS, ids=lambda value: str(value)[:60])
def test_a_refusal_names_the_field_and_queues_nothing(
    client: FlaskClient, connection: Redis, body: dict[str, Any], field: str
) -> None:
    detail = assert_problem(post(client, **body), 400, field)
    assert len(detail) < 2000
    assert connection.dbsize() == 0


@pytest.mark.parametrize(
    'body',
    [
        b'', b'null', b'7', b'"add"', b'[]', b'{', b'{"task": "echo"} x', b'\xff\xfe', b'\x00',
        '{"task": "echo"}'.encode('utf-16'), b'\xef\xbb\xbf{"task": "echo"}',
        b"{'task': 'echo'}", b'{"task": "echo", "params": {"x": NaN}}',
        b'{"task": "echo", "params": {"x": Infinity}}', b'{"task": "echo", "params": {"x": 1e999}}',
        b'{"task": "echo", "params": {"x": "\\ud800"}}',
        b'{"task": "echo", "params": {"\\udfff": 1}}',
        b'{"task": "echo", "params": {"x": "\xed\xa0\x80"}}',
        b'{"task": "echo", "params": {"x": ' + b'9' * 5000 + b'}}',
        b'{"task": "echo", "params": {"x": ' + b'9' * 900_000 + b'}}',
        b'{"task": "echo", "params": {"x": ' + b'[' * 101 + b']' * 101 + b'}}',
        b'{"task": "echo", "params": {"x": ' + b'[' * 900 + b']' * 900 + b'}}',
        b'{"task": "echo", "params": {"x": ' + b'[' * 300_000 + b']' * 300_000 + b'}}',
        b'[' * 1_000_000, b'{"a":' * 200_000,
        b'{"task": "add", "task": "echo"}', b'{"task": "echo", "params": {"a": 1, "a": 2}}',
        b'{"task": "echo", "params": {"x": [{"a": 1, "\\u0061": 2}]}}',
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_json_that_cannot_be_meant_is_refused(
    client: FlaskClient, connection: Redis, body: bytes
) -> None:
    answer = post_raw(client, body)
    assert (answer.status_code, answer.mimetype) == (400, 'application/problem+json')
    assert len(answer.data) < 2000
    assert connection.dbsize() == 0


def test_many_members_of_which_one_stands_twice(client: FlaskClient) -> None:
    members = ','.join(f'"k{number}":1' for number in range(80_000))
    answer = post_raw(client, f'{{"task": "echo", "params": {{{members}, "k79999": 2}}}}')
    assert_problem(answer, 400, 'k79999')


@pytest.mark.parametrize('kind', ['text/plain', 'application/x-www-form-urlencoded', ''])
def test_a_body_that_a_form_could_post_is_refused(client: FlaskClient, kind: str) -> None:
    assert_problem(client.post(JOBS, data='{"task": "echo"}', content_type=kind), 415)


class Counted(io.BytesIO):
    """Counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.taken += len(piece)
        return piece


@pytest.mark.parametrize('announced', [True, False])
@pytest.mark.parametrize('extra', [0, 1, 1_000_000])
def test_a_body_that_is_too_large_is_refused(
    connection: Redis, settings: pytest.MonkeyPatch, announced: bool, extra: int
) -> None:
    settings.setenv('JOB_MAX_ARGUMENTS', '2')  # megabytes, more than a body has
    environment_config.cache_clear()
    app = make_app()
    app.config['MAX_CONTENT_LENGTH'] = None  # as in an application that knows of no limit
    client = with_token(app)
    text = '{"task": "echo", "params": {"x": "%s"}}'
    body = (text % ('x' * (LARGEST_BODY + extra - len(text) + 2))).encode()
    assert len(body) == LARGEST_BODY + extra
    stream = Counted(body)
    answer = client.post(
        JOBS,
        input_stream=stream,
        content_type='application/json',
        content_length=len(body) if announced else None,
        environ_overrides={} if announced else {'wsgi.input_terminated': True},
    )
    assert answer.status_code == (413 if extra else 201)
    assert connection.llen('rq:queue:default') == (0 if extra else 1)
    assert stream.taken <= LARGEST_BODY + 1


def test_nothing_that_was_sent_is_run_or_told_as_markup(client: FlaskClient) -> None:
    answer = post(client, task='<script>alert(1)</script>')
    assert answer.mimetype == 'application/problem+json'


# Look


def test_a_listing_goes_page_by_page(client: FlaskClient) -> None:
    jobs = enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(25)])
    high = post(client, task='add', params={'a': 1}, queue='high').get_json()['job_id']
    enqueue_background_job('tests.support.tasks.add', 1, job_delay='1h', job_id='later')
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        answer = client.get(
            JOBS, query_string={'limit': 10} | ({'cursor': cursor} if cursor else {})
        )
        assert answer.status_code == 200
        body = answer.get_json()
        assert set(body) == {'jobs', 'next'}
        seen += [job['job_id'] for job in body['jobs']]
        cursor, pages = body['next'], pages + 1
    assert pages == 3
    assert seen == [high, *(job.id for job in jobs), 'later']


def test_a_page_that_ends_with_the_last_job_has_no_next(client: FlaskClient) -> None:
    enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(5)])
    for limit, more in ((4, True), (5, False), (6, False)):
        body = client.get(f'{JOBS}?limit={limit}').get_json()
        assert (len(body['jobs']), body['next'] is not None) == (min(limit, 5), more)


def test_a_page_filters_and_shows_no_results(
    client: FlaskClient, shared_worker: SharedWorker
) -> None:
    done = post(client, task='add', params={'a': 1}).get_json()['job_id']
    failed = post(client, task='fail').get_json()['job_id']
    eventually(lambda: client.get(f'{JOBS}/{failed}').get_json()['status'] == 'failed')
    wait_for_job(done, 60)
    with shared_worker.held():
        waiting = post(client, task='add', params={'a': 1}, queue='low').get_json()['job_id']
        check_pages(client, done, failed, waiting)


def check_pages(client: FlaskClient, done: str, failed: str, waiting: str) -> None:
    def ids(query: str) -> list[str]:
        answer = client.get(f'{JOBS}?{query}')
        assert answer.status_code == 200, answer.text
        return [job['job_id'] for job in answer.get_json()['jobs']]

    assert ids('status=completed') == ids('status=finished') == [done]
    assert ids('status=pending') == ids('status=queued&queue=low') == ids('queue=low') == [waiting]
    assert ids('status=failed&limit=1') == [failed]
    assert ids('status=running') == ids('queue=high') == []
    shown = client.get(f'{JOBS}?status=completed').get_json()['jobs'][0]
    assert 'result' not in shown
    assert shown['task'] == 'add'


@pytest.mark.parametrize(
    ('query', 'field'),
    [
        ('status=done', 'status'), ('status=', 'status'), ('queue=urgent', 'queue'),
        ('limit=0', 'limit'), ('limit=1001', 'limit'), ('limit=x', 'limit'), ('limit=', 'limit'),
        ('limit=-1', 'limit'), ('limit=1.5', 'limit'), ('limit=' + '9' * 5000, 'limit'),
        ('cursor=', 'cursor'), ('cursor=x', 'cursor'), ('cursor=queued.0', 'cursor'),
        ('cursor=none.0.0', 'cursor'), ('status=failed&cursor=queued.0.1', 'cursor'),
        ('cursor=queued.0.999999999', 'cursor'), ('offset=5', 'offset'),
        ('limit=1&limit=2', 'limit'),
    ],
)  # fmt: skip
def test_a_listing_that_cannot_be_meant_is_refused(
    client: FlaskClient, query: str, field: str
) -> None:
    assert_problem(client.get(f'{JOBS}?{query}'), 400, field)


@pytest.mark.parametrize('cursor', ['queued.99999.0', 'queued.2.99999', 'finished.2.5'])
def test_a_cursor_behind_the_end_is_an_empty_page(client: FlaskClient, cursor: str) -> None:
    enqueue_background_jobs('tests.support.tasks.add', [{'a': n} for n in range(5)])
    assert client.get(f'{JOBS}?cursor={cursor}').get_json() == {'jobs': [], 'next': None}


def test_a_job_without_a_name_is_shown_by_its_path(client: FlaskClient) -> None:
    job = enqueue_background_job('tests.support.tasks.process_id')
    assert client.get(f'{JOBS}/{job.id}').get_json()['task'] == 'tests.support.tasks.process_id'


@pytest.mark.parametrize('job_id', ['none', 'a b', '%00', 'a:b', 'x' * 5000, 'ä', '%ed%a0%80', '*'])
def test_a_job_that_is_not_there(client: FlaskClient, job_id: str) -> None:
    assert_problem(client.get(f'{JOBS}/{job_id}'), 404)
    assert_problem(client.delete(f'{JOBS}/{job_id}'), 404)
    assert_problem(client.post(f'{JOBS}/{job_id}/retry'), 404)


def test_the_head_of_a_job_has_no_body(client: FlaskClient) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    answer = client.head(f'{JOBS}/{job.id}')
    assert (answer.status_code, answer.data) == (200, b'')


def test_any_result_is_json(client: FlaskClient, shared_worker: SharedWorker) -> None:
    values: dict[str, Any] = {'x': ['\x00', 10**400, {'<script>': None}]}
    job = enqueue_background_job(
        'tests.support.tasks.echo', b'\xff', {1, 2}, '\ud800', 1e999, **values
    )
    wait_for_job(job.id, 60)
    answer = client.get(f'{JOBS}/{job.id}')
    assert answer.mimetype == 'application/json'
    assert json.loads(answer.data)['status'] == 'finished'


def test_an_error_is_one_line(client: FlaskClient, shared_worker: SharedWorker) -> None:
    job_id = post(client, task='fail', params={'message': 'a\nb'}).get_json()['job_id']
    wait_for_job(job_id, 60)
    answer = client.get(f'{JOBS}/{job_id}')
    assert answer.get_json()['error'] == 'ValueError: a'
    assert 'Traceback' not in answer.text


# Cancel and retry


def test_a_waiting_job_is_cancelled_and_may_be_told_so_twice(client: FlaskClient) -> None:
    address = post(client, task='add', params={'a': 1}, id='mine').location
    for _ in range(2):
        answer = client.delete(address)
        assert (answer.status_code, answer.get_json()) == (
            200,
            {'job_id': 'mine', 'status': 'canceled'},
        )
    assert client.get(address).get_json()['status'] == 'canceled'


def test_a_running_job_is_told_to_stop(
    client: FlaskClient, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    begun = tmp_path / 'begun'
    params = {'path': str(begun), 'seconds': 600}
    address = post(client, task='touch_and_sleep', params=params).location
    eventually(begun.exists)
    answer = client.delete(address)
    assert (answer.status_code, answer.get_json()['status']) == (202, 'stopping')
    eventually(lambda: client.get(address).get_json()['status'] == 'stopped')
    assert_problem(client.delete(address), 409)


def test_an_ended_job_is_tried_again_unless_it_has_finished(
    client: FlaskClient, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        failed, done = (post(client, **body).location for body in
                        ({'task': 'fail'}, {'task': 'add', 'params': {'a': 1}}))  # fmt: skip
        assert_problem(client.post(f'{done}/retry'), 409)  # it has not ended
    for address in (failed, done):
        wait_for_job(address.rpartition('/')[2], 60)
    for address in (failed, done):
        assert_problem(client.delete(address), 409)
    assert_problem(client.post(f'{done}/retry'), 409)
    with shared_worker.held():
        answer = client.post(f'{failed}/retry')
        assert (answer.status_code, answer.get_json()['status']) == (200, 'queued')
        assert client.get(failed).get_json()['status'] == 'queued'
        cancel_job(answer.get_json()['job_id'])


# When things go wrong


@pytest.mark.usefixtures('impatient')
def test_a_lost_answer_names_the_job_to_repeat(
    client: FlaskClient, settings: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    use_redis(settings, proxy.url, client.application)
    proxy.hang = True
    answer = post(client, task='add', params={'a': 1})
    assert answer.status_code == 503
    problem = json.loads(answer.data)
    assert str(UUID(problem['job_id'])) == problem['job_id']
    given = post(client, task='add', params={'a': 1}, id='mine')
    assert (given.status_code, json.loads(given.data)['job_id']) == (503, 'mine')


def test_a_queue_that_is_away_has_accepted_no_job(
    client: FlaskClient, settings: pytest.MonkeyPatch
) -> None:
    use_redis(settings, f'redis://:hush-hush@127.0.0.1:{free_port()}/0', client.application)
    answer = post(client, task='add', params={'a': 1}, id='mine')
    assert answer.status_code == 503
    assert 'job_id' not in json.loads(answer.data)
    assert 'hush-hush' not in answer.text
    assert '127.0.0.1' not in answer.text
    assert int(answer.headers['Retry-After']) > 0
    for method, path in (
        ('GET', ''),
        ('GET', '/mine'),
        ('DELETE', '/mine'),
        ('POST', '/mine/retry'),
    ):
        assert client.open(JOBS + path, method=method).status_code == 503


def test_an_accident_of_ours_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()
    queue: JobQueue = app.extensions['job_queue']
    del queue._names._tasks  # the accident
    answer = post(with_token(app), task='add', params={'a': 1})
    assert_problem(answer, 500)
    assert '_tasks' not in answer.text
    assert '_tasks' in caplog.text


def test_a_name_whose_module_is_broken_is_our_mistake(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()
    app.extensions['job_queue'].add('broken', 'workers.no_such_module.task')
    with caplog.at_level(logging.ERROR):
        assert_problem(post(with_token(app), task='broken'), 500)
    assert 'no_such_module' in caplog.text


def test_what_a_client_got_wrong_is_not_logged_as_our_mistake(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    post(client, task='no-such-task')
    assert caplog.records == []


# In somebody else's application


@pytest.fixture
def foreign() -> FlaskClient:
    app = Flask('somebody-else')
    queue = JobQueue(app, url_prefix='/jobs')
    queue.add('add', 'tests.support.tasks.add')
    for code in (400, 401, 404, 405, 413, 415, 500):
        app.register_error_handler(code, lambda error: ('<h1>Oh no</h1>', 418))
    return with_token(app)


def test_it_is_whole_in_an_application_of_somebody_else(foreign: FlaskClient) -> None:
    answer = foreign.post('/jobs', json={'task': 'add', 'params': {'a': 1}})
    assert (answer.status_code, answer.location) == (
        201,
        f'/jobs/{answer.get_json()["job_id"]}',
    )
    assert foreign.get(answer.location).get_json()['status'] == 'queued'
    assert [job['task'] for job in foreign.get('/jobs').get_json()['jobs']] == ['add']
    assert_problem(foreign.post('/jobs', json={'task': 'ad'}), 400, 'task')
    assert_problem(foreign.get('/jobs/none'), 404)
    assert_problem(foreign.get('/jobs/a/b/c'), 404)
    assert_problem(foreign.put('/jobs'), 405)
    assert_problem(foreign.post('/jobs', data='x'), 415)
    large = b'"' + b'x' * 2 * LARGEST_BODY + b'"'
    assert_problem(foreign.post('/jobs', data=large, content_type='application/json'), 413)
    assert_problem(foreign.get('/jobs', headers={'Authorization': 'Bearer wrong'}), 401)
    assert_problem(foreign.put('/jobs', headers={'Authorization': ''}), 401)


def test_it_leaves_the_answers_of_that_application_alone(foreign: FlaskClient) -> None:
    assert foreign.get('/nothing-here').text == '<h1>Oh no</h1>'


# At random


@pytest.mark.parametrize('count', [400, pytest.param(4_000, marks=pytest.mark.slow)])
def test_random_bodies_never_hurt(client: FlaskClient, connection: Redis, count: int) -> None:
    dice = random.Random(count)
    accepted: set[str] = set()
    codes: dict[int, int] = {}
    for _ in range(count):
        body = random_body(dice, ('add', 'echo', 'typed', 'fail'))
        answer = post_raw(client, body)
        codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
        assert answer.status_code in (200, 201, 400), (body, answer.text)
        if answer.status_code == 201:
            accepted.add(answer.get_json()['job_id'])
        elif answer.status_code == 400:
            assert answer.mimetype == 'application/problem+json'
    assert codes[201] > count / 10
    assert codes[400] > count / 10
    stored = {key.decode() for key in connection.scan_iter('rq:job:*', count=1000)}
    assert {re.sub('^rq:job:', '', key) for key in stored} == accepted
    waiting = sum(connection.llen(f'rq:queue:{queue}') for queue in QUEUES)
    delayed = sum(connection.zcard(f'rq:scheduled:{queue}') for queue in QUEUES)
    assert waiting + delayed == len(accepted)


def test_an_odd_record_of_that_id_is_told(client: FlaskClient, connection: Redis) -> None:
    connection.hset('rq:job:odd', 'status', 'queued')
    answer = post(client, task='add', params={'a': 1}, id='odd')
    assert 'cannot be read' in assert_problem(answer, 400)
