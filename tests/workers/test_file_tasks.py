"""A batch converts what it can, and names what it cannot."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
from rq.timeouts import JobTimeoutException

from libraries.files import output_dir, upload_dir
from libraries.job_manager import enqueue_background_job, get_job_status, wait_for_job
from libraries.tables.files import convert_upload
from qdjobs.errors import InvalidJobError, PermanentJobError
from tests.support.processes import ROOT, Worker, eventually
from workers import file_tasks
from workers.file_tasks import process_batch

MODULE = 'workers.file_tasks'
BATCH = f'{MODULE}.process_batch'

Upload = Callable[[str, str], str]


@pytest.fixture
def upload() -> Upload:
    folder = upload_dir()
    folder.mkdir()

    def write(name: str, content: str) -> str:
        (folder / name).write_text(content)
        return name

    return write


def converted(name: str) -> Path:
    return output_dir() / 'converted' / name


def report_of(name: str = '*') -> dict[str, Any]:
    (path,) = (output_dir() / 'batches').glob(f'{name}.json')
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def reported(name: str) -> list[str]:
    """The files whose outcomes are in a report."""
    return [outcome['file'] for outcome in report_of(name)['outcomes']]


def test_each_file_has_its_result_in_order(upload: Upload) -> None:
    files = [upload(f'{name}.csv', f'a\n{name}\n') for name in 'cab']
    assert process_batch(files) == [
        {'file': file, 'result': str(converted(f'{file}.json')), 'error': None} for file in files
    ]
    assert json.loads(converted('b.csv.json').read_text()) == [{'a': 'b'}]


@pytest.mark.parametrize('format', ['csv', 'json', 'ndjson', 'parquet'])
def test_every_operation(upload: Upload, format: str) -> None:
    operation: Any = f'convert_to_{format}'
    assert process_batch([upload('a.csv', 'a\n1\n')], operation)[0]['result'] == str(
        converted(f'a.csv.{format}')
    )


def test_a_bad_file_is_named_and_stops_no_other(upload: Upload) -> None:
    files = [upload('a.csv', 'a\n1\n'), upload('bad.csv', 'a,b\n1\n'), 'missing.csv', '../x.csv']
    files.append(upload('z.csv', 'a\n2\n'))
    with pytest.raises(PermanentJobError) as caught:
        process_batch(files)
    error = str(caught.value)
    assert error.startswith('3 of 5 files failed: bad.csv: line 2 has 1 field where the header')
    assert 'missing.csv' in error
    assert 'batches/' in error
    assert '\n' not in error
    outcomes = report_of()['outcomes']
    assert [outcome['file'] for outcome in outcomes] == files
    assert [outcome['error'] is None for outcome in outcomes] == [True, False, False, False, True]
    assert outcomes[4]['result'] == str(converted('z.csv.json'))
    assert converted('z.csv.json').exists()


@pytest.mark.slow
def test_no_odd_file_stops_the_others(upload: Upload) -> None:
    folder = upload_dir()
    odd = [upload('huge.json', '[{"a": 1e9999999999999999999}]'), 'ok.csv/b.csv', 'pipe.csv']
    os.mkfifo(folder / 'pipe.csv')
    ok = upload('ok.csv', 'a\n1\n')
    (folder / 'ok.csv.parquet').mkdir()
    odd.append(upload('ok.csv.parquet/x.csv', 'a\n1\n'))
    moment = pyarrow.array([0], pyarrow.timestamp('us', '+05:30'))
    pyarrow.parquet.write_table(pyarrow.table({'a': moment}), folder / 'zone.parquet')
    last = upload('last.csv', 'a\n1\n')
    with pytest.raises(PermanentJobError, match='5 of 7 files failed'):
        process_batch([ok, *odd, 'zone.parquet', last], 'convert_to_parquet')
    assert [outcome['error'] is None for outcome in report_of()['outcomes']] == [
        True, False, False, False, False, False, True,
    ]  # fmt: skip


UNREADABLE = """
import os
from workers.file_tasks import process_batch
os.umask(0)
process_batch(['ok.csv'])  # so that all modules are there
if os.geteuid() == 0:
    os.setuid(65534)  # since nothing is forbidden to root
process_batch(['ok.csv', 'secret.csv', 'last.csv'])
"""


def test_a_file_that_the_worker_may_not_read_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as name:  # to which every user has a way
        base = Path(name)
        folders = {'UPLOAD_DIR': base / 'up', 'OUTPUT_DIR': base / 'out'}
        for folder in (base, *folders.values()):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
        for file in ('ok.csv', 'secret.csv', 'last.csv'):
            (base / 'up' / file).write_text('a\n1\n')
        (base / 'up' / 'secret.csv').chmod(0)
        monkeypatch.setenv('UPLOAD_DIR', str(base / 'up'))
        monkeypatch.setenv('OUTPUT_DIR', str(base / 'out'))
        command = [sys.executable, '-c', UNREADABLE]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert "1 of 3 files failed: 'secret.csv': the worker may not read it" in done.stderr
        assert len(list((base / 'out' / 'converted').iterdir())) == 2


def test_the_error_of_many_bad_files_stays_short(upload: Upload) -> None:
    files = [upload(f'{number}-{"x" * 200}.csv', 'a,b\n1\n') for number in range(100)]
    with pytest.raises(PermanentJobError, match=r'100 of 100 files failed.*and 95 more') as caught:
        process_batch(files)
    assert len(str(caught.value)) < 1500
    assert len(report_of()['outcomes']) == 100


def test_a_file_named_twice_is_converted_once(upload: Upload) -> None:
    upload('a.csv', 'a\n1\n')
    first, second = process_batch(['a.csv', 'a.csv'])
    assert first == second
    assert len(process_batch(['a.csv', './a.csv'])) == 2


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(PermanentJobError, match='file_list is empty'):
        process_batch([])


@pytest.mark.parametrize('arguments', [(['a'], 'convert_to_xml'), ('a',), ([1],)])
def test_a_wrong_argument_is_refused_when_it_is_enqueued(arguments: Any) -> None:
    with pytest.raises(InvalidJobError):
        enqueue_background_job(BATCH, *arguments)


# Attempts


def marks() -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in converted('').glob('[!.]*')}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make this process an attempt of the job `batch`, enqueued at that minute."""

    def begin(minute: int) -> None:
        job = SimpleNamespace(id='batch', created_at=datetime(2026, 11, 22, 9, minute, tzinfo=UTC))
        monkeypatch.setattr(file_tasks, 'current_job', lambda: job)

    return begin


