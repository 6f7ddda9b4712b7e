"""Any table at all: there and back it is the same, or refused for a reason that is documented."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from libraries.files import output_dir, upload_dir
from libraries.tables import text as table_text
from libraries.tables.csv import CsvTable
from libraries.tables.files import TableFormat, convert_upload
from libraries.tables.text import TableError
from qdjobs.errors import PermanentJobError

# Text as it comes, and text of nothing but what a CSV or JSON might trip over.
texts = st.text(st.characters(exclude_categories=['Cs']), max_size=8)
nasty = st.text('",;\t|\r\n\\{}[]:\ufeff \'a', max_size=8)
cells = texts | nasty
Table = list[list[str]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    header = draw(st.lists(cells, min_size=1, max_size=5))
    row = st.lists(cells, min_size=len(header), max_size=len(header))
    return [header, *draw(st.lists(row, max_size=8))]


def text_of(table: Table, quoting: int, line_end: str) -> str:
    buffer = io.StringIO(newline='')
    csv.writer(buffer, quoting=quoting, lineterminator=line_end).writerows(table)  # type: ignore[arg-type]
    return buffer.getvalue()


def there_and_back(text: str, way: TableFormat) -> Table:
    folder = upload_dir()
    folder.mkdir(exist_ok=True)
    (folder / 'a.csv').write_bytes(text.encode())
    there = Path(convert_upload('a.csv', way, delimiter=','))
    (folder / f'b.{way}').write_bytes(there.read_bytes())
    back = Path(convert_upload(f'b.{way}', 'csv', '\t' if way == 'tsv' else None))
    with back.open(newline='', encoding='utf-8') as file:
        return list(csv.reader(file))


def expected_refusals(table: Table, way: TableFormat) -> str:
    """The documented reasons that apply, as a pattern; nothing if there is none."""
    header, *rows = table
    reasons = {
        'NUL': any('\0' in cell for row in table for cell in row),
        'has no name': '' in header,
        'more than once': len(set(header)) < len(header),
        'columns are not known': not rows and way in ('json', 'ndjson'),
    }
    return '|'.join(reason for reason, applies in reasons.items() if applies)


@pytest.fixture(params=[table_text.BLOCK, 16], ids=['whole', 'in blocks'])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The bytes read at a time: so few that most records begin in one block and end in another."""
    monkeypatch.setattr(table_text, 'BLOCK', request.param)
    size: int = request.param
    return size


def examples(number: int) -> settings:
    return settings(max_examples=number, suppress_health_check=list(HealthCheck), deadline=None)


any_table = given(
    table=tables(),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    line_end=st.sampled_from(['\n', '\r\n']),
)
# Each Parquet that is read starts a process.
every_way = pytest.mark.parametrize(
    'way', ['json', 'ndjson', 'tsv', pytest.param('parquet', marks=pytest.mark.slow)]
)
many_ways = pytest.mark.parametrize('way', ['json', 'ndjson', 'tsv'])


def require_the_same(way: TableFormat, table: Table, quoting: int, line_end: str) -> None:
    # What the csv module leaves unquoted is a mark there, or the end of a line: not data.
    signs = ''.join(itertools.chain.from_iterable(table))
    assume(quoting == csv.QUOTE_ALL or not {'\ufeff', '\r'} & set(signs))
    text = text_of(table, quoting, line_end)
    why = expected_refusals(table, way)
    if not why:
        assert there_and_back(text, way) == table
    else:
        with pytest.raises(PermanentJobError, match=why):
            there_and_back(text, way)


@pytest.mark.usefixtures('block')
@every_way
@examples(25)
@any_table
def test_any_table_is_the_same_there_and_back(way: TableFormat, **given: Any) -> None:
    require_the_same(way, **given)


@pytest.mark.slow
@pytest.mark.usefixtures('block')
@many_ways
@examples(400)
@any_table
def test_any_of_many_tables_is_the_same_there_and_back(way: TableFormat, **given: Any) -> None:
    require_the_same(way, **given)


