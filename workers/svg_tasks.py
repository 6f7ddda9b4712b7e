"""Write drawings as SVG files to OUTPUT_DIR."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NotRequired, TypedDict

from libraries.drawing.patterns import Millimetres, PatternName, draw_pattern
from libraries.drawing.postcards import PostcardTemplate, draw_postcard
from libraries.files import call_digest, check_names, write_output
from qdjobs.checks import checked_by
from qdjobs.errors import PermanentJobError
from qdjobs.progress import report_progress, track


class Drawing(TypedDict):
    """The arguments of one generate_complex_svg call."""

    width: Millimetres
    height: Millimetres
    pattern_type: PatternName
    output_filename: str
    seed: NotRequired[int]


def _check_drawing(
    width: Millimetres,
    height: Millimetres,
    pattern_type: PatternName,
    output_filename: str,
    seed: int = 0,
) -> None:
    check_names('OUTPUT_DIR', [output_filename])


@checked_by(_check_drawing)
def generate_complex_svg(
    width: Millimetres,
    height: Millimetres,
    pattern_type: PatternName,
    output_filename: str,
    seed: int = 0,
) -> str:
    """Draw a pattern on a page of `width` by `height` millimetres; return the file's path.

    The `desc` of the file, and the log, have the pen lifts and the pen-up travel. Raises
    PermanentJobError for an unknown pattern, a side outside 20 to 1200 mm or an unsafe file name.
    """
    with _permanent_value_errors():
        report_progress(0, 2, 'drawing')
        drawing = draw_pattern(pattern_type, width, height, seed)
        report_progress(1, 2, 'writing')
        path = write_output(output_filename, drawing)
        report_progress(2, 2, 'written')
    return str(path)


def generate_postcard_svg(recipient: str, message: str, template_name: PostcardTemplate) -> str:
    """Draw a postcard of 148 by 105 mm; return the file's path.

    The same arguments write the same file. The font has no accents: Zoë is written Zoe. Raises
    PermanentJobError for an unknown template, an empty recipient, characters that the font lacks,
    or a text too long for the card.
    """
    with _permanent_value_errors():
        card = draw_postcard(recipient, message, template_name)
    digest = call_digest(recipient, message, template_name)
    return str(write_output(f'postcard-{template_name}-{digest}.svg', card))


def _check_batch(drawings: list[Drawing]) -> None:
    names = Counter(drawing['output_filename'] for drawing in drawings)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise ValueError(f'more than one drawing would be written to {", ".join(twice)}')
    check_names('OUTPUT_DIR', names)


@checked_by(_check_batch)
def batch_generate_svgs(drawings: list[Drawing]) -> list[str]:
    """Draw many patterns, reporting progress; return the files' paths in order.

    Raises PermanentJobError as generate_complex_svg does, for a file name before it draws anything,
    and if two drawings have the same one. Files written before a failure stay.
    """
    paths = []
    with _permanent_value_errors():
        _check_batch(drawings)
        for drawing in track(drawings, message='drawing'):
            pattern, seed = drawing['pattern_type'], drawing.get('seed', 0)
            svg = draw_pattern(pattern, drawing['width'], drawing['height'], seed)
            paths.append(str(write_output(drawing['output_filename'], svg)))
    return paths


@contextmanager
def _permanent_value_errors() -> Iterator[None]:
    """Raise ValueError as PermanentJobError: invalid arguments fail at every attempt."""
    try:
        yield
    except ValueError as error:
        raise PermanentJobError(str(error)) from error
