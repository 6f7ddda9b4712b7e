"""Check the arguments of tasks against type hints, with msgspec and more strictly."""

import contextlib
import inspect
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect as msgspec_inspect

from qdjobs.errors import InvalidJobError, short_repr

# msgspec would convert strings and numbers to these; a task gets the value that its caller passed.
_NOT_CONVERTED = (bytes, datetime, date, time, timedelta, Decimal, UUID)

# The types that fit an abstract hint. msgspec converts all of them to lists.
_INTERCHANGEABLE: dict[type, frozenset[type]] = {
    Sequence: frozenset((list, tuple)),
    Collection: frozenset((list, tuple, set)),
}

_PLAIN_HINTS = (
    msgspec_inspect.AnyType,
    msgspec_inspect.NoneType,
    msgspec_inspect.BoolType,
    msgspec_inspect.IntType,
    msgspec_inspect.FloatType,
    msgspec_inspect.StrType,
    msgspec_inspect.BytesType,
    msgspec_inspect.DateTimeType,
    msgspec_inspect.TimeType,
    msgspec_inspect.DateType,
    msgspec_inspect.TimeDeltaType,
    msgspec_inspect.UUIDType,
    msgspec_inspect.DecimalType,
    msgspec_inspect.ListType,
    msgspec_inspect.SetType,
    msgspec_inspect.VarTupleType,
    msgspec_inspect.TupleType,
    msgspec_inspect.DictType,
    msgspec_inspect.TypedDictType,
    msgspec_inspect.LiteralType,
    msgspec_inspect.UnionType,
)


@dataclass(frozen=True)
class HintCheck:
    """The check of one parameter: a value must fit any of the hints."""

    hints: tuple[Any, ...]
    interchangeable: frozenset[type] = frozenset()  # containers, each accepted for the others

    def problem(self, value: Any) -> str | None:
        """Return why the value does not fit, or None if it does."""
        problems = []
        for hint in self.hints:
            try:
                converted = msgspec.convert(value, hint, builtin_types=_NOT_CONVERTED)
                problem = (
                    None
                    if converted is value
                    else _find_change(value, converted, self.interchangeable)
                )
            except (ValueError, TypeError) as error:  # TypeError: an unhashable item of a set
                problem = _error_message(error, hint, value)
            if problem is None:
                return None
            problems.append(problem)
        return ' / '.join(dict.fromkeys(problems))

    def read_json(self, value: Any) -> Any:
        """Convert a value from JSON to the type of a hint: strings to dates, arrays to sets …

        A value that already fits is returned as it is. Raises ValueError, with the reason, for one
        that cannot be converted.
        """
        problem = self.problem(value)
        for hint in self.hints if problem else ():
            try:
                converted = msgspec.convert(value, hint, str_keys=True)
            except (ValueError, TypeError) as error:
                problem = _error_message(error, hint, value)
                continue
            if (dropped := _find_dropped_key(value, converted)) is None:
                return converted
            problem = f'Unexpected key {short_repr(dropped)}'
        if problem:
            raise ValueError(problem)
        return value

    def read_text(self, text: str) -> Any:
        """Convert a value from text: JSON or the text itself, whichever fits a hint.

        Raises ValueError, with the reason, for one that cannot be converted.
        """
        value = decode_text(text)
        if Any in self.hints:
            return value
        problem = self.problem(value)
        if problem is None and (value is text or not isinstance(value, str)):
            return value
        for candidate in (text, value):  # the text first: it keeps the digits of 1.10
            with contextlib.suppress(ValueError):
                return self.read_json(candidate)
        raise ValueError(problem)


def decode_text(text: str) -> Any:
    """Return the value of a JSON text, and any other text itself."""
    try:
        return msgspec.json.decode(text)
    except ValueError:
        return text


