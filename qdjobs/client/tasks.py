"""Resolve dotted paths to tasks, and check a task's arguments before they are enqueued."""

import importlib
import inspect
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from inspect import Parameter
from typing import Any

from flask import current_app, has_app_context
from werkzeug.datastructures import MultiDict

from qdjobs.checks import own_check
from qdjobs.client.hints import (
    HintCheck,
    ObjectCheck,
    check_return_hint,
    decode_text,
    make_check,
)
from qdjobs.client.options import like_option
from qdjobs.client.payload import ARGUMENT_DEPTH, check_plain
from qdjobs.client.scripts import (
    SCRIPT,
    imported_twice,
    is_importable,
    loaded_module,
    own_module,
    script_imported_twice,
    script_module,
)
from qdjobs.config import get_config, has_own_task_modules
from qdjobs.errors import (
    InvalidJobError,
    UnfitHereError,
    UnknownHereError,
    UnknownTaskError,
    short_repr,
)

OPTION_PREFIX = 'job_'

# Tasks of qdjobs itself, which any worker may run, whatever JOB_TASK_MODULES lists.
RELAY_OUTBOX = 'qdjobs.outbox.tasks.relay'
_OWN = frozenset({RELAY_OUTBOX})

TaskOrPath = str | Callable[..., object]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional, and by keyword


def is_own_task(path: str | None) -> bool:
    """Return whether a task is of qdjobs itself: its runs are no news to anyone."""
    return path in _OWN


@dataclass(frozen=True)
class Parameters:
    """The parameters of a task by what can be passed to them."""

    positional: tuple[str, ...]
    rest: str  # the name of `*args`, or ''
    named: frozenset[str]
    others: str  # the name of `**kwargs`, or ''

    @classmethod
    def of(cls, signature: inspect.Signature) -> 'Parameters':
        names: dict[Any, list[str]] = defaultdict(list)
        for parameter in signature.parameters.values():
            names[parameter.kind].append(parameter.name)
        return cls(
            (*names[Parameter.POSITIONAL_ONLY], *names[Parameter.POSITIONAL_OR_KEYWORD]),
            ''.join(names[Parameter.VAR_POSITIONAL]),
            frozenset(names[Parameter.POSITIONAL_OR_KEYWORD] + names[Parameter.KEYWORD_ONLY]),
            ''.join(names[Parameter.VAR_KEYWORD]),
        )

    def match(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Any]]:
        """Yield each argument as (parameter, its name in error messages, value)."""
        for name, value in zip(self.positional, args, strict=False):
            yield name, f'argument {name!r}', value
        for number, value in enumerate(args[len(self.positional) :]):
            yield self.rest, f'argument {self.rest}[{number}]', value
        for name, value in kwargs.items():
            yield name if name in self.named else self.others, f'argument {name!r}', value


