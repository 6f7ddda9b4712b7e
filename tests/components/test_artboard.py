"""Drawings over HTTP: simple ones at once, others by a real worker."""

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from werkzeug.test import TestResponse

from app import create_app
from components.artboard.limits import read_urgent
from components.artboard.main import DRAW
from libraries.drawing.patterns import PATTERNS, draw_pattern
from libraries.files import output_dir, room, write_output
from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs.config import QUEUES, environment_config
from qdjobs.server import free_port
from tests.support.applications import use_redis
from tests.support.jobs import require_living
from tests.support.permissions import permissions_count
from tests.support.processes import eventually, horse_of
from tests.support.shared_worker import SharedWorker

CREATE = '/api/artboard/create'
JOBS = '/api/artboard/jobs'


def create(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post(CREATE, json=body)


def post(client: FlaskClient, body: str | bytes) -> TestResponse:
    return client.post(CREATE, data=body, content_type='application/json')


def assert_problem(answer: TestResponse, status: int, *told: str) -> None:
    assert (answer.status_code, answer.mimetype) == (status, 'application/problem+json')
    problem = json.loads(answer.data)
    assert set(problem) - {'job_id'} == {'type', 'title', 'status', 'detail'}
    assert problem['status'] == status
    assert all(text in problem['detail'] for text in told), problem


def waiting(connection: Redis) -> dict[str, int]:
    return {queue: connection.llen(f'rq:queue:{queue}') for queue in QUEUES}


@pytest.fixture
def redis_is_away(settings: pytest.MonkeyPatch, client: FlaskClient) -> None:
    use_redis(settings, f'redis://:hush-hush@127.0.0.1:{free_port()}/0', client.application)


# At once


@pytest.mark.parametrize('pattern', PATTERNS)
def test_a_simple_drawing_is_answered_at_once(
    client: FlaskClient, connection: Redis, pattern: str
) -> None:
    answer = create(client, complexity='simple', pattern=pattern, width=100, height=50.5)
    assert (answer.status_code, answer.mimetype) == (200, 'application/json')
    assert set(answer.get_json()) == {'svg'}
    drawing = ElementTree.fromstring(answer.get_json()['svg'].encode())
    assert (drawing.get('width'), drawing.get('height')) == ('100mm', '50.5mm')
    assert connection.dbsize() == 0


def test_a_simple_drawing_needs_no_redis(client: FlaskClient, redis_is_away: None) -> None:
    assert create(client, complexity='simple').status_code == 200


def test_the_same_seed_gives_the_same_drawing(client: FlaskClient) -> None:
    first, same, other = (
        create(client, complexity='simple', seed=seed, width=50, height=50).data
        for seed in (1, 1, 2)
    )
    assert first == same != other


@pytest.mark.parametrize('digits', [20, 1000, 4300, 5000])
@pytest.mark.parametrize('complexity', ['simple', 'complex'])
def test_a_seed_of_any_length_is_drawn_or_refused(
    client: FlaskClient, complexity: str, digits: int
) -> None:
    sizes = '"width": 50, "height": 50'
    answer = post(client, f'{{"complexity": "{complexity}", {sizes}, "seed": {"9" * digits}}}')
    assert answer.status_code in (200, 202, 400)


# Later


def test_a_drawing_is_accepted_with_the_address_to_ask(
    client: FlaskClient, connection: Redis
) -> None:
    answer = create(client, pattern='grid', width=100, height=80, complexity='complex')
    assert answer.status_code == 202
    body = answer.get_json()
    assert set(body) == {'status', 'job_id', 'message'}
    assert body['status'] == 'generating'
    assert str(UUID(body['job_id'])) == body['job_id']
    assert answer.headers['Location'] == f'{JOBS}/{body["job_id"]}'
    shown = client.get(answer.headers['Location']).get_json()
    assert (shown['job_id'], shown['status'], shown['error']) == (body['job_id'], 'queued', None)
    assert waiting(connection) == {'high': 0, 'default': 1, 'low': 0}


def test_everything_has_a_default(client: FlaskClient) -> None:
    assert post(client, '{}').status_code == 202


@pytest.mark.parametrize(('urgent', 'queue'), [(True, 'high'), (False, 'default')])
def test_an_urgent_drawing_goes_before_others(
    client: FlaskClient,
    connection: Redis,
    settings: pytest.MonkeyPatch,
    urgent: bool,
    queue: str,
) -> None:
    settings.setenv('ARTBOARD_URGENT', '1')
    job_id = create(client, urgent=urgent).get_json()['job_id']
    assert waiting(connection) == dict.fromkeys(QUEUES, 0) | {queue: 1}
    assert get_job_status(job_id)['queue'] == queue


def test_a_worker_draws_it_under_the_name_of_the_job(
    client: FlaskClient, shared_worker: SharedWorker
) -> None:
    answer = create(client, pattern='grid', width=120, height=80)
    eventually(lambda: client.get(answer.location).get_json()['status'] in ('finished', 'failed'))
    assert str(output_dir()) not in client.get(answer.location).text
    shown = client.get(answer.location).get_json()
    assert (shown['status'], shown['error']) == ('finished', None)
    assert shown['created_at'] <= shown['started_at'] <= shown['ended_at']
    assert [path.name for path in output_dir().iterdir()] == [f'{shown["job_id"]}.svg']
    drawing = ElementTree.parse(output_dir() / f'{shown["job_id"]}.svg').getroot()
    assert drawing.get('width') == '120mm'


# Urgent ones, and too many


def test_an_urgent_drawing_needs_the_token_or_the_switch(
    settings: pytest.MonkeyPatch, connection: Redis
) -> None:
    settings.setenv('JOBS_API_TOKEN', 'hush-hush')
    environment_config.cache_clear()
    app = create_app()
    client = app.test_client()
    assert_problem(create(client, urgent=True), 403, 'JOBS_API_TOKEN', 'ARTBOARD_URGENT=1')
    assert connection.dbsize() == 0
    assert create(client, urgent=False).status_code == 202
    assert create(client, urgent=True, complexity='simple').status_code == 200
    for token, status in (('wrong', 403), ('hush-hush', 202)):
        sent = {'Authorization': f'Bearer {token}'}
        assert client.post(CREATE, json={'urgent': True}, headers=sent).status_code == status
    app.debug = True
    assert create(client, urgent=True).status_code == 202
    settings.setenv('ARTBOARD_URGENT', '0')
    assert create(client, urgent=True).status_code == 403


def test_without_a_token_on_the_server_no_token_is_right(client: FlaskClient) -> None:
    for token in ('Bearer', 'Bearer ', 'Bearer None'):
        sent = {'Authorization': token}
        assert_problem(client.post(CREATE, json={'urgent': True}, headers=sent), 403)


def test_a_drawing_is_refused_while_too_many_jobs_wait(
    client: FlaskClient, settings: pytest.MonkeyPatch, connection: Redis
) -> None:
    settings.setenv('ARTBOARD_MAX_WAITING', '2')
    settings.setenv('ARTBOARD_URGENT', '1')
    assert [create(client).status_code for _ in range(2)] == [202, 202]
    answer = create(client)
    assert_problem(answer, 503, '2 jobs are waiting', 'try again')
    assert int(answer.headers['Retry-After']) > 0
    assert waiting(connection) == {'high': 0, 'default': 2, 'low': 0}
    assert create(client, complexity='simple').status_code == 200
    assert create(client, urgent=True).status_code == 202  # in a queue of its own
    connection.lpop('rq:queue:default')  # as a worker does: what runs waits no longer
    assert create(client).status_code == 202


@pytest.mark.parametrize('text', ['yes', '2', 'true'])
def test_a_switch_that_is_none_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ValueError, match='ARTBOARD_URGENT must be'):
        read_urgent({'ARTBOARD_URGENT': text})


