"""The group `flask jobs`: enqueue, inspect and control jobs and workers, check the set-up."""

from typing import Any

import click
from flask.cli import with_appcontext

from qdjobs.cli.changing import cancel, delete, enqueue, pause, resume, retry
from qdjobs.cli.doctor import doctor
from qdjobs.cli.health import worker_health
from qdjobs.cli.outbox import outbox
from qdjobs.cli.reading import list_, show, status, tasks, wait, workers
from qdjobs.cli.schedule import schedule
from qdjobs.cli.text import plain
from qdjobs.cli.worker import worker
from qdjobs.errors import JobError


class _Jobs(click.Group):
    """Prints every JobError in one line, and exits with code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JobError as error:
            raise click.ClickException(plain(error)) from error


@click.group(cls=_Jobs)
@with_appcontext
def jobs() -> None:
    """Enqueue, inspect and control jobs and workers, and check the set-up.

    Exit codes: 0 if all went well; 1 after an error, which is one line on stderr; 2 for a wrong
    option or argument. Further ones are in the help of a command.
    """


for _command in (
    enqueue, list_, show, status, wait, cancel, delete, retry, tasks, schedule, outbox, worker,
    worker_health, workers, pause, resume, doctor,
):  # fmt: skip
    jobs.add_command(_command)
