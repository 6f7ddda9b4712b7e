"""The command `flask jobs outbox`."""

from dataclasses import asdict

import click

from qdjobs.cli.parameters import json_option
from qdjobs.cli.text import align, plain, safe_json
from qdjobs.client.outboxes import Waiting, current_outbox
from qdjobs.errors import InvalidJobError
from qdjobs.monitoring.doctor import show_duration


@click.command()
@click.option('--relay', is_flag=True, help='Make jobs of all rows now, those refused before too.')
@click.option('--create', is_flag=True, help='Create the table, if there is none.')
@json_option
def outbox(relay: bool, create: bool, as_json: bool) -> None:
    """Show what waits in the outbox: rows that are committed, and no jobs yet.

    A refused row is one of which no job can be made; it holds up no others. The JSON document is
    {"queues": [{"name", "waiting", "oldest", "refused"}], "last_error", "relayed"}; relayed is null
    without --relay. Exit codes: 0; 1 if there is no outbox, or its database or Redis is away.
    """
    found = current_outbox()
    if found is None:
        raise InvalidJobError('This application has no outbox: init_job_queue(app, db) makes one.')
    if create:
        found.create_all()
    relayed = found.relay(refused=True) if relay else None
    waiting = found.read_waiting()
    if as_json:
        click.echo(safe_json(asdict(waiting) | {'relayed': relayed}))
    else:
        _print(waiting, relayed)


def _print(waiting: Waiting, relayed: int | None) -> None:
    if relayed is not None:
        click.echo(f'relayed: {relayed}')
    rows = [('QUEUE', 'WAITING', 'OLDEST', 'REFUSED')]
    for queue in waiting.queues:
        oldest = show_duration(queue.oldest) if queue.waiting else ''
        rows.append((queue.name, str(queue.waiting), oldest, str(queue.refused)))
    click.echo('\n'.join(align(rows)) if waiting.queues else 'The outbox is empty.')
    if waiting.last_error is not None:
        click.echo(f'last error: {plain(waiting.last_error)}')
