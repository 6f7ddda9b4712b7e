"""Measure what importing every task module costs a process that has imported Flask.

    python -m benchmarks.imports

Each import runs in its own process, with bytecode cached, as in an installed application.
"""

import os
import pkgutil
import subprocess
import sys
import tempfile

import click

import workers

ROUNDS = 15
TIMED = 'import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)'


def import_ms(modules: str, cache: str) -> float:
    """The time of an import in milliseconds, the best of all rounds."""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}
    command = [sys.executable, '-c', TIMED.format(modules)]
    return 1000 * min(
        float(
            subprocess.run(
                command,
                env=environment | {'PYTHONPYCACHEPREFIX': cache},
                capture_output=True,
                check=True,
            ).stdout
        )
        for _ in range(ROUNDS)
    )


def main() -> None:
    tasks = ', '.join(module.name for module in pkgutil.iter_modules(workers.__path__, 'workers.'))
    with tempfile.TemporaryDirectory() as cache:
        flask, both = import_ms('flask', cache), import_ms(f'flask, {tasks}', cache)
    click.echo(f'flask                      {flask:6.1f} ms')
    click.echo(f'flask and all of workers/  {both:6.1f} ms')
    click.echo(f'                         + {both - flask:6.1f} ms')


if __name__ == '__main__':
    main()
