"""Read JSON arrays of objects and NDJSON by msgspec, in pieces of whole objects.

Numbers keep their digits. Objects and keys are counted apart from msgspec, which takes the last of
two values of a key.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from types import NoneType
from typing import Any

import msgspec

from libraries.tables.output import encode_columns, object_type
from libraries.tables.text import Blocks, TableError, cut, require_within, shown

Row = dict[str, Any]

CELLS = 4_000_000  # most values in one batch: objects with few of many keys are small
_WORDS = {None: '', True: 'true', False: 'false'}
_LIKELY_END = re.compile(rb'.*\}(?=\s*,\s*\{)', re.DOTALL)
_BEFORE_ROW = re.compile(r'\s*[\[,]\s*(?=\{)')
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{:'))
_MINUS_ZERO = re.compile(rb'-0(?<![\w.-]-0)(?![\d.eE])')  # msgspec decodes it as 0
_BYTE = re.compile(r' \(byte (\d+)\)')
_decode_first = json.JSONDecoder().raw_decode


class Number(str):
    """A number with a decimal point or an exponent, as written in the file."""

    __slots__ = ()


class ReadAgainError(Exception):
    """The file must be read once more: what its beginning promised has not held."""


class JsonTable:
    """A JSON file of objects; `rows` is the number of rows read so far."""

    def __init__(self, open_blocks: Callable[[], Blocks], one_a_line: bool) -> None:
        """`open_blocks` is called once per pass and reads the file from its beginning."""
        self.rows = 0
        self.names: list[str] = []  # of the columns; unknown until `records`
        self._has_all_names = False
        self._open_blocks = open_blocks
        self._one_a_line = one_a_line
        self._is_nested = False  # or what looks like the end of a row may be in a row or a string
        self._decode_rows = self._decoder(Row)
        self._decode_texts = self._decoder(msgspec.Raw)

    def objects(self) -> Generator[bytes]:
        """The objects as written in the file, one per line.

        Raises ReadAgainError if an array must be cut with more care.
        """
        self.rows = 0
        for line, text in self._pieces():
            self.rows += len(self._read(line, text))
            # Outside strings, where there are none.
            flat = text if self._one_a_line else text.replace(b'\n', b' ').replace(b'\r', b' ')
            yield b'\n'.join([*self._decode_texts(flat), b''])

    def records(self, delimiter: str) -> Generator[bytes]:
        """The keys and the rows as CSV; null and a missing key are empty fields.

        Raises ReadAgainError as `objects` does, and if there is a key that is not in the beginning.
        """
        names = self.names = self.names or self.find_names(pieces=1) or self.find_names()
        if '' in names:
            raise TableError('a column has no name.')
        yield encode_columns([[name] for name in names], delimiter)
        self.rows = 0
        for columns in self._columns(names):
            try:
                yield encode_columns(columns, delimiter)
            except TypeError:  # not all values are text
                yield encode_columns(map(self._as_text, names, columns), delimiter)
            self.rows += len(columns[0])
            require_within('TABLE_MAX_CELLS', self.rows * len(names), 'cells')

    def find_names(self, pieces: int | None = None) -> list[str]:
        """The keys in the first pieces, or in all, in order of appearance.

        Raises TableError if there are none in all, or more than TABLE_MAX_COLUMNS.
        """
        names: dict[str, None] = {}
        for line, text in islice(self._pieces(), pieces):
            for row in self._read(line, text):
                if not names.keys() >= row.keys():
                    names.update(dict.fromkeys(row))
                    require_within('TABLE_MAX_COLUMNS', len(names), 'different keys')
        if pieces is None:
            self._has_all_names = True
            if not names:
                raise TableError('there is no row with a key, so the columns are not known.')
        return list(names)

    def _columns(self, names: list[str]) -> Iterator[list[Sequence[Any]]]:
        """The values by column, in batches; None for a missing key."""
        row_type = object_type(names)
        decode = self._decoder(row_type) if row_type else lambda text: []
        step = max(1, CELLS // len(names))
        for line, text in self._pieces():
            objects = []
            with suppress(msgspec.DecodeError, RecursionError):  # other keys, or something wrong
                objects = decode(text)
            if objects and self._is_whole(text, len(objects), len(objects) * len(names)):
                yield list(zip(*map(msgspec.structs.astuple, objects), strict=True))
                continue
            rows = self._read(line, text)
            if not self._has_all_names:  # find them before there are large rows of few values
                self.names = self.find_names()
                raise ReadAgainError  # the file is at its end now
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                yield [[row.get(name) for row in part] for name in names]

    def _as_text(self, name: str, values: Sequence[Any]) -> Sequence[str]:
        """Numbers as written, words for true and false, nothing for null."""
        kinds = set(map(type, values))
        if kinds <= {str, Number}:
            return values
        if nested := kinds & {list, dict}:
            row = next(row for row, value in enumerate(values) if type(value) in nested)
            raise TableError(
                f'row {self.rows + row + 1}: {shown(name)} is a list or an object, which CSV '
                'cannot hold. Flatten it, or convert to JSON, NDJSON or Parquet.'
            )
        if kinds <= {str, Number, NoneType}:
            return [value or '' for value in values]
        if kinds == {int}:
            return list(map(str, values))
        return [
            _WORDS[value] if type(value) in (bool, NoneType) else str(value) for value in values
        ]

    def _pieces(self) -> Blocks:
        if self._one_a_line:
            return cut(self._open_blocks(), lambda text: text.rfind(b'\n') + 1)
        find_end = _last_row_end if self._is_nested else _likely_row_end
        return _as_arrays(cut(self._open_blocks(), find_end))

    def _decoder(self, row: Any) -> Callable[[bytes], list[Any]]:
        if self._one_a_line:
            return msgspec.json.Decoder(row, float_hook=Number).decode_lines
        return msgspec.json.Decoder(list[row], float_hook=Number).decode

    def _read(self, line: int, text: bytes) -> list[Row]:
        """The objects of a piece. Raises TableError, naming the line of the first wrong one."""
        try:
            return self._read_exactly(text)
        except (msgspec.DecodeError, RecursionError, TableError) as error:
            if not self._one_a_line and not self._is_nested:
                self._is_nested = True
                raise ReadAgainError from error
            at = 0
            for row in self._split(text):
                alone = row if self._one_a_line else b'[' + row + b']'
                if alone == text:
                    break
                before, at = at, text.index(row, at)
                line += text.count(b'\n', before, at)
                self._read(line, alone)
            why = str(error).rstrip('.')
            if byte := _BYTE.search(why):
                line += text.count(b'\n', at, int(byte[1]))
            why = _BYTE.sub('', why).partition(' - at `$')[0]
            raise TableError(f'line {line}: {why}.') from error

    def _read_exactly(self, text: bytes) -> list[Row]:
        rows: list[Row] = self._decode_rows(text)
        if not self._is_whole(text, len(rows), sum(map(len, rows))):
            if self._one_a_line and len(_lines(text)) != len(rows):
                raise TableError('there must be one whole object in each line')
            rows = json.loads(
                b'[' + b','.join(self._decode_texts(text)) + b']',
                object_pairs_hook=_require_unique,
                parse_float=Number,
                parse_int=Number,
            )
        return rows

    def _is_whole(self, text: bytes, rows: int, keys: int) -> bool:
        """Whether the text has so many rows and keys, and no -0."""
        if _MINUS_ZERO.search(text):
            return False
        end = b'\n' if self._one_a_line else b'{'
        if (text.count(end), text.count(b':')) == (rows, keys):
            return True  # without any in strings, which need not be found then
        structure = _structure(text)
        found = len(_lines(text)) if self._one_a_line else structure.count(b'{')
        return (found, structure.count(b':')) == (rows, keys)

    def _split(self, text: bytes) -> list[bytes]:
        if self._one_a_line:
            return _lines(text)
        with suppress(msgspec.DecodeError, RecursionError):
            return list(map(bytes, self._decode_texts(text)))
        return []


def _lines(text: bytes) -> list[bytes]:
    return [line for line in text.split(b'\n') if line.strip()]


def _require_unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise TableError(f'an object has the key {shown(twice)} more than once')
    return row


def _structure(text: bytes) -> bytes:
    """The braces and colons outside strings."""
    signs = text.replace(b'\\\\', b'').replace(b'\\"', b'').translate(None, _NOT_STRUCTURE)
    return b''.join(signs.replace(b'""', b'').split(b'"')[::2])


def _as_arrays(pieces: Blocks) -> Blocks:
    """Make an array of each piece of an array."""
    piece = b''
    for line, text in pieces:
        if not piece and not text.lstrip().startswith(b'['):
            raise TableError("the file must be an array: '[' first.")
        piece = text.replace(b',', b'[', 1) if text.lstrip().startswith(b',') else text
        yield line, piece + b']' * piece.rstrip().endswith(b'}')
    if not piece.rstrip().endswith(b']'):
        raise TableError('the file ends before its array does: the last character must be ].')


def _likely_row_end(text: bytes) -> int:
    """The position after what looks like the last object that another one follows, or 0."""
    found = _LIKELY_END.match(text)
    return found.end() if found else 0


def _last_row_end(text: bytes) -> int:
    """The same, found by decoding row after row: slower, but also right for nested objects."""
    rows, end = text.decode(), 0
    begin = _BEFORE_ROW.match(rows)
    with suppress(ValueError, RecursionError):  # the last one is cut off, or something is wrong
        while begin:
            _, after = _decode_first(rows, begin.end())
            begin = _BEFORE_ROW.match(rows, after)
            end = after if begin else end
    return len(rows[:end].encode())
