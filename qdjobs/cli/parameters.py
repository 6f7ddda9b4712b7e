"""Options and arguments that several commands share."""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from qdjobs.cli.completion import complete_job, complete_queue, complete_task
from qdjobs.cli.names import find_path
from qdjobs.client.listing import LIKE_STATUSES
from qdjobs.client.options import parse_duration
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError


class StatusChoice(click.Choice):  # type: ignore[type-arg]  # no generic before click 8.2
    """One of some statuses. What clients of other APIs call a status is accepted for it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(LIKE_STATUSES.get(value, value), param, ctx)


def _known_queue(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    queues = get_config().queues
    if name is not None and name not in queues:
        raise click.BadParameter(f'{name!r} is not one of {", ".join(queues)}.')
    return name


def _known_task(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    return None if name is None else find_path(name)


def read_seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Read a duration, such as 10m."""
    try:
        return None if text is None else parse_duration('It', text)
    except InvalidJobError as error:
        raise click.BadParameter(str(error)) from None


def _read_moment(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    """Read a time in ISO 8601, or how long ago it was."""
    if text is None:
        return None
    with contextlib.suppress(InvalidJobError):
        return datetime.now(UTC) - timedelta(seconds=parse_duration('since', text))
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    raise click.BadParameter(
        f'{text!r} is neither a duration, such as 2h, nor a time with its zone, such as '
        '2026-11-01T08:00Z.'
    )


json_option = click.option('--json', 'as_json', is_flag=True, help='Print one JSON document.')
queue_option = click.option(
    '--queue',
    callback=_known_queue,
    shell_complete=complete_queue,
    help='Only jobs of this queue.',
)
task_option = click.option(
    '--task',
    callback=_known_task,
    shell_complete=complete_task,
    help='Only jobs of this task: its dotted path, or a short name.',
)
since_option = click.option('--since', metavar='TIME', callback=_read_moment)
job_argument = click.argument('job_id', metavar='ID', shell_complete=complete_job)
jobs_argument = click.argument('job_ids', metavar='[ID]...', nargs=-1, shell_complete=complete_job)