def require_the_same_rows_as_the_csv_module(text: str) -> None:
    folder = upload_dir()
    folder.mkdir(exist_ok=True)
    (folder / 'a.csv').write_bytes(text.encode())
    try:
        path = Path(convert_upload('a.csv', 'csv', delimiter=','))
    except PermanentJobError:
        without_end = re.sub(r'(\r?\n)+\Z', '', text)
        assert not strictly_right(f'{without_end}\r\n', None) or not fit_header(text)
        return
    with path.open(newline='', encoding='utf-8') as file:
        found = list(csv.reader(file))
    assert found == [row for row in csv.reader(io.StringIO(text, newline=''), strict=True) if row]
    assert len({len(row) for row in found}) == 1


any_text = given(text=st.text('ab",\r\n', max_size=40))


@pytest.mark.usefixtures('block')
@examples(150)
@any_text
@example(text='a\r\r\n')
def test_any_text_is_read_as_the_csv_module_reads_it_or_is_refused(text: str) -> None:
    require_the_same_rows_as_the_csv_module(text)


@pytest.mark.slow
@pytest.mark.usefixtures('block')
@examples(2000)
@any_text
def test_any_of_many_texts_is_read_as_the_csv_module_reads_it_or_is_refused(text: str) -> None:
    require_the_same_rows_as_the_csv_module(text)


def fit_header(text: str) -> bool:
    header = next(csv.reader(io.StringIO(text, newline='')), [])
    return '' not in header and len(set(header)) == len(header) > 0


@pytest.mark.parametrize('way', ['json', 'csv'])
def test_a_byte_order_mark_inside_a_file_is_data(way: TableFormat) -> None:
    rows = [['a'], ['\ufeffx'], ['\ufeff']]
    assert there_and_back('a\n\ufeffx\n\ufeff\n', way) == rows


def test_a_carriage_return_in_a_field_is_written_in_quotes() -> None:
    assert there_and_back('a,b\n"1\r",2\n', 'json') == [['a', 'b'], ['1\r', '2']]


@pytest.mark.parametrize('way', ['csv', 'json', 'ndjson', 'parquet'])
def test_a_row_that_the_engine_loses_is_noticed(
    way: TableFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CsvTable._read

    def lose(table: CsvTable, text: bytes) -> list[list[str]]:
        return read(table, text.replace(b'2\n3\n', b'2\n'))

    monkeypatch.setattr(CsvTable, '_read', lose)
    with pytest.raises(PermanentJobError, match='the rows read are not those counted'):
        there_and_back('a\n1\n2\n3\n', way)
    assert [path for path in output_dir().rglob('*') if path.is_file()] == []


def strictly_right(text: str, width: int | None) -> bool:
    """Whether it is records of so many fields, or as many as the first: sign by sign, RFC 4180."""
    position = 0
    while position < len(text):
        fields, ended = 0, False
        blank = width in (None, 1) and text.startswith(('\n', '\r\n'), position)
        while not ended:
            field = re.compile(r'"(?:[^"]|"")*"|[^",\r\n]*').match(text, position)
            assert field
            separator = re.compile(r',|\r?\n').match(text, field.end())
            if separator is None:
                return False
            position, fields, ended = separator.end(), fields + 1, separator[0] != ','
        width = width or fields
        if fields != width or (blank and width == 1):
            return False
    return True


def every_text(signs: str, length: int) -> Iterator[str]:
    for size in range(length + 1):
        yield from map(''.join, itertools.product(signs, repeat=size))


@pytest.mark.parametrize('length', [5, pytest.param(8, marks=pytest.mark.slow)])
def test_every_short_text_is_read_as_the_csv_module_reads_it_or_is_refused(length: int) -> None:
    for text in every_text('a",\r\n', length):
        text += 'a,a\n'
        blocks = iter([(2 + text.count('\n'), b'x,y\n' + text.encode())])
        try:
            table = CsvTable(blocks, ',', prefer_tabs=False)
            found = [row for rows in table._batches() for row in rows]
        except TableError:
            assert not strictly_right(text, 2), repr(text)
        else:
            lines = io.StringIO(text, newline='\n')
            assert found == list(csv.reader(lines, strict=True)), repr(text)
            assert set(map(len, found)) == {2}
