"""A real Valkey for the session, emptied before each test; real workers on demand."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, expect, sync_playwright
from redis import Redis
from werkzeug.serving import make_server

from app import create_app
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from qdjobs.server import embedded_redis
from tests.support.proxy import Proxy, proxy_to

ROOT = Path(__file__).parent.parent
JOB_WORKER = 'qdjobs.worker.worker.JobWorker'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
ARGUMENTS = [
    '--no-sandbox',  # which root cannot have; the pages are our own
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]

expect.set_options(timeout=20_000)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CHROMIUM is None:
        terminalreporter.section('NO CHROMIUM, SO THE PAGES ARE NOT TESTED', red=True, bold=True)
        terminalreporter.line("Install Debian's `chromium` to test them; CI does.", red=True)


@pytest.fixture(scope='session')
def redis_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture(autouse=True)
def settings(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """Every test has its own folders, an empty Redis, and the tests' tasks beside the real ones."""
    ours = ('RQ_', 'JOB_', 'JOBS_', 'SMTP_', 'MAIL_', 'METRICS_', 'DASHBOARD_')
    for name in [name for name in os.environ if name.startswith(ours)]:
        monkeypatch.delenv(name)
    # Hershey-Fonts installs a package `tests` of its own: workers must find ours before it.
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('REDIS_URL', redis_url)
    monkeypatch.setenv('JOB_TASK_MODULES', 'workers,tests.support.tasks')
    monkeypatch.setenv('UPLOAD_DIR', str(tmp_path / 'uploads'))
    monkeypatch.setenv('OUTPUT_DIR', str(tmp_path / 'output'))
    environment_config.cache_clear()
    get_connection().flushall()
    yield monkeypatch
    environment_config.cache_clear()


@pytest.fixture
def connection() -> Redis:
    return get_connection()


def use_redis(settings: pytest.MonkeyPatch, url: str) -> None:
    """From now on this test uses another server, or none."""
    settings.setenv('REDIS_URL', url)
    environment_config.cache_clear()


@pytest.fixture
def app() -> Flask:
    return create_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """Where the application stands behind a real server."""
    with serving(app) as address:
        yield address


@pytest.fixture
def dump(connection: Redis) -> Callable[[], dict[bytes, tuple[bytes | None, int]]]:
    """Everything that stands in Redis: each key with its serialized value and its expiry."""

    def read() -> dict[bytes, tuple[bytes | None, int]]:
        return {
            key: (connection.dump(key), connection.pexpiretime(key))
            for key in connection.scan_iter(count=1000)
        }

    return read


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with proxy_to(redis_url) as proxy:
        yield proxy


@pytest.fixture(scope='module')
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing = 'There is no Chromium: the pages are not tested.'
        pytest.fail(missing) if os.environ.get('CI') == 'true' else pytest.skip(missing)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """An application behind a real server, in a thread that shares the settings of the test."""
    server = make_server('127.0.0.1', 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.port}/'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Worker = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture
def rq_worker(tmp_path: Path) -> Worker:
    """The `rq worker` command in a process of its own, its log in `worker.log`."""

    @contextmanager
    def run(*options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        process = start_worker(tmp_path / 'worker.log', *options, **environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)  # should a test have stopped it
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # RQ's own sometimes misses it
                process.wait(15)
            kill_group(process.pid)
            process.wait()

    return run


@pytest.fixture
def job_worker(rq_worker: Worker) -> Worker:
    """The same with our worker class, and a lease of one second."""

    def run(
        *options: str, worker_class: str = JOB_WORKER, **environment: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        environment = {'JOB_LEASE': '1'} | environment
        return rq_worker('--worker-class', worker_class, *options, **environment)

    return run


def start_worker(log: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    """`rq worker` in a session of its own, its output at the end of `log`."""
    command = [str(Path(sys.executable).with_name('rq')), 'worker', *options]
    with log.open('ab') as output:
        return subprocess.Popen(
            [*command, 'high', 'default', 'low'],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def eventually(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait until the condition holds; fail if it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f'it never came true in {timeout} s'
        time.sleep(0.02)
