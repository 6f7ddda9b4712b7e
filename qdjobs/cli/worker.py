"""The command `flask jobs worker`: `rq worker` for the application that `flask` has loaded."""

import os
import sys
from pathlib import Path

import click
from flask.cli import ScriptInfo

from qdjobs.cli.invocation import FILES
from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.config import ONLY_REDIS, VARIABLES, WEB_SECRETS, JobConfig, get_config
from qdjobs.sentinel import show_address


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
        named = parsed.params['queues']
    config = get_config()
    if unknown := [name for name in named if name not in config.queues]:
        raise click.UsageError(
            f'{unknown[0]!r} is no queue of this application: there are {", ".join(config.queues)}.'
        )
    if only := os.environ.pop(ONLY_REDIS, None):
        _require_redis(config, only)
    with redis_connection() as connection:
        connection.exists(redis_key('workers', 'x'))  # or it says here what to do
    app = _import_path(context.ensure_object(ScriptInfo).app_import_path)
    command = [sys.executable, '-m', 'rq.cli', 'worker', '--worker-class', 'qdjobs.JobWorker']
    sys.stdout.flush()
    sys.stderr.flush()
    queues = () if named else config.queues
    environment = _environment(config, app)
    os.execve(sys.executable, [*command, *arguments, *queues], environment)  # noqa: S606


def _environment(config: JobConfig, app: str) -> dict[str, str]:
    """Return an environment with which a process has the configuration of this application."""
    names = [name for name in VARIABLES if name not in WEB_SECRETS]
    other = {name: value for name, value in os.environ.items() if name not in names}
    mine = {name: config.variables[name] for name in names if name in config.variables}
    own = {
        'REDIS_URL': config.redis_url,
        'RQ_CONNECTION_CLASS': 'qdjobs.JobRedis',
        'RQ_KEY_PREFIX': config.key_prefix,
        'JOB_APP': app,
    }
    return other | mine | own


def _require_redis(config: JobConfig, url: str) -> None:
    """Raise ClickException if the application has another server than the one that it is to use."""
    own, wanted = show_address(config.redis_url), show_address(url)
    if own.replace('localhost:', '127.0.0.1:') != wanted:
        raise click.ClickException(
            f'app.config has the application use the Redis at {own}, not the Valkey at {wanted}: '
            'take REDIS_URL out of app.config, or start only a worker: flask --app … jobs worker'
        )


def _import_path(named: str | None) -> str:
    """Return how the worker finds the application: as `flask` has found it."""
    if named or (named := get_config().app):
        return named
    for file in FILES:
        if Path(file).exists():
            return file
    raise click.ClickException('Name the application: flask --app … jobs worker, or set JOB_APP.')
