"""The application of a test: made once, behind a server, with another Redis."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from flask import Flask
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from qdjobs.config import EXTENSION, environment_config, read_app_config

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_made: dict[object, Flask] = {}


def shared_app(make: Callable[[], Flask]) -> Flask:
    """What `make` makes of the settings of the test, made once for all tests with the same.

    It costs 20 ms, and as much again for its first pages. A test that changes its application, be
    it by a route or in `app.config`, makes one of its own.
    """
    key = (make, *sorted(environment_config().variables.items()))
    if key not in _made:
        _made[key] = make()
    app = _made[key]
    app.extensions[EXTENSION] = read_app_config(app.config)  # should another test have changed it
    return app


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """An application behind a real server, in a thread that shares the settings of the test."""

    def answer(environ: 'WSGIEnvironment', start_response: 'StartResponse') -> Iterable[bytes]:
        # Whole, with its file closed: the server closes nothing if the browser goes away meanwhile.
        return Response.from_app(app, environ, buffered=True)(environ, start_response)

    server = make_server('127.0.0.1', 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.port}/'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_redis(settings: pytest.MonkeyPatch, url: str, app: Flask | None = None) -> None:
    """From now on this test, and its application, use another server, or none."""
    settings.setenv('REDIS_URL', url)
    environment_config.cache_clear()
    if app is not None:  # which has read its configuration
        app.extensions[EXTENSION] = read_app_config(app.config)
