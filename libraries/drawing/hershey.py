"""Text as single strokes in the Hershey fonts: substitution, measuring and wrapping.

A scale is millimetres per font unit; capitals are 21 units high.
"""

import unicodedata
from collections.abc import Mapping
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


def check_font(name: str) -> str:
    """Return `name`; raises ValueError, listing all fonts, if there is no such font."""
    if name not in _font_names():
        raise ValueError(f'no Hershey font {name!r}: use one of {", ".join(_font_names())}')
    return name


def text_width(content: str, scale: float, font: str = DEFAULT_FONT) -> float:
    """The advance of a line of text, in millimetres."""
    glyphs = _glyphs(font)
    return scale * float(sum(glyphs[character].char_width for character in readable(content)))


def text_strokes(
    x: float, y: float, content: str, scale: float, font: str = DEFAULT_FONT
) -> list[Polyline]:
    """The strokes of a line of text in millimetres, its baseline starting at x, y."""
    glyphs = _glyphs(font)
    strokes: list[Polyline] = []
    for character in readable(content):
        glyph = glyphs[character]
        left = x - glyph.left_offset * scale
        strokes += [
            [(left + px * scale, y + (py - _BASELINE) * scale) for px, py in stroke]
            for stroke in glyph.strokes
        ]
        x += glyph.char_width * scale
    return strokes


def wrap(content: str, width: float, scale: float, font: str = DEFAULT_FONT) -> list[str]:
    """Break `content` into lines no wider than `width` millimetres; keep its line breaks.

    A word that is too wide for a line is split.
    """
    lines = []
    for paragraph in content.splitlines():
        line = ''
        for word in _split_words(readable(paragraph), width, scale, font):
            longer = f'{line} {word}' if line else word
            if line and text_width(longer, scale, font) > width:
                lines.append(line)
                longer = word
            line = longer
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


def _split_words(text: str, width: float, scale: float, font: str) -> list[str]:
    """The words of `text`; one too wide for a line is split into pieces that fit."""
    words = []
    for word in text.split():
        start = 0
        for end in range(1, len(word) + 1):
            if end - start > 1 and text_width(word[start:end], scale, font) > width:
                words.append(word[start : end - 1])
                start = end - 1
        words.append(word[start:])
    return words


def _ascii(character: str) -> str:
    if ' ' <= character <= '~':
        return character
    if character in '\n\r\t':
        return ' '
    # Marks and joiners belong to the character before them.
    return '' if unicodedata.category(character) in ('Mn', 'Me', 'Cf') else '?'


@lru_cache(maxsize=1)
def _font_names() -> list[str]:
    from HersheyFonts import HersheyFonts

    return sorted(HersheyFonts().default_font_names)


@lru_cache(maxsize=8)
def _glyphs(name: str) -> Mapping[str, Any]:
    """The glyphs of a font by character, in font units, y downwards from above the baseline."""
    from HersheyFonts import HersheyFonts

    font = HersheyFonts()
    font.load_default_font(check_font(name))
    glyphs: Mapping[str, Any] = font.all_glyphs
    return glyphs
