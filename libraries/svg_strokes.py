"""What a pen does with polylines: how often it lifts, how far it travels."""

from collections.abc import Sequence
from itertools import pairwise
from math import dist
from typing import NamedTuple

Point = tuple[float, float]
Polyline = list[Point]


class PenReport(NamedTuple):
    """How a drawing is drawn; lengths in millimetres."""

    lifts: int
    drawn: float
    travel: float

    def __str__(self) -> str:
        return (
            f'{self.lifts} pen lifts, {self.drawn / 1000:.2f} m drawn,'
            f' {self.travel / 1000:.2f} m pen-up travel'
        )


def measure(strokes: Sequence[Polyline]) -> PenReport:
    """Count lifts and travel between strokes, in the order given."""
    drawn = sum(dist(a, b) for stroke in strokes for a, b in pairwise(stroke))
    travel = sum(dist(a[-1], b[0]) for a, b in pairwise(strokes))
    return PenReport(max(0, len(strokes) - 1), drawn, travel)
