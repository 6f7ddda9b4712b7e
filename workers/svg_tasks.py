"""Drawings, written as SVG files to the output folder."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NotRequired, TypedDict

from libraries.drawing.patterns import Millimetres, PatternName, draw_pattern
from libraries.drawing.postcards import PostcardTemplate, draw_postcard
from libraries.files import write_output
from qdjobs.errors import PermanentJobError
from qdjobs.progress import track


class Drawing(TypedDict):
    """The arguments of one generate_complex_svg."""

    width: Millimetres
    height: Millimetres
    pattern_type: PatternName
    output_filename: str
    seed: NotRequired[int]


def generate_complex_svg(
    width: Millimetres,
    height: Millimetres,
    pattern_type: PatternName,
    output_filename: str,
    seed: int = 0,
) -> str:
    """Draw a pattern on a page of `width` by `height` millimetres; return the file's path.

    The file's `desc`, and the log, tell the pen lifts and the pen-up travel. Raises
    PermanentJobError for an unknown pattern, a side outside 20 to 1200 mm or an unsafe file name.
    """
    with _same_next_time():
        return str(write_output(output_filename, draw_pattern(pattern_type, width, height, seed)))


def generate_postcard_svg(recipient: str, message: str, template_name: PostcardTemplate) -> str:
    """Draw a postcard of 148 by 105 mm; return the file's path.

    The same card always goes to the same file. Its letters have no accents: Zoë is written Zoe.
    Raises PermanentJobError for an unknown template, no recipient, characters that have no letter
    at all, or a text too long to be read on a card.
    """
    with _same_next_time():
        card = draw_postcard(recipient, message, template_name)
    words = repr((recipient, message, template_name)).encode()
    name = f'postcard-{template_name}-{hashlib.sha256(words).hexdigest()[:16]}.svg'
    return str(write_output(name, card))


def batch_generate_svgs(drawings: list[Drawing]) -> list[str]:
    """Draw many patterns, telling the progress; return the files' paths in their order.

    Raises PermanentJobError as generate_complex_svg does, and before it draws anything if two
    drawings would go to one file. Files written before a failure stay.
    """
    names = [drawing['output_filename'] for drawing in drawings]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PermanentJobError(f'more than one drawing would be written to {", ".join(twice)}')
    return [generate_complex_svg(**drawing) for drawing in track(drawings, message='drawing')]


@contextmanager
def _same_next_time() -> Iterator[None]:
    """What is wrong with the arguments is wrong at every attempt."""
    try:
        yield
    except ValueError as error:
        raise PermanentJobError(str(error)) from error
