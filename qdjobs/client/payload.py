"""Serialize plain data for jobs, and read it without running code.

The wire format is a pickle, so that stock RQ tools can read it. It is written from plain data
only, and read by an unpickler that resolves the plain types and no other name.
"""

import io
import pickle
import time as clock
import zlib
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from werkzeug.local import LocalProxy

from qdjobs.client.opcodes import MAX_PAYLOAD, SharedTuplesError, require_bounded
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, short_repr

PLAIN_TYPES = (
    'None, bool, int, float, str, bytes, list, tuple, dict, set, '
    'datetime, date, time, timedelta, Decimal, UUID'
)

_MEGABYTE = 1_000_000
_ALWAYS_SMALL = 16 * _MEGABYTE  # bytes
MAX_DEPTH = 100  # of nested containers
ARGUMENT_DEPTH = MAX_DEPTH - 2  # of one argument: the payload of a call holds it two levels down
# What occurs in several places is written once, but a walk over the value meets it each time.
MOST_UNFOLDED = 100  # bytes for one of the payload
ALWAYS_UNFOLDED = 4_000_000  # bytes, however small the payload
SECONDS = 1.0  # of processor time in which a payload is read, and half as many for each megabyte
_UNTIMED = 100_000  # bytes, of which pickle would read most in one step

_SCALARS = frozenset((type(None), bool, int, float, str, bytes, date, timedelta, Decimal))
_MOMENTS = frozenset((datetime, time))
_CONTAINERS = frozenset((list, tuple, dict, set))
_SERIES = (Iterator, range, KeysView, ValuesView, ItemsView)  # of which a list can be made

# The default pickle of a UUID has a state. `UUID(hex)` has none, so the reader can reject states.
_REDUCERS: dict[type, Callable[[Any], Any]] = {UUID: lambda value: (UUID, (value.hex,))}


class PlainSerializer:
    """RQ's serializer interface for plain data. Both methods raise InvalidJobError."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Serialize plain data. The error locates the first value that is not plain."""
        check_plain(value)
        return dump_checked(value)

    @staticmethod
    def loads(payload: bytes) -> Any:
        """Deserialize plain data. A payload that names anything else is rejected."""
        return load_plain(payload)


def load_plain(payload: bytes, unfolded: int = ALWAYS_UNFOLDED) -> Any:
    """Deserialize plain data. Raises InvalidJobError.

    The value may unfold to `unfolded` bytes, however small the payload.
    """
    require_bounded(payload, _most_small(payload))
    try:
        value = _PlainUnpickler(payload).load()
    except InvalidJobError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        raise InvalidJobError(f'The payload cannot be read: {error}.') from error
    check_plain(value)  # a pickle can also hold constructors and incomplete objects
    _require_bounded_value(value, len(payload), unfolded)
    return value


def dump_checked(value: Any) -> bytes:
    """Serialize data that has passed `check_plain`. Raises InvalidJobError if `loads` would."""
    return _readable(value, _dump(value))


def dump_within(value: Any, megabytes: int, what: str, advice: str) -> bytes:
    """Serialize as `dump_checked` does, at most so many megabytes. Raises InvalidJobError.

    The size is checked first: its error has the advice.
    """
    payload = _dump(value)
    if len(payload) > megabytes * _MEGABYTE:
        raise InvalidJobError(f'{what} {len(payload) / _MEGABYTE:.1f} MB, more than {advice}.')
    return _readable(value, payload)


def _readable(value: Any, payload: bytes) -> bytes:
    try:
        require_bounded(payload, _most_small(payload))
    except SharedTuplesError:
        payload = _dump(value, fast=True)  # without references
        require_bounded(payload, _most_small(payload))
    _require_bounded_value(value, len(payload))
    return payload


def _dump(value: Any, fast: bool = False) -> bytes:
    buffer = io.BytesIO()
    _write(value, buffer, fast)
    return buffer.getvalue()


def _write(value: Any, file: '_Counter | io.BytesIO', fast: bool) -> None:
    """Write a pickle; if it is `fast`, then what occurs in several places as often."""
    pickler = pickle.Pickler(file, protocol=4)
    pickler.fast = fast
    pickler.dispatch_table = _REDUCERS
    pickler.dump(value)


def _most_small(payload: bytes) -> int:
    """Return how many bytes of small values are read: what the settings permit, or 16 MB."""
    if len(payload) <= _ALWAYS_SMALL:  # which needs no configuration
        return _ALWAYS_SMALL
    config = get_config()
    return max(_ALWAYS_SMALL, _MEGABYTE * max(config.max_arguments, config.max_result))


class _Counter:
    """A file that keeps nothing, and fails once more than `left` bytes were written."""

    def __init__(self, left: int) -> None:
        self._left = left

    def write(self, data: Any) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise InvalidJobError(
                'The value has parts that occur in so many places that it would take too much '
                'room: pass them once.'
            )


def _require_bounded_value(value: Any, size: int, unfolded: int = ALWAYS_UNFOLDED) -> None:
    """Raise InvalidJobError if plain data with a payload of `size` bytes unfolds to too much."""
    _write(value, _Counter(unfolded + MOST_UNFOLDED * size), fast=True)


class _Constructor:
    """The constructor of a plain type. A pickle can call it, but cannot set attributes on it."""

    __slots__ = ('_make',)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, '_make', make)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f'{name} cannot be set')

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)


