"""Plain data travels as it is, nothing else travels, and nothing that is read runs."""

import copyreg
import enum
import json
import os
import pickle
import sys
import zlib
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from io import StringIO
from pathlib import Path, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from werkzeug.datastructures import MultiDict
from werkzeug.local import LocalProxy

from qdjobs.client import opcodes
from qdjobs.client import payload as payloads
from qdjobs.client.json import to_json
from qdjobs.client.opcodes import require_bounded
from qdjobs.client.payload import PLAIN_TYPES, PlainSerializer, check_plain, decompress
from qdjobs.config import environment_config
from qdjobs.errors import InvalidJobError

HUGE = 10**10000  # more digits than Python likes to write
NAIVE = datetime(2030, 1, 2, 3, 4)  # noqa: DTZ001

time_zones = st.none() | st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
moments = st.datetimes(timezones=st.just(None)) | st.builds(
    lambda moment, zone: moment.replace(tzinfo=zone), st.datetimes(), time_zones
)
hashable_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))  # lone surrogates too
    | st.binary()
    | st.dates()
    | moments
    | st.builds(lambda moment, zone: moment.replace(tzinfo=zone), st.times(), time_zones)
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
keys = st.recursive(hashable_scalars, lambda inner: st.lists(inner, max_size=3).map(tuple))
plain = st.recursive(
    hashable_scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(keys, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)
EVERY_TYPE = {
    'none': None,
    'bool': True,
    'int': 2**70,
    'float': 1.5,
    'str': 'Zürich',
    'bytes': b'\x00\xff',
    'list': [1, [2]],
    'tuple': (1, (2,)),
    'set': {1, 2},
    'datetime': datetime(2030, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=1), 'CET')),
    'naive': NAIVE,
    'date': date(2030, 1, 2),
    'time': time(3, 4, tzinfo=UTC),
    'timedelta': timedelta(-1, 2, 3),
    'decimal': Decimal('1.50'),
    'uuid': UUID(int=7),
}


