"""Patterns that divide the page: hilbert, phyllotaxis and truchet."""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, cos, hypot, pi, sin, sqrt, tau
from random import Random

from libraries.drawing.landscapes import Height, landscape
from libraries.drawing.strokes import Area, Point, Polyline, join_strokes, order_strokes

GOLDEN_ANGLE = pi * (3 - sqrt(5))


def hilbert(area: Area, random: Random) -> list[Polyline]:
    """One line through squares that are smaller in dark areas."""
    tone = landscape(random, area.short_side * 0.75)
    line: Polyline = []

    def visit(corner: complex, along: complex, aside: complex) -> None:
        """Fill a square that the line enters at `corner` and leaves at `corner + along`."""
        centre = corner + (along + aside) / 2
        dark = min(1.0, max(0.0, 0.5 + 0.45 * tone(centre.real, centre.imag)))
        if abs(along) / 2 < area.pitch * (0.5 + 2.6 * (1 - dark) ** 2):
            line.append((centre.real, centre.imag))
            return
        along, aside = along / 2, aside / 2
        visit(corner, aside, along)
        visit(corner + aside, along, aside)
        visit(corner + aside + along, along, aside)
        visit(corner + aside + 2 * along, -aside, -along)

    for block in _hilbert_blocks(area):
        visit(*block)
    return [line]


def _hilbert_blocks(area: Area) -> Iterator[tuple[complex, complex, complex]]:
    """Equal squares that cover the area, row by row in alternating directions.

    Each is its entry corner, the side from there to its exit corner, and its other side.
    """
    across, down = _block_counts(area)
    side = min(area.width / across, area.height / down)
    left = area.left + (area.width - side * across) / 2
    top = area.top + (area.height - side * down) / 2
    right, below = complex(side, 0), complex(0, side)
    for row in range(down):
        for step in range(across):
            column = across - 1 - step if row % 2 else step
            corner = complex(left + column * side, top + row * side)
            # Even rows run along their top and turn down at the end; odd rows turn down at
            # the start and run back along their bottom.
            if step == (0 if row % 2 else across - 1):
                yield corner, below, right
            elif row % 2:
                yield corner + right + below, -right, -below
            else:
                yield corner, right, below


def _block_counts(area: Area) -> tuple[int, int]:
    """The numbers of equal squares across and down that cover the area best with few squares."""
    aspect = area.width / area.height
    sizes = [(max(1, round(few * aspect)), few) for few in range(1, 7)]
    sizes += [(few, max(1, round(few / aspect))) for few in range(1, 7)]

    def left_over(size: tuple[int, int]) -> float:
        across, down = size
        side = min(area.width / across, area.height / down)
        return 1 - across * down * side**2 / (area.width * area.height) + 0.01 * min(size)

    return min(sizes, key=left_over)


def phyllotaxis(area: Area, random: Random) -> list[Polyline]:
    """Leaves placed like a sunflower's seeds, strung along its arms."""
    cx, cy = area.middle
    start, turn = random.uniform(0, tau), random.choice((-1, 1)) * GOLDEN_ANGLE
    breath = landscape(random, area.short_side)
    spacing = area.pitch * 1.35
    count = int((hypot(area.width, area.height) / 2 / spacing) ** 2)
    polar = [(spacing * sqrt(n), start + n * turn) for n in range(count)]
    seeds = [(cx + radius * cos(angle), cy + radius * sin(angle)) for radius, angle in polar]
    strokes, strung = [], set()
    for first in range(3, count):
        arm = []
        n = first
        while n < count and n not in strung and area.holds(seeds[n]):
            strung.add(n)
            arm.append(seeds[n])
            n += _nearest_arm(n)
        if len(arm) > 1:
            strokes.append(_leaves(arm, breath, area))
    return order_strokes(strokes)


def _nearest_arm(n: int) -> int:
    """The step from seed n to the next seed of its arm: a Fibonacci number, for radial arms."""
    small, large = 1, 2
    while large < 2.6 * sqrt(n):
        small, large = large, small + large
    return large


def _leaves(arm: Polyline, breath: Height, area: Area) -> Polyline:
    """One stroke out along the left sides of an arm's leaves and back along their right sides."""
    left: Polyline = []
    right: Polyline = []
    for (ax, ay), (bx, by) in pairwise(arm):
        width = 0.36 + 0.1 * breath(ax, ay)
        for i in range(7):
            u = i / 6
            swell = width * sin(pi * u) * (1.25 - 0.5 * u)
            x, y = ax + (bx - ax) * u, ay + (by - ay) * u
            left.append((x - (by - ay) * swell, y + (bx - ax) * swell))
            right.append((x + (by - ay) * swell, y - (bx - ax) * swell))
    return [_clamp(area, point) for point in left + right[::-1]]


def _clamp(area: Area, point: Point) -> Point:
    return (
        min(max(point[0], area.left), area.left + area.width),
        min(max(point[1], area.top), area.top + area.height),
    )


def truchet(area: Area, random: Random) -> list[Polyline]:
    """Ribbons of parallel quarter circles, turned at random tile by tile."""
    calm = landscape(random, area.short_side * 0.7)
    columns, rows = (max(1, round(side / area.pitch / 9)) for side in (area.width, area.height))
    tile = min(area.width / columns, area.height / rows)
    columns, rows = int(area.width / tile + 1e-9), int(area.height / tile + 1e-9)
    left = area.left + (area.width - tile * columns) / 2
    top = area.top + (area.height - tile * rows) / 2
    arcs: list[Polyline] = []
    for row in range(rows):
        for column in range(columns):
            # Rings where the landscape is high, waves where it is low, random between.
            height = calm(column * tile, row * tile)
            if abs(height) > 0.3:
                flipped = height > 0 and (row + column) % 2 == 0
            else:
                flipped = random.random() < 0.5
            arcs += _tile(left + column * tile, top + row * tile, tile, flipped)
    return order_strokes(join_strokes(arcs))


def _tile(left: float, top: float, side: float, flipped: bool) -> Iterator[Polyline]:
    """Quarter circles: a ribbon of six about each of two opposite corners, one about the others."""
    for corner in range(4):  # clockwise from the upper left
        right, low = corner in (1, 2), corner in (2, 3)
        rings = range(2, 8) if (right == low) == flipped else range(2, 3)
        x, y, start = left + right * side, top + low * side, corner * pi / 2
        for radius in (ring * side / 10 for ring in rings):
            steps = 4 + ceil(radius)
            angles = [start + pi / 2 * i / steps for i in range(steps + 1)]
            yield [(x + radius * cos(a), y + radius * sin(a)) for a in angles]