@dataclass(frozen=True)
class Task:
    """A task: its function, and the checks of its parameters."""

    path: str
    function: types.FunctionType
    signature: inspect.Signature
    parameters: Parameters
    checks: Mapping[str, HintCheck]  # by parameter, for those that have a hint
    own_check: Callable[..., object] | None  # of `checked_by`

    def pack(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Return the arguments as they travel: plain data.

        Raises InvalidJobError unless they fit the signature and the hints, and travel.
        """
        self._require_signature(args, kwargs)
        packed = []
        for parameter, name, value in self.parameters.match(args, kwargs):
            check, where = self.checks.get(parameter), f'{self.path}: {name}'
            if isinstance(value, MultiDict):
                value = _convert(_single_values, value, where)
            if isinstance(check, ObjectCheck):
                value, check = _convert(check.pack, value, where), None  # that has checked it
            check_plain(value, where, ARGUMENT_DEPTH)
            if check is not None and (problem := check.problem(value)):
                raise InvalidJobError(f'{where}: {problem}.')
            packed.append(value)
        return _split(packed, args, kwargs)

    def require_plain(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise InvalidJobError, which names the argument, unless all are plain data."""
        for _, name, value in self.parameters.match(args, kwargs):
            check_plain(value, f'{self.path}: {name}', ARGUMENT_DEPTH)

    def unpack(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Return arguments that have travelled as the task takes them.

        Raises InvalidJobError unless they, plain data, fit the signature and the hints.
        """
        self._require_signature(args, kwargs)
        return self._unpack(args, kwargs, self.checks)

    def accept(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise InvalidJobError if the task's own check refuses the packed, valid arguments."""
        if (own_check := self.own_check) is None:
            return
        checks = self.checks.items()
        objects = {name: check for name, check in checks if isinstance(check, ObjectCheck)}
        copies = deepcopy((args, dict(kwargs)))  # a check changes nothing
        args, kwargs = self._unpack(*copies, objects)
        try:
            own_check(*args, **kwargs)
        except Exception as error:
            raise InvalidJobError(f'{self.path}: {error}') from error

    def _unpack(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], checks: Mapping[str, HintCheck]
    ) -> Arguments:
        unpacked = []
        for parameter, name, value in self.parameters.match(args, kwargs):
            if (check := checks.get(parameter)) is not None:
                value = _convert(check.unpack, value, f'{self.path}: {name}')
            unpacked.append(value)
        return _split(unpacked, args, kwargs)

    def _require_signature(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            signature, hint = _without_hints(self.signature), self._option_hint(kwargs)
            raise InvalidJobError(f'{self.path}{signature}: {error}.{hint}') from None

    def _option_hint(self, kwargs: Mapping[str, Any]) -> str:
        unknown = (name for name in kwargs if name not in self.signature.parameters)
        meant = next(filter(None, map(like_option, unknown)), None)
        return f' If it is an option of the job, write {meant}.' if meant else ''

    def read_json(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Convert keyword arguments from JSON to the types of the hints, and check them.

        Raises InvalidJobError, naming the argument, for one that is missing, unknown or does
        not fit.
        """
        named, others = self.parameters.named, self.parameters.others
        for name, parameter in self.signature.parameters.items():
            positional = parameter.kind is parameter.POSITIONAL_ONLY
            if _is_required(parameter) and (positional or name not in arguments):
                raise InvalidJobError(f'{self.path}: argument {name!r} is missing.', name)
        read = {}
        for name, value in arguments.items():
            parameter_name = name if name in named else others
            if not parameter_name:
                raise InvalidJobError(f'{self.path} has no argument {short_repr(name)}.', name)
            shown = repr(name) if name in named else short_repr(name)  # a client's can be long
            where = f'{self.path}: argument {shown}'
            check = self.checks.get(parameter_name)
            try:
                check_plain(value, where, ARGUMENT_DEPTH)
                read[name] = value if check is None else check.read_json(value)
            except InvalidJobError as error:
                raise InvalidJobError(str(error), name) from None
            except ValueError as error:
                raise InvalidJobError(f'{where}: {error}.', name) from None
        return read

    def read_text(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Convert keyword arguments from text to the types of the hints, and check them.

        Raises InvalidJobError for one that is missing, unknown or does not fit.
        """
        read = {}
        self._require_signature((), texts)
        named, others = self.parameters.named, self.parameters.others
        for name, text in texts.items():
            check = self.checks.get(name if name in named else others)
            where = f'{self.path}: argument {name!r}'
            try:
                read[name] = decode_text(text) if check is None else check.read_text(text)
            except ValueError as error:
                raise InvalidJobError(f'{where}: {error}.', name) from None
            check_plain(read[name], where, ARGUMENT_DEPTH)
        return read


def resolve_task(task: TaskOrPath) -> Task:
    """Return the task of a function, or of its dotted path.

    Raises UnknownTaskError if that is no public function that an allowed module defines,
    InvalidJobError if the function cannot be a task.
    """
    return resolve_in(path_of(task), get_config().task_modules)


def path_of(task: TaskOrPath) -> str:
    """Return the dotted path of a task.

    Raises UnknownTaskError for a function that a worker would not find at its path.
    """
    if isinstance(task, str):
        return task
    path = defined_path(task)
    module, _, name = path.rpartition('.')
    if getattr(loaded_module(module), name, None) is not task:
        if module == script_imported_twice():
            raise UnknownTaskError(f'{path} is another function here. {imported_twice(module)}')
        raise UnknownTaskError(
            f'A worker that imports {path!r} does not get the function that was passed: pass the '
            'function that is there, or the dotted path at which this one is.'
        )
    return path


def defined_path(function: Callable[..., object]) -> str:
    """Return the dotted path at which a function says that it is defined.

    Raises UnknownTaskError if that is not the top of a module that a worker can import.
    """
    module = getattr(function, '__module__', None)
    name = getattr(function, '__qualname__', None)
    if not module or not name or not inspect.isfunction(function):
        raise UnknownTaskError(
            f'{short_repr(function)} is no function: a task is a function, or its dotted path, '
            "such as 'workers.svg_tasks.generate_complex_svg'."
        )
    if module == SCRIPT and (module := script_module()) is None:
        raise UnknownTaskError(
            f'{name} is defined in the script that was started, which a worker cannot import: '
            'put it into a file such as job_queue.py, and start that with `python job_queue.py` '
            'or `flask --app job_queue run`.'
        )
    if not is_importable(module):
        raise UnknownTaskError(
            f'{name} is defined in {module!r}, which a worker cannot import: rename the file, to '
            'letters, digits and underscores as in job_queue.py.'
        )
    if not name.isidentifier() or name.startswith('_'):
        raise UnknownTaskError(
            f'{module}.{name} is nested, nameless or private: a task is a public function at the '
            'top of its module.'
        )
    return f'{module}.{name}'


def forget_tasks() -> None:
    """Have each task resolved anew: in a test, another function may be in its place."""
    resolve_in.cache_clear()
    _find.cache_clear()


@cache
def resolve_in(path: str, allowed: tuple[str, ...]) -> Task:
    """Return the task of a dotted path in one of the `allowed` modules. Raises as resolve_task."""
    return _make_task(path, _find(path, allowed))


def check_call(path: Any, args: Any, kwargs: Any) -> tuple[types.FunctionType, Arguments]:
    """Check the call of a job as at enqueue, for workers.

    Returns the task's function, and the arguments as it takes them. Raises UnknownHereError if a
    newer version of the code may know the task, UnfitHereError, a TypeError as of the call itself,
    if this version does not take the arguments; UnknownTaskError or InvalidJobError for what no
    version can run: a path outside the allowed modules, a private name, a payload that holds no
    call or no plain data.
    """
    if not isinstance(path, str):
        raise UnknownTaskError('The record names no function.')
    if not isinstance(args, (tuple, list)) or not _is_keywords(kwargs):
        raise InvalidJobError('The payload holds no call: its arguments are no tuple and dict.')
    check_plain(args, f'{path}: the arguments', ARGUMENT_DEPTH + 1)
    check_plain(kwargs, f'{path}: the keyword arguments', ARGUMENT_DEPTH + 1)
    allowed = get_config().task_modules
    try:
        task = resolve_in(path, allowed)
    except UnknownTaskError as error:
        if is_allowed(path, allowed):
            raise
        raise UnknownTaskError(f'{error} {_of_another_application(path, allowed)}') from None
    except InvalidJobError as error:
        raise UnknownHereError(
            f"This worker's version of the task cannot be run: {error}"
        ) from error
    try:
        return task.function, task.unpack(tuple(args), kwargs)
    except InvalidJobError as error:
        raise UnfitHereError(
            f"This worker's version of the task does not take these arguments: {error}"
        ) from error


def _of_another_application(path: str, allowed: tuple[str, ...]) -> str:
    listed = ','.join((*allowed, path.rpartition('.')[0]))
    return (
        'If it is a task of another application on this Redis, give each application a '
        f'JOB_KEY_PREFIX of its own; if it is one of this application: JOB_TASK_MODULES={listed}'
    )


def _is_keywords(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def resolve_function(path: str) -> types.FunctionType:
    """Return only the function of a task, for workers. Raises UnknownTaskError."""
    return _find(path, get_config().task_modules)


def require_allowed(path: str, allowed: tuple[str, ...]) -> None:
    """Raise UnknownTaskError unless the path is in an allowed module. Imports nothing."""
    if not is_allowed(path, allowed):
        name_it = "put @queue.task('…') above it, " if _is_in_own_file(path) else ''
        message = (
            f'{path!r} is outside the allowed task modules ({", ".join(allowed)}): {name_it}'
            'define the task there, or add its module to JOB_TASK_MODULES.'
        )
        if has_own_task_modules(allowed):
            message += (
                ' (If app.config has it there: it counts from JobQueue(app) on, and in the context '
                'of that application.)'
            )
        raise UnknownTaskError(message)


def is_allowed(path: str, allowed: tuple[str, ...]) -> bool:
    """Return whether the path is in an allowed module."""
    module_name = path.rpartition('.')[0]
    is_in = (module_name == top or module_name.startswith(f'{top}.') for top in allowed)
    return is_own_task(path) or any(is_in)


def _is_in_own_file(path: str) -> bool:
    """Return whether a path is in the script, or in the one file of the current application."""
    module = path.rpartition('.')[0]
    return module == script_module() or (has_app_context() and module == own_module(current_app))


@cache
def _find(path: str, allowed: tuple[str, ...]) -> types.FunctionType:
    module_name, _, name = path.rpartition('.')
    require_allowed(path, allowed)
    module = import_module(module_name, path)
    function = getattr(module, name, None)
    if name.startswith('_') or not inspect.isfunction(function):
        choices = ', '.join(public_functions(module)) or 'none'
        raise _unknown_error(path)(
            f'{path!r} names no public function: {module_name} has {choices}.'
        )
    if function.__module__ != module.__name__:
        raise UnknownHereError(
            f'{path!r} is only imported there: name it where it is defined, '
            f"'{function.__module__}.{function.__name__}'."
        )
    return function


def import_module(module_name: str, path: str) -> types.ModuleType:
    """Import the module of the task `path`. Raises UnknownTaskError, with the cause."""
    if module_name == script_module():
        return sys.modules[SCRIPT]
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f'{module_name}.'.startswith(f'{error.name}.'):
            raise _unknown_error(path)(
                f'{path!r} names no task: there is no module {error.name!r}.'
            ) from None
        raise _unknown_error(path)(f'{path!r}: importing {module_name} failed: {error}.') from error
    except (Exception, SystemExit) as error:
        raise _unknown_error(path)(
            f'{path!r}: importing {module_name} failed: {type(error).__name__}: {error}.'
        ) from error


def _unknown_error(path: str) -> type[UnknownTaskError]:
    """Return the error for a path that names no task here, but may do so in another version."""
    parts = path.split('.')
    possible = all(part.isidentifier() for part in parts) and not parts[-1].startswith('_')
    return UnknownHereError if possible else UnknownTaskError


def public_functions(module: types.ModuleType) -> list[str]:
    """Return the names of the public functions that a module defines."""
    return [
        name
        for name, member in inspect.getmembers(module, inspect.isfunction)
        if member.__module__ == module.__name__ and not name.startswith('_')
    ]


def _make_task(path: str, function: types.FunctionType) -> Task:
    body = inspect.unwrap(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
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
    checks = {
        name: make_check(path, parameter, body.__globals__)
        for name, parameter in signature.parameters.items()
        if parameter.annotation is not parameter.empty
    }
    if signature.return_annotation is not signature.empty:
        check_return_hint(path, signature.return_annotation, body.__globals__)
    parameters, own = Parameters.of(signature), own_check(function)
    return Task(path, function, signature, parameters, checks, own)


def _without_hints(signature: inspect.Signature) -> inspect.Signature:
    return inspect.Signature(
        [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in signature.parameters.values()
        ]
    )


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variable


def _convert(convert: Callable[[Any], Any], value: Any, where: str) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        raise InvalidJobError(f'{where}: {error}.') from None


def _single_values(given: 'MultiDict[str, Any]') -> dict[str, Any]:
    """Return `request.args` or `request.form` as plain data, without losing a value."""
    if twice := [name for name, values in given.lists() if len(values) > 1]:
        raise ValueError(
            f'{short_repr(twice[0])} has several values: pass request.args.to_dict(flat=False) to '
            'keep all of them'
        )
    return given.to_dict()


def _split(values: list[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """Return the values in the form of the arguments."""
    count = len(args)
    return tuple(values[:count]), dict(zip(kwargs, values[count:], strict=True))
