"""Layout constants and drawing helpers for an A4 page on a ReportLab canvas.

Lengths are in points; y grows upwards.
"""

from typing import Any

from libraries.reports.text import REGULAR

MM = 72 / 25.4
PAGE = (210 * MM, 297 * MM)
LEFT, RIGHT = 18 * MM, 192 * MM
TOP, BOTTOM = 277 * MM, 22 * MM
WIDTH = RIGHT - LEFT
TITLE, BODY, SMALL = 20.0, 8.5, 7.5  # type sizes

Colour = tuple[float, float, float]
INK: Colour = (0.11, 0.14, 0.19)
GREY: Colour = (0.40, 0.44, 0.50)
HAIRLINE: Colour = (0.79, 0.82, 0.85)
ZEBRA: Colour = (0.953, 0.961, 0.973)
ACCENT: Colour = (0.18, 0.36, 0.54)


def rule(canvas: Any, y: float, colour: Colour, width: float) -> None:
    """Draw a horizontal line between the margins."""
    canvas.setStrokeColor(colour)
    canvas.setLineWidth(width)
    canvas.line(LEFT, y, RIGHT, y)


def write(
    canvas: Any,
    x: float,
    y: float,
    text: str,
    size: float,
    colour: Colour,
    font: str = REGULAR,
    right: bool = False,
) -> None:
    """Write one line of text from x or, with `right`, up to x; y is its baseline."""
    canvas.setFont(font, size)
    canvas.setFillColor(colour)
    (canvas.drawRightString if right else canvas.drawString)(x, y, text)
