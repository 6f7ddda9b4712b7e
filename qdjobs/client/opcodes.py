"""Bound what a pickle costs before it is read: anyone may have written it.

One scan over the opcodes, of which only those that plain data needs are allowed. One regular
expression takes all the short ones, since a loop over each would take longer than the reading.
"""

import re

from qdjobs.errors import InvalidJobError

MAX_PAYLOAD = 64 * 1024 * 1024  # bytes
MAX_OBJECTS = 2_000_000  # containers and constructed values of one payload; a set counts thrice
MAX_COLLISIONS = 300  # different integers with one hash: a dict or set compares each with each
# A tuple with two references to another one takes twice as long to hash, one with two to that four
# times, and so on. So a payload counts twice for each reference to a tuple.
MAX_HASHING = 100_000_000  # bytes


class SharedTuplesError(InvalidJobError):
    """A payload has too many references to tuples that occur in several places."""


def _any_of(*patterns: bytes) -> bytes:
    return b'(?:%b)' % b'|'.join(patterns)


def _counted(lengths: range) -> bytes:
    """Return a pattern for a byte and, after it, as many bytes as it says."""
    return _any_of(*(b'\\x%02x.{%d}' % (n, n) for n in lengths))


_TUPLE = rb'[t\x85-\x87]'
# What may occur in several places at no cost: texts, bytes, containers that have no hash,
# constructors, and what they make, which keeps its hash.
_CHEAP = _any_of(
    rb'[\]}R\x81\x8f\x93]',
    rb'[C\x8c]' + _counted(range(256)),
    rb'c[^\n]*+\n[^\n]*+\n',  # names and texts of the first protocols
    rb'V[^\n]*+\n',
)
_OTHER = _any_of(
    rb'[()N\x88\x89aesub\x90]++',  # None, bool, empty tuples, marks, items
    rb'[K\x80].',  # small integers; the protocol
    rb'M..',
    rb'J.{4}',
    rb'G.{8}',
    rb'\x8a' + _counted(range(9)),  # integers of up to eight bytes
    rb'\x95..[\x00-\x03]\x00{5}',  # frames of up to 256 KB
    rb'I[^\n]{1,19}+\n',
)
# Makes the last value one to refer to: under the next number, or under a byte.
_KEEP = rb'(?:\x94|q.)'
_REFER = rb'(?:h.|j.{4})'
# Without references, as most short payloads are; and with them.
_SHORT = [
    re.compile(_any_of(_TUPLE, _CHEAP, _OTHER, _KEEP, *more) + b'*+', re.DOTALL)
    for more in ((), (_REFER,))
]
# Over the rest: the first byte of a cheap value, and what keeps a value; or what refers to one.
# A match at the end keeps others from beginning inside of an opcode.
_USES = re.compile(
    _any_of(*(kind + b'(?!%b)' % _KEEP for kind in (_TUPLE, _CHEAP, _OTHER)))
    + rb'*+(?:(?:(?=(.))%b|%b|%b|)(%b)|(%b)|\Z)' % (_CHEAP, _TUPLE, _OTHER, _KEEP, _REFER),
    re.DOTALL,
)
_KEPT = re.compile(_KEEP, re.DOTALL)
# What makes an object, and for how many it counts. The same bytes in short texts count too.
_COSTS = {bytes([op]): 1 for op in b']}tR\x81\x85\x86\x87'} | {b'\x8f': 3}
_INTEGERS = {b'\x8a': 1, b'\x8b': 4}  # long ones, and the bytes of their lengths
_LONG = _INTEGERS | {b'X': 4, b'B': 4, b'\x8d': 8, b'\x8e': 8}  # and texts and bytes


def require_bounded(payload: bytes, most_small: int) -> None:
    """Raise InvalidJobError if reading a pickle could take much more than its size.

    `most_small` are bytes of small values, which take many times that when they are read.
    SharedTuplesError says that it could be written without references. A damaged pickle may pass:
    the reader finds it.
    """
    if len(payload) > MAX_PAYLOAD:
        raise InvalidJobError(f'The payload has more than {MAX_PAYLOAD} bytes; it was not read.')
    position = objects = refers = small = 0
    numbers: dict[int, set[int]] = {}
    segments = []  # of short opcodes, each after the long value of that opcode
    op = b''
    while True:
        end = _end_of_short(payload, position, refers)
        if not refers and payload[end : end + 1] in (b'h', b'j'):
            refers = 1
            end = _end_of_short(payload, end, refers)
        segments.append((op, position, end))
        if (small := small + end - position) > most_small:
            raise InvalidJobError(
                f'The payload has more than {most_small} bytes of small values; it was not read.'
            )
        if 3 * len(payload) > MAX_OBJECTS:  # else it has no room for as many
            objects += sum(
                weight * payload.count(op, position, end) for op, weight in _COSTS.items()
            )
            if objects > MAX_OBJECTS:
                raise InvalidJobError('The payload has too many containers; it was not read.')
        op = payload[end : end + 1]
        if op in (b'.', b''):
            break
        position = _end_of_long(payload, op, end + 1, numbers)
    if refers and len(payload) << min(64, _count_shared(payload, segments)) > MAX_HASHING:
        raise SharedTuplesError(
            'The payload has too many tuples that occur in several places; it was not read.'
        )


def _end_of_short(payload: bytes, position: int, refers: int) -> int:
    match = _SHORT[refers].match(payload, position)
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


def _count_shared(payload: bytes, segments: list[tuple[bytes, int, int]]) -> int:
    """Return how many references a pickle has to what takes time to hash."""
    keeps: list[tuple[bytes, bytes]] = []  # b'' for a value that is not cheap
    refers: list[bytes] = []
    for op, start, end in segments:
        position = start
        if start and (keep := _KEPT.match(payload, start, end)):  # the long value before it
            keeps.append((b'' if op in _INTEGERS else op, keep[0]))
            position = keep.end()
        for cheap, keep_op, refer in _USES.findall(payload, position, end):
            if refer:
                refers.append(refer)
            elif keep_op:
                keeps.append((cheap, keep_op))
    if len({keep_op[:1] for _, keep_op in keeps}) > 1:  # the numbers depend on both
        raise InvalidJobError('The payload mixes two protocols; it was not read.')
    costly = set()
    for number, (cheap, keep_op) in enumerate(keeps):
        if not cheap:
            name = (number if keep_op == b'\x94' else keep_op[1]).to_bytes(4, 'little')
            costly |= {b'j' + name, b'h' + name[:1]} if name[1:] == b'\0\0\0' else {b'j' + name}
    return sum(map(costly.__contains__, refers))
