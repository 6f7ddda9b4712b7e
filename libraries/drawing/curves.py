"""Patterns made of curves: spiral, grid and lissajous.

Each is a pure function of the area it may use and a source of randomness. Lengths are in
millimetres; densities suit a pen of 0.3 to 0.5 mm.
"""

from math import atan2, ceil, cos, dist, hypot, pi, sin, sqrt, tau
from random import Random
from typing import NamedTuple

from libraries.drawing.strokes import Area, Point, Polyline


class _Ball(NamedTuple):
    """A circle on the page that the pattern shades or distorts to look like a ball."""

    x: float
    y: float
    radius: float

    def inward(self, point: Point) -> float:
        """Distance from the centre in radii: 0 in the middle, 1 on the rim, more outside."""
        return dist(point, (self.x, self.y)) / self.radius


def spiral(area: Area, random: Random) -> list[Polyline]:
    """One line from the middle outwards that swings where a moon is in shade."""
    cx, cy = area.middle
    moons = _scattered_balls(area, random, largest=0.36, count=2)
    light = random.uniform(0, tau)
    start = random.uniform(0, tau)
    turns = round(area.short_side / 2 / area.pitch)
    tremble = area.pitch * 0.62
    stroke: Polyline = []
    angle, phase = 0.0, 0.0
    # The last turn follows the edge, as a frame.
    while angle <= (turns + 1) * tau:
        grown = min(1.0, angle / tau / turns)
        # A superellipse: a circle in the middle, nearly a rectangle at the edge.
        power = 2 + 5 * grown**2
        dx, dy = cos(start + angle), sin(start + angle)
        stretch = grown * (abs(dx) ** power + abs(dy) ** power) ** (-1 / power)
        x, y = dx * stretch * area.width / 2, dy * stretch * area.height / 2
        radius = hypot(x, y) + 1e-9
        gap = min(radius / (grown * turns + 1e-9), 1.7 * area.pitch)
        shade = max(_moon_shade(moon, (cx + x, cy + y), light) for moon in moons)
        swing = 0.47 * gap * shade * sin(phase) * min(1.0, 9 * (1 - grown))
        stroke.append((cx + x * (1 + swing / radius), cy + y * (1 + swing / radius)))
        step = tremble / 5 if shade > 0.02 else tremble
        phase += tau * step / tremble
        angle += step / max(radius, area.pitch)
    return [stroke]


def _moon_shade(moon: _Ball, point: Point, light: float) -> float:
    """Shade of a point: 0 where the moon is lit and off the moon, 1 on its dark limb."""
    inward = moon.inward(point)
    if inward >= 1:
        return 0.0
    towards = atan2(point[1] - moon.y, point[0] - moon.x) - light
    lit = 0.75 * inward * cos(towards) + 0.66 * sqrt(1 - inward**2)
    return min(1.0, max(0.0, 1.05 - lit))


def _scattered_balls(area: Area, random: Random, largest: float, count: int) -> list[_Ball]:
    """Up to `count` balls that do not touch, large ones first.

    `largest` is the largest radius as a fraction of the area's short side.
    """
    balls: list[_Ball] = []
    for attempt in range(400):
        if len(balls) == count:
            break
        radius = area.short_side * largest * random.uniform(0.85, 1) * (1 - attempt / 500)
        x = random.uniform(area.left + radius, area.left + area.width - radius)
        y = random.uniform(area.top + radius, area.top + area.height - radius)
        if all(dist((x, y), ball[:2]) > 1.08 * (radius + ball.radius) for ball in balls):
            balls.append(_Ball(x, y, radius))
    return balls


def grid(area: Area, random: Random) -> list[Polyline]:
    """Two woven lines, like a cloth over balls and hollows."""
    cell = area.pitch * 1.35
    balls = _scattered_balls(area, random, largest=0.4, count=6)
    cloth = [(ball, random.random() < 0.35) for ball in balls]
    rows = _serpentine(area.width, area.height, cell)
    columns = _serpentine(area.height, area.width, cell)
    return [
        [_distorted((area.left + x, area.top + y), cloth) for x, y in rows],
        [_distorted((area.left + x, area.top + y), cloth) for y, x in reversed(columns)],
    ]


def _distorted(point: Point, cloth: list[tuple[_Ball, bool]]) -> Point:
    """A point of the flat cloth, moved by the ball or, if its flag is set, hollow under it."""
    for ball, sinks in cloth:
        inward = ball.inward(point)
        if 0 < inward < 1:
            # The constants keep lines apart: at the rim of a ball, in the middle of a hollow.
            bulge = 0.2 + 0.8 * sin(inward * pi / 2) / inward
            pull = 0.55 + 0.45 * inward**2 if sinks else bulge
            return ball.x + (point[0] - ball.x) * pull, ball.y + (point[1] - ball.y) * pull
    return point


def _serpentine(width: float, height: float, cell: float) -> Polyline:
    """One line that fills width by height with rows about `cell` apart and round turns."""
    rows = max(1, round(height / cell - 1))
    turn = height / (rows + 1) / 2
    steps = ceil((width - 2 * turn) / (cell / 2))
    line: Polyline = []
    for row in range(rows + 1):
        y = turn + row * 2 * turn
        forth = [(turn + (width - 2 * turn) * i / steps, y) for i in range(steps + 1)]
        bend = [
            (width - turn + turn * sin(a * pi / 8), y + turn - turn * cos(a * pi / 8))
            for a in range(1, 8)
        ]
        there = forth + (bend if row < rows else [])
        line += [(width - x, y) for x, y in there] if row % 2 else there
    return line


def lissajous(area: Area, random: Random) -> list[Polyline]:
    """One line: a pendulum that swings in both directions and slowly loses its phase."""
    across, down = random.choice([(2, 3), (3, 4), (3, 5), (4, 5), (5, 6)])
    if area.width > area.height:
        across, down = down, across
    cx, cy = area.middle
    loops = max(5, round(area.short_side / area.pitch * 0.13))
    first = random.uniform(0.2, 0.9)
    drift = random.uniform(0.5, 0.9)
    steps = loops * 110 * max(across, down)

    def place(done: float) -> Point:
        t, size = done * loops * tau, 1 - 0.16 * done
        x = cx + area.width / 2 * size * sin(across * t + (first + drift * done))
        return x, cy + area.height / 2 * size * sin(down * t)

    return [[place(step / steps) for step in range(steps + 1)]]
