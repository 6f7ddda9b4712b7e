"""Read JSON arrays of objects and NDJSON in blocks of whole objects.

All rows are read once before the first is written: a schema guessed from the first rows would drop
keys that appear later. Numbers keep their digits when they become text.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from libraries.tables.json_cut import cut_array, cut_lines
from libraries.tables.text import TableError, require_utf8
from qdjobs.errors import short_repr

Row = dict[str, Any]


class Number(str):
    """A number with a decimal point or an exponent, as written in the file."""

    __slots__ = ()


_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{:'))
_LINE_END = b'\n'
_MINUS_ZERO = re.compile(rb'-0(?![0-9.eE])')  # msgspec decodes it as 0; also matches in strings
_BYTE = re.compile(r'\(byte (\d+)\)')

_array = msgspec.json.Decoder(list[Row], float_hook=Number)
_array_texts = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(Row, float_hook=Number)
_object_text = msgspec.json.Decoder(msgspec.Raw)


class JsonReader:
    """Reads a JSON file; `rows` is the number of rows read, counted apart from the decoder."""

    def __init__(self, open_blocks: Callable[[], Iterator[bytes]], one_a_line: bool) -> None:
        """`open_blocks` is called once per pass and reads the file from its beginning."""
        self.rows = 0
        self._open_blocks = open_blocks
        self._one_a_line = one_a_line
        self._decode = _object.decode_lines if one_a_line else _array.decode

    def lines(self) -> Iterator[bytes]:
        """The objects as written in the file, one per line. Raises TableError as `batches` does."""
        read = _object_text.decode_lines if self._one_a_line else _array_texts.decode
        for text, _ in self._objects():
            flat = text if self._one_a_line else text.replace(b'\n', b' ').replace(b'\r', b' ')
            yield b'\n'.join([*read(flat), b''])

    def batches(self) -> Iterator[list[Row]]:
        """The objects in batches; a number with a decimal point or an exponent is a Number.

        Raises TableError for invalid JSON, a row that is not an object, and a duplicate key.
        """
        for _, rows in self._objects():
            yield rows

    def batches_again(self) -> Iterator[list[Row]]:
        """Read all batches a second time, without the checks; `rows` does not change."""
        for _, text in self._texts():
            yield self._read(text)

    def _read(self, text: bytes) -> list[Row]:
        rows = self._decode(text)
        if not _MINUS_ZERO.search(text):
            return rows
        parts = text.split(b'\n') if self._one_a_line else [text]
        read = [
            json.loads(part, parse_float=Number, parse_int=_parse_int)
            for part in parts
            if part.strip()
        ]
        return read if self._one_a_line else list(read[0])

    def _texts(self) -> Iterator[tuple[int, bytes]]:
        return (cut_lines if self._one_a_line else cut_array)(self._open_blocks())

    def _objects(self) -> Iterator[tuple[bytes, list[Row]]]:
        self.rows = 0
        for line, text in self._texts():
            require_utf8(text, line)
            try:
                rows = self._read(text)
                count = self._count(text, rows)
            except (msgspec.DecodeError, RecursionError, TableError) as error:
                raise self._fault(text, line, error) from error
            self.rows += count
            yield text, rows

    def _count(self, text: bytes, rows: list[Row]) -> int:
        """Count the objects by the braces and colons outside strings.

        If these do not match the rows (nested objects, duplicate keys), decode again with the
        standard library's decoder.
        """
        lines = sum(map(bool, map(bytes.strip, text.split(b'\n')))) if self._one_a_line else None
        if lines not in (None, len(rows)):
            raise TableError('there is not one whole object in each line.')
        plain = text.replace(b'\\\\', b'').replace(b'\\"', b'') if b'\\' in text else text
        # Strings without a brace or colon are `""` now: remove them before splitting at quotes.
        structure = plain.translate(None, _NOT_STRUCTURE).replace(b'""', b'')
        structure = b''.join(structure.split(b'"')[::2])
        count = structure.count(b'{')
        if count == len(rows) and structure.count(b':') == sum(map(len, rows)):
            return count
        for part in text.split(b'\n') if self._one_a_line else [text]:
            if part.strip():
                found = json.loads(part, object_pairs_hook=_require_unique)
        return lines if lines is not None else len(found)

    def _fault(self, text: bytes, line: int, error: Exception) -> TableError:
        """The error with its line, as exactly as it can be found."""
        if self._one_a_line:
            for number, part in enumerate(text.split(b'\n'), line):
                try:
                    self._count(part, _object.decode_lines(part))
                except (msgspec.DecodeError, RecursionError, TableError) as own:
                    return _describe(f'line {number}', own)
        if match := _BYTE.search(str(error)):
            return _describe(f'line {line + text.count(_LINE_END, 0, int(match[1]))}', error)
        return _describe(f'line {line} or below', error)


def _describe(place: str, error: Exception) -> TableError:
    if isinstance(error, TableError):
        return TableError(f'{place}: {error}')
    if isinstance(error, RecursionError):
        return TableError(f'{place}: lists and objects are nested too deeply.')
    if isinstance(error, msgspec.ValidationError) and 'object' in str(error):
        return TableError(f'{place}: every row must be an object such as {{"name": "value"}}.')
    return TableError(f'{place}: {_BYTE.sub("", str(error)).strip()}.')


def _parse_int(digits: str) -> int | Number:
    return Number(digits) if digits == '-0' else int(digits)


def _require_unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise TableError(f'an object has the key {short_repr(twice)} more than once.')
    return row
