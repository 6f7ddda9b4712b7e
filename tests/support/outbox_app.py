"""An application with an outbox in the database that DATABASE_URL names."""

import os

from flask import Flask
from sqlalchemy import create_engine

from qdjobs import init_job_queue
from qdjobs.outbox import JobOutbox


def create_app() -> Flask:
    app = Flask('with_an_outbox')
    init_job_queue(app, JobOutbox(create_engine(os.environ['DATABASE_URL'])))
    return app
