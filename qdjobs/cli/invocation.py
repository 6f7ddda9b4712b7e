"""Find how `flask` was called, and write commands that work when they are pasted."""

import shlex
from pathlib import Path

import click
from flask.cli import FlaskGroup, ScriptInfo

FILES = ('wsgi.py', 'app.py')  # in which `flask` looks for an application, in this order


def has_application_file() -> bool:
    """Return whether `flask` looks into a file of this folder unless an application is named."""
    return any(Path(file).exists() for file in FILES)


def command_line(*words: str) -> str:
    """Return a command of `flask jobs`, with the application and the group as they are named now.

    Works from a command of the group, in a shell that is in the same folder and environment.
    """
    context = click.get_current_context()
    root = context.find_root()
    names: list[str] = []
    while context.parent is not None and context.parent is not root:
        context = context.parent
        names.insert(0, str(context.info_name))
    # In a test runner the root is the group of the application, with its name.
    program = str(root.info_name) if isinstance(root.command, FlaskGroup) else 'flask'
    app = context.ensure_object(ScriptInfo).app_import_path
    options = ['--app', app] if app else []
    return f'{program} {shlex.join([*options, *names, *words])}'
