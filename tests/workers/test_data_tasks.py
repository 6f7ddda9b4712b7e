"""Tables come out as they went in, row by row, or not at all and with a reason."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from rq.timeouts import JobTimeoutException

from libraries.files import output_dir, upload_dir
from libraries.job_manager import enqueue_background_job, wait_for_job
from libraries.tables import text as table_text
from libraries.tables.files import convert_upload
from qdjobs.errors import InvalidJobError, PermanentJobError
from tests.support.disk import full_disk
from tests.support.pairs import every_pair
from tests.support.processes import ROOT
from tests.support.shared_worker import SharedWorker
from workers.data_tasks import data_processing, process_file

Row = dict[str, Any]
HEADER = ['id', 'name', 'note', 'city', 'date', 'number', 'maybe', 'exponent', 'spaces', 'last']


@pytest.fixture
def uploads() -> Path:
    folder = upload_dir()
    folder.mkdir()
    return folder


Upload = Callable[[str, str | bytes], str]


@pytest.fixture
def upload(uploads: Path) -> Upload:
    def write(name: str, content: str | bytes) -> str:
        path = uploads / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


def read_json(path: str) -> list[Row]:
    rows: list[Row] = json.loads(Path(path).read_bytes())
    return rows


def read_ndjson(path: str) -> list[Row]:
    return [json.loads(line) for line in Path(path).read_bytes().split(b'\n')[:-1]]


def read_csv(path: str, delimiter: str = ',') -> list[Row]:
    with Path(path).open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def read_tsv(path: str) -> list[Row]:
    return read_csv(path, '\t')


def read_parquet(path: str) -> list[Row]:
    rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


READERS: dict[str, Callable[[str], list[Row]]] = {
    'csv': read_csv,
    'tsv': read_tsv,
    'json': read_json,
    'ndjson': read_ndjson,
    'parquet': read_parquet,
}
every_format = pytest.mark.parametrize('format', READERS)
# Those that are written in a way of their own: NDJSON and TSV share theirs with JSON and CSV.
every_writer = pytest.mark.parametrize('format', ['csv', 'json', 'parquet'])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read 4 kB at a time, so that a small one has many blocks."""
    monkeypatch.setattr(table_text, 'BLOCK', 4096)


def refused(file: str, why: str, format: Any = 'json', **options: Any) -> None:
    with pytest.raises(PermanentJobError, match=why) as caught:
        process_file(file, format, **options)
    assert str(caught.value).count('\n') == 0
    assert files_of(output_dir()) == []


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob('*') if path.is_file()]


# Text stays as it is

PLAIN = [
    '',
    ' ',
    ' padded ',
    '007',
    '1e5',
    '1.10',
    'NA',
    'null',
    'None',
    'NaN',
    'true',
    '2024-01-02',
]
MARKS = ['a,b', 'a;b', 'a\tb', 'a|b', 'quote "q"', '"', '""', 'line\nbreak', 'line\r\nbreak', '\\n']
SIGNS = ['Zürich', '日本', '🙂', '\u2028', '\ufeff', '#', "'", '=1+1', '-', '\x7f', '\x01', "'a'"]
CELLS = PLAIN + MARKS + SIGNS
ROWS = [dict(zip(HEADER, (CELLS * 10)[i : i + 10], strict=True)) for i in range(len(CELLS))]


def as_csv(rows: list[Row], line_end: str = '\n', delimiter: str = ',') -> str:
    lines = [list(rows[0]), *(row.values() for row in rows)]
    return ''.join(
        delimiter.join('"' + cell.replace('"', '""') + '"' for cell in line) + line_end
        for line in lines
    )


