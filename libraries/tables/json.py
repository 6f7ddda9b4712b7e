"""Read JSON arrays of objects and NDJSON by msgspec, in blocks of whole objects.

NDJSON is read as arrays, too. Numbers keep their digits. Objects and keys are counted apart from
msgspec, which takes the last of two values of a key.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from operator import attrgetter
from typing import IO, Any

import msgspec

from libraries.tables.text import TableError, cut, require_room, require_within, shown

Row = dict[str, Any]
Column = tuple[list[Any], set[type]]  # values and their types

CELLS = 4_000_000  # most values in one batch: objects with few of many keys are small
_UNSET = msgspec.UNSET
_SPACE = b' \t\r\n'
_LINE_END = b'\n'
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{:'))
_COMMA_OF_BLANK = re.compile(rb'\n,(?=[ \t\r]*\n)')
_SIGN = re.compile(rb'[\[\]{},]')
_MINUS_ZERO = re.compile(rb'-0(?![0-9.eE])')  # msgspec decodes it as 0; also matches in strings
_BYTE = re.compile(r' \(byte (\d+)\)')


class Number(str):
    """A number with a decimal point or an exponent, as written in the file."""

    __slots__ = ()


class NewKeyError(Exception):
    """An object has a key that is not among the names."""


_decode_rows = msgspec.json.Decoder(list[Row], float_hook=Number).decode
_decode_texts = msgspec.json.Decoder(list[msgspec.Raw]).decode


class JsonReader:
    """Reads a JSON file; `rows` is the number of rows read, counted apart from msgspec."""

    def __init__(self, open_blocks: Callable[[], Iterator[bytes]], one_a_line: bool) -> None:
        """`open_blocks` is called once per pass and reads the file from its beginning."""
        self.rows = 0
        self._open_blocks = open_blocks
        self._cut = _cut_lines if one_a_line else _cut_array

    def lines(self) -> Iterator[bytes]:
        """The objects as written in the file, one per line. Raises TableError as `names` does."""
        self.rows = 0
        for line, text in self._cut(self._open_blocks()):
            self.rows += len(_read(line, text))
            # Outside strings, where there are none.
            flat = text.replace(b'\n', b' ').replace(b'\r', b' ')
            yield b'\n'.join([*_decode_texts(flat), b''])

    def names(self, blocks: int | None = None) -> list[str]:
        """The keys of the objects in the first blocks or in all, in order of appearance.

        Raises TableError for invalid JSON, a row that is not an object, a duplicate key, and if
        there is no key.
        """
        names: dict[str, None] = {}
        for line, text in islice(self._cut(self._open_blocks()), blocks):
            for row in _read(line, text):
                if not names.keys() >= row.keys():
                    names.update(dict.fromkeys(row))
                    require_within('TABLE_MAX_COLUMNS', len(names), 'different keys')
        if not names and blocks is None:
            raise TableError('there is no row with a key, so the columns are not known.')
        return list(names)

    def columns(self, names: list[str]) -> Iterator[list[Column]]:
        """The values by column, None for missing ones. Raises NewKeyError, and as `names` does."""
        self.rows = 0
        read_fast = _columns_reader(names)
        step = max(1, CELLS // len(names))
        for line, text in self._cut(self._open_blocks()):
            if text.count(b'{') < step and (columns := read_fast(text)):
                yield self._add(columns)
                continue
            rows = _read(line, text)
            if not set(names).issuperset(chain.from_iterable(rows)):
                raise NewKeyError
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                yield self._add([_column([row.get(name) for row in part]) for name in names])

    def _add(self, columns: list[Column]) -> list[Column]:
        self.rows += len(columns[0][0])
        require_within('TABLE_MAX_CELLS', self.rows * len(columns), 'cells')
        return columns


def _column(values: list[Any]) -> Column:
    return values, set(map(type, values))


def object_type(names: list[str]) -> Any:
    """A class whose attributes are the values by key: much faster than dicts. None if it cannot be.

    The attributes are `field0`, `field1` …
    """
    fields = [(f'field{number}', Any, _UNSET) for number in range(len(names))]
    rename = {field[0]: name for field, name in zip(fields, names, strict=True)}
    try:
        return msgspec.defstruct(
            'Object', fields, rename=rename, forbid_unknown_fields=True, gc=False
        )
    except ValueError:  # a key has a quote, a backslash or a control character
        return None


def _columns_reader(names: list[str]) -> Callable[[bytes], list[Column] | None]:
    """Read an array into columns; None if it has other keys, -0 or something wrong."""
    if (row := object_type(names)) is None:
        return lambda text: None
    decode = msgspec.json.Decoder(list[row], float_hook=Number).decode  # type: ignore[valid-type]
    gets = [attrgetter(f'field{number}') for number in range(len(names))]

    def read(text: bytes) -> list[Column] | None:
        if _MINUS_ZERO.search(text):
            return None
        with suppress(msgspec.DecodeError, RecursionError):
            rows = decode(text)
            columns = [_column(list(map(get, rows))) for get in gets]
            missing = 0
            for number, (values, kinds) in enumerate(columns):
                if msgspec.UnsetType in kinds:
                    missing += values.count(_UNSET)
                    columns[number] = _column([None if v is _UNSET else v for v in values])
            if rows and _counts(text) == (len(rows), len(rows) * len(names) - missing):
                return columns
        return None

    return read


def as_text(name: str, column: Column, rows_before: int) -> list[str]:
    """Numbers as written, true or false, and '' for null. Raises TableError for lists, objects."""
    values, kinds = column
    if kinds & {list, dict}:
        numbered = reversed([*enumerate(values, rows_before + 1)])
        require_flat(name, {type(value): row for row, value in numbered}, 'CSV')
    if kinds <= {str, Number}:
        return values
    if kinds == {int}:
        return list(map(str, values))
    return ['' if v is None else str(v).lower() if type(v) is bool else str(v) for v in values]


def _counts(text: bytes) -> tuple[int, int]:
    """The objects and keys: the braces and colons outside strings."""
    # Strings without a brace or colon are `""` then: remove them before splitting.
    structure = _unescape(text).translate(None, _NOT_STRUCTURE).replace(b'""', b'')
    structure = b''.join(structure.split(b'"')[::2])
    return structure.count(b'{'), structure.count(b':')


def _read(line: int, text: bytes) -> list[Row]:
    """The objects of an array. Raises TableError, naming the line, for what is wrong."""
    try:
        return _read_checked(text)
    except (msgspec.DecodeError, RecursionError, TableError) as first:
        error: Exception = first
    position = 0
    if match := _BYTE.search(str(error)):
        position = int(match[1])
    else:
        for row in _split(text):
            position = text.index(row, position)
            try:
                _read_checked(b'[%b]' % row)
            except (msgspec.DecodeError, RecursionError, TableError) as own:
                error = own
                break
    why = 'objects are nested too deeply' if isinstance(error, RecursionError) else str(error)
    why = (
        _BYTE.sub('', why)
        .partition(' - at `$')[0]
        .replace('Expected `object`', 'a row must be an object such as {"name": "value"}')
        .rstrip('.')
    )
    raise TableError(f'line {line + text.count(_LINE_END, 0, position)}: {why}.') from error


def _split(text: bytes) -> list[bytes]:
    try:
        return list(map(bytes, _decode_texts(text)))
    except (msgspec.DecodeError, RecursionError):
        return text[1:-1].split(b'\n,')  # where `_cut_lines` has written them


def _read_checked(text: bytes) -> list[Row]:
    rows = _decode_rows(text)
    if _counts(text) != (len(rows), sum(map(len, rows))):  # nested objects, or duplicate keys
        json.loads(text, object_pairs_hook=_require_unique)
    if _MINUS_ZERO.search(text):
        rows = json.loads(text, parse_float=Number, parse_int=_parse_int)
    return rows


def _parse_int(digits: str) -> int | Number:
    return Number(digits) if digits == '-0' else int(digits)


def _require_unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise TableError(f'an object has the key {shown(twice)} more than once.')
    return row


def require_flat(name: str, kinds: dict[type, int], format: str) -> None:
    """Raise TableError, naming row and column, for a list or an object."""
    for kind, what in ((list, 'a list'), (dict, 'an object')):
        if kind in kinds:
            raise TableError(
                f'row {kinds[kind]}: {shown(name)} is {what}, which {format} cannot hold. '
                'Flatten it, or convert to JSON or NDJSON.'
            )


def _unescape(text: bytes) -> bytes:
    """The text, as long as before, without backslashes before quotes."""
    return text.replace(b'\\\\', b'__').replace(b'\\"', b'__') if b'\\' in text else text


def last_line_end(text: bytes) -> int:
    return text.rfind(b'\n') + 1


def _cut_lines(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Cut NDJSON into arrays of the same lines; yield each with the number of its first line."""
    for line, text in cut(blocks, last_line_end):
        rows = text.lstrip(_SPACE)
        line += text.count(b'\n') - rows.count(b'\n')
        rows = _COMMA_OF_BLANK.sub(b'\n', rows.rstrip(_SPACE).replace(b'\n', b'\n,'))
        yield line, b'[' + rows + b']'


