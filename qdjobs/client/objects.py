"""Convert dataclasses, Structs and enums to plain data; find what would not arrive unchanged."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from qdjobs.errors import short_repr


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of an object by the names under which they travel; None for other data."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return {encoded: getattr(value, name) for encoded, name in names}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def find_difference(before: Any, after: Any, interchangeable: frozenset[type]) -> str | None:
    """Describe where an object is not what was sent, or return None."""
    kind, found = type(before), type(after)
    if kind is not found and not {kind, found} <= interchangeable:
        if (kind, found) == (int, float):
            return None
        return f'Expected {found.__name__}, got {kind.__name__}'
    pairs: Iterable[tuple[Any, Any]]
    own, other = fields_of(before), fields_of(after)
    if own is not None and other is not None:
        pairs = zip(own.values(), other.values(), strict=True)
    elif kind is dict and before.keys() == after.keys():
        pairs = ((item, after[key]) for key, item in before.items())
    elif kind in (list, tuple) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
    elif before == after or before != before:  # NaN is not equal to itself
        return None
    else:
        return f'{short_repr(before)} would arrive as {short_repr(after)}'
    return next(filter(None, (find_difference(*pair, interchangeable) for pair in pairs)), None)


def find_unknown_key(given: Any, found: Any) -> Any:
    """Return a key of plain data that is in no object which was made of it, or None."""
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(given, dict):
        known = fields_of(found)
        if known is None and isinstance(found, dict) and len(given) == len(found):
            pairs = zip(given.values(), found.values(), strict=True)
        elif known is None and isinstance(found, dict):
            return next((key for key in given if key not in found), 'twice')
        elif known is not None:
            tag = found.__struct_config__.tag_field if isinstance(found, msgspec.Struct) else None
            unknown = [key for key in given if key not in known and key != tag]
            if unknown:
                return unknown[0]
            pairs = ((item, known[key]) for key, item in given.items() if key != tag)
    elif isinstance(given, (list, tuple)) and isinstance(found, (list, tuple)):
        pairs = zip(given, found, strict=True)
    return next((key for pair in pairs if (key := find_unknown_key(*pair)) is not None), None)
