"""Web processes are replaced and ended without a request that fails."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from qdjobs.server import HOST, free_port, is_taken
from tests.support.processes import ROOT, eventually, kill_group

APPLICATION = """
import os, time

def application(environ, start_response):
    time.sleep(float(environ['QUERY_STRING'] or 0))
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [str(os.getpid()).encode()]
"""

Start = Callable[..., tuple[int, 'subprocess.Popen[bytes]']]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts gunicorn with one such process; returns its port."""
    (tmp_path / 'pids.py').write_text(APPLICATION)
    processes: list[subprocess.Popen[bytes]] = []

    def run(*options: str) -> tuple[int, 'subprocess.Popen[bytes]']:
        port = free_port()
        command = [
            sys.executable, '-m', 'gunicorn', '--no-control-socket', '--workers', '1',
            '--worker-class', 'libraries.web_worker.WebWorker', '--threads', '4',
            '--bind', f'{HOST}:{port}', *options, 'pids',
        ]  # fmt: skip
        environment = os.environ | {'PYTHONPATH': f'{ROOT}:{tmp_path}'}
        processes.append(
            subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
        )
        eventually(lambda: is_taken(port))
        return port, processes[-1]

    yield run
    for process in processes:
        kill_group(process.pid)
        process.wait()


def get(connection: HTTPConnection, path: str = '/') -> tuple[int, str | None]:
    """The process that answers, and what it says of the connection."""
    connection.request('GET', path)
    answer = connection.getresponse()
    assert answer.status == 200
    return int(answer.read()), answer.headers['Connection']


def test_a_process_is_replaced_after_so_many_requests(start: Start) -> None:
    port, _ = start('--max-requests', '10')
    connection = HTTPConnection(HOST, port, timeout=60)  # kept alive where the server keeps it
    pids = [get(connection)[0] for _ in range(35)]
    assert len(set(pids)) == 4
    connection.close()


def test_what_has_begun_is_finished_after_sigterm(start: Start) -> None:
    port, gunicorn = start()
    idle, busy = HTTPConnection(HOST, port, timeout=60), HTTPConnection(HOST, port, timeout=60)
    get(idle)
    pid, kept = get(busy)
    assert kept != 'close'
    busy.request('GET', '/?1.5')
    half = socket.create_connection((HOST, port), timeout=60)
    half.sendall(b'GET / HTTP/1.1\r\nHost: ')
    get(last := HTTPConnection(HOST, port, timeout=60))  # both have arrived before this one
    gunicorn.send_signal(signal.SIGTERM)
    eventually(lambda: not is_taken(port))
    assert get(idle) == (pid, 'close')
    half.sendall(b'x\r\n\r\n')
    assert half.recv(65_536).startswith(b'HTTP/1.1 200 ')
    answer = busy.getresponse()
    assert (answer.status, answer.read()) == (200, str(pid).encode())
    assert gunicorn.wait(60) == 0
    for each in (idle, busy, half, last):
        each.close()
