"""The command `flask jobs worker-health`."""

import sys
import time
from pathlib import Path

import click

from qdjobs.config import get_config

SILENCE = 60  # seconds; a worker that lives touches its file at least every 40


@click.command('worker-health')
@click.option(
    '--silence',
    type=click.IntRange(min=1),
    default=SILENCE,
    show_default=True,
    help='The seconds without a sign of life after which a worker hangs.',
)
def worker_health(silence: int) -> None:
    """Say whether the worker with this JOB_HEALTH_FILE lives, whatever becomes of Redis.

    It is to run where the worker runs. Probes look at the file itself, which costs less:
    docs/deployment.md. Exit codes: 0 if it lives; 1 if not, or without JOB_HEALTH_FILE; 2 for a
    wrong option.
    """
    file = get_config().health_file
    if file is None:
        raise click.ClickException('JOB_HEALTH_FILE is not set: set it here and for the worker.')
    try:
        seconds = time.time() - Path(file).stat().st_mtime
    except FileNotFoundError:
        raise click.ClickException(
            f'There is no {file}: no worker with this JOB_HEALTH_FILE has started here.'
        ) from None
    except OSError as error:
        raise click.ClickException(f'JOB_HEALTH_FILE cannot be read: {error}.') from None
    click.echo(f'The last sign of life is {max(0, seconds):.0f} s old.')
    sys.exit(1 if seconds > silence else 0)
