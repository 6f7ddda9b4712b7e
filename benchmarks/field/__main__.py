"""Run JobWorker and its peers in turn: `make bench-field`, `python -m benchmarks.field --help`."""

import json
import platform
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.field.calm import measure
from benchmarks.field.report import Entry, table
from benchmarks.field.stage import PEERS, stage
from benchmarks.field.storm import weather


@click.command()
@click.option('--only', default=','.join(PEERS), help='Peers, separated by commas.')
@click.option('--rounds', default=3, show_default=True, help='Take medians of so many, in turns.')
@click.option('--kills', default=20, show_default=True, help='Kill so often; 0 for no storm.')
@click.option('--quick', is_flag=True, help='Small counts: shows that it works, measures nothing.')
@click.option('--json', 'file', type=click.Path(dir_okay=False, path_type=Path))
def main(only: str, rounds: int, kills: int, quick: bool, file: Path | None) -> None:
    """Measure workers of one process that run one job at a time; write a table in Markdown."""
    peers = only.split(',')
    if unknown := set(peers) - set(PEERS):
        raise click.BadParameter(f'{", ".join(sorted(unknown))}: not among {", ".join(PEERS)}')
    jobs, seconds, latencies, calm = (100, 3.0, 5, 15.0) if quick else (4000, 5.0, 20, 120.0)
    if quick:
        rounds, kills = 1, min(kills, 4)
    entries = {}
    for peer in peers:
        with stage(peer) as it:
            entries[peer] = Entry(**it.about)
    for number in range(rounds):
        for peer, entry in entries.items():
            with entry.failures():
                click.echo(f'round {number + 1}: {peer}', err=True)
                entry.rounds.append(measure(peer, jobs, seconds, latencies))
    for peer, entry in entries.items():
        with entry.failures():
            if kills:
                click.echo(f'storm: {peer}', err=True)
                entry.storm = weather(peer, kills, calm)
    click.echo('\n'.join(table(list(entries.values()))))
    if file:
        results = {'python': platform.python_version(), 'calm seconds': calm}
        results['peers'] = {peer: asdict(entry) for peer, entry in entries.items()}
        file.write_text(json.dumps(results, indent=2, ensure_ascii=False) + '\n')


if __name__ == '__main__':
    main()
