"""The Flask application: settings first, then the components. Opens no socket."""

import click
from flask import Flask, Response

from components.artboard.main import artboard
from components.artboard.page import page
from qdjobs.web.dashboard.views import dashboard
from qdjobs.cli.commands import jobs
from components.task_names import name_tasks
from qdjobs.web.problems import register_problems
from qdjobs.extension import JobQueue
from qdjobs.client.redis import reaching_redis
from qdjobs.config import get_settings


def create_app() -> Flask:
    """A new application. Raises ValueError, naming the variable, for a bad setting."""
    try:
        settings = get_settings()
    except ValueError as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise click.ClickException(str(error)) from None  # which `flask` tells in one line
    app = Flask(__name__)
    app.config['MAX_CONTENT_LENGTH'] = 1024 * 1024
    app.register_blueprint(artboard)
    app.register_blueprint(page)
    if settings.dashboard_login:
        app.register_blueprint(dashboard)
    name_tasks(JobQueue(app, url_prefix='/api/jobs'))
    app.add_url_rule('/healthz', view_func=healthz)
    if settings.metrics_token:
        from qdjobs.web.metrics import make_metrics  # only who uses it waits for its library

        app.add_url_rule('/metrics', view_func=make_metrics(settings.metrics_token))
    app.cli.add_command(jobs)
    register_problems(app)
    return app


def healthz() -> Response:
    """200 if this process reaches Redis, else 503."""
    with reaching_redis() as connection:
        connection.ping()
    return Response('ok\n', mimetype='text/plain')
