"""Postcards of 148 by 105 mm for a pen plotter."""

from collections.abc import Callable
from math import cos, pi, sin
from random import Random
from typing import Literal

from libraries.drawing.builder import SVGBuilder
from libraries.drawing.hershey import LINE_UNITS, fit, text_width, unreadable
from libraries.drawing.patterns import PEN
from libraries.drawing.strokes import Area

PostcardTemplate = Literal['plain', 'birthday']
WIDTH, HEIGHT = 148, 105


def draw_postcard(recipient: str, message: str, template_name: PostcardTemplate) -> str:
    """A postcard as SVG text; long lines wrap, and line breaks in the texts are kept.

    Raises ValueError for an unknown template, an empty recipient, characters that the font
    cannot write, or a text that fits only in unreadably small letters.
    """
    if template_name not in TEMPLATES:
        allowed = ', '.join(TEMPLATES)
        raise ValueError(f'unknown template {template_name!r}: use one of {allowed}')
    if lacking := unreadable(recipient + message):
        raise ValueError(f'the pen font has no letters for {lacking[:20]!r}: use Latin letters')
    if not recipient.strip():
        raise ValueError('a postcard needs a recipient')
    svg = SVGBuilder(WIDTH, HEIGHT).title(f'Postcard for {recipient}').begin_group(PEN)
    TEMPLATES[template_name](svg, recipient, message)
    return svg.end_group().to_string()


def _plain(svg: SVGBuilder, recipient: str, message: str) -> None:
    """The back of a card: message, divider, stamp and address."""
    svg.line(83, 10, 83, 95)
    svg.rect(120, 9, 19, 23)
    _write(svg, message, Area(9, 9, 67, 87), largest=0.17)
    scale = _write(svg, recipient, Area(90, 50, 49, 44), largest=0.16)
    rows = int(44 / (LINE_UNITS * scale))
    for row in range(min(rows, 6)):
        y = 50 + (row * LINE_UNITS + 28) * scale
        svg.line(90, y, 139, y, {'stroke-dasharray': '0.2 1.2'})


def _birthday(svg: SVGBuilder, recipient: str, message: str) -> None:
    """Balloons on the left, the texts on the right."""
    for x, y, size, sway in ((18, 34, 9.5, 1.8), (41, 27, 10.5, -2.2), (30, 53, 9, 1.4)):
        _balloon(svg, x, y, size, sway)
    _confetti(svg, Random(recipient))
    _write(svg, 'Happy Birthday', Area(56, 9, 84, 22), 0.9, font='scriptc', centred=True)
    _write(svg, recipient, Area(56, 32, 84, 13), 0.32, font='scripts', centred=True)
    _write(svg, message, Area(60, 49, 76, 46), largest=0.17, centred=True)


TEMPLATES: dict[PostcardTemplate, Callable[[SVGBuilder, str, str], None]] = {
    'plain': _plain,
    'birthday': _birthday,
}


def _write(
    svg: SVGBuilder,
    content: str,
    box: Area,
    largest: float,
    font: str = 'futural',
    centred: bool = False,
) -> float:
    """Write `content` into `box` as large as it fits; return the scale used."""
    scale, lines = fit(content, box.width, box.height, largest, font)
    svg.set_hershey_font(font)
    for row, line in enumerate(lines):
        spare = box.width - text_width(line, scale, font) if centred else 0
        baseline = box.top + (row * LINE_UNITS + 23) * scale
        if line:
            svg.hershey_text(box.left + spare / 2, baseline, line, scale)
    return scale


def _balloon(svg: SVGBuilder, x: float, y: float, size: float, sway: float) -> None:
    """A balloon centred on x, y, with a knot and a string down to where all strings meet."""
    foot = y + size * 1.2
    svg.ellipse(x, y, size, size * 1.2)
    svg.polyline(
        (x - size * 0.62 * cos(a * pi / 16), y - size * 0.8 * sin(a * pi / 16)) for a in range(1, 6)
    )
    svg.polyline([(x, foot), (x - 1.2, foot + 2), (x + 1.2, foot + 2), (x, foot)])
    svg.polyline(
        (x + (30 - x) * done**3 + sway * sin(done * 2 * pi), foot + 2 + (96 - foot - 2) * done)
        for done in (step / 24 for step in range(25))
    )


def _confetti(svg: SVGBuilder, random: Random) -> None:
    """Short lines along the upper and the lower edge."""
    for column in range(24):
        x = 8 + column * 5.7
        for y in (4.5, 100.5):
            turn = random.uniform(0, pi)
            dx, dy = 1.2 * cos(turn), 1.2 * sin(turn)
            middle = x + random.uniform(-1.2, 1.2), y + random.uniform(-1, 1)
            svg.line(middle[0] - dx, middle[1] - dy, middle[0] + dx, middle[1] + dy)
