"""Patterns computed from a random landscape: contour lines and lines along a flow field."""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise, product
from math import ceil, cos, floor, sin, sqrt, tau
from random import Random

from libraries.drawing.strokes import Area, Point, Polyline, join_strokes, order_strokes

Height = Callable[[float, float], float]
LAG = 14  # points at the end of a line that do not count yet: they would crowd out the next


def landscape(random: Random, length: float) -> Height:
    """A smooth random height function, mostly -1 to 1, with hills about `length` apart."""
    waves = []
    for _ in range(9):
        angle, wave = random.uniform(0, tau), tau / (length * random.uniform(0.8, 2))
        waves.append((wave * cos(angle), wave * sin(angle), random.uniform(0, tau)))
    scale = sqrt(1 / len(waves))

    def height(x: float, y: float) -> float:
        return scale * sum([sin(kx * x + ky * y + phase) for kx, ky, phase in waves])

    return height


def contours(area: Area, random: Random) -> list[Polyline]:
    """The contour lines of an imaginary landscape."""
    hills = landscape(random, area.short_side * 0.62)
    stones = landscape(random, area.short_side * 0.2)
    columns, rows = (max(2, ceil(side / area.pitch / 0.6)) for side in (area.width, area.height))
    dx, dy = area.width / columns, area.height / rows
    xs = [column * dx for column in range(columns + 1)]
    ys = [row * dy for row in range(rows + 1)]
    heights = [[hills(x, y) + 0.16 * stones(x, y) for x in xs] for y in ys]
    low, high = min(map(min, heights)), max(map(max, heights))
    levels = max(6, round(area.short_side / area.pitch * 0.52))
    # Half a level up, so that no contour level equals the lowest or the highest point.
    scaled = [[(h - low) / (high - low) * levels + 0.5 for h in row] for row in heights]
    lines = [
        [(area.left + x * dx, area.top + y * dy) for x, y in line]
        for line in _contour_lines(scaled)
        if len(line) > 6
    ]
    return order_strokes(lines)


def flow_field(area: Area, random: Random) -> list[Polyline]:
    """Lines that follow a wind and keep their distance, wider apart in light areas."""
    wind = landscape(random, area.short_side * 1.1)
    tone = landscape(random, area.short_side * 0.6)
    heading = random.uniform(0, tau)
    step, cell = area.pitch / 2, area.pitch * 1.5
    drawn: defaultdict[tuple[int, int], list[Point]] = defaultdict(list)  # points by cell

    def angle(x: float, y: float) -> float:
        return heading + 0.4 * tau * wind(x, y)

    def crowded(point: Point, share: float) -> bool:
        """Whether a drawn point is nearer than `share` of the gap wanted at `point`."""
        x, y = point
        column, row = int(x / cell), int(y / cell)
        gap = area.pitch * min(1.5, max(0.65, 0.95 + 0.4 * tone(x, y)))
        limit = (share * gap) ** 2
        return any(
            (x - px) ** 2 + (y - py) ** 2 < limit
            for near_column in (column - 1, column, column + 1)
            for near_row in (row - 1, row, row + 1)
            for px, py in drawn.get((near_column, near_row), ())
        )

    def index(points: Polyline) -> None:
        for x, y in points:
            drawn[int(x / cell), int(y / cell)].append((x, y))

    def trace(start: Point, step: float) -> Polyline:
        line = [start]
        while True:
            x, y = line[-1]
            half = angle(x, y)
            turned = angle(x + step / 2 * cos(half), y + step / 2 * sin(half))
            point = x + step * cos(turned), y + step * sin(turned)
            if not area.holds(point) or crowded(point, 0.6):
                return line
            line.append(point)
            if len(line) > LAG:
                index([line[-LAG]])

    lines = []
    for start in _lattice(area, area.pitch, random):
        if not crowded(start, 1.0):
            forth, back = trace(start, step), trace(start, -step)
            line = back[:0:-1] + forth
            if len(line) > LAG:
                index(forth[-LAG:] + back[-LAG:])
                lines.append(line)
    return order_strokes(lines)


def _lattice(area: Area, spacing: float, random: Random) -> Polyline:
    """Points about `spacing` apart all over the area, in random order."""
    columns, rows = ceil(area.width / spacing), ceil(area.height / spacing)
    xs = [area.left + (column + 0.5) * area.width / columns for column in range(columns)]
    ys = [area.top + (row + 0.5) * area.height / rows for row in range(rows)]
    points = list(product(xs, ys))
    random.shuffle(points)
    return points


def _contour_lines(heights: list[list[float]]) -> list[Polyline]:
    """The lines where `heights[row][column]` is a whole number, as (column, row) points."""
    pieces: defaultdict[int, list[Polyline]] = defaultdict(list)
    for row, (upper, lower) in enumerate(pairwise(heights)):
        for column in range(len(upper) - 1):
            corners = (upper[column], upper[column + 1], lower[column + 1], lower[column])
            for level in range(floor(min(corners)) + 1, floor(max(corners)) + 1):
                pieces[level] += _crossings(corners, row, column, level)
    return [line for level in sorted(pieces) for line in join_strokes(pieces[level])]


def _crossings(
    corners: tuple[float, float, float, float], row: int, column: int, level: int
) -> list[Polyline]:
    """The one or two pieces of a contour line through a cell, from edge to edge."""
    a, b, c, d = (height - level for height in corners)
    edges = (  # the levels at both ends, where it begins, and its direction
        (a, b, column, row, 1, 0),
        (b, c, column + 1, row, 0, 1),
        (d, c, column, row + 1, 1, 0),
        (a, d, column, row, 0, 1),
    )
    points = [
        (x + dx * p / (p - q), y + dy * p / (p - q))
        for p, q, x, y, dx, dy in edges
        if (p >= 0) != (q >= 0)
    ]
    if len(points) == 4 and (a >= 0) != (a + b + c + d >= 0):
        # A saddle: the middle of the cell is on the same side as the other two corners.
        points = points[-1:] + points[:-1]
    return [points[:2], points[2:]] if len(points) == 4 else [points]
