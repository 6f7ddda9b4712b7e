"""A small file cannot cost a worker its memory, its disk or its life: it is refused, once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from libraries.files import output_dir, upload_dir
from libraries.tables.files import TableFormat, convert_upload
from qdjobs.errors import PermanentJobError
from tests.support.processes import ROOT, alive, eventually


@pytest.fixture(autouse=True)
def uploads() -> Path:
    folder = upload_dir()
    folder.mkdir(exist_ok=True)
    return folder


def refused(name: str, why: str, format: TableFormat = 'csv') -> None:
    with pytest.raises(PermanentJobError, match=f'(?s){name}: .*{why}') as caught:
        convert_upload(name, format)
    assert '\n' not in str(caught.value)
    assert [path for path in output_dir().rglob('*') if path.is_file()] == []


def write_parquet(name: str, columns: dict[str, object]) -> str:
    path = upload_dir() / name
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression='zstd')
    assert path.stat().st_size < 20_000
    return name


def repeated(text: str, rows: int) -> pyarrow.DictionaryArray:
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, 'int32'), [text])


@pytest.mark.parametrize('format', ['csv', 'parquet'])
def test_too_many_different_keys_are_refused(uploads: Path, format: TableFormat) -> None:
    lines = (f'{{"k{number}":1}}\n' for number in range(20_000))
    (uploads / 'a.ndjson').write_text(''.join(lines))
    refused('a.ndjson', r'10001 different keys .*TABLE_MAX_COLUMNS', format)


@pytest.mark.parametrize('name', ['a.csv', 'a.parquet'])
def test_too_many_columns_are_refused(
    uploads: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TABLE_MAX_COLUMNS', '2')
    (uploads / 'a.csv').write_text('a,b,c\n1,2,3\n')
    write_parquet('a.parquet', {'a': [1], 'b': [1], 'c': [1]})
    refused(name, r'3 columns .*TABLE_MAX_COLUMNS', 'json')


@pytest.mark.parametrize('name', ['a.csv', 'a.ndjson', 'a.parquet'])
def test_too_many_cells_are_refused(
    uploads: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TABLE_MAX_CELLS', '5')
    (uploads / 'a.csv').write_text('a,b\n1,2\n3,4\n5,6\n')
    (uploads / 'a.ndjson').write_text('{"a":1,"b":2}\n' * 3)
    write_parquet('a.parquet', {'a': [1] * 3, 'b': [1] * 3})
    refused(name, r'6 cells are more than 5.*TABLE_MAX_CELLS', 'csv')


def test_a_small_parquet_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TABLE_MAX_OUTPUT', '1')
    refused(
        write_parquet('a.parquet', {'a': repeated('x' * 1000, 100_000)}),
        'larger than 1 MB.*TABLE_MAX_OUTPUT',
    )


def test_a_csv_that_grows_is_bounded_too(uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TABLE_MAX_OUTPUT', '1')
    (uploads / 'a.csv').write_text('a' * 1000 + '\n' + '1\n' * 2000)
    refused('a.csv', 'TABLE_MAX_OUTPUT', 'json')


@pytest.mark.slow
def test_a_small_parquet_does_not_take_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TABLE_MAX_MEMORY', '300')
    name = write_parquet('a.parquet', {'a': repeated('x' * 30_000_000, 100)})
    refused(name, 'takes more than 300 MB .TABLE_MAX_MEMORY', 'json')


def test_a_damaged_parquet_is_refused_and_the_worker_lives(uploads: Path) -> None:
    name = write_parquet('a.parquet', {'a': list(range(100))})
    content = bytearray((uploads / name).read_bytes())
    content[-40:-20] = b'\xff' * 20
    (uploads / name).write_bytes(content)
    refused(name, 'not a readable Parquet file')


def test_a_limit_that_is_no_number_says_so(uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TABLE_MAX_COLUMNS', 'many')
    (uploads / 'a.csv').write_text('a\n1\n')
    with pytest.raises(ValueError, match='TABLE_MAX_COLUMNS must be a whole number from 1 on'):
        convert_upload('a.csv', 'json')


PARENT = """
import sys, time
from libraries.tables.files import convert_upload
def wait(done, size):
    print(done, flush=True)
    time.sleep(600)
convert_upload('a.parquet', 'csv', on_progress=wait)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='a process can outlive its parent there')
def test_the_process_that_reads_parquet_dies_with_its_parent() -> None:
    write_parquet('a.parquet', {'a': repeated('x' * 1000, 100_000)})
    with subprocess.Popen(
        [sys.executable, '-c', PARENT], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout
            assert parent.stdout.readline()  # rows have come from the child
            child = int(Path(f'/proc/{parent.pid}/task/{parent.pid}/children').read_text())
            os.kill(child, signal.SIGSTOP)  # or it would end when it writes
        finally:
            parent.kill()
    eventually(lambda: not alive(child))
