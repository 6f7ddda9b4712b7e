"""A shop for pens and ink: a login, products and orders."""

from collections.abc import Mapping
from typing import Any

from flask import Flask, render_template
from qdjobs import JobQueue
from werkzeug.exceptions import NotFound

from libraries.money import euros
from shop import account, orders
from shop.models import db, setup


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the shop. It reads the environment's FLASK_ variables; `config` goes before them."""
    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI='sqlite:///shop.sqlite',  # in the folder instance/
        SESSION_COOKIE_SAMESITE='Lax',
        COURIER_URL='http://127.0.0.1:8005/parcels',
        JOB_TASK_MODULES='shop.tasks',
        JOB_KEY_PREFIX='shop',
        JOB_QUEUES=['receipts', 'default'],
    )
    app.config.from_prefixed_env()
    app.config.from_mapping(config or {})
    db.init_app(app)
    app.register_blueprint(account.pages)
    app.register_blueprint(orders.pages)
    app.register_error_handler(NotFound, show_not_found)
    app.add_template_filter(euros)
    app.cli.add_command(setup)
    JobQueue(app)
    return app


def show_not_found(error: NotFound) -> tuple[str, int]:
    return render_template('404.html'), 404
