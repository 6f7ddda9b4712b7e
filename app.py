"""Create the Flask application. Importing this module opens no connection."""

from flask import Flask

from components.artboard.limits import read_urgent
from components.artboard.main import artboard
from components.artboard.page import page
from components.file_check import CHECK_QUEUE, find_faults
from components.task_names import name_tasks
from libraries.files import read_file_settings
from libraries.limits import read_limits
from libraries.mail.settings import read_mail_settings
from qdjobs import JobQueue
from qdjobs.extension import shown_by_flask
from qdjobs.web import health, register_problems


def create_app() -> Flask:
    """Create an application. Raises ValueError, naming the variable, for an invalid setting."""
    app = Flask(__name__)
    app.config['MAX_CONTENT_LENGTH'] = 1024 * 1024
    with shown_by_flask():
        read_mail_settings()  # here, and not only when a mail is due
        read_file_settings()
        read_limits()
        read_urgent()
    app.register_blueprint(artboard)
    app.register_blueprint(page)
    app.register_blueprint(health)
    queue = JobQueue(app)
    name_tasks(queue)
    queue.doctor_check(queue=CHECK_QUEUE)(find_faults)
    register_problems(app)
    return app
