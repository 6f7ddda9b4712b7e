"""Receipts, with a real Valkey and a real worker."""

import subprocess
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from qdjobs.server import embedded_redis

from shop.tasks.receipts import send_receipt

RECEIPT = 'Order 1 for zoe: 3 x Pen, 37.50 €. Thank you!'


@pytest.fixture(autouse=True)
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Valkey of the test's own. The shop and the worker read the variable."""
    with embedded_redis() as url:
        monkeypatch.setenv('REDIS_URL', url)
        yield


def test_a_customer_gets_a_receipt(customer: FlaskClient) -> None:
    answer = customer.post('/orders/1/receipt')
    assert answer.status_code == 202
    assert customer.get(answer.location).json == {'status': 'queued', 'receipt': None}
    subprocess.run(['flask', '--app', 'shop', 'jobs', 'worker', '--burst'], check=True)
    assert customer.get(answer.location).json == {'status': 'finished', 'receipt': RECEIPT}


def test_a_receipt_is_written_once(app: Flask) -> None:
    with app.app_context():
        assert send_receipt(order=1) == RECEIPT
        assert send_receipt(order=1) == RECEIPT
