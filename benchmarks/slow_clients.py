"""How long a good request waits while slow clients send a byte a second, on several servers.

`python -m benchmarks.slow_clients` takes about five minutes, after
`pip install -r benchmarks/requirements-servers.txt`. Half of the slow clients never end their
headers, half never end their bodies; one that is cut off connects again.
"""

import asyncio
import contextlib
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from qdjobs.server import HOST, free_port

GUNICORN = 'gunicorn --no-control-socket --workers 2'
SERVERS = {
    'Procfile': 'gunicorn {procfile} --bind {host}:{port}',
    'gunicorn gthread': '{gunicorn} --threads 64 --bind {host}:{port}',
    'gunicorn gevent': '{gunicorn} --worker-class gevent --bind {host}:{port}',
    'waitress': 'waitress --host={host} --port={port} --threads=64 --connection-limit=2000 '
    '--asyncore-use-poll --call',
    'granian': 'granian --interface wsgi --factory --workers 2 --blocking-threads 64 '
    '--host {host} --port {port}',
}
STARTS = (  # of a request that never ends
    b'POST /api/artboard/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
    b'Content-Length: 9000\r\n\r\n{',
    b'GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ',
)
SECONDS = 8.0  # of good requests, for each number of slow clients
PATIENCE = 30.0  # seconds for one answer


@click.command()
@click.option('--clients', default='0,60,100,500,1000', show_default=True)
@click.option('--server', 'names', multiple=True, type=click.Choice(list(SERVERS)))
def main(clients: str, names: Sequence[str]) -> None:
    """Print the median and the longest time of a good request."""
    numbers = [int(number) for number in clients.split(',')]
    click.echo(f'| server | {" | ".join(f"{number} slow" for number in numbers)} |')
    click.echo(f'| --- |{" ---: |" * len(numbers)}')
    for name in names or SERVERS:
        cells = []
        for number in numbers:
            with running(SERVERS[name]) as port:
                cells.append(show(asyncio.run(attack(port, number))))
        click.echo(f'| {name} | {" | ".join(cells)} |')


@contextmanager
def running(command: str) -> Iterator[int]:
    """Run a server on a free port, which it yields."""
    port = free_port()
    words = shlex.split(
        command.format(host=HOST, port=port, procfile=procfile_options(), gunicorn=GUNICORN)
    )
    application = 'app:create_app' if words[0] in ('waitress', 'granian') else 'app:create_app()'
    process = subprocess.Popen(
        [sys.executable, '-m', *words, application],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not asyncio.run(answers(port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException(f'{command} does not start.')
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def procfile_options() -> str:
    """The options of the Procfile's gunicorn."""
    with open('Procfile') as file:
        web = file.readline()
    return web.split('gunicorn ')[1].split(' ${HOST')[0]


async def answers(port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        return await asyncio.wait_for(ask(port), 5) == 200
    return False


async def attack(port: int, clients: int) -> list[float]:
    """The seconds of good requests, one after the other, while the slow clients are there."""
    slow = [asyncio.create_task(be_slow(port, STARTS[i % 2])) for i in range(clients)]
    await asyncio.sleep(2)
    took = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            await asyncio.wait_for(ask(port), PATIENCE)
            took.append(time.monotonic() - began)
        except (OSError, TimeoutError):
            took.append(float('inf'))
        await asyncio.sleep(0.1)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    return took


async def ask(port: int) -> int:
    """The status of a good request on a connection of its own."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(b'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        line = await reader.readline()
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


async def be_slow(port: int, start: bytes) -> None:
    """Send a byte a second, for ever."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(start)
                while True:
                    await writer.drain()
                    await asyncio.sleep(1)
                    if writer.is_closing():
                        break
                    writer.write(b'x')
            finally:
                writer.close()
        await asyncio.sleep(0.2)


def show(took: Sequence[float]) -> str:
    if statistics.median(took) > PATIENCE:
        return f'no answer in {PATIENCE:.0f} s'
    return f'{statistics.median(took) * 1000:.0f} ms, {max(took):.2f} s'


if __name__ == '__main__':
    main()
