"""Decode text and cut it into whole records; the error and the bounds of all tables."""

import codecs
import os
import reprlib
from collections.abc import Callable, Iterator
from typing import IO

from libraries.limits import limit

BLOCK = 64 << 10  # bytes read at a time: the values of a block fit in a processor cache
MAX_RECORD = 32 << 20  # most bytes in one record: bounds the memory for any file

Blocks = Iterator[tuple[int, bytes]]  # the number of a line, and text

_MARKS = {  # byte order marks; that of UTF-32 begins as that of UTF-16
    codecs.BOM_UTF32_LE: 'utf-32',
    codecs.BOM_UTF32_BE: 'utf-32',
    codecs.BOM_UTF16_LE: 'utf-16',
    codecs.BOM_UTF16_BE: 'utf-16',
}
_shorten = reprlib.Repr()
_shorten.maxstring = 60
shown = _shorten.repr


class TableError(ValueError):
    """A table cannot be converted: what is wrong, where and what to do. Retries do not help."""


def require_within(setting: str, value: int, what: str) -> None:
    """Raise TableError, naming the setting, if the value exceeds it."""
    if value > (most := limit(setting)):
        raise TableError(f'{value} {what} are more than {most}, the limit ({setting}).')


def require_room(output: IO[bytes]) -> None:
    """Raise TableError if the file is as large as TABLE_MAX_OUTPUT."""
    if os.fstat(output.fileno()).st_size >= (most := limit('TABLE_MAX_OUTPUT')) << 20:
        raise TableError(f'the result is larger than {most} MB, the limit (TABLE_MAX_OUTPUT).')


def read_text(file: IO[bytes], encoding: str | None) -> Blocks:
    """Read a file from its beginning, in blocks of valid UTF-8 without a byte order mark or NUL.

    Each comes with the number of the line in which it ends. `encoding` None means UTF-8, or the
    encoding of the byte order mark. Raises TableError, naming the line, for bytes that are invalid.
    """
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    name = encoding or next((_MARKS[mark] for mark in _MARKS if head.startswith(mark)), 'utf-8')
    try:
        decoder = codecs.getincrementaldecoder(name)()
        ''.encode(name)  # raises LookupError for a codec that is not for text
    except (LookupError, ValueError) as error:  # ValueError: a name with NUL
        raise TableError(f"encoding {name!r} is not known; use a name such as 'cp1252'.") from error
    line, mark, block = 1, '\ufeff', b' '
    while block:
        block = file.read(BLOCK)
        try:
            parts, _ = decoder.getstate()  # of a character that the last block has cut
            text = decoder.decode(block, final=not block)
            parts += decoder.getstate()[0]
            is_same = name == 'utf-8' and not parts and not mark
            data = block if is_same else text.removeprefix(mark).encode()
        except UnicodeDecodeError as error:
            line += error.object[: error.start].decode(error.encoding, 'ignore').count('\n')
            raise TableError(
                f'line {line}: the byte 0x{error.object[error.start]:02x} is not {name} there. If '
                "the whole file is in another encoding, name it, such as encoding='cp1252'; if "
                'only a part is, fix the file.'
            ) from error
        except UnicodeError as error:  # half of a surrogate pair, which some encodings can hold
            raise TableError(f'line {line} or below: this is not {name}: {error}.') from error
        if b'\0' in data:
            line += data.count(b'\n', 0, data.index(b'\0'))
            raise TableError(f'line {line} has a NUL: remove it, or name the encoding of the file.')
        line += data.count(b'\n')
        mark = '' if text else mark
        yield line, data


def cut(blocks: Blocks, find_end: Callable[[bytes], int]) -> Blocks:
    """Cut text where `find_end` says, which returns 0 for nowhere; yield line numbers and texts."""
    begin, rest, least = 1, b'', 0
    for line, block in blocks:
        rest += block
        if len(rest) < least:  # a long record is not searched again for each block
            continue
        if end := find_end(rest):
            yield begin, rest[:end]
            rest, least = rest[end:], 0
            begin = line - rest.count(b'\n')
        elif len(rest) > MAX_RECORD:
            raise TableError(
                f'line {begin}: the record that begins there has more than {MAX_RECORD >> 20} MB: '
                'is a quote or a bracket never closed?'
            )
        else:
            least = min(2 * len(rest), MAX_RECORD)
    if rest:
        yield begin, rest
