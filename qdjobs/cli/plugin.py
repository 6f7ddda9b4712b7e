"""The command `jobs` of every `flask` where the package is installed: an entry point.

`flask` prefers it to the commands of an application, so it passes on to the one that is there.
Where there is no application it says so.
"""

import logging
import os
import traceback
from pathlib import Path
from typing import Any

import click
from flask import current_app
from flask.cli import NoAppException, ScriptInfo

from qdjobs.cli.invocation import has_application_file
from qdjobs.errors import JobError

log = logging.getLogger(__name__)


class _OfApplication(click.Command):
    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of the application's command, which then runs instead of this one."""
        try:
            command = self._find(parent)
        except click.ClickException:
            if extra.get('resilient_parsing'):  # a shell asks for completions: there are none
                return super().make_context(info_name, [], parent, **extra)
            raise
        return command.make_context(info_name, args, parent, **extra)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return what the listing of commands says about the application's command."""
        try:
            command = self._find(click.get_current_context())
        except Exception:  # `flask` has said in the same listing what is wrong with the application
            log.debug('No application for the help of this command', exc_info=True)
            return super().get_short_help_str(limit)
        return command.get_short_help_str(limit)

    def _find(self, parent: click.Context | None) -> click.Command:
        if parent is None:
            raise click.ClickException('This is a command of flask: run flask jobs.')
        info = parent.ensure_object(ScriptInfo)
        if info.create_app is None and info.app_import_path is None and not has_application_file():
            named = os.environ.get('JOB_APP') or 'MODULE'
            raise click.ClickException(
                "There is no application here. Change into your project's folder, or name the "
                f'application: flask --app {named} jobs …'
            )
        try:
            app = info.load_app()
        except NoAppException as error:
            raise click.ClickException(error.format_message()) from error
        except JobError as error:  # such as that of a task's declaration
            raise click.ClickException(f'{error} ({_origin(error)})') from error
        command = app.cli.get_command(parent, str(self.name))
        if command is None:
            raise click.ClickException(
                f'The application {app.name!r} has no background jobs: it needs a JobQueue(app).'
            )
        if not current_app:  # as `flask` does for a command that it finds itself
            parent.with_resource(app.app_context())
        return command


def _origin(error: BaseException) -> str:
    """Return the last line outside of this package that has led to an error."""
    own = f'{Path(__file__).parents[1]}{os.sep}'
    lines = traceback.extract_tb(error.__traceback__)
    frame = [line for line in lines if not line.filename.startswith(own)][-1]
    return f'{frame.filename}, line {frame.lineno}'


jobs = _OfApplication('jobs', short_help='Enqueue, inspect and control background jobs.')
