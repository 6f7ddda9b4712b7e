"""A server that receives what the SDK of Sentry sends, and an application that uses the SDK."""

import gzip
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import sentry_sdk
from flask import Flask
from sentry_sdk.envelope import Envelope

from qdjobs import JobQueue, PermanentJobError, enqueue_background_job
from qdjobs.integrations.sentry import init_sentry
from tests.support.hooked import act

SELL = 'tests.support.sentry.sell'

queue = JobQueue()


def create_app() -> Flask:
    # The address is in SENTRY_DSN. Integrations that enable themselves are those of Flask, RQ …
    enabling = 'AUTO_ENABLING_OFF' not in os.environ
    sentry_sdk.init(traces_sample_rate=1.0, auto_enabling_integrations=enabling)
    app = Flask('shop')
    queue.init_app(app)
    for _ in range(2):  # as if this function had run twice
        init_sentry(queue, report_retried='REPORT_RETRIED' in os.environ)
    app.add_url_rule('/sell', view_func=lambda: enqueue_background_job(SELL).id)
    return app


def sell(what: str = '') -> None:
    sentry_sdk.set_tag('sold', what)
    if what == 'nothing':
        raise PermanentJobError('there is none left')
    if what == 'itself':
        try:
            raise ValueError('it failed')
        except ValueError as error:
            sentry_sdk.capture_exception(error)
            raise
    act(what)


class Received:
    """What has arrived at the server, in order."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        return [item for item in self.items if item.get('type') != 'transaction']

    @property
    def transactions(self) -> list[dict[str, Any]]:
        return [item for item in self.items if item.get('type') == 'transaction']


@contextmanager
def receiving() -> Iterator[tuple[str, Received]]:
    """The DSN of a server, and what it has received."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers['Content-Length']))
            if self.headers['Content-Encoding'] == 'gzip':
                body = gzip.decompress(body)
            for item in Envelope.deserialize(body).items:
                if item.type in ('event', 'transaction'):
                    received.items.append(item.payload.json or {})
            self.send_response(200)
            self.send_header('Content-Length', '0')
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://key@127.0.0.1:{server.server_port}/1', received
        server.shutdown()
