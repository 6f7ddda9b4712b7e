"""Load the Flask application that JOB_APP names. Runs once in each horse."""

from dataclasses import fields

from flask import Flask
from flask.cli import NoAppException, ScriptInfo

from qdjobs.config import EXTENSION, JobConfig


class ApplicationError(Exception):
    """JOB_APP or the schedule cannot be used; the message is one line that says why."""


def load_app(path: str, config: JobConfig) -> Flask:
    """Load the application that `flask --app path` would load.

    `path` is `module`, `module:app`, `module:factory`, `module:factory()` or a file. Raises
    ApplicationError if there is no application, or if its configuration differs from `config`,
    the worker's. Errors of the application's own code are not caught.
    """
    try:
        app = ScriptInfo(app_import_path=path, set_debug_flag=False).load_app()
    except NoAppException as error:
        lines = str(error).strip().splitlines()
        # For a failed import, a traceback follows Flask's first line.
        reason = lines[0] if len(lines) == 1 else f'{lines[0]} {lines[-1]}'
        raise ApplicationError(f'JOB_APP={path!r} cannot be loaded: {reason}') from None
    own = app.extensions.get(EXTENSION, config)
    if own != config:
        names = [each.name for each in fields(own) if each.compare]
        different = [name for name in names if getattr(own, name) != getattr(config, name)]
        raise ApplicationError(
            f'The application {path!r} and the environment of this worker disagree about '
            f'{", ".join(different)}: start the worker with `flask --app {path} jobs worker`, '
            'or set the same values in its environment.'
        )
    return app
