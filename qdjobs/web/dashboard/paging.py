"""Read from the address of a page which part of a registry it shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from werkzeug.exceptions import NotFound

SIZES = (25, 50, 100, 200)  # jobs on a page
ORDERS = ('newest', 'oldest')
PARTS = ('page', 'size', 'order')  # of an address


@dataclass(frozen=True)
class Paging:
    """One page of a registry with `count` jobs."""

    count: int
    number: int  # starts at 1
    size: int
    order: str

    @property
    def last(self) -> int:
        return max(1, ceil(self.count / self.size))

    @property
    def start(self) -> int:
        return (self.number - 1) * self.size


def read_paging(query: Mapping[str, str], count: int) -> Paging:
    """Read page, size and order; a page beyond the end is the last. Raises NotFound."""
    number, size = query.get('page', '1'), query.get('size', str(SIZES[0]))
    order = query.get('order', ORDERS[0])
    if not number.isdecimal() or len(number) > 9 or int(number) < 1:
        raise NotFound('There is no such page: page is a number from 1 on.')
    if size not in map(str, SIZES):
        raise NotFound(f'There is no such page: size is one of {", ".join(map(str, SIZES))}.')
    if order not in ORDERS:
        raise NotFound(f'There is no such page: order is {" or ".join(ORDERS)}.')
    whole = Paging(count, 1, int(size), order)
    return Paging(count, min(int(number), whole.last), whole.size, order)
