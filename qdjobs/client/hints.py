"""A parameter's type hint, checked by msgspec as strictly as a task deserves."""

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

# msgspec would read these from strings and numbers; a task gets what its caller passed.
_NOT_CONVERTED = (bytes, datetime, date, time, timedelta, Decimal, UUID)

# msgspec makes a list of anything for these.
_ALIKE: dict[type, frozenset[type]] = {
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
    """What one parameter accepts: a value that fits any of the hints."""

    hints: tuple[Any, ...]
    alike: frozenset[type] = frozenset()  # containers of which one is as good as the other

    def problem(self, value: Any) -> str | None:
        """Why the value does not fit, or None if it does."""
        problems = []
        for hint in self.hints:
            try:
                converted = msgspec.convert(value, hint, builtin_types=_NOT_CONVERTED)
                problem = None if converted is value else _changed(value, converted, self.alike)
            except (ValueError, TypeError) as error:  # TypeError: a list has no place in a set
                problem = _say(error, hint, value)
            if problem is None:
                return None
            problems.append(problem)
        return ' / '.join(dict.fromkeys(problems))

    def read_json(self, value: Any) -> Any:
        """A value as JSON has it → as a hint wants it: strings become dates, arrays sets …

        What fits already stays as it is. Raises ValueError, saying why, for what cannot fit.
        """
        problem = self.problem(value)
        for hint in self.hints if problem else ():
            try:
                converted = msgspec.convert(value, hint, str_keys=True)
            except (ValueError, TypeError) as error:
                problem = _say(error, hint, value)
                continue
            if (dropped := _dropped(value, converted)) is None:
                return converted
            problem = f'Unexpected key {short_repr(dropped)}'
        if problem:
            raise ValueError(problem)
        return value


def make_check(path: str, parameter: inspect.Parameter, names: dict[str, Any]) -> HintCheck:
    """The check of a task's parameter; `names` are what its module has.

    Raises InvalidJobError, naming the parameter, for a hint that cannot be checked.
    """
    holder = types.SimpleNamespace(__annotations__={'hint': parameter.annotation})
    try:
        hint = typing.get_type_hints(holder, globalns=names, include_extras=True)['hint']
        check = HintCheck(tuple(_alternatives(hint)), _alike(hint))
        for alternative in check.hints:
            _require_plain(msgspec_inspect.type_info(alternative), set())
    except Exception as error:  # a hint is code, and may fail in any way
        raise InvalidJobError(
            f'{path}: the hint of parameter {parameter.name!r}, {parameter.annotation}, '
            f'cannot be checked: {error}. Use plain types.'
        ) from error
    return check


def _alternatives(hint: Any) -> Iterator[Any]:
    """The hint, or its parts if it is a union that msgspec cannot check as a whole."""
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


def _alike(hint: Any) -> frozenset[type]:
    """The containers that stand for one another where a hint names an abstract one."""
    origin = typing.get_origin(hint) or hint
    own = _ALIKE.get(origin, frozenset()) if isinstance(origin, type) else frozenset()
    return own.union(*map(_alike, typing.get_args(hint)))


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


def _changed(before: Any, after: Any, alike: frozenset[type]) -> str | None:
    """What msgspec has changed of a value, since a task gets its arguments as they are."""
    kind, wanted = type(before), type(after)
    pairs: Iterable[tuple[Any, Any]] = ()
    if kind is wanted is dict:
        if before.keys() != after.keys():
            return f'Unexpected key {short_repr(next(key for key in before if key not in after))}'
        pairs = ((item, after[key]) for key, item in before.items())
    elif (kind is wanted and kind in (list, tuple)) or {kind, wanted} <= alike:
        pairs = zip(before, after, strict=True)
    elif kind is not wanted and (kind, wanted) != (int, float):
        return f'Expected {wanted.__name__}, got {kind.__name__}'
    return next(filter(None, (_changed(*pair, alike) for pair in pairs)), None)


def _dropped(before: Any, after: Any) -> Any:
    """A key that msgspec has left out on its way, or None."""
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(before, dict) and isinstance(after, dict):
        if len(before) != len(after):
            return next((key for key in before if key not in after), 'twice')
        pairs = zip(before.values(), after.values(), strict=True)
    elif isinstance(before, list) and isinstance(after, (list, tuple)):
        pairs = zip(before, after, strict=True)
    return next((key for pair in pairs if (key := _dropped(*pair)) is not None), None)


def _say(error: Exception, hint: Any, value: Any) -> str:
    problem = str(error).replace('`', '').replace(' - at', ' at')
    if 'matching regex' in problem and (described := ' or '.join(_descriptions(hint))):
        place = problem.rpartition(' at $')[2] if ' at $' in problem else ''
        return f'Expected {described}, got {short_repr(value)}' + (f' at ${place}' if place else '')
    return f'Expected {_spell(hint)}, got {short_repr(value)}' if 'enum' in problem else problem


def _descriptions(hint: Any) -> Iterator[str]:
    """What the Metas of a hint say for people."""
    for part in typing.get_args(hint):
        if isinstance(part, msgspec.Meta):
            if part.description:
                yield part.description
        else:
            yield from _descriptions(part)


def _spell(hint: Any) -> str:
    return inspect.formatannotation(hint).removeprefix('typing.')
