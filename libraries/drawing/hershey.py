"""Text as single strokes in the Hershey fonts: substitution, measuring and wrapping.

A scale is millimetres per font unit; capitals are 21 units high.
"""

import unicodedata
from functools import lru_cache
from typing import Any

from libraries.drawing.strokes import Polyline

DEFAULT_FONT = 'futural'
LINE_UNITS = 32
_BASELINE = 9

# Characters that NFKD does not decompose, each followed by its substitute.
_PAIRS = (
    'ßss ẞSS æae ÆAE œoe ŒOE øo ØO łl ŁL đd ĐD ðd ÐD þth ÞTh ıi ħh ĦH μu €EUR £GBP ¥JPY ¢c'
    ' ©(c) ®(R) °deg ×x ÷/ ⁄/ ±+/- •* ·* ¡! ¿? «<< »>> ‹< ›>'
    " “\" ”\" „\" ‟\" ″\" ‘' ’' ‚' ‛' ′' ´' ‐- ‑- ‒- –- —- ―- −-"
)
_SUBSTITUTES = str.maketrans({pair[0]: pair[1:] for pair in _PAIRS.split()})


def readable(text: str) -> str:
    """`text` in printable ASCII: without accents, with substitutes, and `?` for the rest."""
    # Also before NFKD, which would decompose the acute accent and the micro sign.
    plain = unicodedata.normalize('NFKD', text.translate(_SUBSTITUTES)).translate(_SUBSTITUTES)
    return ''.join(_ascii(character) for character in plain)


def unreadable(text: str) -> str:
    """The characters that `readable` replaces by `?`."""
    return ''.join(c for c in text if '?' in readable(c) and c not in '?¿')


def text_width(content: str, scale: float, font: str = DEFAULT_FONT) -> float:
    """The advance of a line of text, in millimetres."""
    glyphs = load_font(font).glyphs_for_text(readable(content))
    return scale * float(sum(glyph.char_width for glyph in glyphs))


def text_strokes(
    x: float, y: float, content: str, scale: float, font: str = DEFAULT_FONT
) -> list[Polyline]:
    """The strokes of a line of text in millimetres, its baseline starting at x, y."""
    strokes = load_font(font).strokes_for_text(readable(content))
    return [[(x + px * scale, y + (py - _BASELINE) * scale) for px, py in s] for s in strokes]


def wrap(content: str, width: float, scale: float, font: str = DEFAULT_FONT) -> list[str]:
    """Break `content` into lines no wider than `width` millimetres; keep its line breaks.

    A word that is too wide for a line is split.
    """

    def too_wide(text: str) -> bool:
        return text_width(text, scale, font) > width

    lines = []
    for paragraph in content.splitlines():
        line = ''
        for word in readable(paragraph).split():
            if line and not too_wide(f'{line} {word}'):
                line += f' {word}'
                continue
            lines += [line] if line else []
            while len(word) > 1 and too_wide(word):
                end = next(end for end in range(1, len(word)) if too_wide(word[: end + 1]))
                lines.append(word[:end])
                word = word[end:]
            line = word
        lines.append(line)
    return lines


def fit(
    content: str, width: float, height: float, largest: float, font: str = DEFAULT_FONT
) -> tuple[float, list[str]]:
    """The largest scale, up to `largest`, at which `content` fits, and its lines.

    Raises ValueError if capitals would be lower than 1.6 mm.
    """
    scale = largest
    while scale * 21 >= 1.6:
        lines = wrap(content, width, scale, font)
        if len(lines) * LINE_UNITS * scale <= height:
            return scale, lines
        scale *= 0.95
    raise ValueError(f'{len(content)} characters do not fit on {width:g} by {height:g} mm')


def _ascii(character: str) -> str:
    if ' ' <= character <= '~':
        return character
    if character in '\n\r\t':
        return ' '
    # Marks and joiners belong to the character before them.
    return '' if unicodedata.category(character) in ('Mn', 'Me', 'Cf') else '?'


@lru_cache(maxsize=8)
def load_font(name: str) -> Any:
    """The Hershey font; raises ValueError, listing all fonts, if there is no such font."""
    from HersheyFonts import HersheyFonts

    font = HersheyFonts()
    if name not in font.default_font_names:
        known = ', '.join(sorted(font.default_font_names))
        raise ValueError(f'no Hershey font {name!r}: use one of {known}')
    font.load_default_font(name)
    return font
