import pytest
from hypothesis import given
from hypothesis import strategies as st

from libraries.drawing.hershey import LINE_UNITS, fit, readable, text_strokes, text_width, wrap


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('plain ASCII ~!', 'plain ASCII ~!'),
        ('Zoë Łukasz, naïve café', 'Zoe Lukasz, naive cafe'),
        ('Straße, Ærø, Þór', 'Strasse, AEro, Thor'),
        ('“5 €” – ‘½’ …', '"5 EUR" - \'1/2\' ...'),
        ('e\N{COMBINING ACUTE ACCENT}a\N{SOFT HYPHEN}b\N{NO-BREAK SPACE}c', 'eab c'),
        ('one\ttwo', 'one two'),
        ('\N{BIRTHDAY CAKE} 日本', '? ??'),
    ],
)
def test_odd_characters_degrade_readably(text: str, shown: str) -> None:
    assert readable(text) == shown


@given(st.text())
def test_what_is_readable_has_strokes_for_every_character(text: str) -> None:
    assert readable(text).isascii()
    text_strokes(0, 0, text, 1)


def test_wrapping_keeps_line_breaks_and_words() -> None:
    width = text_width('two three', 1)
    assert wrap('one two three\n\nfour', width, 1) == ['one two', 'three', '', 'four']


def test_a_word_wider_than_the_line_is_cut() -> None:
    lines = wrap('a ' + 'm' * 20, text_width('mmmmm', 1), 1)
    assert ''.join(lines) == 'a' + 'm' * 20
    assert len(lines) == 5


@given(st.text(max_size=200))
def test_what_fits_fits(text: str) -> None:
    scale, lines = fit(text, 100, 80, largest=0.3)
    assert 0 < scale <= 0.3
    assert len(lines) * LINE_UNITS * scale <= 80
    assert all(text_width(line, scale) <= 100 for line in lines)


@pytest.mark.slow
def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match='5000 characters do not fit on 60 by 40 mm'):
        fit('x' * 5000, 60, 40, largest=0.3)
