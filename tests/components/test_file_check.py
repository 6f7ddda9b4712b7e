"""The doctor finds whether web and workers read what the other writes."""

from pathlib import Path

import pytest
from redis import Redis

from components import file_check
from libraries.files import output_dir, upload_dir
from qdjobs.config import environment_config
from tests.support.object_store import BUCKET, ObjectStore
from tests.support.processes import Worker, eventually
from tests.support.shared_worker import SharedWorker
from tests.support.shell import run

TITLE = "Web and workers read each other's files in UPLOAD_DIR and OUTPUT_DIR."


@pytest.fixture(autouse=True)
def light(settings: pytest.MonkeyPatch) -> None:
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
        settings.setenv('OUTPUT_DIR', f's3://{BUCKET}/other')
        assert findings() == [f'✓ {TITLE}']
    assert object_store.keys() == []
