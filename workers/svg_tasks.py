"""Drawings, written as SVG files to the output folder."""

from libraries.file_store import write_output
from libraries.svg_patterns import Millimetres, PatternName, draw_pattern


def generate_complex_svg(
    width: Millimetres,
    height: Millimetres,
    pattern_type: PatternName,
    output_filename: str,
    seed: int = 0,
) -> str:
    """Draw a pattern on a page of `width` by `height` millimetres; return the file's path.

    The file's `desc`, and the log, tell the pen lifts and the pen-up travel. Raises
    ValueError for an unknown pattern, a side outside 20 to 1200 mm or an unsafe file name.
    """
    return str(write_output(output_filename, draw_pattern(pattern_type, width, height, seed)))
