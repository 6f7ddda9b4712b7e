"""Encode rows as text and write them; the rows are counted in the bytes that are written."""

from collections.abc import Iterable, Sequence
from typing import IO, Any

import msgspec

from libraries.tables.text import TableError, require_room

DELIMITERS = {'csv': ',', 'tsv': '\t'}  # by format


def object_type(names: list[str]) -> Any:
    """A class of JSON objects with exactly these keys. None if one of them cannot be a name.

    msgspec takes half of the time for it that it takes for dicts.
    """
    fields = [(f'field{number}', Any) for number in range(len(names))]
    rename = {field: name for (field, _), name in zip(fields, names, strict=True)}
    try:
        return msgspec.defstruct(
            'Object', fields, rename=rename, forbid_unknown_fields=True, gc=False
        )
    except ValueError:  # a quote, a backslash or a control character
        return None


def encode_columns(columns: Iterable[Sequence[str]], delimiter: str) -> bytes:
    """Columns of text as rows of CSV.

    This takes a third of the time of csv.writer, which looks at each character.
    """
    fields = [_quote(column, delimiter) for column in columns]
    if len(fields) == 1:  # a line without anything would be no row
        fields = [[field or '""' for field in fields[0]]]
    return ('\n'.join(map(delimiter.join, zip(*fields, strict=True))) + '\n').encode()


def _quote(fields: Sequence[str], mark: str) -> Sequence[str]:
    text = '\0'.join(fields)
    # A byte order mark would be lost at the beginning of a file.
    signs = [sign for sign in (mark, '\n', '\r', '\ufeff', '"') if sign in text]
    if not signs:
        return fields
    one, other, more = signs[0], signs[-1], signs[1:-1]  # there are seldom more than two
    return [
        '"' + field.replace('"', '""') + '"'
        if one in field or other in field or (more and any(sign in field for sign in more))
        else field
        for field in fields
    ]


def write_csv(output: IO[bytes], blocks: Iterable[bytes]) -> int:
    """Write a header and rows; return the number of rows."""
    rows, odd = -1, 0
    for block in blocks:
        if b'\0' in block:
            raise TableError('a field holds a NUL character, which CSV cannot hold.')
        parts = block.split(b'"')
        rows += b''.join(parts[odd::2]).count(b'\n')  # outside quotes
        odd ^= len(parts) % 2 == 0
        output.write(block)
        require_room(output)
    return rows


def write_json(output: IO[bytes], blocks: Iterable[bytes], as_array: bool) -> int:
    """Write objects, one a line, as NDJSON or as an array; return their number."""
    rows, begin = 0, b'[\n'
    for block in filter(None, blocks):
        rows += block.count(b'\n')
        if as_array:  # a comma between two objects, none behind the last
            block = begin + block[:-1].replace(b'\n', b',\n')
            begin = b',\n'
        output.write(block)
        require_room(output)
    if as_array:
        output.write(b'\n]\n' if rows else b'[]\n')
    return rows
