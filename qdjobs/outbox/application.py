"""The outbox of a Flask application."""

from typing import Any

from flask import Flask

from qdjobs.config import read_app_config
from qdjobs.errors import short_repr
from qdjobs.outbox.outbox import FindName, JobOutbox


def make_outbox(app: Flask, db: Any, find: FindName) -> JobOutbox:
    """Return the outbox of an application: `db` itself, or one in the database of Flask-SQLAlchemy.

    Raises TypeError or RuntimeError for a `db` that has none, or is of another application.
    """
    if isinstance(db, JobOutbox):
        _require_same(db.app, app)
        db.app, db.find = app, find
        return db
    # Of its class: an engine is there in the context of an application only.
    if not all(hasattr(type(db), name) for name in ('engine', 'metadata', 'init_app')):
        raise TypeError(
            'db must be the SQLAlchemy of Flask-SQLAlchemy, or a JobOutbox(engine), not '
            f'{short_repr(db)}.'
        )
    if 'sqlalchemy' not in app.extensions:
        raise RuntimeError('Call db.init_app(app) before init_job_queue(app, db).')
    with app.app_context():
        if None not in db.engines:
            raise RuntimeError(
                'An outbox is in the database of SQLALCHEMY_DATABASE_URI, and the application has '
                'only SQLALCHEMY_BINDS: set that, or pass JobOutbox(engine, metadata) as db.'
            )
        return JobOutbox(db.engine, db.metadata, app=app, find=find)


def _require_same(first: Flask | None, app: Flask) -> None:
    """Raise RuntimeError if an outbox is of another application already.

    Another one of the same factory may take its place, as in tests.
    """
    if first is None:
        return
    is_same = first.import_name == app.import_name
    if not is_same or read_app_config(first.config) != read_app_config(app.config):
        raise RuntimeError(
            f'This JobOutbox is that of the application {first.name!r}, whose Redis, queues and '
            f'tasks are those of its jobs: make another JobOutbox(engine) for {app.name!r}.'
        )
