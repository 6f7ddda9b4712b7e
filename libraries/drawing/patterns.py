"""The patterns by name, as polylines for a pen and as SVG.

A pattern is a pure function of the area it may use and a source of randomness. Lengths are in
millimetres; densities suit a pen of 0.3 to 0.5 mm.
"""

import logging
from collections.abc import Callable, Mapping
from random import Random
from typing import Annotated, Literal, cast

import msgspec

from libraries.drawing.builder import SVGBuilder
from libraries.drawing.curves import grid, lissajous, spiral
from libraries.drawing.landscapes import contours, flow_field
from libraries.drawing.strokes import Area, Polyline, measure, simplify
from libraries.drawing.text import Attrs
from libraries.drawing.tilings import hilbert, phyllotaxis, truchet

log = logging.getLogger(__name__)

PatternName = Literal[
    'spiral', 'grid', 'hilbert', 'phyllotaxis', 'flow_field', 'truchet', 'lissajous', 'contours'
]
SMALLEST, LARGEST = 20, 1200
Millimetres = Annotated[float, msgspec.Meta(ge=SMALLEST, le=LARGEST)]

PEN: Attrs = {
    'fill': 'none',
    'stroke': 'black',
    'stroke-width': 0.4,
    'stroke-linecap': 'round',
    'stroke-linejoin': 'round',
}
SKETCH_ERROR = 1 / 1500  # of the longer side: less than a pixel
Pattern = Callable[[Area, Random], list[Polyline]]


def drawing_area(width: float, height: float) -> Area:
    """The page without its margin of 6 % of the shorter side."""
    margin = 0.06 * min(width, height)
    return Area(margin, margin, width - 2 * margin, height - 2 * margin)


# A pattern has the name of its function.
PATTERNS: Mapping[PatternName, Pattern] = {
    cast(PatternName, draw.__name__): draw
    for draw in (spiral, grid, hilbert, phyllotaxis, flow_field, truchet, lissajous, contours)
}


def pattern_strokes(
    pattern: PatternName, width: float, height: float, seed: int = 0
) -> list[Polyline]:
    """The polylines of a pattern on a page of `width` by `height` millimetres.

    The same arguments give the same polylines. Raises ValueError for an unknown pattern or a
    side outside 20 to 1200 mm.
    """
    if pattern not in list(PATTERNS):
        raise ValueError(f'unknown pattern {pattern!r}: use one of {", ".join(PATTERNS)}')
    for name, side in (('width', width), ('height', height)):
        if not isinstance(side, int | float) or not SMALLEST <= side <= LARGEST:
            raise ValueError(f'{name} must be {SMALLEST} to {LARGEST} mm, got {side!r}')
    return PATTERNS[pattern](drawing_area(width, height), Random(f'{pattern} {seed}'))


def draw_pattern(pattern: PatternName, width: float, height: float, seed: int = 0) -> str:
    """A pattern as SVG text: one `polyline` per stroke, and a PenReport as its `desc`.

    Arguments and errors are those of `pattern_strokes`.
    """
    strokes = pattern_strokes(pattern, width, height, seed)
    report = measure(strokes)
    log.info('%s %g x %g mm, seed %d: %s', pattern, width, height, seed, report)
    svg = SVGBuilder(width, height).title(f'{pattern}, seed {seed}').desc(str(report))
    return _add_strokes(svg, strokes)


def sketch_pattern(pattern: PatternName, width: float, height: float, seed: int = 0) -> str:
    """The same drawing at fewer points, for a screen.

    Arguments and errors are those of `pattern_strokes`.
    """
    error = max(width, height) * SKETCH_ERROR
    strokes = pattern_strokes(pattern, width, height, seed)
    return _add_strokes(SVGBuilder(width, height), [simplify(stroke, error) for stroke in strokes])


def _add_strokes(svg: SVGBuilder, strokes: list[Polyline]) -> str:
    svg.begin_group(PEN)
    for stroke in strokes:
        svg.polyline(stroke)
    return svg.end_group().to_string()
