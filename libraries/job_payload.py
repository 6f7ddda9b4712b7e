"""Plain data ↔ bytes: what may travel in a job, and nothing that could run.

On the wire it is a pickle, so that stock RQ tools read our jobs. It is written from plain
data only and read by an unpickler that knows the plain types and no other name.
"""

import io
import pickle
import zlib
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from libraries.job_errors import InvalidJobError

PLAIN_TYPES = (
    'None, bool, int, float, str, bytes, list, tuple, dict, set, '
    'datetime, date, time, timedelta, Decimal, UUID'
)

_SCALARS = frozenset(
    (type(None), bool, int, float, str, bytes, date, timedelta, Decimal, UUID)
)  # fmt: skip
_MOMENTS = frozenset((datetime, time))
_CONTAINERS = frozenset((list, tuple, dict, set))

# A UUID's own pickle carries a state; `UUID(hex)` needs none, so the reader can refuse states.
_REDUCERS: dict[type, Callable[[Any], Any]] = {UUID: lambda value: (UUID, (value.hex,))}


class PlainSerializer:
    """RQ's serializer interface over plain data. Both ways raise InvalidJobError."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Write plain data; the error says where the first thing stands that is not."""
        check_plain(value)
        return dump_checked(value)

    @staticmethod
    def loads(payload: bytes) -> Any:
        """Read plain data; a payload that names anything else is refused before it acts."""
        unpickler = _PlainUnpickler(io.BytesIO(payload))
        try:
            value = unpickler.load()
        except InvalidJobError:
            raise
        except Exception as error:  # a damaged pickle raises almost any class
            raise InvalidJobError(f'The payload cannot be read: {error}.') from error
        if unpickler.named_types:
            check_plain(value)  # a bare name is no data
        return value


def dump_checked(value: Any) -> bytes:
    """Write what `check_plain` has let through."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=4)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(value)
    return buffer.getvalue()


class _Constructor:
    """A plain type that a pickle may call, and no more: it has no attribute to set."""

    __slots__ = ('_make',)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, '_make', make)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f'{name} cannot be set')

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)


_CONSTRUCTORS = {
    (kind.__module__, kind.__name__): _Constructor(kind)
    for kind in (datetime, date, time, timedelta, timezone, Decimal, UUID)
} | {('builtins', 'set'): _Constructor(set), ('__builtin__', 'set'): _Constructor(set)}


class _PlainUnpickler(pickle.Unpickler):
    named_types = False

    def find_class(self, module: str, name: str) -> Any:
        self.named_types = True
        try:
            return _CONSTRUCTORS[module, name]
        except KeyError:
            raise InvalidJobError(
                f'The payload names {module}.{name}, which is no plain data; it was not read.'
            ) from None


def check_plain(value: Any, where: str = 'the value') -> None:
    """Raise InvalidJobError, saying where in `value` it stands, for anything but plain data."""
    try:
        _check(value, where)
    except RecursionError:
        raise InvalidJobError(f'{where} is nested too deeply or contains itself.') from None


def _check(value: Any, where: str) -> None:
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is dict:
        if not (
            _SCALARS.issuperset(map(type, value)) and _SCALARS.issuperset(map(type, value.values()))
        ):
            for key, item in value.items():
                _check(key, f'the key {key!r} of {where}')
                _check(item, f'{where}[{key!r}]')
    elif kind in _CONTAINERS:
        if not _SCALARS.issuperset(map(type, value)):
            for index, item in enumerate(value):
                _check(item, f'{where}[{index}]' if kind is not set else f'{item!r} in {where}')
    elif kind in _MOMENTS:
        if value.tzinfo is not None and type(value.tzinfo) is not timezone:
            raise InvalidJobError(
                f'{where} has the time zone {value.tzinfo}, which does not travel: '
                'pass it as .astimezone(timezone.utc).'
            )
    else:
        raise InvalidJobError(
            f'{where} is a {_name(kind)}, which does not travel: {_advice(kind)}.'
        )


def _name(kind: type) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == 'builtins'
        else f'{kind.__module__}.{kind.__qualname__}'
    )


def _advice(kind: type) -> str:
    for plain in (bool, int, float, str, bytes, list, tuple, dict, set, datetime, date):
        if issubclass(kind, plain):
            return f'pass {plain.__name__}(…) of it'
    return f'pass its id instead, or plain data ({PLAIN_TYPES})'


def decompress(payload: bytes, limit: int = 64 * 1024 * 1024) -> bytes:
    """Undo RQ's zlib, or return as it is what is not compressed; at most `limit` bytes."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(payload, limit)
    except zlib.error:
        return payload
    if reader.unconsumed_tail:
        raise InvalidJobError(f'The payload unpacks to more than {limit} bytes; it was not read.')
    return data


def to_json(value: Any) -> str:
    """The one JSON form of plain data: ISO 8601 for dates and durations, base64 for bytes,
    strings for Decimal and UUID, arrays for tuples and sets, null for NaN and infinities.
    """
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        check_plain(value)  # raises if it is not ours to write
        return msgspec.json.encode(_jsonable(value)).decode()


def _jsonable(value: Any) -> Any:
    """The rare plain data that JSON has no form for: odd keys, lone surrogates, huge integers."""
    if isinstance(value, dict):
        return {_json_key(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_jsonable(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors='backslashreplace').decode()
    if isinstance(value, int) and value.bit_length() > 4096:
        return hex(value)  # decimal digits of a huge integer take quadratic time
    return value


def _json_key(key: Any) -> str:
    return (
        key.encode(errors='backslashreplace').decode()
        if isinstance(key, str)
        else to_json(key).strip('"')
    )
