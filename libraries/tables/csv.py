"""CSV and TSV: read in blocks whose form is checked by ourselves before the engine parses them.

A block is checked by what is left of it without quoted fields and without text: the same
delimiters in every record, and nothing else. That costs a fifth of a second for 100 MB, tells the
number of records without the engine, and leaves nothing for the engine to guess.
"""

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import IO, TYPE_CHECKING

from libraries.tables.csv_faults import find_fault
from libraries.tables.text import MAX_RECORD, TableError, one_ahead, require_utf8
from qdjobs.errors import short_repr

if TYPE_CHECKING:
    import polars

DELIMITERS = b',;\t|'  # that are recognised


class CsvForm:
    """What the records of one file look like: their delimiter and the number of their fields."""

    def __init__(self, delimiter: bytes, width: int, alone: bytes = b'') -> None:
        """`alone` are delimiters that must not occur outside quotes: which would be meant?"""
        self.delimiter, self.width = delimiter, width
        mark = re.escape(delimiter)
        # A whole quoted field, by what stands before and behind it. The quote goes first, since
        # the search for a fixed first byte is fast.
        self._quoted = re.compile(
            rb'"(?<![^%b\n]")[^"]*+(?:""[^"]*+)*+"(?![^%b\r\n])' % (mark, mark)
        )
        structure = delimiter + alone + b'"\r\n\0'
        self._text = bytes(set(range(256)) - set(structure))
        self._record = delimiter * (width - 1) + b'\n'

    def count(self, block: bytes, first_line: int) -> int:
        """The number of records of a block of whole lines; TableError, naming the line, for any
        that is not as it should be.
        """
        require_utf8(block, first_line)
        rest = self._quoted.sub(b'q', block) if b'"' in block else block
        if b'\r' in rest:  # before the text between the two is taken out
            rest = rest.replace(b'\r\n', b'\n')
        skeleton = rest.translate(None, self._text)
        records = skeleton.count(b'\n')
        if skeleton != self._record * records or b'\0' in block or self._has_blank(rest):
            raise find_fault(block, first_line, self.delimiter, self.width)
        return records

    def _has_blank(self, rest: bytes) -> bool:
        # In a file of one column it could be a row or none; in any other it has too few fields.
        return self.width == 1 and (rest.startswith(b'\n') or b'\n\n' in rest)

    def parse(self, block: bytes, names: list[str]) -> 'polars.DataFrame':
        """The fields of a checked block, all of them text."""
        import polars

        return polars.read_csv(
            codecs.BOM_UTF8 + block,  # of which Polars drops one, and it might be data
            has_header=False,
            schema=dict.fromkeys(names, polars.String()),
            separator=self.delimiter.decode(),
            quote_char='"' if b'"' in block else None,
            empty_string_is_null=False,
        )

    def write_all(
        self, output: IO[bytes], names: list[str], frames: Iterator['polars.DataFrame']
    ) -> int:
        """Write a header and rows; return how many rows there are by the look of the bytes."""
        import polars

        if '' in names:
            raise TableError('a column has no name.')
        header = polars.DataFrame([names], schema=[str(i) for i in range(self.width)], orient='row')
        # Without quotes a first name that begins with a byte order mark would lose it.
        output.write(self._write(header, quote_all=names[0].startswith('\ufeff')))
        rows = 0
        for frame in frames:
            block = self._write(frame)
            if b'\0' in block:
                raise TableError('a field holds a NUL character, for which a CSV has no place.')
            output.write(block)
            rows += self.count(block, 1) if block else 0
        return rows

    def _write(self, frame: 'polars.DataFrame', quote_all: bool = False) -> bytes:
        """The frame as records; null and '' are empty, or "" where the line would be blank."""
        import polars

        text = [
            column.replace('', None) if column.dtype == polars.String and self.width > 1 else column
            for column in frame.get_columns()
        ]
        buffer = io.BytesIO()
        polars.DataFrame(text).write_csv(
            buffer,
            include_header=False,
            separator=self.delimiter.decode(),
            quote_style='always' if quote_all else 'necessary',
            null_value=None if self.width > 1 else '""',
        )
        return buffer.getvalue()


