"""Each task reads from an object store and writes to one as from and to a folder."""

import io
import json
from collections.abc import Callable
from typing import Any

import polars
import pytest
from PIL import Image

from libraries.files import StorageError
from libraries.files.store import connect
from qdjobs.errors import PermanentJobError
from tests.support.object_store import ObjectStore
from workers.data_tasks import process_file
from workers.file_tasks import process_batch
from workers.image_tasks import process_image
from workers.report_tasks import generate_report
from workers.svg_tasks import batch_generate_svgs, generate_complex_svg, generate_postcard_svg

pytestmark = pytest.mark.slow  # `make test-all` installs the server and its client

TABLE = b'ink,bottles\nblack,12\nred,3\n'


class Files:
    """What stands in the store."""

    def __init__(self) -> None:
        self.filesystem, _ = connect('memory://')

    def upload(self, name: str, content: bytes) -> str:
        self.filesystem.pipe_file(f'/up/{name}', content)
        return name

    def output(self, name: str) -> bytes:
        content: bytes = self.filesystem.cat_file(f'/out/{name}')
        return content

    def names(self) -> list[str]:
        return [name.removeprefix('/out/') for name in self.filesystem.find('/out')]


@pytest.fixture
def files(settings: pytest.MonkeyPatch) -> Files:
    files = Files()
    files.filesystem.store.clear()
    files.filesystem.pseudo_dirs[:] = ['']
    settings.setenv('UPLOAD_DIR', 'memory://up')
    settings.setenv('OUTPUT_DIR', 'memory://out')
    return files


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new('RGB', (40, 30), 'red').save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.mark.parametrize('format', ['csv', 'tsv', 'json', 'ndjson', 'parquet'])
def test_a_table_is_converted_and_back(files: Files, format: Any) -> None:
    there = process_file(files.upload('a b/pens.csv', TABLE), format)
    assert there == f'converted/a b/pens.csv.{format}'
    back = process_file(files.upload(f'there.{format}', files.output(there)), 'parquet')
    frame = polars.read_parquet(io.BytesIO(files.output(back)))
    assert frame.rows() == [('black', '12'), ('red', '3')]


def test_a_broken_table_leaves_the_old_one(files: Files) -> None:
    process_file(files.upload('pens.csv', TABLE), 'json')
    before = files.output('converted/pens.csv.json')
    with pytest.raises(PermanentJobError, match=r'^pens.csv: line 2 has 1 field'):
        process_file(files.upload('pens.csv', b'a,b\n1\n'), 'json')
    assert files.output('converted/pens.csv.json') == before
    assert files.names() == ['converted/pens.csv.json']


@pytest.mark.parametrize(
    'use',
    [process_file, lambda name: process_image(name, ['optimize'])],
    ids=['table', 'image'],
)
def test_a_file_that_is_missing_or_outside_is_refused(
    files: Files, use: Callable[[str], str]
) -> None:
    with pytest.raises(PermanentJobError, match=r'no such file in memory://up \(UPLOAD_DIR\)'):
        use('missing.csv')
    for name in ('../up/a.csv', '/up/a.csv'):
        with pytest.raises(PermanentJobError, match=r'must not contain|lies outside UPLOAD_DIR'):
            use(name)


def test_an_image_is_processed(files: Files) -> None:
    result = process_image(files.upload('a#b?.png', picture()), ['thumbnail:20x20'])
    assert files.names() == [result]
    assert Image.open(io.BytesIO(files.output(result))).size == (20, 15)


def test_a_batch_writes_what_it_can_and_its_report(files: Files) -> None:
    names = [files.upload('a.csv', TABLE), files.upload('b.csv', b'a,b\n1\n')]
    with pytest.raises(PermanentJobError, match=r'1 of 2 files failed: .*batches/.*\.json has'):
        process_batch(names, 'convert_to_parquet')
    [report] = [name for name in files.names() if name.startswith('batches/')]
    assert [outcome['result'] for outcome in json.loads(files.output(report))['outcomes']] == [
        'converted/a.csv.parquet', None,
    ]  # fmt: skip


def test_drawings_and_reports_are_written(files: Files) -> None:
    results = [
        generate_complex_svg(30, 30, 'grid', 'demo/Zürich.svg'),
        generate_postcard_svg('Zoe', 'Hi', 'plain'),
        generate_report('table', {'title': 'Inks', 'columns': ['ink'], 'rows': [['black']]}),
        *batch_generate_svgs(
            [{'width': 30, 'height': 30, 'pattern_type': 'grid', 'output_filename': 'b.svg'}]
        ),
    ]
    assert sorted(files.names()) == sorted(results)
    assert files.output('demo/Zürich.svg').startswith(b'<?xml')
    with pytest.raises(PermanentJobError, match='lies outside OUTPUT_DIR'):
        generate_complex_svg(30, 30, 'grid', '/demo/a.svg')


def test_a_store_that_fails_is_worth_another_attempt(object_store: ObjectStore) -> None:
    object_store.refuse_all()
    try:
        for task in (process_file, lambda name: process_image(name, ['optimize'])):
            with pytest.raises(StorageError, match='UPLOAD_DIR: s3://plots/up refuses access'):
                task('a.csv')
    finally:
        object_store.allow_all()
