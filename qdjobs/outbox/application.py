"""The outbox of a Flask application."""

from typing import Any

from flask import Flask

from qdjobs.errors import short_repr
from qdjobs.outbox.outbox import FindName, JobOutbox


def make_outbox(app: Flask, db: Any, find: FindName) -> JobOutbox:
    """Return the outbox of an application: `db` itself, or one in the database of Flask-SQLAlchemy.

    Raises TypeError or RuntimeError for a `db` that has none.
    """
    if isinstance(db, JobOutbox):
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
        return JobOutbox(db.engine, db.metadata, app=app, find=find)
