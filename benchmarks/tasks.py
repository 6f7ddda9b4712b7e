"""Compare process_file with hand-written conversions.

    python -m benchmarks.tasks          # CSV → JSON: csv + json, pandas
    python -m benchmarks.tasks --big    # 1 GB in each direction, with peak memory
    python -m benchmarks.tasks --other ../before    # this and another checkout, each direction

Each side runs in its own process, to measure its peak memory. The time is that of the whole call,
including the import of the engine, which a worker's first job pays for.
"""

import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

HEADER = ['id', 'name', 'key', 'number', 'date', 'note', 'city', 'maybe', 'big', 'last']
WAYS = [
    ('csv', 'json'),
    ('csv', 'ndjson'),
    ('csv', 'parquet'),
    ('ndjson', 'csv'),
    ('json', 'csv'),
    ('parquet', 'csv'),
]


def process_file(source: Path, format: str) -> None:
    from workers.data_tasks import process_file

    process_file(str(source), format)  # type: ignore[arg-type]


def csv_and_json(source: Path, format: str) -> None:
    """The usual conversion, but row by row, so that it needs little memory."""
    with source.open(newline='') as file, source.with_suffix('.out').open('w') as output:
        output.write('[')
        for number, row in enumerate(csv.DictReader(file)):
            output.write(',\n' if number else '\n')
            output.write(json.dumps(row))
        output.write('\n]\n')


def pandas_text(source: Path, format: str) -> None:
    import pandas

    frame = pandas.read_csv(source, dtype=str, keep_default_na=False)
    frame.to_json(source.with_suffix('.out'), orient='records')


def pandas_defaults(source: Path, format: str) -> None:
    import pandas

    pandas.read_csv(source).to_json(source.with_suffix('.out'), orient='records')


SIDES: dict[str, Callable[[Path, str], None]] = {
    'process_file': process_file,
    'csv + json': csv_and_json,
    'pandas, all text': pandas_text,
    'pandas, as it comes': pandas_defaults,
}


def write_csv(path: Path, megabytes: int) -> None:
    """Write ten columns; every 5th row has a quoted field, every 50th a line end in a field."""
    source = random.Random(1)
    part = path.with_suffix('.part')
    with part.open('w', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows(
            [
                f'{number:07}',
                f'name {source.randrange(10**6)}',
                f'x{source.getrandbits(40):x}',
                f'{source.random():.6f}',
                f'2024-{source.randrange(1, 13):02}-{source.randrange(1, 29):02}',
                'a, quoted "text"' if number % 5 == 0 else 'plain text here',
                'Zürich' if number % 7 == 0 else 'Berlin',
                '' if number % 3 else 'NA',
                source.randrange(10**9),
                'line\nbreak' if number % 50 == 0 else 'end of the row',
            ]
            for number in range(20_000)
        )
    rows = part.read_bytes()
    part.unlink()
    with path.open('wb') as output:
        output.write(','.join(HEADER).encode() + b'\n')
        for _ in range(megabytes * 1_000_000 // len(rows) + 1):
            output.write(rows)


def measure_side(side: str, source: Path, format: str) -> dict[str, float]:
    """Wall seconds, processor seconds and peak megabytes of one call."""
    started = time.perf_counter()
    SIDES[side](source, format)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    child = resource.getrusage(resource.RUSAGE_CHILDREN)  # reads Parquet
    # Bytes on macOS, kilobytes elsewhere.
    peak = max(used.ru_maxrss, child.ru_maxrss) / (1e6 if sys.platform == 'darwin' else 1e3)
    return {'seconds': seconds, 'cpu': sum([*used[:2], *child[:2]]), 'peak': peak}


def in_own_process(
    side: str, source: Path, format: str, checkout: Path | None = None
) -> dict[str, float]:
    command = [sys.executable, '-m', 'benchmarks.tasks', '--side', side]
    command += ['--source', str(source), '--format', format]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, cwd=checkout)
    result: dict[str, float] = json.loads(finished.stdout)
    return result


def compare(folder: Path, megabytes: int, rounds: int) -> None:
    source = folder / 'table.csv'
    write_csv(source, megabytes)
    click.echo(f'CSV → JSON, {source.stat().st_size / 1e6:.0f} MB, the best of {rounds}\n')
    click.echo(f'{"":22}{"seconds":>9}{"times":>8}{"cpu s":>8}{"peak MB":>9}')
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):  # the sides take turns, against load from other processes
        for side in SIDES:
            taken[side].append(in_own_process(side, source, 'json'))
    ours = min(one['seconds'] for one in taken['process_file'])
    for side, results in taken.items():
        seconds, cpu, peak = (
            min(one[key] for one in results) for key in ('seconds', 'cpu', 'peak')
        )
        click.echo(f'{side:22}{seconds:9.2f}{seconds / ours:8.1f}{cpu:8.1f}{peak:9.0f}')


def each_way(folder: Path, megabytes: int) -> Iterator[tuple[str, Path, str]]:
    """Each conversion of a new table: its name, its source and the wanted format."""
    table = folder / 'big.csv'
    write_csv(table, megabytes)
    for given, wanted in WAYS:
        source = table if given == 'csv' else folder / f'converted/big.csv.{given}'
        yield f'{given} → {wanted}', source, wanted


def measure_big(folder: Path, megabytes: int) -> None:
    click.echo(f'\n{"":22}{"MB in":>9}{"seconds":>9}{"peak MB":>9}')
    for way, source, wanted in each_way(folder, megabytes):
        result = in_own_process('process_file', source, wanted)
        size = source.stat().st_size / 1e6
        click.echo(f'{way:22}{size:9.0f}{result["seconds"]:9.1f}{result["peak"]:9.0f}')


def compare_versions(folder: Path, megabytes: int, other: Path) -> None:
    """Both versions in turns, so that load from other processes meets both."""
    click.echo(f'{"":22}{"seconds":>9}{"other":>9}{"cpu s":>9}{"other":>9}{"peak MB":>9}')
    for way, source, wanted in each_way(folder, megabytes):
        ours = in_own_process('process_file', source, wanted)
        theirs = in_own_process('process_file', source, wanted, other)
        click.echo(
            f'{way:22}{ours["seconds"]:9.1f}{theirs["seconds"]:9.1f}'
            f'{ours["cpu"]:9.1f}{theirs["cpu"]:9.1f}{ours["peak"]:9.0f}'
        )


@click.command()
@click.option('--megabytes', default=100, show_default=True, type=click.IntRange(1))
@click.option('--rounds', default=3, show_default=True, type=click.IntRange(1))
@click.option('--big', is_flag=True, help='Convert 1 GB in each direction instead; measure memory.')
@click.option('--other', type=click.Path(path_type=Path, exists=True), help='Another checkout.')
@click.option('--side', type=click.Choice(list(SIDES)), hidden=True)
@click.option('--source', type=click.Path(path_type=Path), hidden=True)
@click.option('--format', default='json', hidden=True)
def main(
    megabytes: int,
    rounds: int,
    big: bool,
    other: Path | None,
    side: str | None,
    source: Path | None,
    format: str,
) -> None:
    """Compare how long a table's conversion takes."""
    if side and source:
        click.echo(json.dumps(measure_side(side, source, format)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ['UPLOAD_DIR'] = os.environ['OUTPUT_DIR'] = folder
        if other:
            compare_versions(Path(folder), megabytes, other.resolve())
        elif big:
            measure_big(Path(folder), megabytes * 10)
        else:
            compare(Path(folder), megabytes, rounds)


if __name__ == '__main__':
    main()