class CsvReader:
    """The rows of a CSV file. `rows` counts them, without the engine, as they are passed on."""

    def __init__(
        self, blocks: Iterator[bytes], delimiter: str | None, prefer_tabs: bool = False
    ) -> None:
        self.rows = 0
        self._blocks = _whole_records(blocks)
        _, first = next(self._blocks, (1, b''))
        if not first:
            raise TableError('the file is empty: it has not even a header.')
        end = _record_end(first)
        header = first[:end]
        self._form = _detect_form(header, delimiter, prefer_tabs)
        self._form.count(header, 1)
        self.names = _read_header(header, self._form)
        self._blocks = chain([(1 + header.count(b'\n'), first[end:])], self._blocks)

    def frames(self) -> Iterator['polars.DataFrame']:
        """Data frames of text. Raises TableError, naming the line, for what is no CSV."""
        return one_ahead(lambda block: self._form.parse(block, self.names), self._checked())

    def _checked(self) -> Iterator[bytes]:
        for line, block in self._blocks:
            if block:
                self.rows += self._form.count(block, line)
                yield block


def _whole_records(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The same bytes cut where records end, each block with the number of its first line.

    The last one gets a line end; blank lines at the end of the file are left out.
    """
    line, rest = 1, b''
    for block in blocks:
        rest += block
        if end := _last_record_end(rest):
            yield line, rest[:end]
            line += rest.count(b'\n', 0, end)
            rest = rest[end:]
        elif len(rest) > MAX_RECORD:
            opened = rest.count(b'"') % 2
            raise TableError(
                f'line {line}: the record that begins there has more than {MAX_RECORD >> 20} MB'
                f'{": is a quote never closed?" if opened else "."}'
            )
    if rest := rest.rstrip(b'\r\n'):
        yield line, rest + b'\n'


def _last_record_end(block: bytes) -> int:
    """Behind the last line end outside quotes that something else follows or precedes, or 0."""
    end = block.rfind(b'\n') + 1
    odd = block.count(b'"', 0, end) % 2
    while odd and end:
        before = block.rfind(b'\n', 0, end - 1) + 1
        odd ^= block.count(b'"', before, end) % 2
        end = before
    # Blank lines stay with what follows, since at the end of the file they are nothing.
    text = len(block[:end].rstrip(b'\r\n'))
    for line_end in (b'\n', b'\r\n'):
        if block.startswith(line_end, text):
            return text + len(line_end) if text else 0
    return end


def _record_end(block: bytes) -> int:
    """Behind the first line end outside quotes, or at the end of the block."""
    end, odd = 0, 0
    while end < len(block):
        after = block.find(b'\n', end) + 1 or len(block)
        odd ^= block.count(b'"', end, after) % 2
        end = after
        if not odd:
            break
    return end


def _detect_form(header: bytes, delimiter: str | None, prefer_tabs: bool) -> CsvForm:
    """By the header alone: what it does not decide is asked for, never guessed."""
    outside = b''.join(header.split(b'"')[::2])
    if prefer_tabs and b'\t' in outside:
        delimiter = delimiter or '\t'
    if delimiter is not None:
        return CsvForm(delimiter.encode(), outside.count(delimiter.encode()) + 1)
    found = [bytes([mark]) for mark in DELIMITERS if mark in outside]
    if len(found) > 1:
        raise TableError(
            f'line 1: the header has {" and ".join(short_repr(mark.decode()) for mark in found)}: '
            "say which of them stands between its fields, such as delimiter=';'."
        )
    if not found:
        return CsvForm(b',', 1, alone=DELIMITERS)
    return CsvForm(found[0], outside.count(found[0]) + 1)


def _read_header(header: bytes, form: CsvForm) -> list[str]:
    row = form.parse(header, [str(number) for number in range(form.width)]).row(0)
    names = [str(name) for name in row]
    if '' in names:
        raise TableError(f'line 1: column {names.index("") + 1} has no name in the header.')
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise TableError(f'line 1: the header has {short_repr(twice[0])} more than once.')
    return names
