"""Receipts, without a worker."""

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from qdjobs import enqueue_background_job
from qdjobs.testing import RecordedJobs, run_jobs

from shop.tasks.receipts import send_receipt

SEND = 'shop.tasks.receipts.send_receipt'
RECEIPT = 'Order 1 for zoe: 3 x Pen, 37.50 €. Thank you!'


def test_a_click_enqueues_a_receipt(customer: FlaskClient, recorded_jobs: RecordedJobs) -> None:
    answer = customer.post('/orders/1/receipt')
    assert answer.status_code == 202
    recorded_jobs.assert_enqueued(SEND, order=1, job_id='receipt-1')
    assert customer.get(answer.location).json == {'status': 'queued', 'receipt': None}


@pytest.mark.usefixtures('eager_jobs')
def test_a_customer_gets_a_receipt(customer: FlaskClient) -> None:
    answer = customer.post('/orders/1/receipt')
    assert customer.get(answer.location).json == {'status': 'finished', 'receipt': RECEIPT}


def test_a_receipt_is_written_once(app: Flask) -> None:
    with app.app_context():
        assert send_receipt(order=1) == RECEIPT
        assert send_receipt(order=1) == RECEIPT


@pytest.mark.usefixtures('embedded_redis')
def test_a_receipt_can_be_sent_tomorrow(app: Flask) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=1)
    with app.app_context():
        enqueue_background_job(SEND, order=1, job_delay='1d')
        assert run_jobs() == []
        assert [job['result'] for job in run_jobs(now=tomorrow)] == [RECEIPT]