class _PickledUUID(UUID):
    """A UUID that a call (our pickles) or a state (stock ones) sets. It then is a plain UUID."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, '__class__', UUID)

    def __setstate__(self, state: dict[str, Any]) -> None:
        _PickledUUID.__init__(self, int=state['int'])


def _make_moment(kind: type[date] | type[datetime]) -> Callable[..., Any]:
    # The constructors hardly check the pickled form; `replace` checks every field.
    def make(*args: Any) -> Any:
        value = kind(*args)
        return value.replace(day=value.day)

    return make


def _make_time(*args: Any) -> time:
    value = time(*args)
    return value.replace(minute=value.minute)


_CONSTRUCTORS: dict[tuple[str, str], Any] = {
    ('datetime', 'datetime'): _Constructor(_make_moment(datetime)),
    ('datetime', 'date'): _Constructor(_make_moment(date)),
    ('datetime', 'time'): _Constructor(_make_time),
    ('datetime', 'timedelta'): _Constructor(timedelta),
    ('datetime', 'timezone'): _Constructor(timezone),
    ('uuid', 'UUID'): _PickledUUID,
}


class _Timed(io.BytesIO):
    """A payload that can be read for some time only.

    Keys that a stranger has chosen to have the same hash take the square of their number.
    """

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self._deadline = clock.thread_time() + SECONDS * (1 + len(payload) / _MEGABYTE / 2)

    def read(self, size: int | None = -1, /) -> bytes:
        if clock.thread_time() > self._deadline:
            raise InvalidJobError('The payload takes too long to read; the rest was not read.')
        return super().read(size)


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, payload: bytes) -> None:
        super().__init__((_Timed if len(payload) > _UNTIMED else io.BytesIO)(payload))
        self._digits_left = len(payload)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('decimal', 'Decimal'):
            return _Constructor(self._make_decimal)
        try:
            return _CONSTRUCTORS[module, name]
        except KeyError:
            raise InvalidJobError(
                f'The payload names {module}.{name}, which is no plain data; it was not read.'
            ) from None

    def _make_decimal(self, digits: str) -> Decimal:
        """Return a decimal. Its digits are in the payload, once for each decimal."""
        self._digits_left -= len(digits)
        if self._digits_left < 0:
            raise InvalidJobError('The payload repeats a decimal too often; it was not read.')
        return Decimal(digits)


def check_plain(value: Any, where: str = 'the value', depth: int = MAX_DEPTH) -> None:
    """Raise InvalidJobError, with the location in `value`, for anything but plain data."""
    try:
        _check(value, where, depth, {})
    except RecursionError:
        raise InvalidJobError(f'{where} is nested too deeply, or contains itself.') from None


def _check(value: Any, where: str, depth: int, heights: dict[int, int]) -> int:
    """Check a value, and return how deep it is nested.

    `heights` are those of containers by their ids: each is checked once, however often it occurs.
    """
    kind = type(value)
    if kind in _SCALARS:
        return 0
    if kind in _CONTAINERS:
        height = heights.get(id(value))
        if height is None and depth > 0:  # a fixed depth, however deep the caller's stack is
            heights[id(value)] = MAX_DEPTH + 1  # if it contains itself
            height = heights[id(value)] = 1 + _check_items(value, where, depth - 1, heights)
        if height is None or height > depth:
            raise RecursionError
        return height
    if kind in _MOMENTS:
        if value.tzinfo is not None and type(value.tzinfo) is not timezone:
            raise InvalidJobError(
                f'{where} has the time zone {value.tzinfo}, which does not travel: '
                'pass it as .astimezone(timezone.utc).'
            )
    elif kind is UUID:
        if type(value.int) is not int or not 0 <= value.int < 1 << 128:
            raise InvalidJobError(f'{where} is a damaged UUID.')
    else:
        raise InvalidJobError(
            f'{where} is of type {_name(kind)}, which does not travel: {_advice(kind)}.'
        )
    return 0


def _check_items(value: Any, where: str, depth: int, heights: dict[int, int]) -> int:
    """Check the items of a container, and return how deep the deepest is nested."""
    # Most data is flat. Checking the types of all items at once is faster than checking each item.
    height = 0
    if type(value) is dict:
        if not _SCALARS.issuperset(map(type, value)):
            for key in value:
                place = f'the key {short_repr(key)} of {where}'
                height = max(height, _check(key, place, depth, heights))
        if not _SCALARS.issuperset(map(type, value.values())):
            for key, item in value.items():
                place = f'{where}[{short_repr(key)}]'
                height = max(height, _check(item, place, depth, heights))
    elif not _SCALARS.issuperset(map(type, value)):
        for index, item in enumerate(value):
            place = f'{short_repr(item)} in {where}' if type(value) is set else f'{where}[{index}]'
            height = max(height, _check(item, place, depth, heights))
    return height


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
    if issubclass(kind, PurePath):
        return 'pass str(…) of it'
    # A file is an iterator too, and so is what stands for `current_user` or `request`.
    if issubclass(kind, _SERIES) and not issubclass(kind, (io.IOBase, LocalProxy)):
        return 'pass list(…) of it'
    return f'pass its id instead, or plain data ({PLAIN_TYPES})'


def decompress(payload: bytes, limit: int = MAX_PAYLOAD) -> bytes:
    """Undo RQ's zlib compression; return other payloads unchanged.

    Raises InvalidJobError if there are more than `limit` bytes.
    """
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(payload, limit)
    except zlib.error:
        return payload
    if reader.unconsumed_tail:
        raise InvalidJobError(f'The payload unpacks to more than {limit} bytes; it was not read.')
    return data
