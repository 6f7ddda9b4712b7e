"""Read a table file as blocks of UTF-8; the error of all table code."""

import codecs
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TypeVar

X = TypeVar('X')
Y = TypeVar('Y')

BLOCK = 4 << 20  # bytes read at a time
MAX_RECORD = 32 << 20  # most bytes in one record: bounds the memory for any file

# Byte order marks. UTF-32 before UTF-16: the mark of UTF-32-LE begins with that of UTF-16-LE.
_MARKS = {
    codecs.BOM_UTF8: 'utf-8',
    codecs.BOM_UTF32_LE: 'utf-32-le',
    codecs.BOM_UTF32_BE: 'utf-32-be',
    codecs.BOM_UTF16_LE: 'utf-16-le',
    codecs.BOM_UTF16_BE: 'utf-16-be',
}


class TableError(ValueError):
    """A table cannot be converted: what is wrong, where and what to do. Retries do not help."""


def read_blocks(file: IO[bytes], encoding: str | None) -> Iterator[bytes]:
    """Read a file from its beginning, in blocks of UTF-8 without a byte order mark.

    `encoding` None means UTF-8, or the encoding of the byte order mark. UTF-8 is passed on
    unchecked: call `require_utf8`. Raises TableError, naming the line, for bytes that are
    invalid in any other encoding.
    """
    file.seek(0)
    head = file.read(4)
    named = '' if encoding is None else _codec(encoding)
    # In an encoding that does not match the mark, its bytes are text. `utf-16` matches both orders.
    marks = (
        mark for mark, codec in _MARKS.items() if head.startswith(mark) and codec.startswith(named)
    )
    mark = next(marks, b'')
    name = _MARKS[mark] if mark else named or 'utf-8'
    file.seek(len(mark))
    if name == 'utf-8':
        while block := file.read(BLOCK):
            yield block
        return
    decoder = codecs.getincrementaldecoder(name)()
    line = 1
    while True:
        block = file.read(BLOCK)
        try:
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(name, 'ignore')
                raise _decoding_error(name, error, line + before.count('\n')) from error
            utf8 = text.encode()
        except UnicodeError as error:  # a required byte order mark is missing, or a lone surrogate
            raise TableError(f'line {line} or below: this is not {name}: {error}.') from error
        if not block and not text:
            return
        line += text.count('\n')
        yield utf8


def one_ahead(make: Callable[[X], Y], items: Iterator[X]) -> Iterator[Y]:
    """Like map, but computes the next result in a thread while the caller uses the last one.

    This pays where `make` releases the GIL, as Polars does.
    """
    with ThreadPoolExecutor(1) as pool:
        current: Future[Y] | None = None
        for item in items:
            current, previous = pool.submit(make, item), current
            if previous is not None:
                yield previous.result()
        if current is not None:
            yield current.result()


def require_utf8(block: bytes, first_line: int) -> None:
    """Raise TableError, naming the line, if the block is not valid UTF-8."""
    if block.isascii():
        return
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = first_line + block.count(b'\n', 0, error.start)
        raise _decoding_error('utf-8', error, line) from error


def _codec(encoding: str) -> str:
    """The normalised name of an encoding. Raises TableError for an unknown one."""
    try:
        codecs.getincrementaldecoder(encoding)()
        name = codecs.lookup(encoding).name
        'a'.encode(encoding)  # raises LookupError for a codec that is not for text
    except (LookupError, ValueError) as error:  # ValueError: a name with NUL
        raise TableError(
            f"encoding {encoding!r} is not known; use a name such as 'cp1252'."
        ) from error
    return 'utf-8' if name == 'utf-8-sig' else name


def _decoding_error(name: str, error: UnicodeDecodeError, line: int) -> TableError:
    return TableError(
        f'line {line}: the byte 0x{error.object[error.start]:02x} is not {name} there. If the '
        "whole file is in another encoding, name it, such as encoding='cp1252'; if only a part "
        'is, fix the file.'
    )
