"""Parcels, with a courier that answers as a test wants."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from flask import Flask
from qdjobs import enqueue_background_job, get_job_status
from qdjobs.testing import run_jobs

BOOK = 'shop.tasks.parcels.book_parcel'
SEND = 'shop.tasks.receipts.send_receipt'


@pytest.fixture
def answers(app: Flask) -> Iterator[list[int]]:
    """The codes of the courier's next answers."""
    codes: list[int] = []

    class Courier(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['order']
            self.send_response(codes.pop(0))
            self.end_headers()
            self.wfile.write(json.dumps({'parcel': f'parcel of {order}'}).encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(('127.0.0.1', 0), Courier) as server:
        app.config['COURIER_URL'] = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield codes
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures('eager_jobs')
def test_a_booking_is_tried_again(app: Flask, answers: list[int]) -> None:
    answers += [503, 503, 201]
    with app.app_context():
        job = enqueue_background_job(BOOK, order=1, job_max_retries=2, job_retry_delay='1m')
        status = get_job_status(job.id)
    assert status['result'] == 'parcel of 1'
    assert len(status['attempts']) == 2


@pytest.mark.usefixtures('eager_jobs')
def test_a_refused_booking_is_not(app: Flask, answers: list[int]) -> None:
    answers += [422]
    with app.app_context():
        job = enqueue_background_job(BOOK, order=1, job_max_retries=2)
        assert 'The courier refuses order 1' in (get_job_status(job.id)['error'] or '')


@pytest.mark.usefixtures('embedded_redis')
def test_a_receipt_follows_the_parcel(app: Flask, answers: list[int]) -> None:
    answers += [201]
    with app.app_context():
        parcel = enqueue_background_job(BOOK, order=1)
        receipt = enqueue_background_job(SEND, order=1, job_after=parcel)
        assert get_job_status(receipt.id)['status'] == 'deferred'
        assert [job['id'] for job in run_jobs()] == [parcel.id, receipt.id]
