"""Reference drawings: one of each pattern, compared point by point.

`python -m tests.support.svg_references` draws them anew after a change that is meant; look at the
drawings before you commit them.
"""

import gzip
import re
from itertools import chain
from pathlib import Path

from libraries.drawing.patterns import PATTERNS, PatternName, draw_pattern
from libraries.drawing.strokes import Polyline

FOLDER = Path(__file__).parent / 'references'
# Sines differ in their last bit from one C library to the next; a pen does not show it.
TOLERANCE = 0.01
# The width and height, those of a postcard, and the seed of every one.
REFERENCE = (105, 148, 5)


def reference_path(pattern: PatternName) -> Path:
    return FOLDER / f'{pattern}.svg.gz'


def stored_drawing(pattern: PatternName) -> str:
    return gzip.decompress(reference_path(pattern).read_bytes()).decode()


def drawn_strokes(svg: str) -> list[Polyline]:
    """The polylines of an SVG text, in the order drawn."""
    return [
        [(float(x), float(y)) for x, y in (pair.split(',') for pair in points.split())]
        for points in re.findall(r'<polyline points="([^"]*)"', svg)
    ]


def difference(reference: str, drawing: str) -> str:
    """What sets `drawing` apart from `reference`, in words; empty if a pen could not tell."""
    expected, drawn = drawn_strokes(reference), drawn_strokes(drawing)
    if len(expected) != len(drawn):
        return f'{len(drawn)} strokes instead of {len(expected)}'
    for number, (old, new) in enumerate(zip(expected, drawn, strict=True)):
        if len(old) != len(new):
            return f'stroke {number} has {len(new)} points instead of {len(old)}'
        moved = zip(chain.from_iterable(old), chain.from_iterable(new), strict=True)
        furthest = max(abs(a - b) for a, b in moved)
        if furthest > TOLERANCE:
            return f'stroke {number} is {furthest:.3f} mm off'
    head, old_head = (re.sub(r'points="[^"]*"', '', svg) for svg in (drawing, reference))
    return '' if head == old_head else 'the same strokes in another dress'


if __name__ == '__main__':
    FOLDER.mkdir(exist_ok=True)
    for name in PATTERNS:
        # Without a time in it, the same drawing is the same file.
        reference_path(name).write_bytes(
            gzip.compress(draw_pattern(name, *REFERENCE).encode(), 9, mtime=0)
        )
