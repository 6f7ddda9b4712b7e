"""Test cases of several axes, without their full product."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def every_pair(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Cases, one value of each axis in each, in which any two values of two axes meet.

    Chosen one by one, each the first in the product with the most pairs that are still missing:
    few, though not always the fewest, and always the same.
    """
    rows = list(product(*(range(len(axis)) for axis in axes)))
    missing = set().union(*map(_pairs, rows))
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(_pairs(row) & missing))
        missing -= _pairs(best)
        chosen.append(tuple(axis[place] for axis, place in zip(axes, best, strict=True)))
    return chosen


def _pairs(row: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    return set(combinations(enumerate(row), 2))
