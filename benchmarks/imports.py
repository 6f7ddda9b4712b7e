"""Measure what importing qdjobs and every task module costs a process that has Flask and RQ.

    python -m benchmarks.imports

qdjobs imports Flask and RQ, so an application pays for those two in any case. Each import runs in
its own process, with bytecode cached, as in an installed application. Times are processor times, on
which a busy machine has the least influence.
"""

import os
import pkgutil
import subprocess
import sys
import tempfile

import click

import workers

ROUNDS = 15
TIMED = 'import time; began = time.process_time(); import {}; print(time.process_time() - began)'


def import_ms(modules: str, cache: str) -> float:
    """The processor time of an import in a new process, in milliseconds."""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}
    command = [sys.executable, '-c', TIMED.format(modules)]
    done = subprocess.run(
        command, env=environment | {'PYTHONPYCACHEPREFIX': cache}, capture_output=True, check=True
    )
    return 1000 * float(done.stdout)


def main() -> None:
    tasks = ', '.join(module.name for module in pkgutil.iter_modules(workers.__path__, 'workers.'))
    steps = {
        'flask': 'flask',
        'flask, rq': 'flask, rq',
        'flask, rq, qdjobs': 'flask, rq, qdjobs',
        'flask, rq, qdjobs, workers/': f'flask, rq, qdjobs, {tasks}',
    }
    with tempfile.TemporaryDirectory() as cache:
        rounds = [[import_ms(step, cache) for step in steps.values()] for _ in range(ROUNDS)]
    best = [min(times) for times in zip(*rounds, strict=True)]
    for name, time, before in zip(steps, best, [0.0, *best], strict=False):
        click.echo(f'{name:28}{time:6.1f} ms  + {time - before:5.1f}')


if __name__ == '__main__':
    main()
