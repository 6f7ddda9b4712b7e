"""Pattern name → polylines that a pen can draw, and the drawing made of them."""

import logging
import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Annotated, Literal, NamedTuple

import msgspec

from libraries.svg_builder import SVGBuilder
from libraries.svg_strokes import Polyline, measure
from libraries.svg_text import Attrs

log = logging.getLogger(__name__)

PatternName = Literal['spiral', 'grid']
Millimetres = Annotated[float, msgspec.Meta(ge=20, le=1200)]
SMALLEST, LARGEST = 20, 1200

PEN: Attrs = {
    'fill': 'none',
    'stroke': 'black',
    'stroke-width': 0.4,
    'stroke-linecap': 'round',
    'stroke-linejoin': 'round',
}


class Area(NamedTuple):
    """The part of the page that a pattern may use, in millimetres."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def pitch(self) -> float:
        """A distance between lines that looks even: larger paper is seen from further away."""
        return 0.16 * math.sqrt(min(self.width, self.height))


Pattern = Callable[[Area, Random], list[Polyline]]


def drawing_area(width: float, height: float) -> Area:
    """The page without its margin, 6 % of the shorter side."""
    margin = 0.06 * min(width, height)
    return Area(margin, margin, width - margin, height - margin)


def spiral(area: Area, random: Random) -> list[Polyline]:
    """One line from the middle outwards."""
    cx, cy = (area.left + area.right) / 2, (area.top + area.bottom) / 2
    turns = min(area.width, area.height) / 2 / area.pitch
    start = random.uniform(0, math.tau)
    steps = int(turns * 120)
    stroke = []
    for step in range(steps + 1):
        grown = step / steps
        angle = start + grown * turns * math.tau
        stroke.append(
            (
                cx + grown * area.width / 2 * math.cos(angle),
                cy + grown * area.height / 2 * math.sin(angle),
            )
        )
    return [stroke]


def grid(area: Area, random: Random) -> list[Polyline]:
    """Lines along and across, each row running back where the last one ended."""
    cell = area.pitch * random.uniform(2, 3)
    columns, rows = (max(1, round(side / cell)) for side in (area.width, area.height))
    across: Polyline = []
    for row in range(rows + 1):
        y = area.top + row * area.height / rows
        line = [(area.left, y), (area.right, y)]
        across += line if row % 2 == 0 else line[::-1]
    along: Polyline = []
    for column in range(columns + 1):
        x = area.left + column * area.width / columns
        line = [(x, area.top), (x, area.bottom)]
        along += line if column % 2 == 0 else line[::-1]
    return [across, along]


PATTERNS: Mapping[PatternName, Pattern] = {'spiral': spiral, 'grid': grid}


def pattern_strokes(
    pattern: PatternName, width: float, height: float, seed: int = 0
) -> list[Polyline]:
    """The polylines of a pattern on a page of `width` by `height` millimetres.

    The same arguments give the same polylines. Raises ValueError, saying what is allowed,
    for an unknown pattern or a side outside 20 to 1200 mm.
    """
    if pattern not in PATTERNS:
        raise ValueError(f'unknown pattern {pattern!r}: it is one of {", ".join(PATTERNS)}')
    for name, side in (('width', width), ('height', height)):
        if not SMALLEST <= side <= LARGEST:
            raise ValueError(f'{name} must be {SMALLEST} to {LARGEST} mm, got {side!r}')
    return PATTERNS[pattern](drawing_area(width, height), Random(f'{pattern} {seed}'))


def draw_pattern(pattern: PatternName, width: float, height: float, seed: int = 0) -> str:
    """A pattern as SVG text, one `polyline` a stroke; its `desc` says how the pen moves.

    Arguments and errors as of `pattern_strokes`.
    """
    strokes = pattern_strokes(pattern, width, height, seed)
    report = measure(strokes)
    log.info('%s %g x %g mm, seed %d: %s', pattern, width, height, seed, report)
    svg = SVGBuilder(width, height).title(f'{pattern}, seed {seed}').desc(str(report))
    svg.begin_group(PEN)
    for stroke in strokes:
        svg.polyline(stroke)
    return svg.end_group().to_string()
