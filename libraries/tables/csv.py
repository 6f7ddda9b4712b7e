"""Read CSV and TSV by Python's csv module.

Records and fields are counted apart from it, by what is outside quotes.
"""

import csv
import io
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import chain, starmap

import msgspec

from libraries.tables.output import encode_columns, object_type
from libraries.tables.text import Blocks, TableError, cut, require_within, shown

DETECTED = ',;\t|'
BATCH = 16 << 20  # about the most bytes encoded at a time as JSON, where each row has the header

csv.field_size_limit(sys.maxsize)  # records are bounded as they are cut
_encode_lines = msgspec.json.Encoder().encode_lines


class CsvTable:
    """A CSV file; `rows` is the number of rows read so far."""

    def __init__(self, blocks: Blocks, delimiter: str | None, prefer_tabs: bool) -> None:
        self.rows = 0
        texts = cut(blocks, _last_record_end)
        first = next(texts, (1, b''))
        self._texts = chain([first], texts)
        header = _outside_quotes(first[1]).partition(b'\n')[0].decode()
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
        self._doubtful = DETECTED if not delimiter and not found else ''
        self._width = header.count(self._delimiter) + 1
        require_within('TABLE_MAX_COLUMNS', self._width, 'columns')
        self.names = next(iter(self._parse(*first)), [])
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if not self.names:
            raise TableError('the file is empty: it has no header.')
        if '' in self.names:
            raise TableError(f'line 1: column {self.names.index("") + 1} has no name.')
        if twice:
            raise TableError(f'line 1: the header has {shown(twice[0])} more than once.')

    def records(self, delimiter: str) -> Generator[bytes]:
        """The header and the rows, as CSV with this delimiter."""
        yield encode_columns([[name] for name in self.names], delimiter)
        for rows in self._batches():
            yield encode_columns(zip(*rows, strict=True), delimiter)

    def objects(self) -> Generator[bytes]:
        """The rows as JSON objects, one per line."""
        step = max(1, BATCH // sum(len(name) + 8 for name in self.names))
        make = object_type(self.names) or (lambda *row: dict(zip(self.names, row, strict=True)))
        for rows in self._batches():
            for start in range(0, len(rows), step):
                yield _encode_lines(list(starmap(make, rows[start : start + step])))

    def _batches(self) -> Iterator[list[list[str]]]:
        header = 1
        for line, text in self._texts:
            rows = self._parse(line, text)[header:]
            header = 0
            self.rows += len(rows)
            require_within('TABLE_MAX_CELLS', self.rows * self._width, 'cells')
            if rows:
                yield rows

    def _parse(self, line: int, text: bytes) -> list[list[str]]:
        """The records of a text. Raises TableError, naming the line of the first wrong one."""
        text = text.rstrip(b'\r\n') + b'\n'
        if text == b'\n':  # at the end of the file, blank lines are nothing
            return []
        rows = self._read(text)
        if self._is_right(text, rows):
            return rows
        for record in _split(text):
            self._require_right(line, record)
            line += record.count(b'\n')
        raise TableError(f'line {line} or above: the rows read are not those counted.')

    def _require_right(self, line: int, record: bytes) -> None:
        rows = self._read(record)
        if self._is_right(record, rows):
            return
        outside = _outside_quotes(record).decode()
        fields = outside.count(self._delimiter) + 1
        if not record.strip(b'\r\n'):
            why = 'is blank: remove it, or write "" for an empty field'
        elif len(rows) == 1 and len(rows[0]) == fields != self._width:
            why = f'has {fields} field{"s" * (fields > 1)} where the header has {self._width}'
        elif any(mark in outside for mark in self._doubtful):
            why = (
                'has delimiters outside quotes, but the header has one column: name the one that '
                "separates the fields, such as delimiter=','"
            )
        else:
            why = (
                'has a quote or a carriage return out of place: put fields with quotes or line '
                'ends in quotes, close them, and double each quote inside'
            )
        raise TableError(f'line {line} {why}.')

    def _read(self, text: bytes) -> list[list[str]]:
        lines = io.StringIO(text.decode(), newline='\n')
        try:
            return list(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except csv.Error:
            return []

    def _is_right(self, text: bytes, rows: list[list[str]]) -> bool:
        """Whether the rows are as wide as the header, and as many as are counted in the text."""
        outside = _outside_quotes(text)
        return (
            set(map(len, rows)) == {self._width}
            and outside.count(b'\n') == len(rows)
            and outside.count(self._delimiter.encode()) == len(rows) * (self._width - 1)
            and not any(mark.encode() in outside for mark in self._doubtful)
        )


def _outside_quotes(text: bytes) -> bytes:
    return b''.join(text.split(b'"')[::2])


def _split(text: bytes) -> Iterator[bytes]:
    """The records: a line end outside quotes is the end of one."""
    begin = end = odd = 0
    while end < len(text):
        start, end = end, text.find(b'\n', end) + 1 or len(text)
        odd ^= text.count(b'"', start, end) % 2
        if not odd or end == len(text):
            yield text[begin:end]
            begin = end


def _last_record_end(text: bytes) -> int:
    """The position after the last record end outside quotes and before blank lines, or 0."""
    end = text.rfind(b'\n') + 1
    odd = text.count(b'"', 0, end) % 2
    while odd and end:
        before = text.rfind(b'\n', 0, end - 1) + 1
        odd ^= text.count(b'"', before, end) % 2
        end = before
    body = len(text[:end].rstrip(b'\r\n'))
    return text.find(b'\n', body) + 1 if body else 0
