"""Create the Flask application. Importing this module opens no connection."""

from flask import Flask, Response

from components.artboard.main import artboard
from components.artboard.page import page
from components.file_check import check_files
from components.task_names import name_tasks
from libraries.files import read_file_settings
from libraries.mail.settings import read_mail_settings
from qdjobs import JobQueue
from qdjobs.client.redis import redis_connection
from qdjobs.extension import shown_by_flask
from qdjobs.web import register_problems


def create_app() -> Flask:
    """Create an application. Raises ValueError, naming the variable, for an invalid setting."""
    app = Flask(__name__)
    app.config['MAX_CONTENT_LENGTH'] = 1024 * 1024
    with shown_by_flask():
        read_mail_settings()  # here, and not only when a mail is due
        read_file_settings()
    app.register_blueprint(artboard)
    app.register_blueprint(page)
    queue = JobQueue(app)
    name_tasks(queue)
    check_files(queue)
    app.add_url_rule('/healthz', view_func=healthz)
    register_problems(app)
    return app


def healthz() -> Response:
    """Answer 200 if this process reaches Redis, else 503."""
    with redis_connection() as connection:
        connection.ping()
    return Response('ok\n', mimetype='text/plain')