@pytest.mark.parametrize(
    ('format', 'line_end', 'delimiter', 'encoding'),
    every_pair(list(READERS), ['\n', '\r\n'], ',;\t|', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32']),
)
def test_every_field_of_a_csv_is_text_and_stays(
    upload: Upload, format: Any, line_end: str, delimiter: str, encoding: str
) -> None:
    file = upload('a.csv', as_csv(ROWS, line_end, delimiter).encode(encoding))
    assert READERS[format](process_file(file, format)) == ROWS


@every_format
def test_every_format_leads_to_every_other_without_a_loss(upload: Upload, format: Any) -> None:
    first = Path(process_file(upload('a.csv', as_csv(ROWS)), format)).read_bytes()
    for other, read in READERS.items():
        path = process_file(upload(f'b.{format}', first), other)  # type: ignore[arg-type]
        assert read(path) == ROWS


def test_a_csv_looks_as_the_csv_module_writes_it(upload: Upload) -> None:
    text = 'id,name,note\n007,,"a, b"\n1,"q ""q""",x\n2, s ,"l\nb"\n'
    assert Path(process_file(upload('a.csv', text), 'csv')).read_text() == text


@pytest.mark.parametrize('field', ['x""', ' "4"', 'a"b"c'])
def test_quotes_inside_a_field_are_text_if_they_come_in_pairs(upload: Upload, field: str) -> None:
    path = process_file(upload('a.csv', f'a,b\n1,{field}\n2,3\n'))
    assert read_json(path) == [{'a': '1', 'b': field}, {'a': '2', 'b': '3'}]


def test_the_last_line_needs_no_end_and_blank_lines_after_it_are_nothing(upload: Upload) -> None:
    for end in ('', '\n', '\r\n', '\n\n\n', '\r\n\r\n'):
        for text, rows in (
            ('a,b\n1,2', [{'a': '1', 'b': '2'}]),
            ('a\n1\n""', [{'a': '1'}, {'a': ''}]),
        ):
            assert read_json(process_file(upload('a.csv', text + end))) == rows


@every_format
def test_a_header_alone_is_a_table_without_rows(upload: Upload, format: Any) -> None:
    path = process_file(upload('a.csv', 'a,b\n'), format)
    assert READERS[format](path) == []
    if format == 'parquet':
        assert pyarrow.parquet.read_schema(path).names == ['a', 'b']


@pytest.mark.parametrize(
    'name',
    [
        'a[12].csv',
        '-.csv',
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ('*.csv', 'a?b.csv', "a'b.csv", 'a b.csv')
        ),
    ],
)
@every_format
def test_a_name_is_a_name_and_no_pattern(upload: Upload, name: str, format: Any) -> None:
    upload('a1.csv', 'x\nwrong\n')
    upload('axb.csv', 'x\nwrong\n')
    upload(name, 'x\nright\n')
    upload('日本/k=v/' + name.replace('csv', format), Path(process_file(name, format)).read_bytes())
    assert read_json(process_file('日本/k=v/' + name.replace('csv', format))) == [{'x': 'right'}]


