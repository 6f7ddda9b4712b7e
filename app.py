"""The Flask application: settings first, then the components. Opens no socket."""

from flask import Flask, Response

from components.artboard.main import artboard
from components.artboard.page import page
from components.problems import register_problems
from libraries.job_store import reaching_redis
from libraries.settings import get_settings


def create_app() -> Flask:
    """A new application. Raises ValueError, naming the variable, for a bad setting."""
    get_settings()
    app = Flask(__name__)
    app.config['MAX_CONTENT_LENGTH'] = 1024 * 1024
    app.register_blueprint(artboard)
    app.register_blueprint(page)
    app.add_url_rule('/healthz', view_func=healthz)
    register_problems(app)
    return app


def healthz() -> Response:
    """200 if this process reaches Redis, else 503."""
    with reaching_redis() as connection:
        connection.ping()
    return Response('ok\n', mimetype='text/plain')
