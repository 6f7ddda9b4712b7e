"""The table of all peers, in Markdown."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from benchmarks.field.calm import Calm
from benchmarks.field.storm import Storm

HEAD = (
    'worker',
    'empty task',
    'task of 5 ms',
    'slow import',
    'enqueue',
    'memory',
    'start',
    'lost',
    'run twice',
    'runs again after',
)


@dataclass
class Entry:
    """What is known of a peer."""

    title: str
    command: list[str]
    note: str
    rounds: list[Calm] = field(default_factory=list)
    storm: Storm | None = None
    error: str = ''

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Note what does not work, so that the others are measured all the same."""
        try:
            yield
        except (RuntimeError, OSError, AssertionError) as error:
            click.echo(f'{self.title}: {error}', err=True)
            self.error = self.error or str(error).splitlines()[-1]

    def median(self, figure: Callable[[Calm], float]) -> float:
        return statistics.median(figure(calm) for calm in self.rounds)

    def cells(self) -> list[str]:
        cells = ['–'] * 6
        if self.rounds:
            cells = [f'{self.median(lambda c: c.rates["empty"]):,.0f}/s']
            cells += [f'{self.median(lambda c: c.rates["nap"]):,.0f}/s']
            cells += [f'{self.median(lambda c: c.rates["slow"]):,.0f}/s']
            cells += [f'{self.median(lambda c: c.enqueue):,.0f} µs']
            cells += [f'{self.median(lambda c: c.memory):.0f} MB']
            latencies = [taken for calm in self.rounds for taken in calm.latencies]
            cells += [f'{statistics.median(latencies) * 1000:.1f} ms']
        if self.storm is None:
            return [*cells, *['–'] * 3]
        cells += [f'{self.storm.lost} of {self.storm.jobs:,}', str(self.storm.twice)]
        return [*cells, after(self.storm.again)]


def table(entries: list[Entry]) -> Iterator[str]:
    """Its lines, and a footnote for each peer that has one."""
    yield row(HEAD)
    yield row(['---', *['---:'] * (len(HEAD) - 1)])
    notes: list[str] = []
    for entry in entries:
        mark = ''
        if note := '; '.join(filter(None, [entry.note, entry.error])):
            notes.append(f'{entry.title}: {note}.')
            mark = f' [^{len(notes)}]'
        yield row([f'{entry.title}{mark}', *entry.cells()])
    for number, note in enumerate(notes, start=1):
        yield ''
        yield f'[^{number}]: {note}'


def row(cells: 'list[str] | tuple[str, ...]') -> str:
    return f'| {" | ".join(cells)} |'


def after(seconds: list[float]) -> str:
    if not seconds:
        return 'never'
    return f'{statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s'
