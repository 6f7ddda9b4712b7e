"""The command `flask jobs worker`: `rq worker` for the application that `flask` has loaded."""

import os
import sys
from pathlib import Path

import click
from flask.cli import ScriptInfo

from qdjobs.config import VARIABLES, JobConfig, get_config


@click.command(
    add_help_option=False,  # `rq worker` shows the help
    context_settings={'ignore_unknown_options': True},
    short_help='Run a worker for this application.',
)
@click.argument('arguments', nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def worker(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run a JobWorker in this application's context, on its queues unless some are named.

    Accepts the options of `rq worker`. Replaces this process by the worker's, since RQ reads its
    key prefix only at its import.
    """
    from rq.cli.workers import worker as rq_worker

    # Rejects wrong options, shows the help, and parses the names of queues.
    with rq_worker.make_context(context.command_path, list(arguments)) as parsed:
        queues = () if parsed.params['queues'] else get_config().queues
    app = _import_path(context.ensure_object(ScriptInfo).app_import_path)
    command = [sys.executable, '-m', 'rq.cli', 'worker', '--worker-class', 'qdjobs.JobWorker']
    sys.stdout.flush()
    sys.stderr.flush()
    environment = _environment(get_config(), app)
    os.execve(sys.executable, [*command, *arguments, *queues], environment)  # noqa: S606


def _environment(config: JobConfig, app: str) -> dict[str, str]:
    """Return an environment with which a process has the configuration of this application."""
    other = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    own = {'REDIS_URL': config.redis_url, 'RQ_KEY_PREFIX': config.key_prefix, 'JOB_APP': app}
    return other | dict(config.variables) | own


def _import_path(named: str | None) -> str:
    """Return how the worker finds the application: as `flask` has found it."""
    if named or (named := get_config().app):
        return named
    for file in ('wsgi.py', 'app.py'):  # the order of `flask`
        if Path(file).exists():
            return file
    raise click.ClickException('Name the application: flask --app … jobs worker, or set JOB_APP.')
