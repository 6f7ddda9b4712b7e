"""The doctor finds whether web and workers read what the other writes."""

import shlex
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from app import create_app
from components import file_check
from libraries.files import output_dir, upload_dir
from qdjobs.config import environment_config
from qdjobs.worker.ending import unknown_here
from tests.support.applications import shared_app
from tests.support.jobs import end_next
from tests.support.missing import require
from tests.support.object_store import BUCKET, ObjectStore, behind_proxy
from tests.support.processes import ROOT, Worker, eventually
from tests.support.proxy import proxy_to
from tests.support.shared_worker import SharedWorker
from tests.support.shell import FLASK, run

TITLE = "Web and workers read each other's files in UPLOAD_DIR and OUTPUT_DIR."


@pytest.fixture(autouse=True)
def light(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(file_check, 'PATIENCE', 60.0)  # seconds for a worker on a busy machine
    settings.setattr(file_check, 'STORE_PATIENCE', 60.0)
    settings.setenv('JOB_TASK_MODULES', 'workers.check_tasks')
    environment_config.cache_clear()


def findings() -> list[str]:
    """What the doctor says of files."""
    shown = run('doctor').output.splitlines()
    return [line for line in shown if '_DIR' in line or 'exchange_files' in line]


def has_worker(connection: Redis) -> bool:
    return connection.scard('rq:workers') == 1


def left() -> list[str]:
    folders = [folder for folder in (upload_dir(), output_dir()) if folder.exists()]
    return [path.name for folder in folders for path in folder.iterdir()]


def test_one_folder_for_both_is_well_and_nothing_is_left(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    eventually(lambda: has_worker(connection))
    jobs = len(list(connection.scan_iter('rq:job:*')))
    assert findings() == [f'✓ {TITLE}']
    assert left() == []
    assert len(list(connection.scan_iter('rq:job:*'))) == jobs


def test_without_a_worker_nothing_is_checked() -> None:
    assert findings() == [f'· Not checked, since no worker is alive on high: {TITLE}']
    assert left() == []


def test_a_worker_that_runs_nothing_is_not_waited_for(
    connection: Redis, shared_worker: SharedWorker, settings: pytest.MonkeyPatch
) -> None:
    settings.setattr(file_check, 'PATIENCE', 0.2)
    eventually(lambda: has_worker(connection))
    with shared_worker.held():
        [line] = findings()
    assert line.startswith('✗ No worker has run workers.check_tasks.exchange_files within 0.2 s')
    assert left() == []
    assert connection.llen('rq:queue:high') == 0


def test_a_worker_of_older_code_has_not_failed(
    connection: Redis, shared_worker: SharedWorker, settings: pytest.MonkeyPatch
) -> None:
    settings.setattr(file_check, 'PATIENCE', 1.5)
    eventually(lambda: has_worker(connection))
    with shared_worker.held(), ThreadPoolExecutor() as threads:
        found = threads.submit(findings)
        eventually(lambda: connection.llen('rq:queue:high'))
        end_next(connection, unknown_here(time.time(), 'UnknownTaskError: new.'), 'high')
        [line] = found.result()
    assert line.startswith('✗ No worker has run workers.check_tasks.exchange_files within 1.5 s')


@pytest.mark.parametrize('setting', ['UPLOAD_DIR', 'OUTPUT_DIR'])
def test_another_disk_is_found_in_each_direction(
    connection: Redis,
    shared_worker: SharedWorker,
    settings: pytest.MonkeyPatch,
    tmp_path: Path,
    setting: str,
) -> None:
    eventually(lambda: has_worker(connection))
    settings.setenv(setting, str(tmp_path / 'elsewhere'))
    [line] = findings()
    assert line.startswith(f'✗ What {"this process" if setting == "UPLOAD_DIR" else "a worker on"}')
    assert line.endswith(f'Set {setting} to the same folder for both.')
    assert str(tmp_path / 'elsewhere') in line


def test_two_doctors_at_once_do_not_disturb_each_other(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    eventually(lambda: has_worker(connection))
    app = shared_app(create_app)

    def examine() -> list[str]:
        with app.app_context():
            return list(file_check.find_faults())

    with ThreadPoolExecutor() as pool:
        with shared_worker.held():
            found = [pool.submit(examine) for _ in range(2)]
            eventually(lambda: connection.llen('rq:queue:high') == 2)
        assert [each.result() for each in found] == [[], []]
    assert left() == []


ELSEWHERE = 'mount --bind "$OUTPUT_DIR" {path} && OUTPUT_DIR={path} exec {flask} jobs doctor'


@pytest.mark.slow
def test_one_folder_at_two_paths_is_found(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    """Though each reads what the other writes: a task returns a path, which web opens."""
    private = ['unshare', '--map-root-user', '--mount']
    path = shutil.which('unshare')
    if path is not None and subprocess.run([*private, 'true'], check=False).returncode:
        path = None
    require(path, 'A process cannot have mounts of its own here.')
    eventually(lambda: has_worker(connection))
    here = output_dir()
    here.mkdir()
    code = ELSEWHERE.format(path=shlex.quote(str(tmp_path)), flask=shlex.quote(FLASK))
    done = subprocess.run(
        [*private, 'sh', '-c', code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    [line] = [line for line in done.stdout.splitlines() if '_DIR' in line]
    assert f' is {here}/.doctor-' in line
    assert f' there and {tmp_path}/.doctor-' in line
    assert 'both must have the folder at the same path' in line
    assert left() == []


def test_a_folder_that_cannot_be_written_is_found(
    connection: Redis, shared_worker: SharedWorker, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    eventually(lambda: has_worker(connection))
    (tmp_path / 'file').touch()
    settings.setenv('UPLOAD_DIR', str(tmp_path / 'file' / 'sub'))
    [line] = findings()
    assert line.startswith('✗ This process cannot write to UPLOAD_DIR: ')


@pytest.mark.slow  # a worker of its own
def test_a_bucket_for_both_is_well(
    connection: Redis, own_worker: Worker, object_store: ObjectStore, settings: pytest.MonkeyPatch
) -> None:
    """And one direction fails if the worker has another prefix."""
    with own_worker(OUTPUT_DIR=f's3://{BUCKET}/other'):
        eventually(lambda: has_worker(connection))
        [line] = findings()
        assert line.startswith('✗ What a worker on ')
        assert 'writes to OUTPUT_DIR, this process does not find in s3://plots/out.' in line
        assert line.endswith('Set OUTPUT_DIR to the same bucket for both.')
        settings.setenv('OUTPUT_DIR', f's3://{BUCKET}/other')
        assert findings() == [f'✓ {TITLE}']
    [left_by_worker] = object_store.keys()  # where the first doctor did not find it
    assert left_by_worker.startswith('other/.doctor-')


@pytest.mark.slow  # its server
def test_a_silent_bucket_does_not_hold_the_doctor(
    connection: Redis,
    shared_worker: SharedWorker,
    object_store: ObjectStore,
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setattr(file_check, 'STORE_PATIENCE', 0.5)
    eventually(lambda: has_worker(connection))
    with behind_proxy(settings, object_store) as proxy:
        proxy.hang = True
        assert findings() == [
            '✗ This process cannot write to UPLOAD_DIR: s3://plots/up has not answered within '
            '0.5 s.'
        ]


@pytest.mark.slow  # a worker of its own
def test_a_bucket_that_is_silent_for_the_worker_is_found_in_both_directions(
    connection: Redis, own_worker: Worker, object_store: ObjectStore, settings: pytest.MonkeyPatch
) -> None:
    with proxy_to(object_store.address) as proxy:
        proxy.hang = True
        address = proxy.url.replace('redis://', 'http://').removesuffix('/0')
        with own_worker(AWS_ENDPOINT_URL_S3=address):
            eventually(lambda: has_worker(connection))
            read, written = findings()
    assert ' cannot read: s3://plots/up has not answered within 3 s. Set UPLOAD_DIR to ' in read
    assert written.endswith(' cannot be written: s3://plots/out has not answered within 3 s.')