def make_check(path: str, parameter: inspect.Parameter, names: dict[str, Any]) -> HintCheck:
    """Return the check of a task's parameter; `names` is the namespace of its module.

    Raises InvalidJobError, naming the parameter, for a hint that cannot be checked.
    """
    holder = types.SimpleNamespace(__annotations__={'hint': parameter.annotation})
    try:
        hint = typing.get_type_hints(holder, globalns=names, include_extras=True)['hint']
        check = HintCheck(tuple(_alternatives(hint)), _interchangeable_types(hint))
        for alternative in check.hints:
            _require_plain(msgspec_inspect.type_info(alternative), set())
    except Exception as error:  # a hint is code, and can raise anything
        raise InvalidJobError(
            f'{path}: the hint of parameter {parameter.name!r}, {parameter.annotation}, '
            f'cannot be checked: {error}. Use plain types.'
        ) from error
    return check


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the hint, or its members if it is a union that msgspec cannot check as a whole."""
    if hint is object:
        yield Any
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        try:
            msgspec_inspect.type_info(hint)
            yield hint
        except TypeError:
            for part in typing.get_args(hint):
                yield from _alternatives(part)
    else:
        yield hint


def _interchangeable_types(hint: Any) -> frozenset[type]:
    """Return the containers that fit the abstract types of a hint, such as Sequence."""
    origin = typing.get_origin(hint) or hint
    own = _INTERCHANGEABLE.get(origin, frozenset()) if isinstance(origin, type) else frozenset()
    return own.union(*map(_interchangeable_types, typing.get_args(hint)))


def _require_plain(info: msgspec_inspect.Type, seen: set[int]) -> None:
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec_inspect.Metadata):
        info = info.type
    if not isinstance(info, _PLAIN_HINTS):
        kind = getattr(info, 'cls', type(info).__name__.removesuffix('Type').lower())
        raise TypeError(f'{kind} is no plain type')
    for field in info.__struct_fields__:
        part = getattr(info, field)
        for item in part if isinstance(part, tuple) else (part,):
            inner = getattr(item, 'type', item)  # a TypedDict's field holds its type
            if isinstance(inner, msgspec_inspect.Type):
                _require_plain(inner, seen)


def _find_change(before: Any, after: Any, interchangeable: frozenset[type]) -> str | None:
    """Describe what msgspec changed in a value, or return None: tasks get unchanged arguments."""
    kind, wanted = type(before), type(after)
    pairs: Iterable[tuple[Any, Any]] = ()
    if kind is wanted is dict:
        if before.keys() != after.keys():
            return f'Unexpected key {short_repr(next(key for key in before if key not in after))}'
        pairs = ((item, after[key]) for key, item in before.items())
    elif (kind is wanted and kind in (list, tuple)) or {kind, wanted} <= interchangeable:
        pairs = zip(before, after, strict=True)
    elif kind is not wanted and (kind, wanted) != (int, float):
        return f'Expected {wanted.__name__}, got {kind.__name__}'
    return next(filter(None, (_find_change(*pair, interchangeable) for pair in pairs)), None)


def _find_dropped_key(before: Any, after: Any) -> Any:
    """Return a key that msgspec left out of the converted value, or None."""
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(before, dict) and isinstance(after, dict):
        if len(before) != len(after):
            return next((key for key in before if key not in after), 'twice')
        pairs = zip(before.values(), after.values(), strict=True)
    elif isinstance(before, list) and isinstance(after, (list, tuple)):
        pairs = zip(before, after, strict=True)
    return next((key for pair in pairs if (key := _find_dropped_key(*pair)) is not None), None)


def _error_message(error: Exception, hint: Any, value: Any) -> str:
    """Return msgspec's message, with a description for a pattern and the hint for an enum."""
    problem = str(error).replace('`', '').replace(' - at', ' at')
    if 'matching regex' in problem and (described := ' or '.join(_descriptions(hint))):
        place = problem.rpartition(' at $')[2] if ' at $' in problem else ''
        return f'Expected {described}, got {short_repr(value)}' + (f' at ${place}' if place else '')
    if 'enum' in problem:
        return f'Expected {_format_hint(hint)}, got {short_repr(value)}'
    return problem


def _descriptions(hint: Any) -> Iterator[str]:
    """Yield the descriptions in the Meta annotations of a hint."""
    for part in typing.get_args(hint):
        if isinstance(part, msgspec.Meta):
            if part.description:
                yield part.description
        else:
            yield from _descriptions(part)


def _format_hint(hint: Any) -> str:
    return inspect.formatannotation(hint).removeprefix('typing.')
