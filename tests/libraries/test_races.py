"""Names that are exchanged for links while they are used lead nowhere outside the folders."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import polars
import pytest
from flask import Flask

from components.artboard.files import send_output
from libraries.files import open_upload, output_dir, outputs, upload_copy, upload_dir, write_output
from qdjobs.errors import PermanentJobError
from tests.support.exchange import exchanges
from workers.data_tasks import process_file

INSIDE, SECRET = 'kind\ninside\n', 'kind\nsecret\n'


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder elsewhere, with a secret under each name that the tests use."""
    folder = tmp_path / 'outside'
    fill(folder, SECRET)
    return folder


def fill(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / 'a.csv').write_text(text)
    polars.DataFrame({'kind': [text.split()[1]]}).write_parquet(folder / 'a.parquet')


def read_open() -> str:
    with open_upload('sub/a.csv') as file:
        return file.read().decode()


def read_copy() -> str:
    with upload_copy('sub/a.csv') as path:
        return path.read_text()


def convert_text() -> str:
    return Path(process_file('sub/a.csv', 'ndjson')).read_text()


def convert_parquet() -> str:
    return Path(process_file('sub/a.parquet', 'csv')).read_text()


def serve() -> str:
    with (
        Flask(__name__).test_request_context(),
        send_output('sub/a.csv', 'text/csv', download_name='a.csv') as answer,
    ):
        answer.direct_passthrough = False
        return answer.get_data(as_text=True)


@pytest.mark.parametrize('exchanged', ['sub', 'file'])
@pytest.mark.parametrize(
    'use',
    [
        read_open,
        read_copy,
        convert_text,
        pytest.param(convert_parquet, marks=pytest.mark.slow),  # each time in a new process
        serve,
    ],
)
def test_no_file_outside_is_read_whenever_a_name_is_exchanged(
    outside: Path, use: Callable[[], str], exchanged: str
) -> None:
    folder = (output_dir() if use is serve else upload_dir()) / 'sub'
    fill(folder, INSIDE)
    name = 'a.parquet' if use is convert_parquet else 'a.csv'
    path, target = (folder, outside) if exchanged == 'sub' else (folder / name, outside / name)
    seen = []
    for _ in exchanges(path, target):
        try:
            seen.append('secret' if 'secret' in use() else 'inside')
        except (ValueError, FileNotFoundError, PermanentJobError):
            seen.append('refused')
    assert set(seen) == {'inside', 'refused'}


@pytest.mark.parametrize('exchanged', ['sub', 'sub/deep'])
def test_no_file_outside_is_written_whenever_a_folder_is_exchanged(
    outside: Path, exchanged: str
) -> None:
    (output_dir() / 'sub' / 'deep').mkdir(parents=True)
    (outside / 'deep').mkdir()
    before = sorted(outside.rglob('*'))
    for _ in exchanges(output_dir() / exchanged, outside):
        with suppress(ValueError):
            write_output('sub/deep/made', 'x')
        assert sorted(outside.rglob('*')) == before


def test_no_file_outside_is_removed_whenever_a_folder_is_exchanged(outside: Path) -> None:
    (output_dir() / 'sub').mkdir(parents=True)
    for _ in exchanges(output_dir() / 'sub', outside):
        with suppress(ValueError):
            outputs().remove('sub/a.csv')
    assert sorted(os.listdir(outside)) == ['a.csv', 'a.parquet']


def test_what_is_converted_is_one_file_though_its_name_is_another_by_then() -> None:
    """From the moment at which it is opened, as who reads an old file keeps it."""
    fill(upload_dir() / 'sub', INSIDE)
    with upload_copy('sub/a.csv') as path:
        (upload_dir() / 'sub' / 'a.csv').unlink()
        (upload_dir() / 'sub' / 'a.csv').write_text(SECRET)
        assert [path.read_text(), path.read_text()] == [INSIDE, INSIDE]
