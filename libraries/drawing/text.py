"""Format values as SVG text: short finite numbers, escaped strings, checked attribute names."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from numbers import Real

import msgspec

Attrs = Mapping[str, str | float]
Point = Sequence[float]

# A thousandth of a millimetre is finer than any plotter moves.
DECIMALS = 3
_SCALE = 10.0**DECIMALS
# Adding and subtracting 1.5 * 2**52 rounds a float to a whole number, faster than round().
_MAGIC = 1.5 * 2.0**52
_CHUNK = 1024  # points
# Encoding a JSON array is the fastest way to format many floats; NaN becomes null.
_encode = msgspec.json.Encoder().encode

# Event handlers and namespaces would let an attribute do more than style its element.
_ATTRIBUTE_NAME = re.compile(r'(?!on|xmlns)(xml:)?[a-z_][a-z0-9_.-]*', re.IGNORECASE)
_NOT_XML = (
    '[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]'  # slow to compile: not at import
)
_ESCAPES = str.maketrans(
    {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', '\r': '&#13;'},
)
_SPACE_ESCAPES = str.maketrans({'\n': '&#10;', '\t': '&#9;'})


def escape(text: str) -> str:
    """`text` as XML character data; characters that XML does not allow become U+FFFD."""
    return re.sub(_NOT_XML, '\N{REPLACEMENT CHARACTER}', text).translate(_ESCAPES)


def escape_attribute(text: str) -> str:
    """`text` as the value of a double-quoted attribute; line breaks are kept."""
    return escape(text).translate(_SPACE_ESCAPES)


def number(value: object) -> str:
    """`value` rounded to a thousandth, in as few characters as possible.

    Raises ValueError for anything but a finite real number.
    """
    try:
        real = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        real = math.inf
    if not math.isfinite(real):
        raise ValueError(f'{value!r} is not a finite number')
    # Adding zero turns -0.0 into 0.0.
    return repr(round(real, DECIMALS) + 0.0).removesuffix('.0')


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
    return ''.join(f' {_name(name)}="{_value(value)}"' for name, value in attrs.items())


def points_text(points: Iterable[Point]) -> str:
    """(x, y) pairs as `x,y x,y …`, rounded to a thousandth and formatted in bulk.

    Raises ValueError for a point that is not a pair, or a coordinate that is not finite.
    """
    remaining = iter(points)
    # In chunks, so that a million points take little more memory than their text.
    chunks = iter(lambda: list(islice(remaining, _CHUNK)), [])
    return b' '.join(map(_chunk_text, chunks)).decode()


def _chunk_text(points: list[Point]) -> bytes:
    try:
        rounded = [
            ((x * _SCALE + _MAGIC - _MAGIC) / _SCALE, (y * _SCALE + _MAGIC - _MAGIC) / _SCALE)
            for x, y in points
        ]
        text = _encode(rounded)
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad_point(points) from error
    if b'null' in text:
        raise _bad_point(points)
    text = text.replace(b'.0,', b',').replace(b'.0]', b']')
    return text[2:-2].replace(b'],[', b' ')


def _bad_point(points: list[Point]) -> ValueError:
    """The error of the first point that is wrong."""
    for point in points:
        try:
            x, y = point
        except (TypeError, ValueError):
            return ValueError(f'{point!r} is not an (x, y) pair')
        for value in (x, y):
            try:
                number(value)
            except ValueError as error:
                return error
    return ValueError('a coordinate is too large to draw')


def _name(name: str) -> str:
    if not isinstance(name, str) or not _ATTRIBUTE_NAME.fullmatch(name):
        raise ValueError(f'{name!r} is not an attribute that a drawing may set')
    return name


def _value(value: object) -> str:
    if isinstance(value, str):
        return escape_attribute(value)
    return number(value)
