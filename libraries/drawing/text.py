"""Format values as SVG text: short finite numbers, escaped strings, checked attribute names."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NoReturn
from xml.sax import saxutils

import msgspec

Attrs = Mapping[str, str | float]
Point = Sequence[float]

# To a thousandth of a millimetre, which is finer than any plotter moves.
# Adding and subtracting 1.5 * 2**52 rounds a float to a whole number, faster than round().
_MAGIC = 1.5 * 2.0**52
# Encoding a JSON array is the fastest way to format many floats; NaN becomes null.
_encode = msgspec.json.Encoder().encode

# Event handlers and namespaces would let an attribute do more than style its element.
_ATTRIBUTE_NAME = re.compile(r'(?!on|xmlns)(xml:)?[a-z_][a-z0-9_.-]*', re.IGNORECASE)
_NOT_XML = '[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]'  # slow to compile
_ENTITIES = {'"': '&quot;', '\r': '&#13;', '\n': '&#10;', '\t': '&#9;'}  # beside & < >


def escape(text: str) -> str:
    """`text` as XML, in an attribute too; characters that XML does not allow become U+FFFD."""
    return saxutils.escape(re.sub(_NOT_XML, '\N{REPLACEMENT CHARACTER}', text), _ENTITIES)


def number(value: Any) -> str:
    """`value` rounded to a thousandth, in as few characters as possible.

    Raises ValueError for anything but a finite real number.
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not abs(value) <= sys.float_info.max:
        raise ValueError(f'{value!r} is not a finite number')
    # Adding zero turns -0.0 into 0.0.
    return repr(round(float(value), 3) + 0.0).removesuffix('.0')


def length(name: str, value: object) -> str:
    """`value` as a number; raises ValueError, with `name`, if it is negative."""
    text = number(value)
    if text.startswith('-'):
        raise ValueError(f'{name} must not be negative, got {value!r}')
    return text


def attributes(attrs: Attrs) -> str:
    """`attrs` as ` name="value"` pairs, each with its leading space.

    Raises ValueError for a name that is not a styling attribute, or a value that is neither
    a string nor a finite number.
    """
    for name in attrs:
        if not isinstance(name, str) or not _ATTRIBUTE_NAME.fullmatch(name):
            raise ValueError(f'{name!r} is not an attribute that a drawing may set')
    pairs = ((n, escape(v) if isinstance(v, str) else number(v)) for n, v in attrs.items())
    return ''.join([f' {name}="{value}"' for name, value in pairs])


def points_text(points: Iterable[Point]) -> str:
    """(x, y) pairs as `x,y x,y …`, rounded to a thousandth and formatted in bulk.

    Raises ValueError for a point that is not a pair, or a coordinate that is not finite.
    """
    points = list(points)
    try:
        text = _encode(
            [
                ((x * 1e3 + _MAGIC - _MAGIC) / 1e3, (y * 1e3 + _MAGIC - _MAGIC) / 1e3)
                for x, y in points
            ]
        )
    except (TypeError, ValueError, OverflowError):
        text = b'null'
    if b'null' in text:
        _refuse(points)
    text = text.replace(b'.0,', b',').replace(b'.0]', b']')
    return text[2:-2].replace(b'],[', b' ').decode()


def _refuse(points: Iterable[Point]) -> NoReturn:
    """Raise the error of the first point that is wrong."""
    for point in points:
        try:
            x, y = point
        except (TypeError, ValueError):
            raise ValueError(f'{point!r} is not an (x, y) pair') from None
        number(x), number(y)
    raise ValueError('a coordinate is too large to draw')
