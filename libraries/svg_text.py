"""Values to SVG text: short finite numbers, escaped strings, checked attribute names."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

Attrs = Mapping[str, str | float]
Point = Sequence[float]

# A thousandth of a millimetre is finer than any plotter moves.
DECIMALS = 3

# Event handlers and namespaces would let an attribute do more than style its element.
_ATTRIBUTE_NAME = re.compile(r'(?!on|xmlns)(xml:)?[a-z_][a-z0-9_.-]*', re.IGNORECASE)
_NOT_XML = re.compile('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')
_ESCAPES = str.maketrans(
    {'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', '\r': '&#13;'},
)
_SPACE_ESCAPES = str.maketrans({'\n': '&#10;', '\t': '&#9;'})


def escape(text: str) -> str:
    """`text` as XML character data; what XML cannot hold becomes U+FFFD."""
    return _NOT_XML.sub('\N{REPLACEMENT CHARACTER}', text).translate(_ESCAPES)


def number(value: object) -> str:
    """`value` rounded to a thousandth, in as few characters as that takes.

    Raises ValueError for anything but a finite real number.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f'{value!r} is not a finite number')
    # Adding zero turns -0.0 into 0.0.
    return repr(round(float(value), DECIMALS) + 0.0).removesuffix('.0')


def length(name: str, value: object) -> str:
    """`value` as a number that is not negative; raises ValueError naming it otherwise."""
    text = number(value)
    if text.startswith('-'):
        raise ValueError(f'{name} must not be negative, got {value!r}')
    return text


def attributes(attrs: Attrs) -> str:
    """`attrs` as ` name="value"` pairs, each with its leading space.

    Raises ValueError for a name that is no styling attribute, or a value that is neither
    a string nor a finite number.
    """
    return ''.join(f' {_name(name)}="{_value(value)}"' for name, value in attrs.items())


def points_text(points: Iterable[Point]) -> str:
    """Points as `x,y x,y …`, formatted in bulk.

    Raises ValueError for a point that is no pair, or a coordinate that is not finite.
    """
    pairs = points if isinstance(points, list | tuple) else list(points)
    return ' '.join([f'{number(x)},{number(y)}' for x, y in pairs])


def _name(name: str) -> str:
    if not isinstance(name, str) or not _ATTRIBUTE_NAME.fullmatch(name):
        raise ValueError(f'{name!r} is not an attribute that a drawing may set')
    return name


def _value(value: object) -> str:
    if isinstance(value, str):
        return escape(value).translate(_SPACE_ESCAPES)
    return number(value)
