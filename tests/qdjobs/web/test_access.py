"""Only the one secret opens the door, and what is wrong with a header is never a 500."""

import base64
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qdjobs.web.access import require_login, require_token


@pytest.fixture
def client() -> FlaskClient:
    app = Flask(__name__)

    def behind(check: Callable[[], None]) -> Callable[[], str]:
        def view() -> str:
            check()
            return 'in'

        return view

    app.add_url_rule('/token', 'token', behind(lambda: require_token('s3=cret==', 'TOKEN')))
    app.add_url_rule('/login', 'login', behind(lambda: require_login('anna', 'pass:wörd')))
    return app.test_client()


def basic(pair: str) -> str:
    return 'Basic ' + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize(
    ('path', 'header'),
    [
        ('/token', 'Bearer s3=cret=='),
        ('/token', 'bearer  s3=cret=='),
        ('/login', basic('anna:pass:wörd')),
    ],
)
def test_the_secret_opens(client: FlaskClient, path: str, header: str) -> None:
    assert client.get(path, headers={'Authorization': header}).status_code == 200


@pytest.mark.parametrize('path', ['/token', '/login'])
@pytest.mark.parametrize(
    'header',
    [
        None, '', 'Bearer', 'Bearer ', 'Bearer wrong', 'Bearer s3=cret', 'Bearer s3=cret==x',
        'Basic', 'Basic ', 'Basic !', 'Basic s3=cret==', 'Digest username="anna"', 'Bearer a=b',
        'Bearer \xff',
        '\xff', 'Bearer =', basic('anna'), basic('anna:'), basic(':pass:wörd'), basic('anna:wrong'),
        basic('bob:pass:wörd'), basic('\ud7ff:x'), 'Basic ' + 'A' * 5000, 'Basic /zr/',
    ],
)  # fmt: skip
def test_nothing_else_does(client: FlaskClient, path: str, header: str | None) -> None:
    answer = client.get(path, headers={} if header is None else {'Authorization': header})
    assert answer.status_code == 401
    scheme = 'Bearer' if path == '/token' else 'Basic'
    assert answer.headers['WWW-Authenticate'].startswith(f'{scheme} realm="background jobs"')
