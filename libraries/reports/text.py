"""Text for a PDF: check that the font has its characters, measure it and wrap it."""

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from qdjobs.errors import short_repr

REGULAR, BOLD = 'DejaVuSansCondensed', 'DejaVuSansCondensed-Bold'
FONTS = Path(__file__).with_name('fonts')


@cache
def use_fonts() -> frozenset[int]:
    """Register both faces with ReportLab, once; return the code points that both have."""
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.pdfbase.ttfonts import TTFont

    fonts: list[Any] = [TTFont(name, FONTS / f'{name}.ttf') for name in (REGULAR, BOLD)]
    for font in fonts:
        registerFont(font)
    return frozenset(fonts[0].face.charToGlyph) & frozenset(fonts[1].face.charToGlyph)


def writable(text: str) -> str:
    """The text in NFC, on one line.

    Raises ValueError, naming them, for characters that the font lacks.
    """
    line = ' '.join(unicodedata.normalize('NFC', text).split())
    lacking = sorted({character for character in line if ord(character) not in use_fonts()})
    if lacking:
        named = ', '.join(
            f'{short_repr(character)} (U+{ord(character):04X})' for character in lacking[:5]
        )
        more = f' and {len(lacking) - 5} more' if len(lacking) > 5 else ''
        raise ValueError(
            f'{short_repr(text)} cannot be written: the font has no {named}{more}. It has Latin, '
            'Greek, Cyrillic, Armenian and Georgian letters and the usual signs.'
        )
    return line


def text_width(text: str, size: float, font: str = REGULAR) -> float:
    """The width of a line, in points."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    return float(stringWidth(text, font, size))


def wrap(text: str, width: float, size: float, font: str = REGULAR) -> list[str]:
    """Break a text into lines, at least one; split a word that is too long for a line."""
    lines: list[str] = []
    for word in text.split(' '):
        longer = f'{lines[-1]} {word}' if lines else word
        if lines and text_width(longer, size, font) <= width:
            lines[-1] = longer
        else:
            lines += _split(word, width, size, font)
    return lines


def _split(word: str, width: float, size: float, font: str) -> list[str]:
    """The word in pieces that fit, each of at least one character."""
    if text_width(word, size, font) <= width:
        return [word]
    pieces = ['']
    for character in word:
        if pieces[-1] and text_width(pieces[-1] + character, size, font) > width:
            pieces.append('')
        pieces[-1] += character
    return pieces
