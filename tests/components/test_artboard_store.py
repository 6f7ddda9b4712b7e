"""Drawings that are in an object store are served as those in a folder."""

import logging
import re
from collections.abc import Iterator
from itertools import product

import pytest
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from components.artboard import files
from libraries.files import outputs, write_output
from libraries.job_manager import get_job_status
from qdjobs.server import free_port
from qdjobs.testing import run_jobs
from tests.support.object_store import ObjectStore, behind_proxy, moved, version_of

pytestmark = pytest.mark.slow  # `make test-all` installs the server and its client


@pytest.fixture(autouse=True)
def patience(settings: pytest.MonkeyPatch) -> None:
    """For a store on a busy machine."""
    settings.setattr(files, 'PATIENCE', 60.0)


def draw(client: FlaskClient) -> str:
    """The address of a drawing that a job has made in this process."""
    answer = client.post('/api/artboard/create', json={'pattern': 'hilbert', 'width': 60})
    run_jobs()
    assert get_job_status(answer.get_json()['job_id'])['error'] is None
    return f'{answer.location}/svg'


def name_of(address: str) -> str:
    return f'{address.split("/")[-2]}.svg'


@pytest.fixture
def drawn(client: FlaskClient, object_store: ObjectStore) -> str:
    address = draw(client)
    assert object_store.keys() == [f'out/{name_of(address)}']
    return address


REQUESTS: dict[str, dict[str, str]] = {
    'all of it': {},
    'the beginning': {'Range': 'bytes=0-9'},
    'all but the beginning': {'Range': 'bytes=100-'},
    'the end': {'Range': 'bytes=-5'},
    'more than there is': {'Range': 'bytes=100-99999999'},
    'behind the end': {'Range': 'bytes=99999999-'},
    'backwards': {'Range': 'bytes=5-2'},
    'two ranges': {'Range': 'bytes=0-1,3-4'},
    'other units': {'Range': 'lines=0-1'},
    'noise': {'Range': 'nonsense'},
    'the same version': {'If-None-Match': '{etag}'},
    'another version': {'If-None-Match': '"other"'},
    'a range of this version': {'Range': 'bytes=0-9', 'If-Range': '{etag}'},
    'a range of another version': {'Range': 'bytes=0-9', 'If-Range': '"other"'},
    'a range unless it is newer': {'Range': 'bytes=0-9', 'If-Range': '{modified}'},
    'only this version': {'If-Match': '"other"'},
    'what is new': {'If-Modified-Since': '{modified}'},
    'what is newer than long ago': {'If-Modified-Since': 'Wed, 01 Jan 2020 00:00:00 GMT'},
}


def ask_each(client: FlaskClient, address: str) -> Iterator[tuple[object, ...]]:
    """What is answered to each request: the status, the headers and the bytes."""
    with client.head(address) as head:
        tag, modified = head.headers['ETag'], head.headers['Last-Modified']
    asked = [*product(('GET', 'HEAD'), [''], REQUESTS), ('GET', '?download=1', 'all of it')]
    for method, query, what in asked:
        headers = {
            name: text.format(etag=tag, modified=modified) for name, text in REQUESTS[what].items()
        }
        with client.open(address + query, method=method, headers=headers) as answer:
            yield method, query, what, answer.status_code, comparable(answer), answer.data


def comparable(answer: Response) -> dict[str, str]:
    own = ('Date', 'ETag', 'Last-Modified')
    kept = {name: text for name, text in answer.headers if name not in own}
    return {name: re.sub(r'[0-9a-f-]{36}', 'ID', text) for name, text in kept.items()}


def test_the_same_requests_get_the_same_answers_from_a_folder_and_a_store(
    client: FlaskClient, settings: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from_folder = list(ask_each(client, draw(client)))
    request.getfixturevalue('object_store')
    from_store = list(ask_each(client, draw(client)))
    assert from_store == from_folder
    assert {answer[3] for answer in from_store} == {200, 206, 304, 412, 416}


@pytest.mark.parametrize('asked', ['bytes=0-', None])
def test_an_empty_file_is_served(
    client: FlaskClient, drawn: str, settings: pytest.MonkeyPatch, asked: str | None
) -> None:
    write_output(name_of(drawn), '')
    with client.get(drawn, headers={'Range': asked} if asked else {}) as answer:
        assert (answer.status_code, answer.data) == (200, b'')
        assert answer.headers['Content-Length'] == '0'


def test_a_drawing_that_was_deleted_is_a_404(
    client: FlaskClient, drawn: str, object_store: ObjectStore
) -> None:
    object_store.delete(f'out/{name_of(drawn)}')
    answer = client.get(drawn)
    assert answer.status_code == 404
    assert 'is gone' in answer.get_json()['detail']


@pytest.mark.parametrize(
    'how',
    ['closed', 'silent', 'refusing', 'without the bucket'],
)
def test_a_store_that_is_away_is_a_503_within_seconds(
    client: FlaskClient,
    drawn: str,
    object_store: ObjectStore,
    settings: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    settings.setattr(files, 'PATIENCE', 0.5)
    if how == 'closed':
        with moved(settings, f'http://127.0.0.1:{free_port()}'):
            answer = client.get(drawn)
    elif how == 'silent':
        with behind_proxy(settings, object_store) as proxy:
            proxy.hang = True
            answer = client.get(drawn)
    elif how == 'refusing':
        object_store.refuse_all()
        answer = client.get(drawn)
        object_store.allow_all()
    else:
        settings.setenv('OUTPUT_DIR', 's3://no-such-bucket')
        answer = client.get(drawn)
    assert (answer.status_code, answer.mimetype) == (503, 'application/problem+json')
    assert answer.headers['Retry-After'] == '5'
    assert 's3' not in answer.text
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith('OUTPUT_DIR: ')
    assert record.exc_info is None


def test_a_store_that_falls_silent_after_the_first_answer_is_a_503_too(
    client: FlaskClient,
    drawn: str,
    object_store: ObjectStore,
    settings: pytest.MonkeyPatch,
) -> None:
    with behind_proxy(settings, object_store) as proxy:
        assert client.head(drawn).status_code == 200
        settings.setattr(files, 'PATIENCE', 0.5)
        proxy.cut_after = b'GET /'
        assert client.get(drawn).status_code == 503


@pytest.mark.parametrize('name', ['../secret.svg', '/etc/passwd', 'no/such.svg'])
def test_a_result_that_is_no_name_is_not_followed(
    client: FlaskClient, drawn: str, settings: pytest.MonkeyPatch, name: str
) -> None:
    status = get_job_status(drawn.split('/')[-2]) | {'result': name}
    settings.setattr('components.artboard.main.get_job_status', lambda _: status)
    answer = client.get(drawn)
    assert answer.status_code == 404
    assert 'is gone' in answer.get_json()['detail']


def test_the_result_of_a_job_is_a_name(drawn: str) -> None:
    result = get_job_status(drawn.split('/')[-2])['result']
    assert result == name_of(drawn)
    assert version_of(outputs(), result) != 'missing'