def shape(value: Any) -> Any:
    """A value with the types of all its parts, since 1 == True == 1.0."""
    if isinstance(value, dict):
        parts: Any = [(shape(key), shape(item)) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [shape(item) for item in value]
    elif isinstance(value, set):
        parts = sorted(repr(shape(item)) for item in value)
    else:
        parts = repr(value) if type(value) is not int else hex(value)
    return type(value).__name__, parts


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class FloatLikeNumpys(float):
    """numpy.float64 is such a subclass of float."""


class Colour(enum.IntEnum):
    RED = 1


Pair = namedtuple('Pair', 'x y')


def a_function() -> None: ...


# What travels


@given(plain)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    assert shape(PlainSerializer.loads(PlainSerializer.dumps(value))) == shape(value)


@pytest.mark.slow
@given(plain)
def test_a_stock_unpickler_reads_what_we_write(value: Any) -> None:
    assert shape(pickle.loads(PlainSerializer.dumps(value))) == shape(value)


@pytest.mark.parametrize('name', EVERY_TYPE)
def test_every_plain_type_travels(name: str) -> None:
    value = EVERY_TYPE[name]
    assert shape(PlainSerializer.loads(PlainSerializer.dumps([value]))) == shape([value])


# RQ's own default is the highest protocol; a stock worker writes results with it.
@pytest.mark.parametrize('protocol', [4, 5])
@pytest.mark.parametrize('name', EVERY_TYPE)
def test_we_read_plain_data_that_stock_pickle_wrote(name: str, protocol: int) -> None:
    value = EVERY_TYPE[name]
    assert shape(PlainSerializer.loads(pickle.dumps(value, protocol))) == shape(value)


def test_a_value_that_stands_in_two_places_travels() -> None:
    shared, identity = [1], UUID(int=3)
    value = [shared, shared, identity, identity]
    assert PlainSerializer.loads(PlainSerializer.dumps(value)) == value


def test_not_a_number_travels() -> None:
    read = PlainSerializer.loads(PlainSerializer.dumps([float('nan'), Decimal('sNaN')]))
    assert [str(item) for item in read] == ['nan', 'sNaN']


def test_a_number_of_ten_thousand_digits_travels() -> None:
    assert PlainSerializer.loads(PlainSerializer.dumps({'n': HUGE})) == {'n': HUGE}


# What does not


@pytest.mark.parametrize(
    ('value', 'advice'),
    [
        (FloatLikeNumpys(1), 'float'),
        (MultiDict({'a': '1'}), 'dict'),
        (OrderedDict(a=1), 'dict'),
        (Pair(1, 2), 'tuple'),
        (Colour.RED, 'int'),
        (Markup('<b>'), 'str'),
        (Path('x'), 'str'),
        (PureWindowsPath('x'), 'str'),
        ((n for n in [1]), 'list'),
        (iter(()), 'list'),
        (map(str, ()), 'list'),
        (range(3), 'list'),
        ({}.keys(), 'list'),
        ({}.items(), 'list'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_nearly_plain_is_refused_with_what_to_make_of_it(value: Any, advice: str) -> None:
    with pytest.raises(InvalidJobError, match=rf'does not travel: pass {advice}\(…\) of it'):
        PlainSerializer.dumps(value)


@pytest.mark.parametrize(
    'value',
    [
        bytearray(b'x'),
        memoryview(b'x'),
        frozenset({1}),
        1j,
        StringIO(),
        UTC,
        Colour,
        a_function,
        print,
        os,
        object(),
        LocalProxy(dict),  # such as flask.session
        ...,
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused_with_a_hint(value: Any) -> None:
    with pytest.raises(InvalidJobError, match='pass its id instead, or plain data'):
        PlainSerializer.dumps(value)


@pytest.mark.parametrize('value', [datetime(2030, 1, 1, tzinfo=ZoneInfo('Europe/Zurich'))])
def test_a_time_zone_by_name_is_refused_with_what_to_do(value: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"\['at'\].*Europe/Zurich.*astimezone"):
        PlainSerializer.dumps({'at': value})
    with pytest.raises(InvalidJobError, match='Europe/Zurich'):
        PlainSerializer.dumps(value.timetz())


@pytest.mark.parametrize(
    ('value', 'place'),
    [
        (1j, 'the value is'),
        ([0, 1j], r'the value\[1\]'),
        ((0, (0, 1j)), r'the value\[1\]\[1\]'),
        ({'a': {'b': [1j]}}, r"the value\['a'\]\['b'\]\[0\]"),
        ({1j: 0}, r'the key 1j of the value'),
        ({(1, 1j): 0}, r'the key \(1, 1j\) of the value\[1\]'),
        ({1j}, '1j in the value'),
    ],
)
def test_the_place_of_what_does_not_travel_is_named(value: Any, place: str) -> None:
    with pytest.raises(InvalidJobError, match=place):
        check_plain(value)


def test_the_caller_says_what_the_value_is_called() -> None:
    with pytest.raises(InvalidJobError, match=r'^argument 3\[0\] is of type complex'):
        check_plain([1j], 'argument 3')


def test_a_list_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidJobError, match='contains itself'):
        PlainSerializer.dumps(value)


def test_a_dict_that_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value['self'] = value
    with pytest.raises(InvalidJobError, match='contains itself'):
        PlainSerializer.dumps(value)


# From a depth that the check still takes, and pickle does not, to one that neither does.
@pytest.mark.parametrize('depth', [400, 500, 600, 700, 800, 900, 960, 990, 5_000, 100_000])
def test_nesting_is_written_or_refused_at_any_depth(depth: int) -> None:
    try:
        payload = PlainSerializer.dumps(nested(depth))
    except InvalidJobError as error:
        assert 'nested too deeply' in str(error)  # noqa: PT017
    else:
        assert PlainSerializer.loads(payload) == nested(depth)


def test_a_refusal_names_a_key_of_ten_thousand_digits() -> None:
    with pytest.raises(InvalidJobError, match='object'):
        PlainSerializer.dumps({HUGE: object()})


# Hostile payloads. Each would make the canary, a folder, if it ran.


def canary_call(module: str, name: str, path: str) -> dict[str, bytes]:
    """Pickles that call `module.name(path)`, one for each way that pickle has."""
    named, argument = f'{module}\n{name}\n'.encode(), f'V{path}\n'.encode()
    short = bytes([len(path)]) + path.encode()
    stack = b''.join(b'\x8c' + bytes([len(part)]) + part.encode() for part in (module, name))
    framed = stack + b'\x93\x8c' + short + b'\x85R.'
    return {
        'reduce': b'c' + named + b'(' + argument + b'tR.',
        'reduce, protocol 4': b'\x80\x04' + framed,
        'inst': b'(' + argument + b'i' + named + b'.',
        'obj': b'(c' + named + argument + b'o.',
        'inside a list': b'](c' + named + b'(' + argument + b'tRe.',
        'as a key': b'}c' + named + b'(' + argument + b'tRNs.',
        'before plain data': b'c' + named + b'(' + argument + b'tR0N.',
        'from the memo': b'c' + named + b'q\x000h\x00(' + argument + b'tR.',
        'framed': b'\x80\x04\x95' + len(framed).to_bytes(8, 'little') + framed,
    }


WAYS = tuple(canary_call('os', 'mkdir', ''))


@pytest.mark.parametrize('way', WAYS)
def test_a_payload_that_calls_a_function_is_refused_unread(way: str, tmp_path: Path) -> None:
    canary = tmp_path / 'c'
    payload = canary_call('os', 'mkdir', str(canary))[way]
    with pytest.raises(InvalidJobError, match=r'os\.mkdir, which is no plain data|the opcode'):
        PlainSerializer.loads(payload)
    assert not canary.exists()


@pytest.mark.parametrize('way', WAYS)
def test_the_same_payload_runs_under_stock_pickle(way: str, tmp_path: Path) -> None:
    canary = tmp_path / 'c'
    pickle.loads(canary_call('os', 'mkdir', str(canary))[way])
    assert canary.exists()


class ViaSystem:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_command_for_the_shell_is_not_run(protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / 'canary'
    payload = pickle.dumps(['plain', ViaSystem(f'touch {canary}')], protocol)
    with pytest.raises(InvalidJobError, match=r'(posix|nt|os)\.system|the opcode'):
        PlainSerializer.loads(payload)
    assert not canary.exists()
    pickle.loads(payload)
    assert canary.exists()


class Opened:
    """What NEWOBJ makes without calling anything but `__new__`."""

    made: list[str] = []  # noqa: RUF012

    def __new__(cls, note: str) -> 'Opened':
        cls.made.append(note)
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[str]:
        return ('by NEWOBJ',)


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_no_other_class_is_made(protocol: int) -> None:
    payload = pickle.dumps(Opened('here'), protocol)
    Opened.made.clear()
    with pytest.raises(InvalidJobError, match=r'Opened, which is no plain data'):
        PlainSerializer.loads(payload)
    assert Opened.made == []
    pickle.loads(payload)
    assert Opened.made == ['by NEWOBJ']


def test_a_registered_extension_code_is_not_called(tmp_path: Path) -> None:
    canary = tmp_path / 'c'
    payload = b'\x80\x02\x82\x01V' + str(canary).encode() + b'\n\x85R.'
    copyreg.add_extension('os', 'mkdir', 1)
    try:
        with pytest.raises(InvalidJobError, match='the opcode'):
            PlainSerializer.loads(payload)
        assert not canary.exists()
        pickle.loads(payload)
        assert canary.exists()
    finally:
        copyreg.remove_extension('os', 'mkdir', 1)


@pytest.mark.parametrize(
    ('module', 'name'),
    [
        ('builtins', 'eval'),
        ('builtins', 'getattr'),
        ('builtins', 'list'),
        ('builtins', 'set'),
        ('builtins', 'frozenset'),
        ('builtins', 'set.__init__'),
        ('datetime', 'datetime.fromtimestamp'),
        ('datetime', 'sys.modules'),
        ('uuid', 'os.system'),
        ('uuid', 'UUID.__init__'),
        ('uuid', 'SafeUUID'),
        ('decimal', 'setcontext'),
        ('_codecs', 'encode'),
        ('copyreg', '_reconstructor'),
        ('functools', 'partial'),
        ('qdjobs.client.payload', '_CONSTRUCTORS'),
        ('', ''),
    ],
)
def test_a_name_beside_the_plain_types_is_refused(module: str, name: str) -> None:
    parts = b''.join(bytes([0x8C, len(part)]) + part.encode() for part in (module, name))
    with pytest.raises(InvalidJobError, match='which is no plain data'):
        PlainSerializer.loads(b'\x80\x04' + parts + b'\x93.')


# BUILD: a pickle may set attributes, also of what it has just named.

STATES = {
    'dict': b'}(V%s\nV0\nu',
    'slots': b'N}(V%s\nV0\nu\x86',
    'both': b'}(V%s\nV0\nu}(V%s\nV0\nu\x86',
}
TARGETS = ('__init__', 'int', '_make', '__class__', '__setstate__', '__call__')


@pytest.mark.parametrize('state', STATES)
@pytest.mark.parametrize('attribute', TARGETS)
def test_no_attribute_of_a_plain_type_can_be_set(attribute: str, state: str) -> None:
    before = dict(UUID.__dict__)
    change = STATES[state].replace(b'%s', attribute.encode())
    with pytest.raises(InvalidJobError):
        PlainSerializer.loads(b'\x80\x02cuuid\nUUID\n' + change + b'b.')
    assert dict(UUID.__dict__) == before
    assert PlainSerializer.loads(PlainSerializer.dumps(UUID(int=5))) == UUID(int=5)


def test_stock_pickle_does_set_an_attribute_of_a_class() -> None:
    pickle.loads(f'\x80\x02c{__name__}\nOpened\nN}}(Vspoilt\nV0\nu\x86b.'.encode('latin-1'))
    assert getattr(Opened, 'spoilt', None) == '0'
    delattr(Opened, 'spoilt')


A_UUID = b'\x80\x02cuuid\nUUID\nV' + b'0' * 32 + b'\n\x85R'


@pytest.mark.parametrize(
    'state',
    [
        b'}(Vint\nVno number\nu',
        b'}(Vint\n]u',
        b'}(Vint\nI-1\nu',
        b'}(Vis_safe\nVx\nVint\nNu',
        b'}(Vhex\nVx\nu',
    ],
)
def test_a_uuid_that_was_tampered_with_is_refused_or_whole(state: bytes) -> None:
    try:
        value = PlainSerializer.loads(A_UUID + state + b'b.')
    except InvalidJobError:
        return
    assert type(value.int) is int
    assert json.loads(to_json(value)) == str(value)
    assert 0 <= value.int < 2**128


@pytest.mark.parametrize(
    'payload',
    [
        b'',
        b'.',
        b'\x00',
        b'garbage',
        b'\x80',
        b'\x80\xff.',
        b'\x80\x04\x95',
        b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.',
        b'Psomewhere\n.',
        b'K\x01Q.',
        b'\x80\x02\x82\x07.',
        b'\x80\x02\x84\xff\xff\xff\x7f.',
        b'\x80\x05\x97.',
        b'h\x00.',
        b'cuuid\nUUID\n)R.',
        b'cuuid\nUUID\n(NNNNI-1\ntR.',
        b'cdatetime\ntimedelta\n(I999999999999\ntR.',
        b'K\x01K\x02s.',
        b'](](s.',
        b'}(]Nu.',
        b'\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.',
        b'K\x01)R.',
    ],
)
def test_a_damaged_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidJobError):
        PlainSerializer.loads(payload)


def test_every_truncation_is_refused() -> None:
    payload = PlainSerializer.dumps(EVERY_TYPE)
    for length in range(len(payload)):
        with pytest.raises(InvalidJobError):
            PlainSerializer.loads(payload[:length])


@given(st.binary())
def test_random_bytes_are_read_as_plain_data_or_refused(payload: bytes) -> None:
    try:
        value = PlainSerializer.loads(payload)
    except InvalidJobError:
        return
    check_plain(value)


@pytest.mark.slow
@given(plain, st.data())
def test_a_payload_with_one_wrong_byte_is_read_as_plain_data_or_refused(
    value: Any, data: st.DataObject
) -> None:
    payload = bytearray(PlainSerializer.dumps(value))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = PlainSerializer.loads(bytes(payload))
    except InvalidJobError:
        return
    json.loads(to_json(read))


@pytest.mark.parametrize(
    'payload',
    [
        b'cuuid\nUUID\n.',
        b'](cuuid\nUUID\ne.',
        b'}(cuuid\nUUID\nNu.',
        b'cdatetime\ntimezone\ncdatetime\ntimedelta\n)R\x85R.',
    ],
)
def test_the_bare_name_of_a_plain_type_is_no_data(payload: bytes) -> None:
    with pytest.raises(InvalidJobError, match='does not travel'):
        PlainSerializer.loads(payload)


# The constructors of dates trust the bytes of a pickle: of them only the month is looked at.
@pytest.mark.parametrize(
    ('value', 'good', 'bad'),
    [
        (date(2030, 1, 2), b'\x07\xee\x01\x02', b'\x07\xee\x01\x78'),
        (date(2030, 1, 2), b'\x07\xee\x01\x02', b'\x07\xee\x01\x00'),
        (date(2030, 2, 2), b'\x07\xee\x02\x02', b'\x07\xee\x02\x1e'),
        (date(2030, 1, 2), b'\x07\xee\x01\x02', b'\x00\x00\x01\x02'),
        (NAIVE, b'\x07\xee\x01\x02', b'\x07\xee\x01\xff'),
        (NAIVE, b'\x02\x03\x04', b'\x02\x78\x04'),
        (time(9, 8, 7), b'\x09\x08\x07', b'\x09\xff\x07'),
        (time(9, 8, 7, 0), b'\x07\x00\x00\x00', b'\x07\xff\xff\xff'),
    ],
)
def test_a_date_that_the_calendar_does_not_have_is_refused(
    value: Any, good: bytes, bad: bytes
) -> None:
    payload = PlainSerializer.dumps(value)
    assert payload.count(good) == 1
    with pytest.raises(InvalidJobError):
        PlainSerializer.loads(payload.replace(good, bad))


@pytest.mark.parametrize('value', [frozenset({1}), bytearray(b'x'), [frozenset()]], ids=repr)
def test_what_would_not_be_written_is_not_read(value: Any) -> None:
    with pytest.raises(InvalidJobError):
        PlainSerializer.loads(pickle.dumps(value, 5))


@pytest.mark.slow
def test_deep_nesting_from_elsewhere_does_not_end_the_process() -> None:
    payload = b'\x80\x04' + b']' * 100_000 + b'a' * 99_999 + b'.'
    try:
        value = PlainSerializer.loads(payload)
        to_json(value)
    except InvalidJobError as error:
        assert 'nested too deeply' in str(error)  # noqa: PT017


# What a payload may cost


def of_one_hash(number: int) -> list[int]:
    """Different integers that Python cannot tell apart by their hash."""
    return [n * sys.hash_info.modulus for n in range(8, 8 + number)]


def doubled(times: int) -> list[Any]:
    """A list in two places of a list in two places of … in a payload of few bytes."""
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return value


def decimals_of_one_text(number: int) -> bytes:
    digits = b'\x8c\xff' + b'9' * 255 + b'\x94'
    return (
        b'\x80\x04\x8c\x07decimal\x8c\x07Decimal\x93\x94'
        + digits
        + b'](h\x00h\x01\x85R' * number
        + b'e' * number
        + b'.'
    )


def shared_tuples(times: int) -> bytes:
    """A key that is a tuple of twice a tuple of twice a tuple …: its hash takes 2**times steps."""
    doubled = b''.join(b'h' + bytes([n]) + b'\x86\x94' for n in range(times))
    return b'\x80\x04}K\x01K\x01\x86\x94' + doubled + b'Ns.'


def one_key_again_and_again(key: bytes) -> bytes:
    return b'\x80\x04](' + key + b'\x94}(' + b'h\x00N' * 1000 + b'ue.'


@pytest.mark.parametrize(
    ('payload', 'why'),
    [
        (shared_tuples(60), 'several places'),
        (shared_tuples(26), 'several places'),
        (b'\x80\x04Nr\xff\xff\xff\x00.', 'the opcode'),
        (b'\x80\x04Np16000000\n.', 'the opcode'),
        (pickle.dumps(set(of_one_hash(400))), 'of one hash'),
        (pickle.dumps(doubled(21)), 'so many places'),
        (pickle.dumps(['x' * 60_000] * 20_000), 'so many places'),
        (decimals_of_one_text(90), 'repeats a decimal'),
        (b'\x80\x04B\xff\xff\xff\x7fx.', 'cut off'),
        (one_key_again_and_again(b'(' + b'N' * 1000 + b't'), 'several places'),
        (one_key_again_and_again(b'\x8b\xe8\x03\0\0' + b'x' * 1000), 'several places'),
        (b'\x80\x04}q\x00K\x01\x94K\x02\x86q\x05h\x05h\x05\x86s.', 'mixes two protocols'),
    ],
    ids=[
        'tuples',
        'few tuples',
        'memo',
        'old memo',
        'hashes',
        'references',
        'texts',
        'decimals',
        'length',
        'key',
        'number',
        'ways',
    ],
)  # fmt: skip
def test_a_payload_that_costs_much_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(InvalidJobError, match=why):
        PlainSerializer.loads(payload)


def test_more_containers_than_a_payload_may_have_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opcodes, 'MAX_OBJECTS', 300)
    assert len(PlainSerializer.loads(pickle.dumps([[] for _ in range(290)]))) == 290
    many: list[Any] = [[[] for _ in range(301)], [set() for _ in range(101)]]
    for value in many:
        with pytest.raises(InvalidJobError, match='too many containers'):
            PlainSerializer.loads(pickle.dumps(value))


def test_a_payload_is_read_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    value = [f'text {n}' for n in range(20_000)]
    assert PlainSerializer.loads(pickle.dumps(value)) == value
    monkeypatch.setattr(payloads, 'SECONDS', -1)
    with pytest.raises(InvalidJobError, match='too long to read'):
        PlainSerializer.loads(pickle.dumps(value))


def test_what_unfolds_to_too_much_is_not_written() -> None:
    with pytest.raises(InvalidJobError, match='pass them once'):
        PlainSerializer.dumps(doubled(21))


def test_a_value_in_many_places_is_checked_once() -> None:
    check_plain(doubled(90))


def test_references_do_not_hide_how_deep_a_value_is_nested() -> None:
    first = nested(70)
    second: list[Any] = [first]
    for _ in range(70):
        second = [second]
    with pytest.raises(InvalidJobError, match='nested too deeply'):
        check_plain([first, second])


def test_what_follows_the_last_reference_is_no_reference() -> None:
    """The bytes of the float look like one of another protocol."""
    day = date(2000, 1, 1)
    value = [day, day, 4557268593235057.0]
    assert PlainSerializer.loads(PlainSerializer.dumps(value)) == value


def test_tuples_in_many_places_travel() -> None:
    pair = (1, 'two')
    value = {'rows': [pair] * 1000, pair: pair, (pair, pair): [(pair, n) for n in range(50)]}
    assert PlainSerializer.loads(PlainSerializer.dumps(value)) == value
    few = pickle.dumps([pair] * 10)  # as RQ writes them
    assert PlainSerializer.loads(few) == [pair] * 10


@pytest.mark.slow
def test_small_values_are_as_many_as_the_settings_permit(settings: pytest.MonkeyPatch) -> None:
    """Of one large value they say nothing: web and workers may have other settings."""
    many = b'\x80\x04](' + b'K\x01' * 8_500_000 + b'e.'
    with pytest.raises(InvalidJobError, match='more than 16000000 bytes of small values'):
        require_bounded(many, most_small=16_000_000)
    assert len(PlainSerializer.loads(PlainSerializer.dumps(b'x' * 17_000_000))) == 17_000_000
    with pytest.raises(InvalidJobError, match='small values'):
        PlainSerializer.loads(many)
    settings.setenv('JOB_MAX_RESULT', '18')
    environment_config.cache_clear()
    require_bounded(many, most_small=18_000_000)


def test_rows_that_share_their_parts_travel() -> None:
    rows = [{'a long name of a column ' * 3: 1}] * 5000
    assert PlainSerializer.loads(PlainSerializer.dumps(rows)) == rows
    assert PlainSerializer.loads(PlainSerializer.dumps([[0] * 1000] * 1000))[999][999] == 0


# decompress


def test_what_is_compressed_is_unpacked() -> None:
    assert decompress(zlib.compress(b'x' * 1000)) == b'x' * 1000


@pytest.mark.parametrize('data', [b'', b'abc', b'\x80\x04N.'])
def test_what_is_not_compressed_stays_as_it_is(data: bytes) -> None:
    assert decompress(data) == data


@pytest.mark.parametrize('size', [0, 1, 99, 100])
def test_as_much_as_the_limit_is_unpacked(size: int) -> None:
    assert decompress(zlib.compress(b'x' * size), limit=100) == b'x' * size


@pytest.mark.parametrize('size', [101, 102, 358, 10_000_000])
def test_more_than_the_limit_is_refused(size: int) -> None:
    with pytest.raises(InvalidJobError, match='more than 100 bytes'):
        decompress(zlib.compress(b'x' * size), limit=100)


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    bomb = zlib.compressobj(9)
    packed = b''.join(bomb.compress(bytes(1024 * 1024)) for _ in range(65)) + bomb.flush()
    assert len(packed) < 100_000
    with pytest.raises(InvalidJobError, match='it was not read'):
        decompress(packed)


# to_json


@pytest.mark.slow
@given(plain)
def test_json_is_valid_for_all_plain_data(value: Any) -> None:
    json.loads(to_json(value), parse_constant=pytest.fail)
    to_json(value).encode()


@given(st.dictionaries(st.text(), hashable_scalars, max_size=4))
def test_json_keeps_every_name(value: dict[str, Any]) -> None:
    assert len(json.loads(to_json(value))) == len(value)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (None, None),
        (True, True),
        (2**64, 2**64),
        (1.5, 1.5),
        (float('nan'), None),
        (float('inf'), None),
        ([float('-inf')], [None]),
        (b'\x00\xff', 'AP8='),
        ((1, (2,)), [1, [2]]),
        ({7}, [7]),
        (date(2030, 1, 2), '2030-01-02'),
        (datetime(2030, 1, 2, 3, 4, tzinfo=UTC), '2030-01-02T03:04:00Z'),
        (NAIVE, '2030-01-02T03:04:00'),
        (time(3, 4), '03:04:00'),
        (timedelta(days=1, seconds=2, microseconds=3), 'P1DT2.000003S'),
        (timedelta(days=-1), '-P1D'),
        (Decimal('1.50'), '1.50'),
        (Decimal('NaN'), 'NaN'),
        (UUID(int=1), '00000000-0000-0000-0000-000000000001'),
    ],
)
def test_each_type_has_its_json(value: Any, expected: Any) -> None:
    assert json.loads(to_json(value)) == expected


@pytest.mark.parametrize(
    ('key', 'name'),
    [
        ('a"b', 'a"b'),
        (1, '1'),
        (None, 'null'),
        (True, 'true'),
        (1.5, '1.5'),
        (b'x', 'eA=='),
        ((1, 'a'), '[1,"a"]'),
        (('"',), '["\\""]'),
        (UUID(int=1), '00000000-0000-0000-0000-000000000001'),
        (date(2030, 1, 2), '2030-01-02'),
        (timedelta(1), 'P1D'),
        (Decimal('1.0'), '1.0'),
        (HUGE, hex(HUGE)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_key_of_any_type_becomes_a_string(key: Any, name: str) -> None:
    assert json.loads(to_json({key: 0})) == {name: 0}
    # Beside something that takes the slow way.
    assert json.loads(to_json({key: 0, '\ud800': 1})) == {name: 0, '\\ud800': 1}


def test_a_lone_surrogate_is_spelt_out() -> None:
    assert json.loads(to_json(['\ud800', {'\udfff': 'é\ud800'}, ('\ud800',)])) == [
        '\\ud800',
        {'\\udfff': 'é\\ud800'},
        ['\\ud800'],
    ]


@pytest.mark.parametrize('sign', [1, -1])
def test_an_integer_of_ten_thousand_digits_becomes_hexadecimal(sign: int) -> None:
    assert json.loads(to_json([sign * HUGE])) == [hex(sign * HUGE)]


@pytest.mark.parametrize('depth', [100, 300, 500, 700, 900, 1_000, 100_000])
@pytest.mark.parametrize('leaf', ['plain', '\ud800'])
def test_json_of_any_depth_is_valid_or_refused(depth: int, leaf: str) -> None:
    try:
        text = to_json([leaf, nested(depth)])
    except InvalidJobError as error:
        assert 'nested too deeply' in str(error)  # noqa: PT017
    else:
        assert text.count('[') == depth + 2


@pytest.mark.parametrize('value', [object(), {'a': [1j]}, {frozenset(): 1}, print])
def test_json_of_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(InvalidJobError, match='does not travel'):
        to_json(value)


def test_the_list_of_plain_types_is_complete() -> None:
    written = {type(value).__name__ for value in EVERY_TYPE.values()} | {'dict'}
    assert written - {'NoneType'} | {'None'} == set(PLAIN_TYPES.split(', '))
