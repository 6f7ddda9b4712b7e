"""Strokes for a pen: join those that touch, order them to shorten travel, measure them."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from math import dist, sqrt
from typing import NamedTuple

_SPAN = 100  # points that are simplified together: the time for a line grows faster than its length

Point = tuple[float, float]
Polyline = list[Point]


class Area(NamedTuple):
    """The part of the page that a pattern or a text may use, in millimetres."""

    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> Point:
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def short_side(self) -> float:
        return min(self.width, self.height)

    @property
    def pitch(self) -> float:
        """The distance between lines; larger on larger paper, which is seen from further away."""
        return max(0.8, 0.128 * sqrt(sqrt(self.width * self.height)))

    def holds(self, point: Point) -> bool:
        x, y = point[0] - self.left, point[1] - self.top
        return 0 <= x <= self.width and 0 <= y <= self.height


class PenReport(NamedTuple):
    """Pen lifts, length drawn and pen-up travel of a drawing; lengths in millimetres."""

    lifts: int
    drawn: float
    travel: float

    def __str__(self) -> str:
        lifts = {0: 'no pen lift', 1: '1 pen lift'}.get(self.lifts, f'{self.lifts} pen lifts')
        drawn, travel = self.drawn / 1000, self.travel / 1000
        return f'{lifts}, {drawn:.2f} m drawn, {travel:.2f} m pen-up travel'


def measure(strokes: Sequence[Polyline]) -> PenReport:
    """Measure the lifts, the drawn length and the travel between strokes, in the given order."""
    drawn = sum(dist(a, b) for stroke in strokes for a, b in pairwise(stroke))
    travel = sum(dist(a[-1], b[0]) for a, b in pairwise(strokes))
    return PenReport(max(0, len(strokes) - 1), drawn, travel)


def simplify(stroke: Polyline, tolerance: float) -> Polyline:
    """Leave out points, so that the line stays within `tolerance` of each (Douglas-Peucker)."""
    last = len(stroke) - 1
    spans = [(first, min(first + _SPAN, last)) for first in range(0, last, _SPAN)]
    kept = {0, *(end for _, end in spans)}
    while spans:
        first, last = spans.pop()
        (ax, ay), (bx, by) = stroke[first], stroke[last]
        length = dist((ax, ay), (bx, by))
        furthest, middle = tolerance, 0
        for index in range(first + 1, last):
            x, y = stroke[index]
            if length > tolerance:
                away = abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length
            else:  # a loop, or nearly one
                away = dist((x, y), (ax, ay))
            if away > furthest:
                furthest, middle = away, index
        if middle:
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    return [stroke[index] for index in sorted(kept)]


def join_strokes(strokes: Sequence[Polyline]) -> list[Polyline]:
    """Join strokes that share an end, to a thousandth of a millimetre, into one."""
    at_point: defaultdict[Point, list[int]] = defaultdict(list)
    for index, stroke in enumerate(strokes):
        for end in (stroke[0], stroke[-1]):
            at_point[_key(end)].append(index)
    # Loose ends first: a line started in its middle would become two lines.
    loose = [touching[0] for touching in at_point.values() if len(touching) % 2]
    used: set[int] = set()
    joined = []
    for index in [*loose, *range(len(strokes))]:
        if index in used:
            continue
        used.add(index)
        line = strokes[index][::-1]
        for _ in range(2):  # on from its end, then from its start
            line.reverse()
            while unused := [i for i in at_point[_key(line[-1])] if i not in used]:
                used.add(unused[0])
                stroke = strokes[unused[0]]
                line += stroke[1:] if _key(stroke[0]) == _key(line[-1]) else stroke[-2::-1]
        joined.append(line)
    return joined


def order_strokes(strokes: Sequence[Polyline]) -> list[Polyline]:
    """Order strokes greedily: the next one is that with an end nearest to the pen.

    A stroke is reversed if its last point is nearer; a closed one starts at its nearest point.
    The pen starts at the upper left corner of the page.
    """
    # Rounded, so that rounding errors do not decide between two equally near strokes.
    waiting = [(_key(stroke[0]), _key(stroke[-1]), stroke) for stroke in strokes]
    ordered: list[Polyline] = []
    pen = (0.0, 0.0)

    def approach(index: int) -> float:
        """The squared distance from the pen to the stroke's nearer end."""
        (ax, ay), (bx, by), _ = waiting[index]
        x, y = pen
        return min((ax - x) ** 2 + (ay - y) ** 2, (bx - x) ** 2 + (by - y) ** 2)

    while waiting:
        index = min(range(len(waiting)), key=approach)
        start, end, stroke = waiting[index]
        # The last one fills the gap: removal takes constant time.
        waiting[index] = waiting[-1]
        waiting.pop()
        if start == end:
            nearest = min(range(len(stroke)), key=lambda i: dist(_key(stroke[i]), pen))
            stroke = stroke[nearest:-1] + stroke[: nearest + 1]
        elif dist(pen, end) < dist(pen, start):
            stroke = stroke[::-1]
        ordered.append(stroke)
        pen = _key(stroke[-1])
    return ordered


def _key(point: Point) -> Point:
    return round(point[0], 3) + 0.0, round(point[1], 3) + 0.0
