"""Show what many workers and many jobs cost. Run with `make bench`, or `--quick` to see it work.

Times are of a machine that may do other things: compare those of one run.
"""

import time

import click

from benchmarks.growth import costs, jobs, workers


@click.command()
@click.option('--quick', is_flag=True, help='8 workers, 10,000 jobs.')
def main(quick: bool) -> None:
    start = time.monotonic()
    for part in (workers, jobs, costs):
        part.report(quick)
    click.echo(f'\nIt has taken {time.monotonic() - start:.0f} s.')


if __name__ == '__main__':
    main()
