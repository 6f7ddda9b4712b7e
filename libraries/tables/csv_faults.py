"""Find the first fault in a block of CSV that is known to be broken, field by field."""

import re

from libraries.tables.text import TableError

_BODY = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
_QUOTING = 'Put fields that contain quotes or line ends in quotes, and double each quote inside.'


def find_fault(block: bytes, first_line: int, delimiter: bytes, width: int) -> TableError:
    """The first fault in a block of lines: its line in the file, and the remedy."""

    def line(position: int) -> int:
        return first_line + block.count(b'\n', 0, position)

    nul = block.find(b'\0')
    plain = re.compile(rb'[^"\r\n%b]*+' % re.escape(delimiter))
    position = 0
    while position < len(block):
        start, fields, ended = position, 0, False
        while not ended:
            begin = position
            quoted = block.startswith(b'"', position)
            match = (_BODY if quoted else plain).match(block, position)
            if match is None:
                return TableError(
                    f'line {line(begin)}: the quote that opens there is never closed.'
                )
            position = match.end()
            if begin <= nul < position:
                return TableError(f'line {line(nul)}: there is a NUL byte. Remove it.')
            fields += 1
            if block.startswith(delimiter, position):
                position += 1
            elif block.startswith((b'\n', b'\r\n'), position):
                position = block.index(b'\n', position) + 1
                ended = True
            elif quoted:
                return TableError(
                    f'line {line(position)}: text follows the closing quote of the field that '
                    f'begins in line {line(begin)}. {_QUOTING}'
                )
            elif block.startswith(b'"', position):
                return TableError(
                    f'line {line(position)}: there is a quote inside a field that does not begin '
                    f'with one. {_QUOTING}'
                )
            else:
                return TableError(
                    f'line {line(position)}: there is a carriage return without a line feed. End '
                    'lines with LF or CRLF, and put fields that contain either in quotes.'
                )
        if block[start:position] in (b'\n', b'\r\n'):
            return TableError(
                f'line {line(start)} is blank. Remove it, or write "" for an empty field.'
            )
        if fields != width:
            return TableError(
                f'line {line(start)} has {_count(fields)} where the header has {width}.'
            )
    return TableError(
        f'line {first_line} or below: the header has one column, but there are delimiters '
        "outside quotes. Name the one that separates the fields, such as delimiter=','."
    )


def _count(fields: int) -> str:
    return '1 field' if fields == 1 else f'{fields} fields'
