"""Render a report on A4 pages: a title, a date, drawings as vectors and a table."""

from collections.abc import Sequence
from datetime import date
from io import BytesIO
from itertools import pairwise
from math import ceil, dist
from typing import Any, NamedTuple

from libraries.drawing.patterns import pattern_strokes
from libraries.drawing.strokes import Polyline
from libraries.reports.page import (
    ACCENT,
    BOTTOM,
    GREY,
    HAIRLINE,
    INK,
    LEFT,
    MM,
    PAGE,
    RIGHT,
    SMALL,
    TITLE,
    TOP,
    WIDTH,
    rule,
    write,
)
from libraries.reports.table import Grid, Table
from libraries.reports.text import BOLD, text_width, use_fonts, wrap, writable

EMBLEM = 22  # millimetres
GUTTER = 10.0  # points between drawings
FINEST = 0.25  # points: nearer points of a stroke look the same


class Figure(NamedTuple):
    """A drawing with its caption; strokes, width and height are in millimetres."""

    strokes: Sequence[Polyline]
    width: float
    height: float
    caption: str


def render_report(title: str, day: date, table: Table, figures: Sequence[Figure] = ()) -> bytes:
    """Render the PDF; the same arguments give the same bytes.

    Raises ValueError for characters that the font lacks, and for a row taller than a page.
    """
    from reportlab import rl_config
    from reportlab.pdfgen.canvas import Canvas

    rl_config.useA85 = 0  # binary streams: 20 % smaller
    use_fonts()
    title = writable(title)
    grid = Grid(table)
    file = BytesIO()
    # invariant: no time stamp and no random id in the file.
    canvas = Canvas(file, pagesize=PAGE, invariant=1, pageCompression=1, lang='en')
    canvas.setTitle(title)
    canvas.setAuthor('')
    canvas.setSubject('')
    canvas.setCreator('')
    below = _draw_head(canvas, title, day)
    if figures:
        below = _draw_figures(canvas, figures, below)
    pages = list(grid.pages(below - BOTTOM, TOP - BOTTOM))
    for number, rows in enumerate(pages, start=1):
        if number > 1:
            canvas.showPage()
            below = TOP
        grid.draw(canvas, rows, below)
        write(canvas, RIGHT, 12 * MM, f'Page {number} of {len(pages)}', SMALL, GREY, right=True)
        short = wrap(title, WIDTH * 0.8, SMALL)
        write(canvas, LEFT, 12 * MM, short[0] + ('…' if short[1:] else ''), SMALL, GREY)
    canvas.save()
    return file.getvalue()


def _draw_head(canvas: Any, title: str, day: date) -> float:
    """Draw title, date and emblem; return the y below them."""
    emblem = Figure(pattern_strokes('lissajous', EMBLEM, EMBLEM), EMBLEM, EMBLEM, '')
    _draw_strokes(canvas, emblem, RIGHT - EMBLEM * MM, TOP, MM)
    y = TOP - TITLE
    for line in wrap(title, WIDTH - (EMBLEM + 8) * MM, TITLE, BOLD):
        write(canvas, LEFT, y, line, TITLE, INK, BOLD)
        y -= TITLE * 1.2
    write(canvas, LEFT, y, f'{day.day} {day:%B} {day.year}', 10, GREY)
    y = min(y, TOP - EMBLEM * MM) - 10
    rule(canvas, y, ACCENT, 1.2)
    return y - 14


def _draw_figures(canvas: Any, figures: Sequence[Figure], top: float) -> float:
    """Draw the drawings in rows, each in a frame above its caption; return the y below them."""
    across = min(len(figures), 4) if len(figures) <= 8 else 6
    room = (WIDTH - (across - 1) * GUTTER) / across
    # One drawing leaves room for the table; many fit on the page together.
    tallest = min(170 * MM, room * 1.42, (TOP - BOTTOM - 130) / ceil(len(figures) / across) - 24)
    for start in range(0, len(figures), across):
        line = figures[start : start + across]
        scales = [min(room / figure.width, tallest / figure.height) for figure in line]
        height = max(f.height * scale for f, scale in zip(line, scales, strict=True))
        for place, (figure, scale) in enumerate(zip(line, scales, strict=True)):
            slot = LEFT + place * (room + GUTTER)
            left = slot + (room - figure.width * scale) / 2
            canvas.setStrokeColor(HAIRLINE)
            canvas.setLineWidth(0.6)
            upper = top - (height - figure.height * scale) / 2
            canvas.rect(left, upper, figure.width * scale, -figure.height * scale)
            _draw_strokes(canvas, figure, left, upper, scale)
            x = slot + (room - text_width(figure.caption, SMALL)) / 2
            write(canvas, x, top - height - 11, writable(figure.caption), SMALL, GREY)
        top -= height + 24
    return top - 2


def _draw_strokes(canvas: Any, figure: Figure, left: float, top: float, scale: float) -> None:
    canvas.setStrokeColor(ACCENT)
    canvas.setLineCap(1)
    canvas.setLineJoin(1)
    # A pen of 0.4 mm to scale, but wide enough to stay visible.
    canvas.setLineWidth(max(0.12, 0.4 * scale))
    for stroke in figure.strokes:
        path = canvas.beginPath()
        first, *others = _thinned([(left + x * scale, top - y * scale) for x, y in stroke])
        path.moveTo(*first)
        for point in others:
            path.lineTo(*point)
        canvas.drawPath(path)


def _thinned(stroke: Polyline) -> Polyline:
    """The stroke without points nearer than FINEST to the one before; both ends are kept."""
    kept = stroke[:1]
    for point, following in pairwise([*stroke[1:], stroke[-1]]):
        if dist(kept[-1], point) >= FINEST or point is following:
            kept.append((round(point[0], 2), round(point[1], 2)))
    return kept