@pytest.mark.parametrize('columns', [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_table_of_many_columns(upload: Upload, columns: int) -> None:
    names = [f'column {number}' for number in range(columns)]
    rows = [{name: f'{name} {row}' for name in names} for row in range(30)]
    file = upload('wide.csv', as_csv(rows))
    for format in ('json', 'parquet', 'csv'):
        path = process_file(file, format)
        assert READERS[format](path) == rows
        back = upload(f'back.{format}', Path(path).read_bytes())
        assert read_ndjson(process_file(back, 'ndjson')) == rows


@pytest.mark.parametrize('size', [500_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_a_very_long_field(upload: Upload, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_text, 'BLOCK', size // 10)
    rows = [{'a': 'x' * size + 'é"\n,', 'b': '1'}, {'a': 'y' * 200_000, 'b': '2'}]
    for format in READERS:
        path = process_file(upload('a.csv', as_csv(rows)), format)  # type: ignore[arg-type]
        assert process_file(upload(f'b.{format}', Path(path).read_bytes()), 'ndjson')
        assert read_ndjson(str(output_dir() / f'converted/b.{format}.ndjson')) == rows


# What is broken names its line


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('a,b\n1,2\n3\n4,5,6\n', 'line 3 has 1 field where the header has 2'),
        ('a,b\n1,2\n3,4,5\n6,7\n', 'line 3 has 3 fields where the header has 2'),
        ('a,b\n"x\n\ny",2\n3\n', 'line 5 has 1 field where'),
        ('a,b\n1,2\n3\n4,5,6', 'line 3 has 1 field'),
        ('a,b\r\n1,2\r\n3\r\n', 'line 3 has 1 field'),
        ('a,b\n1,"2\n', 'line 2 has a quote .* out of place'),
        ('a,b\n1,2\n"3,4\n5,6\n', 'line 3 has a quote .* out of place'),
        ('a,b\n1,2\n"3" ,4\n', 'line 3 has a quote .* out of place'),
        ('a,b\n"x\ny"z,4\n', 'line 2 has a quote .* out of place'),
        ('a,b\n1,2\n3,x"y\n', 'line 3 has a quote .* out of place'),
        ('a,b\n1,2\n\n3,4\n', 'line 3 is blank'),
        ('a\n1\n\n3\n', 'line 3 is blank'),
        ('a\r\n\r\n3\r\n', 'line 2 is blank'),
        ('\na,b\n1,2\n', 'line 1 is blank'),
        ('a,b\r1,2\r', 'line 1 has .* a carriage return out of place'),
        ('a,b\n1,2\n3\r,4\n', 'line 3 has .* a carriage return out of place'),
        ('a,b\n1,2\n3,\0\n', 'line 3 has a NUL'),
        ('a,b\n1,2\n"3\n\0",4\n', 'line 4 has a NUL'),
        (b'a,b\n1,2\nZ\xfcrich,4\n', 'line 3: the byte 0xfc is not utf-8'),
        ('a,b\n1,Zürich\n'.encode() + 'Zürich,2\n'.encode('cp1252'), 'line 3: the byte 0xfc'),
        ('', 'is empty'),
        ('\n\n', 'is empty'),
        (b'\xef\xbb\xbf', 'is empty'),
        ('a,b,a\n1,2,3\n', "line 1: the header has 'a' more than once"),
        ('a,,c\n1,2,3\n', 'line 1: column 2 has no name'),
        ('""\n1\n', 'line 1: column 1 has no name'),
    ],
)
def test_a_broken_csv_is_refused_by_its_line(upload: Upload, text: str | bytes, why: str) -> None:
    refused(upload('a.csv', text), why)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('at', [2, 300, 2_499])
@pytest.mark.parametrize(
    ('line', 'why'),
    [
        ('only one', 'has 1 field where'),
        ('1,2,3', 'has 3 fields where'),
        ('1,2"', 'a quote .* out of place'),
        ('1,\x00', 'NUL'),
        ('1,\udcff', '0xff'),
    ],
)
def test_a_broken_line_deep_in_a_file_is_found(
    upload: Upload, at: int, line: str, why: str
) -> None:
    lines = [f'{number},"some text\n{number}"' for number in range(1_250)]  # two lines each
    lines[at // 2 - 1] = f'{line}\n1,2'
    text = '\n'.join(['a,b', *lines, ''])
    refused(upload('a.csv', text.encode('utf-8', 'surrogateescape')), f'line {at // 2 * 2}.*{why}')


def test_what_is_named_tsv_has_tabs_if_its_header_has_any(upload: Upload) -> None:
    path = process_file(upload('a.tsv', 'a, b\tc;d\n1,2\t3\n'))
    assert read_json(path) == [{'a, b': '1,2', 'c;d': '3'}]
    path = process_file(upload('b.tsv', 'a;b\n1;2\n'))
    assert read_json(path) == [{'a': '1', 'b': '2'}]


@pytest.mark.parametrize(
    ('text', 'options', 'why'),
    [
        ('a,b;c\n1,2;3\n', {}, r"the header has ',' and ';'.*delimiter=';'"),
        ('title\na;b\n1;2\n', {}, r'outside quotes.*delimiter'),
        ('a\n1,5\n', {}, 'line 2 has 2 fields where the header has 1'),
        ('a;b\n1,5;2\n1,5\n', {}, 'line 3 has 1 field where'),
        ('a;b\n1;2\n', {'delimiter': ','}, None),
        ('a,b;c\n1,2;3\n', {'delimiter': ';'}, None),
        ('a:b\n1:2\n', {'delimiter': ':'}, None),
    ],
)
def test_a_delimiter_in_doubt_is_asked_for_and_never_guessed(
    upload: Upload, text: str, options: Any, why: str | None
) -> None:
    file = upload('a.csv', text)
    if why:
        refused(file, why, **options)
    else:
        with (upload_dir() / file).open(newline='') as source:
            rows = list(csv.DictReader(source, delimiter=options['delimiter']))
        assert read_json(process_file(file, **options)) == rows


def test_an_encoding_can_be_named(upload: Upload) -> None:
    text = 'name\nZürich\n€\n'
    assert read_json(process_file(upload('a.csv', text.encode('cp1252')), encoding='cp1252')) == [
        {'name': 'Zürich'},
        {'name': '€'},
    ]


@pytest.mark.parametrize(
    ('content', 'encoding', 'names'),
    [
        ('ÿþa,b\n1,2\n'.encode('latin-1'), 'latin-1', ['ÿþa', 'b']),
        ('a,b\n1,2\n'.encode('utf-16'), 'utf-16', ['a', 'b']),
        ('\ufeffa,b\n1,2\n'.encode('utf-16-be'), 'utf-16', ['a', 'b']),
        ('\ufeffa,b\n1,2\n'.encode('utf-16-be'), 'utf-16-be', ['a', 'b']),
        ('a,b\n1,2\n'.encode('utf-8-sig'), 'utf8', ['a', 'b']),
    ],
)
def test_a_byte_order_mark_counts_in_its_own_encoding_only(
    upload: Upload, content: bytes, encoding: str, names: list[str]
) -> None:
    rows = read_json(process_file(upload('a.csv', content), encoding=encoding))
    assert rows == [dict(zip(names, '12', strict=True))]


@pytest.mark.parametrize(
    ('content', 'encoding', 'why'),
    [
        (b'a\n1\n\x81\n', 'cp1252', 'line 3: the byte 0x81 is not cp1252'),
        ('a\n1\n'.encode('utf-16') + b'\n', None, 'line 3: the byte 0x0a is not utf-16 there'),
        (b'a\n', 'no-such', "encoding 'no-such' is not known"),
        (b'a\n', 'hex', "encoding 'hex' is not known"),
        (b'a\n', 'a\0', "encoding 'a.x00' is not known"),
        (b'a\n1\n', 'utf-16', 'line 1 or below: this is not utf-16: '),
        (b'a\n\\ud800\n', 'unicode_escape', 'line 1 or below: this is not unicode'),
        (b'a\n+2AA-\n', 'utf-7', 'line 1 or below: this is not utf-7'),
        (b'a,b\n1,\\\n', 'punycode', 'this is not punycode|is not punycode there'),
        ('a\n'.encode('utf-16'), 'utf-8', 'line 1: the byte 0xff is not utf-8'),
    ],
)
def test_bytes_that_an_encoding_does_not_have(
    upload: Upload, content: bytes, encoding: str | None, why: str
) -> None:
    refused(upload('a.csv', content), why, encoding=encoding)


# What JSON says


@pytest.mark.parametrize(
    ('text', 'rows'),
    [
        ('{"a": 1, "b": true}\n{"a": null}\n', [{'a': '1', 'b': 'true'}, {'a': '', 'b': ''}]),
        ('{"a": 1.10}\n{"a": 1e5}\n{"a": 0.1}\n', [{'a': '1.10'}, {'a': '1e5'}, {'a': '0.1'}]),
        (f'{{"a": {2**64 + 1}}}\n{{"a": -7}}', [{'a': '18446744073709551617'}, {'a': '-7'}]),
        ('{"a": "x"}\n{"b": "y"}\n', [{'a': 'x', 'b': ''}, {'a': '', 'b': 'y'}]),
        ('\n{"a": "x"}\n\n  \r\n{"a": "y"}\r\n', [{'a': 'x'}, {'a': 'y'}]),
        ('{"a": -0}\n\n{"a": 1.0}\n{"a": 5}\n', [{'a': '-0'}, {'a': '1.0'}, {'a': '5'}]),
        (r'{"a": "\u00e9\n\"\\:{}[],"}', [{'a': 'é\n"\\:{}[],'}]),
    ],
)  # fmt: skip
def test_what_json_holds_becomes_text(upload: Upload, text: str, rows: list[Row]) -> None:
    assert read_csv(process_file(upload('a.ndjson', text), 'csv')) == rows
    array = '[' + ',\n'.join(line for line in text.split('\n') if line.strip()) + ']'
    assert read_csv(process_file(upload('a.json', array), 'csv')) == rows


@pytest.mark.usefixtures('small_blocks')
def test_a_key_that_comes_up_late_is_not_dropped(upload: Upload) -> None:
    text = '{"a":"x"}\n' * 10_000 + '{"a":"x","late":7}\n'
    file = upload('a.jsonl', text)
    assert read_csv(process_file(file, 'csv'))[-1] == {'a': 'x', 'late': '7'}
    table = pyarrow.parquet.read_table(process_file(file, 'parquet'))
    assert table.column('late').to_pylist() == [None] * 10_000 + [7]


@pytest.mark.parametrize(
    'text', ['[]', '[{"a": 1}]', ' [\n{"a": [{"b": {"c": 1.10}}, {}]} , {"a": "]}"}\n]\n']
)
def test_json_to_ndjson_and_back_keeps_everything(upload: Upload, text: str) -> None:  # fmt: skip
    lines = process_file(upload('a.json', text), 'ndjson')
    back = process_file(upload('b.ndjson', Path(lines).read_bytes()), 'json')
    assert read_ndjson(lines) == read_json(back) == json.loads(text)
    assert ('1.10' in text) == ('1.10' in Path(back).read_text())


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize(
    'inner', ['{"b": "},{"}', '[{"b": 1}, {"b": 2}, {"b": 3}]', '"},{"', '"\\"}"']
)
def test_an_array_of_many_blocks_is_cut_between_its_objects(upload: Upload, inner: str) -> None:
    item = f'{{"a": {inner}, "n": {inner}}}'
    text = '[' + ',\n'.join([item] * 1_000) + ']'
    file = upload('a.json', text)
    assert read_ndjson(process_file(file, 'ndjson')) == [json.loads(item)] * 1_000
    assert read_parquet(process_file(file, 'parquet')) == [json.loads(item)] * 1_000


def test_parquet_has_the_types_of_json(upload: Upload) -> None:
    rows = [
        {'i': 2**63 - 1, 'f': 0.1, 'b': True, 's': '007', 'n': None, 'l': [1], 'o': {'k': 'x'}},
        {'i': -(2**63), 'f': -1e300, 'b': None, 's': '', 'n': None, 'l': [], 'o': {'k': None}},
    ]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    path = process_file(upload('a.ndjson', text), 'parquet')
    assert read_parquet(path) == rows
    types = [str(field.type) for field in pyarrow.parquet.read_schema(path)]
    assert types[:5] == ['int64', 'double', 'bool', 'large_string', 'null']


@pytest.mark.parametrize(
    ('text', 'values'),
    [
        ('{"a": 1}\n{"a": 1.5}\n{"a": null}\n', [1.0, 1.5, None]),
        ('{"a": 1}\n{"a": "x"}\n{"a": true}\n', ['1', 'x', 'true']),
        (f'{{"a": 0.5}}\n{{"a": {2**53 + 1}}}\n', [0.5, float(2**53)]),
    ],
)
def test_parquet_has_one_type_for_values_of_several(
    upload: Upload, text: str, values: list[Any]
) -> None:
    rows = read_parquet(process_file(upload('a.ndjson', text), 'parquet'))
    assert [row['a'] for row in rows] == values


@pytest.mark.parametrize(
    ('text', 'format', 'why'),
    [
        ('{"a": true}\n{"a": 1}\n', 'parquet', "cannot parse 'true' .* as Int64"),
        (f'{{"a": {2**63}}}\n', 'parquet', "'a' needs more than 64 bits"),
        ('{"a": 1e999}\n', 'parquet', 'InvalidNumber'),
        ('{"a": 1e-9999999999999999999}\n', 'parquet', 'InvalidNumber'),
        ('{"a": {}}\n', 'parquet', 'struct type with no child'),
        ('{"a": 1}\n{"a": {"b": 1}}\n', 'parquet', 'cannot become one: '),
        ('{"a": 1}\n{"a": {"b": 1}}\n', 'csv', "row 2: 'a' is a list or an object"),
        ('{"a": "\\u0000"}\n', 'csv', 'NUL character'),
        ('{"": 1}\n', 'csv', 'a column has no name'),
        ('{"a": 1}\n{"a": 1, "a": 2}\n', 'csv', "line 2: an object has the key 'a' more than once"),
        ('{"a": {"b": 1, "b": 2}}\n', 'json', "line 1: an object has the key 'b'"),
        ('{"a": 1}\n{"a": NaN}\n', 'json', 'line 2: JSON is malformed'),
        ('{"a": 1}\n\n{"a": 01}\n', 'json', 'line 3: JSON is malformed'),
        ('{"a": 1}\n{"a": "\\ud800"}\n', 'json', 'line 2: '),
        (b'{"a": 1}\n{"a": "\xff"}\n', 'json', 'line 2: the byte 0xff is not utf-8'),
        ('{"a": 1}\n3\n', 'json', 'line 2: Expected `object`, got `int`'),
        ('{"a": 1} {"a": 2}\n{"a": 3}\n', 'json', 'line 1: there must be one whole object'),
        ('{"a": 1,\n"b": 2}\n', 'json', 'line 1: Input data was truncated'),
        (
            '{"a": 1}\n{"a": ' + '[' * 5000 + ']' * 5000 + '}',
            'json',
            'line 2: .*recursion depth exceeded',
        ),
        ('', 'csv', 'there is no row with a key'),
        ('{}\n', 'csv', 'there is no row with a key'),
        ('{}\n', 'parquet', 'there is no row with a key'),
    ],
)
def test_what_would_not_be_the_same_is_refused(
    upload: Upload, text: str | bytes, format: str, why: str
) -> None:
    refused(upload('a.ndjson', text), why, format)


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('', 'the file ends before its array does'),
        ('{"a": 1}', r"must be an array: '\[' first"),
        ('[{"a": 1}', 'the file ends before'),
        ('[{"a": 1},]', 'line 1: JSON is malformed: trailing comma in array'),
        ('[,{"a": 1}]', 'line 1: JSON is malformed'),
        ('[{"a": 1}\n{"a": 2}]', 'line 2: JSON is malformed'),
        ('[{"a": 1},\n\n{"a": 2,}]', 'line 3: JSON is malformed'),
        ('[{"a": 1}]\nx', 'line 2: JSON is malformed: trailing characters'),
        ('[{"a": 1}],[{"a": 2}]', 'line 1: JSON is malformed'),
        ('[{"a": 1},\n{"a": 1, "a": 2}]', "the key 'a' more than once"),
        ('[{"a": 1}, 2]', 'line 1: Expected `object`, got `int`'),
        (b'[{"a": "\xff"}]', 'line 1: the byte 0xff'),
    ],
)
def test_a_broken_array_is_refused(upload: Upload, text: str | bytes, why: str) -> None:
    refused(upload('a.json', text), why, 'csv')


# What Parquet holds


def write_parquet(name: str, columns: dict[str, Any]) -> str:
    pyarrow.parquet.write_table(pyarrow.table(columns), upload_dir() / name)
    return name


@pytest.mark.usefixtures('uploads')
def test_what_parquet_holds_becomes_text_or_numbers() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    columns = {
        'day': pyarrow.array([moment.date(), None]),
        'moment': pyarrow.array([moment, None], pyarrow.timestamp('us', 'UTC')),
        'naive': pyarrow.array([moment.replace(tzinfo=None), None], pyarrow.timestamp('us')),
        'clock': pyarrow.array([moment.time(), time()], pyarrow.time64('us')),
        'price': pyarrow.array([Decimal('1.10'), None], pyarrow.decimal128(9, 2)),
        'big': pyarrow.array([2**64 - 1, None], pyarrow.uint64()),
        'float': pyarrow.array([0.1, -1e300]),
        'yes': pyarrow.array([True, None]),
        'text': pyarrow.array(['', 'a\r"']),
    }
    file = write_parquet('a.parquet', columns)
    first = {
        'day': '2024-01-02',
        'moment': '2024-01-02 03:04:05.000006+00:00',
        'naive': '2024-01-02 03:04:05.000006',
        'clock': '03:04:05.000006',
        'price': '1.10',
        'big': 2**64 - 1,
        'float': 0.1,
        'yes': True,
        'text': '',
    }
    second = dict.fromkeys(first) | {'clock': '00:00:00', 'float': -1e300, 'text': 'a\r"'}
    assert read_json(process_file(file)) == [first, second]
    words = [{name: as_word(value) for name, value in row.items()} for row in (first, second)]
    words[1]['float'] = '-1e+300'
    assert read_csv(process_file(file, 'csv')) == words
    assert read_parquet(process_file(file, 'parquet')) == pyarrow.table(columns).to_pylist()


def as_word(value: Any) -> str:
    return '' if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.usefixtures('uploads')
@pytest.mark.parametrize('format', ['json', pytest.param('csv', marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ('values', 'why'),
    [
        ([b'x'], "'a' is of type Binary, which has no text form"),
        ([[1]], "'a' is of type List"),
        ([{'b': 1}], "'a' is of type Struct"),
        ([timedelta(1)], "'a' is of type Duration"),
        ([float('nan')], "'a' holds NaN or infinity"),
        ([float('-inf')], "'a' holds NaN or infinity"),
    ],
)
def test_what_has_no_form_as_text_is_refused(format: str, values: list[Any], why: str) -> None:
    refused(write_parquet('a.parquet', {'a': values}), why, format)


@pytest.mark.parametrize('damage', [0, 10, 100])
def test_what_is_no_parquet_is_refused(upload: Upload, damage: int) -> None:
    content = Path(process_file(upload('a.csv', 'a\n1\n'), 'parquet')).read_bytes()
    (output_dir() / 'converted' / 'a.csv.parquet').unlink()
    refused(upload('a.parquet', content[:damage] if damage < 100 else content[:-9]), 'Parquet file')


@pytest.mark.slow
@pytest.mark.usefixtures('uploads')
@every_format
def test_a_type_that_the_engine_panics_at_is_refused(format: str) -> None:
    moment = pyarrow.array([0], pyarrow.timestamp('us', '+05:30'))
    refused(
        write_parquet('a.parquet', {'a': moment}), r'not a readable Parquet file.*\+05:30', format
    )


@pytest.mark.usefixtures('uploads')
def test_a_date_that_the_engine_panics_at_is_refused() -> None:
    day = pyarrow.array([2**31 - 1], pyarrow.int32()).cast(pyarrow.date32())
    refused(write_parquet('a.parquet', {'a': day}), 'not a readable Parquet file')


@pytest.mark.usefixtures('uploads')
@pytest.mark.parametrize('values', [[1, None, 2], [True, None], [Decimal('1.5'), None], [None]])
def test_a_single_column_with_nulls_becomes_csv(values: list[Any]) -> None:
    path = process_file(write_parquet('a.parquet', {'a': values}), 'csv')
    lines = ['a', *(as_word(value) or '""' for value in values), '']
    assert Path(path).read_text() == '\n'.join(lines)


@pytest.mark.slow
@pytest.mark.usefixtures('uploads')
@every_format
def test_a_time_that_may_be_24_hours_is_refused(format: str) -> None:
    clock = pyarrow.array([0, 86_400_000_000], pyarrow.int64()).view(pyarrow.time64('us'))
    refused(write_parquet('a.parquet', {'a': clock}), "'a' holds null or 24:00", format)


@pytest.mark.usefixtures('uploads')
@pytest.mark.parametrize('format', ['json', 'ndjson', 'parquet'])
def test_a_column_of_no_name_keeps_it(format: Any) -> None:
    file = write_parquet('a.parquet', {'': [1], 'column_0': [2]})
    assert READERS[format](process_file(file, format)) == [{'': 1, 'column_0': 2}]


# Files


def test_files_of_like_names_do_not_replace_one_another(upload: Upload, uploads: Path) -> None:
    files = [upload(name, 'a\n1\n') for name in ('a.csv', 'a.tsv', 'x/a.csv', 'y/a.csv')]
    paths = [process_file(file) for file in files]
    assert len(set(paths)) == 4
    assert paths[0] == str(output_dir() / 'converted' / 'a.csv.json')
    assert process_file(str(uploads / 'a.csv')) == process_file('./a.csv') == paths[0]


@pytest.mark.parametrize(
    ('file', 'why'),
    [
        ('missing.csv', "'missing.csv': there is no such file in .*UPLOAD_DIR"),
        ('../a.csv', 'must not contain'),
        ('/etc/passwd', 'lies outside UPLOAD_DIR'),
        ('', 'printable'),
        ('a.txt', 'must end in one of .csv, .tsv'),
        ('csv', 'must end in one of'),
        ('a.txt/b.csv', 'there is no such file'),
        ('pipe.csv', 'there is no such file'),
        ('x' * 250 + '.csv', 'more than 255 bytes'),
    ],
)
def test_a_file_that_is_none_is_refused(upload: Upload, file: str, why: str) -> None:
    for name in ('a.txt', 'csv', 'x' * 250 + '.csv'):
        upload(name, 'a\n1\n')
    os.mkfifo(upload_dir() / 'pipe.csv')
    refused(file, why)


@pytest.mark.parametrize('inner', ['x.csv', 'y/x.csv'])
def test_a_result_in_the_place_of_a_folder_is_told(upload: Upload, inner: str) -> None:
    path = process_file(upload('d.csv', 'a\n1\n'))
    upload(f'd.csv.json/{inner}', 'a\n1\n')
    with pytest.raises(PermanentJobError, match='the result of another file is in the way'):
        process_file(f'd.csv.json/{inner}')
    assert files_of(output_dir()) == [Path(path)]


def test_a_failure_leaves_the_result_of_an_earlier_run(upload: Upload) -> None:
    path = process_file(upload('a.csv', 'a\n1\n'))
    upload('a.csv', 'a\n1\n"')
    with pytest.raises(PermanentJobError, match='line 3'):
        process_file('a.csv')
    assert read_json(path) == [{'a': '1'}]
    assert files_of(output_dir()) == [Path(path)]


@pytest.mark.parametrize(
    'arguments',
    [
        {'format': 'xml'},
        {'format': None},
        {'delimiter': ';;'},
        {'delimiter': 'é'},
        {'delimiter': '"'},
        {'delimiter': '\n'},
        {'delimiter': 'a'},
        {'file_path': 5},
    ],
)
def test_a_wrong_argument_is_refused_when_it_is_enqueued(arguments: Row) -> None:
    with pytest.raises(InvalidJobError):
        enqueue_background_job('workers.data_tasks.process_file', **Row(file_path='a') | arguments)
    assert enqueue_background_job('workers.data_tasks.process_file', 'a', delimiter=';')


# Ends in the middle

BEGIN = """
import sys, time
from libraries.tables import text
from libraries.tables.files import convert_upload
text.BLOCK = 4096
def stop(done, size):
    if done > size / 2:
        print('half', flush=True)
        time.sleep(600)
convert_upload('big.csv', sys.argv[1], on_progress=stop)
"""


def big_csv(rows: int) -> str:
    return 'id,text,city\n' + ''.join(
        f'{number},"a text, that is quoted",Zürich\n' for number in range(rows)
    )


@every_writer
def test_a_process_killed_half_way_leaves_no_file(upload: Upload, format: str) -> None:
    upload('big.csv', big_csv(20_000))
    command = [sys.executable, '-c', BEGIN, format]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b'half\n'
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [path for path in files_of(output_dir()) if not path.name.startswith('.')] == []


@every_format
@pytest.mark.usefixtures('small_blocks')
def test_a_time_out_half_way_leaves_no_file(upload: Upload, format: Any) -> None:
    def wind_up(done: int, size: int) -> None:
        if done < size / 4:
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    upload('big.csv', big_csv(50_000))
    with alarm(), pytest.raises(JobTimeoutException):
        convert_upload('big.csv', format, on_progress=wind_up)
    assert files_of(output_dir()) == []


@contextmanager
def alarm() -> Iterator[None]:
    """In the block the timer does what RQ's does: it raises an error wherever the program is."""

    def ring(*_: object) -> None:
        raise JobTimeoutException

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    'format',
    [
        'parquet',  # whose engine writes in a thread of its own
        *(pytest.param(name, marks=pytest.mark.slow) for name in READERS if name != 'parquet'),
    ],
)
def test_a_time_out_ends_the_job_and_leaves_nothing(
    upload: Upload, shared_worker: SharedWorker, format: str
) -> None:
    upload('big.ndjson', '{"a": -0, "b": "text"}\n' * 1_000_000)  # -0 is read slowly
    job = enqueue_background_job(
        'workers.data_tasks.process_file', 'big.ndjson', format, job_timeout=1
    )
    status = wait_for_job(job.id, 60)
    # On a busy machine it may not end in time, and is killed: the message goes on then.
    assert str(status['error']).startswith(
        'JobTimeoutException: Task exceeded maximum timeout value (1 seconds)'
    )
    assert files_of(output_dir()) == []


@every_format
def test_a_full_disk_is_an_error_worth_a_retry_and_leaves_nothing(
    upload: Upload, format: Any
) -> None:
    upload('big.csv', big_csv(10_000))
    with full_disk(3_000), pytest.raises(OSError, match='File too large'):
        process_file('big.csv', format)
    assert files_of(output_dir()) == []


def test_a_job_converts_and_tells_its_progress(upload: Upload, shared_worker: SharedWorker) -> None:
    upload('big.csv', big_csv(25_000))
    size = (upload_dir() / 'big.csv').stat().st_size
    job = enqueue_background_job('workers.data_tasks.process_file', 'big.csv')
    status = wait_for_job(job.id, 60)
    assert len(read_json(str(status['result']))) == 25_000
    assert status['progress'] == {'done': size, 'total': size, 'message': 'bytes read'}


# A million rows


@pytest.fixture(scope='module')
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 columns × 1,000,000 rows, of which no two are the same."""
    path = tmp_path_factory.mktemp('million') / 'million.csv'
    with path.open('w', newline='', encoding='utf-8') as file:
        csv.writer(file, lineterminator='\n').writerows(million_rows())
    return path


def million_rows() -> Iterator[Sequence[str]]:
    yield HEADER
    for n in range(1_000_000):
        cells = ROWS[n % len(ROWS)].values()
        yield (str(n), *list(cells)[1:])


def same_as_million(rows: Iterable[Sequence[Any]]) -> None:
    for expected, row in zip(million_rows(), rows, strict=True):
        assert tuple(row) == tuple(expected)


def lines_of(path: str) -> Iterator[Sequence[Any]]:
    yield HEADER
    with Path(path).open('rb') as file:
        for line in file:
            if line.startswith(b'{'):
                yield list(json.loads(line.rstrip(b',\n')).values())


def batches_of(path: str) -> Iterator[Sequence[Any]]:
    yield HEADER
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@pytest.mark.timeout(400)
@pytest.mark.parametrize('format', ['json', 'ndjson', 'parquet'])
@pytest.mark.slow
def test_a_million_rows_there_and_back(uploads: Path, million: Path, format: Any) -> None:
    os.link(million, uploads / 'million.csv')
    path = process_file('million.csv', format)
    same_as_million(batches_of(path) if format == 'parquet' else lines_of(path))
    os.link(path, uploads / f'back.{format}')
    with Path(process_file(f'back.{format}', 'csv')).open(newline='', encoding='utf-8') as file:
        same_as_million(csv.reader(file))


# Small lists of numbers


@pytest.mark.parametrize(
    ('data', 'summary'),
    [
        ([1], {'count': 1, 'sum': 1, 'mean': 1.0, 'min': 1, 'max': 1}),
        ([3, 1, 2], {'count': 3, 'sum': 6, 'mean': 2.0, 'min': 1, 'max': 3}),
        ([0.1] * 10, {'count': 10, 'sum': 1.0, 'mean': 0.1, 'min': 0.1, 'max': 0.1}),
        ([2**70, 1], {'count': 2, 'sum': 2**70 + 1, 'mean': 2.0**69, 'min': 1, 'max': 2**70}),
        ([1e100, 1, -1e100], {'count': 3, 'sum': 1.0, 'mean': 1 / 3, 'min': -1e100, 'max': 1e100}),
    ],
)
def test_numbers_are_summed_up(data: list[int | float], summary: Row) -> None:
    found = data_processing(data)
    assert found == summary
    assert [type(value) for value in found.values()] == [type(value) for value in summary.values()]


@pytest.mark.parametrize(
    ('data', 'why'),
    [
        ([], 'data is empty'),
        ([1, float('nan')], 'NaN or infinity'),
        ([float('inf')], 'NaN or infinity'),
        ([10**400], 'too large'),
        ([1e308, 1e308], 'too large'),
    ],
)
def test_numbers_without_a_sum_are_refused(data: list[int | float], why: str) -> None:
    with pytest.raises(PermanentJobError, match=why):
        data_processing(data)


@pytest.mark.parametrize('data', [[True], ['1'], 1, None, [None]])
def test_what_is_no_list_of_numbers_is_refused_when_it_is_enqueued(data: Any) -> None:
    with pytest.raises(InvalidJobError):
        enqueue_background_job('workers.data_tasks.data_processing', data)
    assert enqueue_background_job('workers.data_tasks.data_processing', [1, 2.5])