def _cut_array(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Cut a JSON array into smaller arrays; yield each with the number of its first line."""
    line, text = 1, b''
    for block in blocks:
        text = block.lstrip(_SPACE)
        line += block.count(b'\n') - text.count(b'\n')
        if text:
            break
    if text[:1] not in (b'[', b''):
        raise TableError(f"the file must be an array: '[' first, not {text[:1]!r}.")
    ended, first = False, True
    for start, array in cut(chain([text[1:]], blocks), _last_comma, line):
        text = array.rstrip(_SPACE)
        ended = text.endswith(b']')
        if ended and text.strip(_SPACE) == b']' and not first:
            raise TableError(f'line {start}: there is a comma before the end of the array.')
        if not text.endswith((b']', b',')):
            break
        # A comma without a row before it is left for the decoder to refuse.
        rows = text[:-1] if text.strip(_SPACE) != b',' else text
        yield start, b'[' + rows + b']'
        first = False
    if not ended:
        raise TableError('the file ends before its array does: the last character must be ].')


def _last_comma(text: bytes) -> int:
    """The position after the last comma outside of objects, lists and strings, or 0."""
    parts = _unescape(text).split(b'"')
    outside = b''.join(parts[::2])
    depth = sum(map(outside.count, (b'{', b'['))) - sum(map(outside.count, (b'}', b']')))
    end = len(text)
    for number in range(len(parts) - 1, -1, -1):
        end -= len(parts[number])
        for sign in reversed(list(_SIGN.finditer(parts[number]))) if number % 2 == 0 else ():
            if depth == 0 and sign[0] == b',':
                return end + sign.end()
            depth += (sign[0] in b'}]') - (sign[0] in b'{[')
        end -= 1
    return 0


def write_json(output: IO[bytes], blocks: Iterator[bytes], as_array: bool) -> int:
    """Write objects, one a line, as NDJSON or as an array; return their number."""
    rows = 0
    output.write(b'[' * as_array)
    for block in filter(None, blocks):
        if as_array:
            output.write(b',\n' if rows else b'\n')
            output.write(block[:-1].replace(b'\n', b',\n'))
        else:
            output.write(block)
        require_room(output)
        rows += block.count(b'\n')
    output.write(b'\n]\n' * as_array)
    return rows
