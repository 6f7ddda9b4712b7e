"""Bound what a pickle costs before it is read: anyone may have written it.

One scan over the opcodes, of which only those that plain data needs are allowed. One regular
expression takes all the short ones, since a loop over each would take longer than the reading.
"""

import re

from qdjobs.errors import InvalidJobError

MAX_PAYLOAD = 64 * 1024 * 1024  # bytes
MAX_OBJECTS = 2_000_000  # containers and constructed values of one payload; a set counts thrice
MAX_COLLISIONS = 300  # different integers with one hash: a dict or set compares each with each


def _counted(lengths: range) -> bytes:
    """Return a pattern for a byte and, after it, as many bytes as it says."""
    return b'(?:%b)' % b'|'.join(b'\\x%02x.{%d}' % (n, n) for n in lengths)


_SHORT = re.compile(
    b'(?:%b)*+'
    % b'|'.join(
        (
            # None, bool, containers with their marks and items, constructors, MEMOIZE
            rb'[()N\]}aesutRb\x81\x85-\x89\x8f\x90\x93\x94]++',
            rb'[Khq\x80].',  # small integers; the memo, by one byte; the protocol
            rb'[C\x8c]' + _counted(range(256)),  # short bytes and texts
            rb'M..',
            rb'[Jj].{4}',
            rb'G.{8}',
            rb'\x8a' + _counted(range(9)),  # integers of up to eight bytes
            rb'\x95..[\x00-\x03]\x00{5}',  # frames of up to 256 KB
            rb'c[^\n]*+\n[^\n]*+\n',  # names, texts and integers of the first protocols
            rb'V[^\n]*+\n',
            rb'I[^\n]{1,19}+\n',
        )
    ),
    re.DOTALL,
)
# What makes an object, and for how many it counts. The same bytes in short texts count too.
_COSTS = {bytes([op]): 1 for op in b']}tR\x81\x85\x86\x87'} | {b'\x8f': 3}
_INTEGERS = {b'\x8a': 1, b'\x8b': 4}  # long ones, and the bytes of their lengths
_LONG = _INTEGERS | {b'X': 4, b'B': 4, b'\x8d': 8, b'\x8e': 8}  # and texts and bytes


def require_bounded(payload: bytes) -> None:
    """Raise InvalidJobError if reading a pickle could take much more than its size.

    A damaged one may pass: the reader finds it.
    """
    size = len(payload)
    if size > MAX_PAYLOAD:
        raise InvalidJobError(f'The payload has more than {MAX_PAYLOAD} bytes; it was not read.')
    position = objects = 0
    numbers: dict[int, set[int]] = {}
    while True:
        end = _end_of_short(payload, position)
        if 3 * size > MAX_OBJECTS:  # else it has no room for as many
            objects += sum(
                weight * payload.count(op, position, end) for op, weight in _COSTS.items()
            )
            if objects > MAX_OBJECTS:
                raise InvalidJobError('The payload has too many containers; it was not read.')
        op = payload[end : end + 1]
        if op in (b'.', b''):
            return
        position = _end_of_long(payload, op, end + 1, numbers)


def _end_of_short(payload: bytes, position: int) -> int:
    match = _SHORT.match(payload, position)
    assert match is not None  # it also matches nothing
    return match.end()


def _end_of_long(payload: bytes, op: bytes, position: int, numbers: dict[int, set[int]]) -> int:
    """Return the end of a value that has its length before it."""
    if (width := _LONG.get(op)) is None:
        raise InvalidJobError(
            f'The payload has the opcode {op!r}, which plain data does not need; it was not read.'
        )
    start = position + width
    end = start + int.from_bytes(payload[position:start], 'little')
    if end > len(payload):
        raise InvalidJobError('The payload is cut off.')
    if op in _INTEGERS:
        number = int.from_bytes(payload[start:end], 'little', signed=True)
        alike = numbers.setdefault(hash(number), set())
        alike.add(number)
        if len(alike) > MAX_COLLISIONS:
            raise InvalidJobError('The payload has too many integers of one hash; it was not read.')
    return end
