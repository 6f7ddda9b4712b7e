"""The command `flask jobs schedule`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from qdjobs.cli.parameters import json_option
from qdjobs.cli.text import align, plain, safe_json
from qdjobs.client.catalogue import read_task_modules
from qdjobs.client.status import read_statuses
from qdjobs.client.tasks import is_own_task
from qdjobs.monitoring.doctor import list_names, show_duration
from qdjobs.monitoring.health import SILENCE
from qdjobs.schedule.entries import Periodic, Refused, plan, read_schedule
from qdjobs.schedule.state import State, read_states_of


@dataclass(frozen=True)
class _Row:
    """A periodic job at one time of Redis."""

    name: str
    entry: Periodic
    state: State
    status: str | None  # of the last job
    now: float

    @property
    def next(self) -> datetime:
        return datetime.fromtimestamp(self.entry.rule.following(self.now), self.entry.rule.zone)

    @property
    def wait(self) -> float:
        return self.next.timestamp() - self.now

    @property
    def is_built_in(self) -> bool:
        return is_own_task(self.entry.path)

    @property
    def is_served(self) -> bool:
        return self.now - (self.state.served_at or 0.0) <= SILENCE


@click.command()
@json_option
def schedule(as_json: bool) -> None:
    """List what is periodic: its rule, the next run, and the last job with its status.

    Exit codes: 0, also if no worker enqueues it, which stderr says; 1 if the schedule is wrong, or
    after another error.
    """
    unread = [module.error for module in read_task_modules() if module.error]
    entries = read_schedule()  # some are declared in modules that workers import first
    refused = [each.error for each in plan(entries) if isinstance(each, Refused)]
    rows = _read(entries)
    if as_json:
        click.echo(safe_json({'schedule': [_document(row) for row in rows]}))
    else:
        header = ('NAME', 'RULE', 'NEXT', 'LAST', 'SKIPPED', 'TASK')
        click.echo('\n'.join(align([header, *map(_line, rows)])) if rows else 'There is none.')
    for error in [*unread, *refused]:
        click.echo(plain(error), err=True)
    if unserved := [row.name for row in rows if not row.is_served]:
        click.echo(f'No living worker enqueues {list_names(unserved)}.', err=True)


def _read(entries: Mapping[str, Periodic]) -> list[_Row]:
    if not entries:
        return []
    now, states = read_states_of(entries)
    jobs = [state.job_id for state in states if state.job_id]
    statuses = dict(zip(jobs, read_statuses(jobs, results=False) if jobs else [], strict=True))
    return [
        _Row(name, entry, state, _status_of(state, statuses), now)
        for (name, entry), state in zip(entries.items(), states, strict=True)
    ]


def _status_of(state: State, statuses: Mapping[str, Any]) -> str | None:
    if state.job_id is None:
        return None
    status = statuses[state.job_id]
    return status['status'] if status is not None else 'expired'


def _shown_status(row: _Row) -> str | None:
    """Return the status of the last job; of a job of qdjobs itself nothing is kept."""
    return 'ended' if row.is_built_in and row.status == 'expired' else row.status


def _line(row: _Row) -> Sequence[str]:
    last = f'{row.state.job_id} {_shown_status(row)}' if row.state.job_id else '-'
    due = f'{row.next:%Y-%m-%d %H:%M:%S %Z}, in {show_duration(row.wait)}'
    rule, path = str(row.entry.rule), row.entry.path
    if row.is_built_in:  # it has skipped a tick whenever a run of it was long
        return row.name, rule, due, last, '-', f'{path} (built in)'
    return row.name, rule, due, last, str(row.state.skipped), path


def _document(row: _Row) -> dict[str, Any]:
    tick = row.state.tick
    return {
        'name': row.name,
        'task': row.entry.path,
        'rule': str(row.entry.rule),
        'overlap': row.entry.overlap,
        'next': row.next,
        'seconds_until_next': round(row.wait, 1),
        'last_tick': None if tick is None else datetime.fromtimestamp(tick, UTC),
        'last_job': row.state.job_id,
        'last_status': row.status,
        'skipped': row.state.skipped,
        'served': row.is_served,
    }
