"""The short form of values in messages and descriptions."""

import reprlib
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest

from qdjobs.errors import short_repr

MEGA = 1_000_000


@pytest.mark.parametrize(
    'value',
    [
        None, True, 7, 10**60, 1.5, 'a', 'x' * 100, b'', b'a' * 30, b'a' * 61, b'\xff' * 100,
        [1, 2], list(range(100)), (1,), {1, 2, 3}, set(range(100)), {'b': 1, 'a': 2},
        {str(number): number for number in range(100)}, {'a': [{'b': [b'x' * 100]}]},
        bytearray(b'x' * 100), Decimal('1.5'), Decimal('1' * 100), [Decimal(1)] * 10, object,
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_value_of_usual_size_is_shown_as_reprlib_shows_it(value: Any) -> None:
    assert short_repr(value) == reprlib.repr(value)


LARGE: dict[str, Any] = {
    'str': 'x' * 20 * MEGA,
    'bytes': b'x' * 20 * MEGA,
    'bytearray': bytearray(20 * MEGA),
    'list': [0] * MEGA,
    'tuple': (0,) * MEGA,
    'dict': dict.fromkeys(range(MEGA), 0),
    'set': set(range(MEGA)),
    'decimal': Decimal('1' * MEGA),
    'nested': [{'a': b'x' * 20 * MEGA}] * 3,
}


@pytest.mark.parametrize('kind', LARGE)
def test_no_more_of_a_large_value_is_read_than_is_shown(kind: str) -> None:
    tracemalloc.start()
    try:
        shown = short_repr(LARGE[kind])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(shown) < 300
    assert peak < 0.5 * MEGA, 'the whole value was copied'


def test_a_huge_integer_is_named() -> None:
    assert 'int' in short_repr(10**100_000)
