"""The application as a whole: health, and one form for everything that goes wrong."""

import json
import logging

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from app import create_app
from qdjobs.config import environment_config
from qdjobs.errors import (
    InvalidJobError,
    JobError,
    JobNotFoundError,
    QueueUnavailableError,
    UnknownTaskError,
)
from qdjobs.server import free_port
from tests.support.applications import use_redis


def assert_problem(answer: TestResponse, status: int) -> None:
    assert (answer.status_code, answer.mimetype) == (status, 'application/problem+json')
    problem = json.loads(answer.data)
    assert set(problem) - {'job_id'} == {'type', 'title', 'status', 'detail'}
    assert (problem['type'], problem['status']) == ('about:blank', status)
    assert problem['title']
    assert problem['detail']


def raising(error: Exception) -> FlaskClient:
    """The client of an application with one more page, which raises."""
    app = create_app()

    @app.get('/raise')
    def page() -> str:
        raise error

    return app.test_client()


# Health


def test_it_is_ready_while_redis_answers(client: FlaskClient, connection: Redis) -> None:
    answer = client.get('/readyz')
    assert (answer.status_code, answer.text) == (200, 'ok\n')
    assert client.head('/readyz').status_code == 200
    assert connection.dbsize() == 0


@pytest.mark.parametrize(
    'url',
    [
        'redis://user:hush-hush@127.0.0.1:{port}/0',
        'redis://:hush-hush@localhost:{port}/3',
        'rediss://user:hush-hush@127.0.0.1:{port}/0',
        'unix://user:hush-hush@/no/such/socket?db=1',
        'unix:///no/such/socket?password=hush-hush',
    ],
)
def test_it_is_alive_but_not_ready_while_redis_is_away_and_tells_no_secret(
    client: FlaskClient,
    settings: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    url: str,
) -> None:
    use_redis(settings, url.format(port=free_port()), client.application)
    alive = client.get('/healthz')
    assert (alive.status_code, alive.text, caplog.text) == (200, 'ok\n', '')
    with caplog.at_level(logging.DEBUG):
        answer = client.get('/readyz')
    assert_problem(answer, 503)
    assert int(answer.headers['Retry-After']) > 0
    assert 'does not answer' in caplog.text
    for secret in ('hush-hush', '127.0.0.1', 'localhost', '/no/such/socket'):
        assert secret not in answer.text + str(answer.headers)
    assert 'hush-hush' not in caplog.text


def test_a_wrong_password_is_not_ready_and_not_told(
    client: FlaskClient,
    settings: pytest.MonkeyPatch,
    redis_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_redis(settings, redis_url.replace('://', '://someone:hush-hush@'), client.application)
    answer = client.get('/readyz')
    assert_problem(answer, 503)
    assert 'hush-hush' not in answer.text + caplog.text


def test_it_is_ready_again_once_redis_is_back(
    client: FlaskClient, settings: pytest.MonkeyPatch, redis_url: str
) -> None:
    use_redis(settings, f'redis://127.0.0.1:{free_port()}/0', client.application)
    assert client.get('/readyz').status_code == 503
    use_redis(settings, redis_url, client.application)
    assert client.get('/readyz').status_code == 200


# Errors


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (InvalidJobError('what is wrong'), 400),
        (UnknownTaskError('what is wrong'), 500),
        (JobNotFoundError(['some-job']), 404),
        (QueueUnavailableError('what is wrong', 'some-job'), 503),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_of_a_job_has_its_answer(error: JobError, status: int) -> None:
    answer = raising(error).get('/raise')
    assert_problem(answer, status)
    assert ('Retry-After' in answer.headers) is (status == 503)
    assert json.loads(answer.data).get('job_id') == ('some-job' if status == 503 else None)
    assert (str(error) in json.loads(answer.data)['detail']) is (status < 500)


def test_a_mistake_of_ours_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    answer = raising(RuntimeError('hush-hush')).get('/raise')
    assert_problem(answer, 500)
    assert 'hush-hush' not in answer.text
    assert 'hush-hush' in caplog.text


@pytest.mark.parametrize('text', ['\ud800', 'a\r\nb', '"', '<script>alert(1)</script>', 'é' * 9999])
def test_a_message_of_any_text_is_valid_json(text: str) -> None:
    assert_problem(raising(InvalidJobError(text)).get('/raise'), 400)


@pytest.mark.parametrize(
    'path', ['/no-such-page', '/healthz/', '/api/artboard/', '/api/artboard/jobs/', '/%00']
)
def test_a_page_that_does_not_exist_is_a_problem_too(client: FlaskClient, path: str) -> None:
    assert_problem(client.get(path), 404)


def test_a_method_that_does_not_fit_says_which_do(client: FlaskClient) -> None:
    answer = client.post('/healthz')
    assert_problem(answer, 405)
    assert set(answer.headers['Allow'].split(', ')) == {'GET', 'HEAD', 'OPTIONS'}


def test_a_redirect_is_no_problem() -> None:
    app = create_app()
    app.add_url_rule('/folder/', view_func=lambda: 'here')
    answer = app.test_client().get('/folder')
    assert answer.status_code == 308
    assert answer.location.endswith('/folder/')


# The application


def test_each_application_stands_for_itself() -> None:
    first, second = create_app(), create_app()
    assert first is not second
    assert first.test_client().get('/healthz').status_code == 200
    assert second.test_client().get('/healthz').status_code == 200


@pytest.mark.parametrize('name', ['REDIS_URL', 'JOB_TASK_MODULES', 'JOB_RESULT_TTL'])
def test_a_bad_setting_is_told_before_anything_starts(
    settings: pytest.MonkeyPatch, name: str
) -> None:
    settings.setenv(name, '!')
    environment_config.cache_clear()
    with pytest.raises(ValueError, match=name):
        create_app()


@pytest.mark.parametrize('name', ['UPLOAD_DIR', 'OUTPUT_DIR'])
def test_a_folder_that_is_no_url_is_told_before_anything_starts(
    settings: pytest.MonkeyPatch, name: str
) -> None:
    settings.setenv(name, 's3:/plots')
    with pytest.raises(ValueError, match=f'{name} looks like a URL and is none'):
        create_app()
