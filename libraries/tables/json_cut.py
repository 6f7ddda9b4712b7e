"""Cut JSON text into blocks of whole objects, so that memory use does not depend on file size."""

import codecs
import json
import re
from collections.abc import Iterator

import msgspec

from libraries.tables.text import MAX_RECORD, TableError
from qdjobs.errors import short_repr

_SPACE = b' \t\r\n'
_TRIES = 5  # cut positions to try from the end, before decoding object by object
_COMMA_AFTER = re.compile(rb'[ \t\r\n]*,')
_SPACES = re.compile(r'[ \t\r\n]*')
_COMMA = re.compile(r'[ \t\r\n]*,[ \t\r\n]*')
_values = msgspec.json.Decoder(list[msgspec.Raw])


def cut_lines(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Cut NDJSON into blocks of whole lines; yield each with the number of its first line."""
    line, rest = 1, b''
    for block in blocks:
        rest += block
        if end := rest.rfind(b'\n') + 1:
            yield line, rest[:end]
            line += rest.count(b'\n', 0, end)
            rest = rest[end:]
        elif len(rest) > MAX_RECORD:
            raise _too_long(line)
    if rest:
        yield line, rest


def cut_array(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Cut a JSON array into smaller arrays; yield each with the number of its first line."""
    line, rest, opened, more = 1, b'', False, False
    for block in blocks:
        rest += block
        if not opened:
            text = rest.lstrip(_SPACE)
            line += rest.count(b'\n', 0, len(rest) - len(text))
            rest = text
            if not text:
                continue
            if not text.startswith(b'['):
                first = short_repr(text[:1].decode(errors='replace'))
                raise TableError(f"the file must be an array: '[' first, not {first}.")
            rest, opened = text[1:], True
        end, after_comma = _last_object(rest)
        if end:
            yield line, b'[' + rest[:end] + b']'
            line += rest.count(b'\n', 0, after_comma)
            rest, more = rest[after_comma:], True
        elif len(rest) > MAX_RECORD:
            yield line, b'[' + rest + b']'  # if it is malformed, the reader raises a better error
            raise _too_long(line)
    last = rest.rstrip(_SPACE)
    if not opened or not last.endswith(b']'):
        raise TableError('the file ends before its array does: the last character must be ].')
    if last.strip(_SPACE) != b']':
        yield line, b'[' + last
    elif more:
        raise TableError(f'line {line}: there is a comma before the end of the array.')


def _last_object(text: bytes) -> tuple[int, int]:
    """The positions after the last object followed by a comma, and after that comma; or 0, 0.

    A position is right if the text before it decodes as an array.
    """
    end = len(text)
    for _ in range(_TRIES):
        end = text.rfind(b'}', 0, end)
        if end < 0:
            return 0, 0
        if comma := _COMMA_AFTER.match(text, end + 1):
            try:
                _values.decode(b'[' + text[: end + 1] + b']')
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            return end + 1, comma.end()
    return _last_object_slowly(text)


def _last_object_slowly(block: bytes) -> tuple[int, int]:
    try:
        text = codecs.getincrementaldecoder('utf-8')().decode(block)
    except UnicodeDecodeError:
        return 0, 0
    read = json.JSONDecoder().raw_decode
    end, after_comma = 0, 0
    position = len(_SPACES.match(text)[0])  # type: ignore[index]  # always matches
    while True:
        try:
            _, stop = read(text, position)
        except (ValueError, RecursionError):
            break
        comma = _COMMA.match(text, stop)
        if comma is None:
            break
        end, after_comma, position = stop, comma.end(), comma.end()
    return len(text[:end].encode()), len(text[:after_comma].encode())


def _too_long(line: int) -> TableError:
    return TableError(
        f'line {line}: the object that begins there has more than {MAX_RECORD >> 20} MB.'
    )
