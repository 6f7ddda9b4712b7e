"""Check the arguments of tasks against type hints, with msgspec and more strictly.

An object of a dataclass, msgspec.Struct or enum that a hint names travels as plain data, and
arrives as the object.
"""

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
from rq.job import Retry

from qdjobs.client.objects import find_difference, find_unknown_key
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
_OBJECT_HINTS = (
    msgspec_inspect.DataclassType,
    msgspec_inspect.StructType,
    msgspec_inspect.EnumType,
)


@dataclass(frozen=True)
class HintCheck:
    """The check of one parameter: a value must fit any of the hints."""

    hints: tuple[Any, ...]
    interchangeable: frozenset[type] = frozenset()  # containers, each accepted for the others

    def unpack(self, value: Any) -> Any:
        """Return a value that has travelled as the task takes it.

        Raises ValueError, with the reason, if it does not fit.
        """
        if problem := self.problem(value):
            raise ValueError(problem)
        return value

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
            if (unknown := find_unknown_key(value, converted)) is None:
                return converted
            problem = f'Unexpected key {short_repr(unknown)}'
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


class ObjectCheck(HintCheck):
    """The check of a parameter whose hints name classes of objects."""

    def problem(self, value: Any) -> str | None:
        """Return why the value, which is no object but plain data, does not fit."""
        try:
            self.unpack(value)
        except ValueError as error:
            return str(error)
        return None

    def pack(self, value: Any) -> Any:
        """Return the value with its objects as dicts. Raises ValueError if it would change."""
        try:
            plain = msgspec.to_builtins(value, builtin_types=_NOT_CONVERTED)
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        if change := find_difference(value, self.unpack(plain), self.interchangeable):
            raise ValueError(change)
        return plain

    def unpack(self, value: Any) -> Any:
        """Return the objects of plain data. Raises ValueError if it does not fit."""
        return self._convert(value, builtin_types=_NOT_CONVERTED)

    def read_json(self, value: Any) -> Any:
        """Check a value from JSON, and return it as it travels. Raises ValueError."""
        return self.pack(self._convert(value, str_keys=True))

    def _convert(self, value: Any, **options: Any) -> Any:
        problems = []
        for hint in self.hints:
            try:
                converted = msgspec.convert(value, hint, **options)
            except Exception as error:  # noqa: BLE001  # a class is code, and can raise anything
                problems.append(_plain_message(error))
                continue
            if (unknown := find_unknown_key(value, converted)) is None:
                return converted
            problems.append(f'Unexpected key {short_repr(unknown)}')
        raise ValueError(' / '.join(dict.fromkeys(problems)))


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
    try:
        hint = _resolve(parameter.annotation, names)
        hints, interchangeable = tuple(_alternatives(hint)), _interchangeable_types(hint)
        kinds = [kind for each in hints for kind in _kinds(msgspec_inspect.type_info(each), {})]
        _require_plain(kinds, _PLAIN_HINTS + _OBJECT_HINTS)
    except Exception as error:  # a hint is code, and can raise anything
        raise InvalidJobError(
            f'{path}: the hint of parameter {parameter.name!r}, {parameter.annotation}, '
            f'cannot be checked: {error}. Use plain types.'
        ) from error
    has_objects = any(isinstance(kind, _OBJECT_HINTS) for kind in kinds)
    return (ObjectCheck if has_objects else HintCheck)(hints, interchangeable)


def check_return_hint(path: str, annotation: Any, names: dict[str, Any]) -> None:
    """Raise InvalidJobError if what a task returns, by its hint, does not travel.

    A hint that cannot be resolved, such as a name that only type checkers import, says nothing.
    """
    try:
        hint = _resolve(annotation, names)
    except Exception:  # noqa: BLE001  # a hint is code, and can raise anything
        return
    try:
        if hint in (typing.NoReturn, typing.Never):
            return
        for each in _alternatives(hint):
            kinds = _kinds(msgspec_inspect.type_info(each), {})
            # What is abstract, such as Iterable, may be a list; RQ takes a Retry as a request.
            _require_plain((kind for kind in kinds if not _may_travel(kind)), _PLAIN_HINTS)
    except TypeError as error:
        raise InvalidJobError(
            f'{path} returns {inspect.formatannotation(annotation)}, which does not travel: '
            f'{error}. Return plain data, such as an id or dataclasses.asdict(…).'
        ) from error


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={'hint': annotation})
    return typing.get_type_hints(holder, globalns=names, include_extras=True)['hint']


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


def _kinds(
    info: msgspec_inspect.Type, found: dict[int, msgspec_inspect.Type]
) -> Collection[msgspec_inspect.Type]:
    """Return all types of which a hint consists."""
    if id(info) in found:
        return found.values()
    if isinstance(info, msgspec_inspect.Metadata):
        return _kinds(info.type, found)
    found[id(info)] = info
    for field in info.__struct_fields__:
        part = getattr(info, field)
        for item in part if isinstance(part, tuple) else (part,):
            inner = getattr(item, 'type', item)  # a field holds its type
            if isinstance(inner, msgspec_inspect.Type):
                _kinds(inner, found)
    return found.values()


def _require_plain(kinds: Iterable[msgspec_inspect.Type], allowed: tuple[type, ...]) -> None:
    for kind in kinds:
        if not isinstance(kind, allowed):
            name = getattr(kind, 'cls', type(kind).__name__.removesuffix('Type').lower())
            raise TypeError(f'{name} is no plain type')


def _may_travel(kind: msgspec_inspect.Type) -> bool:
    cls = getattr(kind, 'cls', None)
    return cls in (object, Retry) or inspect.isabstract(cls)


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


def _plain_message(error: Exception) -> str:
    message = str(error).replace('`', '').replace(' - at', ' at')
    if isinstance(error, (ValueError, TypeError)):
        return message
    return f'{type(error).__name__}: {message}'.rstrip(': ')


def _error_message(error: Exception, hint: Any, value: Any) -> str:
    """Return msgspec's message, with a description for a pattern and the hint for an enum."""
    problem = _plain_message(error)
    if 'matching regex' in problem and (described := ' or '.join(_descriptions(hint))):
        place = problem.rpartition(' at $')[2] if ' at $' in problem else ''
        return f'Expected {described}, got {short_repr(value)}' + (f' at ${place}' if place else '')
    if 'enum' in problem:
        return f'Expected {_format_hint(hint)}, got {short_repr(value)}'
    if not problem.startswith('Expected ') or ' at $' in problem:  # of a part of the value
        return problem
    expected, _, got = problem.partition(', got ')
    named = ' | '.join(dict.fromkeys(_array_names(hint)))
    expected = expected.replace('array', named or 'array')  # what msgspec calls all of them
    got = got or short_repr(value)  # a bound comes without
    return f'{expected}, got {type(value).__name__ if got == "array" else got}'


def _array_names(hint: Any) -> Iterator[str]:
    """Yield the names of the containers in a hint that are lists, tuples or sets."""
    origin = typing.get_origin(hint) or hint
    if origin in (list, tuple, set):
        yield origin.__name__
    elif origin in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(hint):
            yield from _array_names(part)


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