def test_the_next_attempt_converts_what_is_missing(
    upload: Upload, run: Callable[[int], None]
) -> None:
    files = [upload('bad.csv', 'a,b\n1\n'), upload('a.csv', 'a\n1\n')]
    run(0)
    with pytest.raises(PermanentJobError, match='1 of 2 files failed'):
        process_batch(files)
    before = marks()
    upload('bad.csv', 'a,b\n1,2\n')
    assert [outcome['file'] for outcome in process_batch(files)] == files
    assert set(marks()) == {'a.csv.json', 'bad.csv.json'}
    assert before.items() < marks().items()


def test_another_job_of_the_same_id_converts_all(
    upload: Upload, run: Callable[[int], None]
) -> None:
    file = upload('a.csv', 'a\n1\n')
    for minute in (0, 1):
        run(minute)
        before = marks()
        process_batch([file])
        assert marks() != before


@pytest.mark.parametrize('content', ['', '{', '{"operation": "convert_to_json"}', '[]', '\udcff'])
def test_a_report_that_cannot_be_read_is_no_obstacle(
    upload: Upload, run: Callable[[int], None], content: str
) -> None:
    run(0)
    file = upload('a.csv', 'a\n1\n')
    process_batch([file])
    (path,) = (output_dir() / 'batches').iterdir()
    path.write_bytes(content.encode('utf-8', 'surrogateescape'))
    assert process_batch([file])[0]['error'] is None


def test_a_time_out_leaves_a_report_of_what_is_done(
    upload: Upload, run: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [upload(f'{name}.csv', 'a\n1\n') for name in 'abc']
    run(0)

    def convert(file: str, format: Any) -> PurePath:
        if file == 'b.csv':
            raise JobTimeoutException
        return convert_upload(file, format)

    with monkeypatch.context() as patch:
        patch.setattr(file_tasks, 'convert_upload', convert)
        with pytest.raises(JobTimeoutException):
            process_batch(files)
    assert [outcome['file'] for outcome in report_of()['outcomes']] == ['a.csv']
    before = marks()
    process_batch(files)
    assert before.items() < marks().items()


@pytest.mark.usefixtures('shared_worker')
def test_a_job_of_a_bad_file_fails_at_once_and_its_outcomes_can_be_read(upload: Upload) -> None:
    files = [upload('a.csv', 'a\n1\n'), upload('bad.csv', 'a,b\n1\n')]
    job = enqueue_background_job(BATCH, files, job_max_retries=3)
    status = wait_for_job(job.id, 60)
    assert status['status'] == 'failed'
    assert len(status['attempts']) == 1
    assert str(status['error']).startswith(
        'PermanentJobError: 1 of 2 files failed: bad.csv: line 2'
    )
    assert status['progress'] == {'done': 2, 'total': 2, 'message': 'convert to json'}
    assert report_of(job.id)['outcomes'][0]['error'] is None


@pytest.mark.slow
@pytest.mark.usefixtures('shared_worker')
def test_a_time_out_ends_the_job_and_the_next_attempt_does_what_is_missing(
    upload: Upload,
) -> None:
    upload('a.csv', 'a\n1\n')
    upload('big.csv', 'a,b\n' + '"some text",2\n' * 15_000_000)
    job = enqueue_background_job(
        BATCH, ['a.csv', 'big.csv'], job_timeout=2, job_max_retries=9, job_retry_delay=2
    )
    eventually(lambda: get_job_status(job.id)['attempts'] and reported(job.id) == ['a.csv'])
    before = marks()
    upload('big.csv', 'a,b\n1,2\n')
    status = wait_for_job(job.id, 60)
    assert status['status'] == 'finished', status['error']
    assert 'JobTimeoutException' in str(status['attempts'][0])
    assert marks()['a.csv.json'] == before['a.csv.json']
    assert report_of(job.id)['outcomes'][1]['result'] == str(converted('big.csv.json'))


@pytest.mark.slow
def test_a_killed_attempt_is_repeated(upload: Upload, own_worker: Worker) -> None:
    slow = upload_dir() / upload('slow.parquet', '')
    pyarrow.parquet.write_table(pyarrow.table({'a': pyarrow.repeat(1, 20_000_000)}), slow)
    files = [upload('a.csv', 'a\n1\n'), slow.name, upload('z.csv', 'a\n3\n')]
    with own_worker('--burst') as worker:
        job = enqueue_background_job(BATCH, files)
        eventually(converted('a.csv.json').exists)
        os.kill(worker.pid, signal.SIGKILL)
    pyarrow.parquet.write_table(pyarrow.table({'a': [1]}), slow)
    with own_worker():
        assert wait_for_job(job.id, 60)['status'] == 'finished'
    assert len(marks()) == len(files)
