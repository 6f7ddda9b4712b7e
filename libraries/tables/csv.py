"""Read and write CSV and TSV by Python's csv module.

What is outside quotes is checked before: a quote is at an end of a field, or the module would take
it as text, and the records and fields are as many as the module returns.
"""

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, Any

from libraries.tables.text import TableError, cut, require_room, require_within, shown

DELIMITERS = {'csv': ',', 'tsv': '\t'}  # those that are written
DETECTED = ',;\t|'
BATCH = 16 << 20  # about the most bytes in a batch as JSON, where each row has the whole header
Rows = list[list[str]]

csv.field_size_limit(sys.maxsize)  # records are bounded as they are cut


class CsvReader:
    """Reads a CSV file; `rows` is the number of rows read, counted apart from the csv module."""

    def __init__(
        self, blocks: Iterator[bytes], delimiter: str | None, prefer_tabs: bool = False
    ) -> None:
        self.rows = 0
        texts = cut(blocks, last_record_end)
        line, text = next(texts, (1, b''))
        self._texts = chain([(line, text)], texts)
        header = _outside_quotes(text).partition(b'\n')[0].decode()
        found = [mark for mark in DETECTED if mark in header]
        if prefer_tabs and '\t' in found:
            found = ['\t']
        if delimiter is None and len(found) > 1:
            raise TableError(
                f'line 1: the header has {" and ".join(map(repr, found))}: name the one that '
                "separates the fields, such as delimiter=';'."
            )
        self._delimiter = delimiter or ''.join(found) or ','
        # Without a delimiter in the header, one in a row would be taken for text.
        self._doubtful = DETECTED.encode() if not delimiter and not found else b''
        mark = re.escape(self._delimiter).encode()
        self._misplaced = re.compile(rb'"(?:(?<=[^%b\n"]")|(?=[^%b\r\n"]))' % (mark, mark))
        self._width = header.count(self._delimiter) + 1
        self.names = next(iter(self._parse(line, text)), [])
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if not self.names:
            raise TableError('the file is empty: it has no header.')
        if '' in self.names:
            raise TableError(f'line 1: column {self.names.index("") + 1} has no name.')
        if twice:
            raise TableError(f'line 1: the header has {shown(twice[0])} more than once.')
        require_within('TABLE_MAX_COLUMNS', self._width, 'columns')

    def batches(self) -> Iterator[Rows]:
        """The rows, all as wide as the header. Raises TableError, naming the line, for others."""
        step = max(1, BATCH // sum(len(name) + 8 for name in self.names))
        self.rows = -1  # the header is a row
        for line, text in self._texts:
            rows = self._parse(line, text)
            first, self.rows = int(self.rows < 0), self.rows + len(rows)
            require_within('TABLE_MAX_CELLS', self.rows * self._width, 'cells')
            yield from (rows[start : start + step] for start in range(first, len(rows), step))

    def _parse(self, line: int, text: bytes) -> Rows:
        text = text.rstrip(b'\r\n') + b'\n'
        if text == b'\n':  # at the end of the file, blank lines are nothing
            return []
        try:
            rows = list(self._reader(text))
        except csv.Error:
            rows = []
        if self._records(text) == len(rows) and set(map(len, rows)) == {self._width}:
            return rows
        raise self._fault(line, text)

    def _reader(self, text: bytes) -> Any:
        lines = io.StringIO(text.decode(), newline='\n')
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def _records(self, text: bytes) -> int:
        """The number of records, or -1 for text that is not so many whole records."""
        outside = _outside_quotes(text)
        records = outside.count(b'\n')
        well_formed = (
            outside.count(self._delimiter.encode()) == records * (self._width - 1)
            and outside.count(b'\r') == outside.count(b'\r\n')
            and b'\0' not in text
            and not self._misplaced.search(outside)
            and not any(mark in outside for mark in self._doubtful)
        )
        return records if well_formed else -1

    def _fault(self, first: int, text: bytes) -> TableError:
        """The first fault in a text that is known to be broken, record by record."""
        lines = [line + b'\n' for line in text.split(b'\n')]
        reader, begin = self._reader(text), 0
        try:
            for row in reader:
                record = b''.join(lines[begin : reader.line_num])
                if not row:
                    return TableError(
                        f'line {first + begin} is blank. Remove it, or write "" for an empty field.'
                    )
                quoted_well = not self._misplaced.search(_outside_quotes(record))
                if quoted_well and len(row) != self._width:
                    many = f'{len(row)} field{"s" * (len(row) > 1)}'
                    return TableError(
                        f'line {first + begin} has {many} where the header has {self._width}.'
                    )
                if self._records(record) != 1:
                    break
                begin = reader.line_num
            else:
                return TableError(f'line {first} or below: the rows read are not those counted.')
        except csv.Error:
            record = b''.join(lines[begin : reader.line_num])
        if any(mark in _outside_quotes(record) for mark in self._doubtful):
            return TableError(
                f'line {first + begin}: the header has one column, but here are delimiters outside '
                "quotes. Name the one that separates the fields, such as delimiter=','."
            )
        return TableError(
            f'line {first + begin}: a quote, a carriage return or a NUL is out of place in the '
            'record that begins there. Put fields with quotes or line ends in quotes, close them, '
            'double each quote inside, and remove NULs.'
        )


def _outside_quotes(text: bytes) -> bytes:
    """The text outside quotes; of each quoted part one quote is left."""
    parts = text.split(b'"')
    return b'"'.join(parts[::2]) + b'"' * (len(parts) % 2 == 0)


def last_record_end(text: bytes) -> int:
    """The position after the last record end outside quotes and before blank lines, or 0."""
    end = text.rfind(b'\n') + 1
    odd = text.count(b'"', 0, end) % 2
    while odd and end:
        before = text.rfind(b'\n', 0, end - 1) + 1
        odd ^= text.count(b'"', before, end) % 2
        end = before
    body = len(text[:end].rstrip(b'\r\n'))
    return text.find(b'\n', body) + 1 if body else 0


def encode_columns(columns: Iterable[Iterable[str]], format: str) -> bytes:
    """Columns as rows of CSV or TSV; '' is an empty field, or "" in a single column.

    This takes a third of the time of csv.writer.
    """
    delimiter = DELIMITERS[format]
    fields = [_quote(list(column), delimiter) for column in columns]
    if len(fields) == 1:
        fields = [[field or '""' for field in fields[0]]]
    return ('\n'.join(map(delimiter.join, zip(*fields, strict=True))) + '\n').encode()


def _quote(fields: list[str], delimiter: str) -> list[str]:
    # A byte order mark would be lost at the beginning of a file.
    text, marks = '\0'.join(fields), f'{delimiter}"\r\n\ufeff'
    if not any(mark in text for mark in marks):
        return fields
    has_mark = re.compile(f'[{marks}]').search
    return ['"' + field.replace('"', '""') + '"' if has_mark(field) else field for field in fields]


def write_csv(output: IO[bytes], format: str, names: list[str], blocks: Iterator[bytes]) -> int:
    """Write a header and encoded rows; return the number of rows, counted in the bytes written."""
    if '' in names:
        raise TableError('a column has no name.')
    rows = -1
    for block in chain([encode_columns([[name] for name in names], format)], blocks):
        if b'\0' in block:
            raise TableError('a field holds a NUL character, which CSV cannot hold.')
        output.write(block)
        require_room(output)
        rows += _outside_quotes(block).count(b'\n')
    return rows