# Cancelling


def test_a_drawing_that_waits_is_cancelled_by_its_id(client: FlaskClient) -> None:
    address = create(client).location
    for _ in range(2):
        answer = client.delete(address)
        assert (answer.status_code, answer.get_json()['status']) == (200, 'canceled')
    assert client.get(address).get_json()['status'] == 'canceled'


def test_a_drawing_that_is_ready_is_not_cancelled(client: FlaskClient, drawn: str) -> None:
    assert_problem(client.delete(drawn.removesuffix('/svg')), 409, 'has ended (finished)')
    with client.get(drawn) as answer:
        assert answer.status_code == 200


def test_a_drawing_that_runs_is_stopped(client: FlaskClient, shared_worker: SharedWorker) -> None:
    require_living(shared_worker)
    os.kill(horse_of(shared_worker.pid), signal.SIGSTOP)  # so that it never ends
    address = create(client).location
    eventually(lambda: client.get(address).get_json()['status'] == 'started')
    answer = client.delete(address)
    assert (answer.status_code, answer.get_json()['status']) == (202, 'stopping')
    eventually(lambda: client.get(address).get_json()['status'] == 'stopped')


def test_no_other_job_is_cancelled(client: FlaskClient) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    assert_problem(client.delete(f'{JOBS}/{job.id}'), 404)
    assert_problem(client.delete(f'{JOBS}/no-such-job'), 404)
    assert get_job_status(job.id)['status'] == 'queued'


