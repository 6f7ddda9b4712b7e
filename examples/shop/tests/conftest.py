"""A shop of its own for each test, with a customer and an order."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash

from shop import create_app
from shop.models import Customer, Order, Product, db


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Flask]:
    # As variables, so that commands which a test runs use the same database.
    monkeypatch.setenv('FLASK_SQLALCHEMY_DATABASE_URI', f'sqlite:///{tmp_path}/shop.sqlite')
    monkeypatch.setenv('FLASK_SECRET_KEY', 'of a test')
    app = create_app({'TESTING': True})
    with app.app_context():
        db.create_all()
        db.session.add(Customer(id=1, name='zoe', password=generate_password_hash('secret')))
        db.session.add(Product(id=1, name='Pen', cents=1250))
        db.session.add(Order(id=1, customer_id=1, product_id=1, quantity=3))
        db.session.commit()
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def customer(client: FlaskClient) -> FlaskClient:
    """The client, logged in."""
    client.post('/login', data={'name': 'zoe', 'password': 'secret'})
    return client
