"""Select the jobs that `--all` changes, ask before it, and report what became of each."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

import click

from qdjobs.cli.text import plain, safe_json
from qdjobs.client.ages import Wanted
from qdjobs.client.listing import count_ids, registry_keys, walk_jobs
from qdjobs.client.status import Status
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobNotFoundError

INTERRUPTED = 130  # the exit code of a shell


@dataclass(frozen=True)
class Selection:
    """The jobs that `--all` means: of these statuses, and of a queue, a task and a time if any."""

    statuses: Sequence[str]
    queue: str | None
    task: str | None
    since: datetime | None
    moment: Literal['created_at', 'ended_at']  # what `since` is compared with

    def __iter__(self) -> Iterator[str]:
        """Yield the id of each job, however many there are. They may be changed meanwhile."""
        wanted = Wanted(self.statuses, self._queues, self.task)
        jobs = walk_jobs(self.statuses, self._queues)
        return (job['id'] for job in jobs if wanted.includes(job) and self._is_since(job))

    def limit(self) -> int:
        """Return the number of jobs there may be at most."""
        keys = [key for status in self.statuses for key in registry_keys(status, self._queues)]
        return sum(count_ids(dict.fromkeys(keys)).values())

    @property
    def _queues(self) -> Sequence[str]:
        return get_config().queues if self.queue is None else (self.queue,)

    def _is_since(self, job: Status) -> bool:
        moment = job[self.moment]
        return self.since is None or (moment is not None and moment >= self.since)


def confirm(selection: Selection, what: str, is_sure: bool) -> None:
    """Ask whether to change up to so many jobs. Raises UsageError where nobody can answer."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError('--all asks before it changes anything: without a terminal, --yes.')
    if limit := selection.limit():
        click.confirm(f'Up to {limit:,} jobs will be {what}. Go on?', abort=True, err=True)


def require_ids_or_all(job_ids: Sequence[str], all_: bool, **options: object) -> None:
    """Raise UsageError unless the command names either jobs, or `--all` with its options."""
    if bool(job_ids) == all_:
        raise click.UsageError('Name the jobs by their ids, or pass --all: one of both.')
    given = [f'--{name}' for name, value in options.items() if value]
    if given and not all_:
        raise click.UsageError(f'{", ".join(given)} goes with --all, not with ids.')


@dataclass
class Report:
    """What became of each job: lines as it happens, or one JSON document at the end.

    As a context manager it ends the process, with 1 if any job could not be changed, or 130 after
    Ctrl-C.
    """

    as_json: bool
    is_brief: bool  # only totals, and what could not be changed
    _jobs: list[dict[str, str]] = field(default_factory=list)
    _outcomes: Counter[str] = field(default_factory=Counter)
    _refused: int = 0

    def change(self, job_ids: Iterable[str], change: Callable[[str], tuple[str, str]]) -> None:
        """Change each job. `change` returns an outcome and a line about it."""
        for job_id in job_ids:
            try:
                outcome, line = change(job_id)
            except (InvalidJobError, JobNotFoundError) as error:
                self._add_refused(job_id, str(error))
            else:
                self._add(job_id, outcome, line)

    def _add(self, job_id: str, outcome: str, line: str) -> None:
        self._outcomes[outcome] += 1
        if self.as_json:
            self._jobs.append({'id': job_id, 'outcome': outcome})
        elif not self.is_brief:
            click.echo(plain(line))

    def _add_refused(self, job_id: str, error: str) -> None:
        self._refused += 1
        if self.as_json:
            self._jobs.append({'id': job_id, 'error': error})
        click.echo(f'Error: {plain(error)}', err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Print the totals, also if Redis or the user has ended it early."""
        if kind is None or self._outcomes or self._refused:
            if self.as_json:
                click.echo(safe_json(self._document()))
            elif self.is_brief:
                click.echo(self._totals())
        if kind is KeyboardInterrupt:
            click.echo('Interrupted: the same command goes on with the rest.', err=True)
            sys.exit(INTERRUPTED)
        if kind is None:
            sys.exit(1 if self._refused else 0)

    def _document(self) -> dict[str, Any]:
        return {'outcomes': self._outcomes, 'refused': self._refused, 'jobs': self._jobs}

    def _totals(self) -> str:
        totals = [f'{outcome}: {count:,}' for outcome, count in sorted(self._outcomes.items())]
        if self._refused:
            totals.append(f'could not be changed: {self._refused:,}')
        return ', '.join(totals) or 'There are none.'