# What it says of a job


def test_attempts_are_shown_to_all_and_the_worker_in_development(
    client: FlaskClient, app: Flask, settings: pytest.MonkeyPatch, shared_worker: SharedWorker
) -> None:
    address = create(client, pattern='lissajous').location
    eventually(lambda: client.get(address).get_json()['status'] == 'finished')
    shown = client.get(address).get_json()
    assert shown['failed_attempts'] == 0
    assert shown['progress'] == {'done': 2, 'total': 2, 'message': 'written'}
    assert shared_worker.name not in client.get(address).text
    settings.setitem(app.config, 'DEBUG', True)
    assert client.get(address).get_json()['worker'] == shared_worker.name


def test_without_room_a_drawing_is_refused_and_the_operator_knows_why(
    client: FlaskClient,
    connection: Redis,
    settings: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.setattr(room, '_measured', {})
    settings.setenv('OUTPUT_MAX_SIZE', '1')
    write_output('a', bytes(1_000_000))
    answer = create(client)
    assert_problem(answer, 503, 'no room for more drawings: repeat the request later')
    assert answer.headers['Retry-After'] == '600'
    assert str(output_dir()) not in answer.text
    assert 'has 1 MB of files, and OUTPUT_MAX_SIZE is 1' in caplog.text
    assert waiting(connection) == dict.fromkeys(QUEUES, 0)
    assert create(client, complexity='simple', width=20, height=20).status_code == 200


# The drawing itself


@pytest.fixture
def drawn(client: FlaskClient, shared_worker: SharedWorker) -> str:
    """The address of a drawing that a worker has made."""
    answer = create(client, pattern='hilbert', width=60, height=40, seed=5)
    eventually(lambda: client.get(answer.location).get_json()['status'] == 'finished')
    return f'{answer.location}/svg'


def drawing_file() -> Path:
    return next(output_dir().iterdir())


def test_a_drawing_is_served_as_an_image_that_can_do_nothing(
    client: FlaskClient, drawn: str
) -> None:
    with client.get(drawn) as answer:
        assert answer.get_data(as_text=True) == draw_pattern('hilbert', 60, 40, seed=5)
    assert (answer.status_code, answer.mimetype) == (200, 'image/svg+xml')
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    assert answer.headers['Content-Security-Policy'] == policy
    assert answer.headers['X-Content-Type-Options'] == 'nosniff'
    assert answer.headers['Content-Disposition'].startswith('inline')


def test_a_drawing_is_saved_on_demand_under_the_name_of_its_job(
    client: FlaskClient, drawn: str
) -> None:
    with client.get(f'{drawn}?download=1') as answer:
        assert answer.status_code == 200
    name = f'{drawn.split("/")[-2]}.svg'
    assert answer.headers['Content-Disposition'] == f'attachment; filename={name}'
    assert 'sandbox' in answer.headers['Content-Security-Policy']


def test_a_drawing_is_sent_once(client: FlaskClient, drawn: str) -> None:
    with client.get(drawn) as answer:
        tag = answer.headers['ETag']
    with client.get(drawn, headers={'If-None-Match': tag}) as answer:
        assert answer.status_code == 304


def test_there_is_no_drawing_before_its_job_has_finished(
    client: FlaskClient, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        queued = create(client, width=20, height=20).location
        assert_problem(client.get(f'{queued}/svg'), 404, 'queued')
    write_output('file', '')
    failing = enqueue_background_job(DRAW, 100, 100, 'grid', 'file/below-a-file.svg')
    eventually(lambda: get_job_status(failing.id)['status'] == 'failed')
    assert_problem(client.get(f'{JOBS}/{failing.id}/svg'), 404, 'failed')


def test_a_file_that_was_cleared_away_is_told(
    client: FlaskClient, drawn: str, tmp_path: Path
) -> None:
    drawing_file().unlink()
    assert_problem(client.get(drawn), 404, 'is gone')


def test_a_drawing_that_the_web_process_may_not_read_is_a_503_and_the_operator_knows_why(
    client: FlaskClient, drawn: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = drawing_file()
    file.chmod(0)
    with permissions_count():
        answer = client.get(drawn)
    assert_problem(answer, 503, 'cannot be read now: repeat the request later')
    assert answer.headers['Retry-After'] == '5'
    assert str(output_dir()) not in answer.text
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert str(file) in record.getMessage()
    assert 'may not be read by this process' in record.getMessage()
    assert record.exc_info is None


def test_a_result_that_leads_out_of_the_folder_is_not_followed(
    client: FlaskClient, drawn: str, tmp_path: Path
) -> None:
    file = drawing_file()
    secret = tmp_path / 'secret'
    secret.write_text('hush-hush')
    file.unlink()
    file.symlink_to(secret)
    answer = client.get(drawn)
    assert_problem(answer, 404, 'is gone')
    assert str(tmp_path) not in answer.text
    assert str(output_dir()) not in answer.text


def test_what_another_task_has_written_is_not_served(
    client: FlaskClient, shared_worker: SharedWorker
) -> None:
    other = enqueue_background_job('workers.svg_tasks.generate_postcard_svg', 'Zoë', 'Hi', 'plain')
    eventually(lambda: get_job_status(other.id)['status'] == 'finished')
    unknown = client.get(f'{JOBS}/no-such-job/svg')
    hidden = client.get(f'{JOBS}/{other.id}/svg')
    assert_problem(hidden, 404)
    assert hidden.text.replace(other.id, 'no-such-job') == unknown.text


# Refusals

BAD_BODIES = {
    'too small': '{"width": 19.999}',
    'too large': '{"height": 1200.001}',
    'negative': '{"width": -100}',
    'zero': '{"height": 0}',
    'huge': '{"width": 1e308}',
    'beyond float': '{"width": 1e999}',
    'NaN': '{"width": NaN}',
    'Infinity': '{"width": Infinity}',
    'width is text': '{"width": "100"}',
    'width is bool': '{"width": true}',
    'width is null': '{"width": null}',
    'width is list': '{"width": [100]}',
    'second width': '{"width": 100, "width": 5}',
    'unknown pattern': '{"pattern": "circles"}',
    'capital': '{"pattern": "Spiral"}',
    'pattern is null': '{"pattern": null}',
    'pattern is a path': '{"pattern": "../../etc/passwd"}',
    'pattern is nested': '{"pattern": ' + '[' * 10_000,
    'id has a slash': '{"id": "../7"}',
    'id has a dot': '{"id": "7.svg"}',
    'id is empty': '{"id": ""}',
    'id is long': '{"id": "' + 'x' * 65 + '"}',
    'id ends a line': '{"id": "7\\n"}',
    'id is negative': '{"id": -7}',
    'id is a fraction': '{"id": 7.5}',
    'id is bool': '{"id": true}',
    'id is huge': '{"id": 1e30}',
    'id is list': '{"id": [7]}',
    'urgent is a number': '{"urgent": 1}',
    'urgent is text': '{"urgent": "false"}',
    'seed is a fraction': '{"seed": 1.5}',
    'complexity is a number': '{"complexity": 1}',
    'unknown complexity': '{"complexity": "medium"}',
    'file name': '{"output_filename": "x.svg"}',
    'job option': '{"job_timeout": "9h"}',
    'unknown field': '{"colour": "red"}',
    'empty name': '{"": 1}',
    'empty': '',
    'space': ' ',
    'null': 'null',
    'list': '[]',
    'text': '"spiral"',
    'number': '1',
    'cut off': '{"width": 100',
    'more behind': '{} {}',
    'no JSON': '<svg/>',
    'single quotes': "{'width': 100}",
    'nested': '[' * 10_000,
    'nested unknown field': '{"x": ' + '[' * 10_000,
    'lone surrogate': '{"pattern": "\\ud800"}',
    'lone surrogate as name': '{"\\ud800": 1}',
}


@pytest.mark.parametrize('bad', BAD_BODIES)
def test_a_body_that_describes_no_drawing_is_refused(
    client: FlaskClient, connection: Redis, bad: str
) -> None:
    assert_problem(post(client, BAD_BODIES[bad]), 400, 'does not describe a drawing')
    assert connection.dbsize() == 0


@pytest.mark.parametrize(
    ('body', 'rule'),
    [
        ('{"pattern": "spirals"}', 'pattern must be one of spiral, '),
        ('{"complexity": "medium"}', 'complexity must be "simple" or "complex".'),
        ('{"id": "../7"}', 'id must be a whole number from 0 on, or 1 to 64 letters, digits, '),
        ('{"id": -7}', 'id must be a whole number from 0 on, or 1 to 64 letters, digits, '),
    ],
)
def test_a_refusal_says_what_there_is_to_choose(client: FlaskClient, body: str, rule: str) -> None:
    assert_problem(post(client, body), 400, rule)


@pytest.mark.parametrize(
    'body', [b'\xff', b'{"pattern": "\xff"}', b'{"\xff": 1}', '{"é": 1}'.encode('latin-1'), b'\0']
)
def test_a_body_that_is_no_utf_8_is_refused(client: FlaskClient, body: bytes) -> None:
    assert_problem(post(client, body), 400, 'does not describe a drawing')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('complexity', 'side'),
    [('simple', 20), ('simple', 1200), ('complex', 20.0), ('complex', 1200), ('complex', 1199.999)],
)
def test_the_bounds_themselves_are_taken(client: FlaskClient, complexity: str, side: float) -> None:
    assert create(client, complexity=complexity, width=side, height=side).status_code in (200, 202)


def test_a_refusal_says_what_is_wrong(client: FlaskClient) -> None:
    assert_problem(create(client, width=5), 400, '>= 20', 'width')
    assert_problem(create(client, height=5000), 400, '<= 1200', 'height')
    assert_problem(create(client, colour='red'), 400, 'unknown field', 'colour')


@pytest.mark.parametrize(
    'content_type',
    [
        None,
        '',
        'text/plain',
        'application/x-www-form-urlencoded',
        'multipart/form-data; boundary=x',
        'application/jsonp',
        'text/plain; application/json',
    ],
)
def test_only_json_is_read(
    client: FlaskClient, connection: Redis, content_type: str | None
) -> None:
    answer = client.post(CREATE, data='{}', content_type=content_type)
    assert_problem(answer, 415, 'application/json')
    assert connection.dbsize() == 0


@pytest.mark.parametrize('told', [True, False])
def test_a_body_that_is_too_large_is_refused(client: FlaskClient, told: bool) -> None:
    body = b'{"pattern": "spiral"}' + b' ' * 1024 * 1024
    # Without a length, as a chunked body comes.
    unknown_length = {'CONTENT_LENGTH': '', 'wsgi.input_terminated': True}
    answer = client.post(
        CREATE,
        data=body,
        content_type='application/json',
        environ_overrides={} if told else unknown_length,
    )
    assert_problem(answer, 413)


@pytest.mark.parametrize('method', ['GET', 'PUT', 'DELETE', 'PATCH'])
def test_a_drawing_is_posted(client: FlaskClient, method: str) -> None:
    answer = client.open(CREATE, method=method)
    assert_problem(answer, 405)
    assert set(answer.headers['Allow'].split(', ')) == {'OPTIONS', 'POST'}


# Jobs that are none of ours


@pytest.mark.parametrize('path', ['tests.support.tasks.add', 'tests.support.tasks.fail'])
def test_a_job_of_another_task_is_not_shown(client: FlaskClient, path: str) -> None:
    job = enqueue_background_job(path, *([1] if path.endswith('add') else []))
    unknown = client.get(f'{JOBS}/no-such-job')
    hidden = client.get(f'{JOBS}/{job.id}')
    assert_problem(hidden, 404)
    assert hidden.text.replace(job.id, 'no-such-job') == unknown.text


def test_a_job_that_rq_enqueued_is_shown_only_if_it_draws(
    client: FlaskClient, connection: Redis
) -> None:
    queue = Queue('default', connection=connection)
    ours, other = queue.enqueue(DRAW, 1), queue.enqueue('tests.support.tasks.add', 1)
    assert client.get(f'{JOBS}/{ours.id}').status_code == 200
    assert_problem(client.get(f'{JOBS}/{other.id}'), 404)


@pytest.mark.parametrize(
    'job_id',
    [
        'no-such-job',
        '00000000-0000-0000-0000-000000000000',
        'a:b',
        'x:dependents',
        'x' * 300,
        'x' * 10_000,
        '%00',
        'a%00b',
        '%0a',
        'a%0A',
        '%20',
        '..',
        '%2e%2e',
        '%2F',
        'a%2Fb',
        '*',
        '%25',
        'é',
        '%ff',
        '%ed%a0%80',
        "'",
        '<script>',
        '',
    ],
    ids=lambda job_id: ascii(job_id[:20]),
)
def test_an_id_that_no_job_has_is_a_404(client: FlaskClient, job_id: str) -> None:
    assert_problem(client.get(f'{JOBS}/{job_id}'), 404)


def test_the_keys_beside_a_job_are_no_jobs(client: FlaskClient, connection: Redis) -> None:
    job_id = create(client).get_json()['job_id']
    connection.hset(f'rq:job:{job_id}:dependents', mapping={'status': 'queued', 'task': DRAW})
    assert_problem(client.get(f'{JOBS}/{job_id}:dependents'), 404)


# Redis is away


def test_a_drawing_that_cannot_be_queued_is_asked_to_come_again(
    client: FlaskClient, redis_is_away: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = create(client)
    assert_problem(answer, 503)
    assert int(answer.headers['Retry-After']) > 0
    assert 'does not answer' in caplog.text
    assert 'hush-hush' not in answer.text + caplog.text + str(answer.headers)
    assert '127.0.0.1' not in answer.text


def test_a_job_that_cannot_be_asked_for_is_no_404(client: FlaskClient, redis_is_away: None) -> None:
    answer = client.get(f'{JOBS}/some-job')
    assert_problem(answer, 503)
    assert int(answer.headers['Retry-After']) > 0


def test_a_bad_body_is_bad_also_while_redis_is_away(
    client: FlaskClient, redis_is_away: None
) -> None:
    assert_problem(create(client, width=5), 400)


def test_a_redis_that_is_full_is_a_queue_that_is_away(
    client: FlaskClient, connection: Redis
) -> None:
    connection.config_set('maxmemory', '1')
    try:
        assert_problem(create(client), 503)
    finally:
        connection.config_set('maxmemory', '0')
    assert connection.dbsize() == 0
