"""Text for a PDF: what its font can write, how wide that is, and where its lines break."""

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from qdjobs.errors import short_repr

REGULAR, BOLD = 'DejaVuSansCondensed', 'DejaVuSansCondensed-Bold'
FONTS = Path(__file__).with_name('fonts')


@cache
def use_fonts() -> frozenset[int]:
    """Make both faces known to ReportLab, once; return the characters that they can write."""
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.pdfbase.ttfonts import TTFont

    fonts: list[Any] = [TTFont(name, FONTS / f'{name}.ttf') for name in (REGULAR, BOLD)]
    for font in fonts:
        registerFont(font)
    return frozenset(fonts[0].face.charToGlyph) & frozenset(fonts[1].face.charToGlyph)


def writable(text: str) -> str:
    """The text, composed and on one line.

    Raises ValueError, naming them, for characters that would be missing from the page.
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
    """How wide a line is, in points."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    return float(stringWidth(text, font, size))


def wrap(text: str, width: float, size: float, font: str = REGULAR) -> list[str]:
    """The lines, at least one, that a text takes; a word too long for a line is broken."""
    lines: list[str] = []
    for word in text.split(' '):
        longer = f'{lines[-1]} {word}' if lines else word
        if lines and text_width(longer, size, font) <= width:
            lines[-1] = longer
        else:
            lines += _break(word, width, size, font)
    return lines


def _break(word: str, width: float, size: float, font: str) -> list[str]:
    """The word in pieces that fit, of a character each at least."""
    if text_width(word, size, font) <= width:
        return [word]
    pieces = ['']
    for character in word:
        if pieces[-1] and text_width(pieces[-1] + character, size, font) > width:
            pieces.append('')
        pieces[-1] += character
    return pieces
