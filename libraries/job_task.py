"""A dotted path → a task whose arguments are checked before anything is queued."""

import importlib
import inspect
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect as msgspec_inspect

from libraries.job_errors import InvalidJobError, UnknownTaskError
from libraries.job_payload import check_plain
from libraries.settings import get_settings

OPTION_PREFIX = 'job_'

# msgspec would read these from strings and numbers; a task gets what its caller passed.
_NOT_CONVERTED = (bytes, datetime, date, time, timedelta, Decimal, UUID)

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
class Task:
    """A task and what its signature accepts: for each parameter any one of its hints."""

    path: str
    function: types.FunctionType
    signature: inspect.Signature
    hints: Mapping[str, tuple[Any, ...]]

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise InvalidJobError unless the arguments fit the signature and travel as they are."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidJobError(f'{self.path}{self.signature}: {error}.') from None
        for parameter, where, value in _spread(bound):
            self._check_hint(parameter, where, value)
            check_plain(value, f'{self.path}: {where}')

    def _check_hint(self, parameter: str, where: str, value: Any) -> None:
        hints = self.hints.get(parameter)
        if hints is None:
            return
        problems = [_mismatch(value, hint) for hint in hints]
        if all(problems):
            raise InvalidJobError(f'{self.path}: {where}: {" / ".join(map(str, problems))}.')


def resolve_task(path: str) -> Task:
    """The task of a dotted path, such as `workers.svg_tasks.generate_complex_svg`.

    Raises UnknownTaskError if the path names no public function that an allowed module defines,
    InvalidJobError if the function cannot be a task.
    """
    if not isinstance(path, str):
        raise UnknownTaskError(
            'A task is named by its dotted path, such as '
            f"'workers.svg_tasks.generate_complex_svg', not by {path!r}."
        )
    return _resolve(path, get_settings().task_modules)


@cache
def _resolve(path: str, allowed: tuple[str, ...]) -> Task:
    module_name, _, name = path.rpartition('.')
    if not any(module_name == top or module_name.startswith(f'{top}.') for top in allowed):
        raise UnknownTaskError(
            f'{path!r} is outside the allowed task modules ({", ".join(allowed)}): '
            'define the task there, or add its module to JOB_TASK_MODULES.'
        )
    module = _import(module_name, path)
    function = getattr(module, name, None)
    if name.startswith('_') or not inspect.isfunction(function):
        raise UnknownTaskError(
            f'{path!r} names no public function: {module_name} has {_choices(module)}.'
        )
    if function.__module__ != module_name:
        raise UnknownTaskError(
            f'{path!r} is only imported there: name it where it is defined, '
            f"'{function.__module__}.{function.__name__}'."
        )
    return _describe(path, function)


def _import(module_name: str, path: str) -> types.ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f'{module_name}.'.startswith(f'{error.name}.'):
            raise UnknownTaskError(
                f'{path!r} names no task: there is no module {error.name!r}.'
            ) from None
        raise UnknownTaskError(f'{path!r}: importing {module_name} failed: {error}.') from error
    except (Exception, SystemExit) as error:
        raise UnknownTaskError(
            f'{path!r}: importing {module_name} failed: {type(error).__name__}: {error}.'
        ) from error


def _choices(module: types.ModuleType) -> str:
    names = [
        name
        for name, member in inspect.getmembers(module, inspect.isfunction)
        if member.__module__ == module.__name__ and not name.startswith('_')
    ]
    return ', '.join(names) or 'none'


def _describe(path: str, function: types.FunctionType) -> Task:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidJobError(
            f'{path} is a generator, whose body no worker would run: return a list.'
        )
    signature = inspect.signature(function)
    for name in signature.parameters:
        if name.startswith(OPTION_PREFIX):
            raise InvalidJobError(
                f'{path} has a parameter {name!r}, but keywords that begin with '
                f'{OPTION_PREFIX!r} are options of the job: rename the parameter.'
            )
    names_seen = inspect.unwrap(function).__globals__
    hints = {
        name: _checkable(path, parameter, names_seen)
        for name, parameter in signature.parameters.items()
        if parameter.annotation is not parameter.empty
    }
    return Task(path, function, signature, hints)


def _checkable(path: str, parameter: inspect.Parameter, names: dict[str, Any]) -> tuple[Any, ...]:
    """The hint of a parameter, resolved, as alternatives that msgspec can check."""
    holder = types.SimpleNamespace(__annotations__={'hint': parameter.annotation})
    try:
        hint = typing.get_type_hints(holder, globalns=names, include_extras=True)['hint']
        hints = tuple(_alternatives(hint))
        for alternative in hints:
            _require_plain(msgspec_inspect.type_info(alternative), set())
    except Exception as error:  # a hint is code, and may fail in any way
        raise InvalidJobError(
            f'{path}: the hint of parameter {parameter.name!r}, {parameter.annotation}, '
            f'cannot be checked: {error}. Use plain types.'
        ) from error
    return hints


def _alternatives(hint: Any) -> Iterator[Any]:
    """Hints that msgspec takes singly: it refuses some unions, and makes a list of a Sequence."""
    origin = typing.get_origin(hint) or hint
    arguments = typing.get_args(hint)
    if hint is object:
        yield Any
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _alternatives(argument)
    elif origin is Sequence:
        yield types.GenericAlias(list, arguments or (Any,))
        yield types.GenericAlias(tuple, (*(arguments or (Any,)), ...))
    elif origin in (Iterable, Collection):
        yield from _alternatives(types.GenericAlias(Sequence, arguments or (Any,)))
        yield types.GenericAlias(set, arguments or (Any,))
    elif origin in (Mapping, MutableMapping):
        yield types.GenericAlias(dict, arguments or (Any, Any))
    else:
        yield hint


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


def _spread(bound: inspect.BoundArguments) -> Iterator[tuple[str, str, Any]]:
    """Each argument as (parameter, how to name it in an error, value)."""
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((name, f'argument {name}[{i}]', item) for i, item in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            yield from ((name, f'argument {key!r}', item) for key, item in value.items())
        else:
            yield name, f'argument {name!r}', value


def _mismatch(value: Any, hint: Any) -> str | None:
    try:
        converted = msgspec.convert(value, hint, builtin_types=_NOT_CONVERTED)
    except msgspec.ValidationError as error:
        text = str(error).replace('`', '').replace(' - at $', ' at $')
        return f'{text} (must be {_spell(hint)})' if 'enum' in text else text
    if converted is not value and converted != value:
        return f'Expected {_spell(hint)}: list, tuple and set do not stand in for one another'
    return None


def _spell(hint: Any) -> str:
    return inspect.formatannotation(hint).removeprefix('typing.')
