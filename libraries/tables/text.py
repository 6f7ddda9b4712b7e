"""The bytes of a table's file as blocks of UTF-8, and the error that says what is wrong."""

import codecs
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TypeVar

X = TypeVar('X')
Y = TypeVar('Y')

BLOCK = 4 << 20  # bytes read at a time
MAX_RECORD = 32 << 20  # bytes of one record, so that memory stays bounded whatever a file holds

# A file that begins with one of these says itself how it is encoded. UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: 'utf-8',
    codecs.BOM_UTF32_LE: 'utf-32-le',
    codecs.BOM_UTF32_BE: 'utf-32-be',
    codecs.BOM_UTF16_LE: 'utf-16-le',
    codecs.BOM_UTF16_BE: 'utf-16-be',
}


class TableError(ValueError):
    """What is wrong with a table, where, and what to do: it would be the same next time."""


def read_blocks(file: IO[bytes], encoding: str | None) -> Iterator[bytes]:
    """The file from its beginning, in UTF-8 without a byte order mark.

    What claims to be UTF-8 is passed on as it is, for `require_utf8` to check. Raises
    TableError, naming the line, for bytes that another encoding does not have.
    """
    file.seek(0)
    head = file.read(4)
    named = '' if encoding is None else _codec(encoding)
    # In another encoding than the mark's the same bytes are text: of utf-16 both marks are its own.
    marks = (
        mark for mark, its in _MARKS.items() if head.startswith(mark) and its.startswith(named)
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
                raise _not_in(name, error, line + before.count('\n')) from error
            utf8 = text.encode()
        except UnicodeError as error:  # no mark where one has to be, or half a character
            raise TableError(f'line {line} or below: this is not {name}: {error}.') from error
        if not block and not text:
            return
        line += text.count('\n')
        yield utf8


def one_ahead(make: Callable[[X], Y], items: Iterator[X]) -> Iterator[Y]:
    """Like map, with the next one already being made in a thread: engines need no interpreter."""
    with ThreadPoolExecutor(1) as pool:
        made: Future[Y] | None = None
        for item in items:
            made, before = pool.submit(make, item), made
            if before is not None:
                yield before.result()
        if made is not None:
            yield made.result()


def require_utf8(block: bytes, first_line: int) -> None:
    """Raise TableError, naming the line, if the block is no UTF-8."""
    if block.isascii():
        return
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = first_line + block.count(b'\n', 0, error.start)
        raise _not_in('utf-8', error, line) from error


def _codec(encoding: str) -> str:
    try:
        codecs.getincrementaldecoder(encoding)()
        name = codecs.lookup(encoding).name
        'a'.encode(encoding)  # which refuses a codec that makes no text
    except (LookupError, ValueError) as error:  # a name with NUL is a ValueError
        raise TableError(
            f"encoding {encoding!r} is not known; use a name such as 'cp1252'."
        ) from error
    return 'utf-8' if name == 'utf-8-sig' else name


def _not_in(name: str, error: UnicodeDecodeError, line: int) -> TableError:
    return TableError(
        f'line {line}: the byte 0x{error.object[error.start]:02x} is not {name} there. If all of '
        "the file is in another encoding, name it, such as encoding='cp1252'; if only some of it "
        'is, mend the file.'
    )
