"""Public names for drawing: the SVG builder, the patterns and the postcards."""

from libraries.drawing.builder import SVGBuilder as SVGBuilder
from libraries.drawing.patterns import draw_pattern as draw_pattern
from libraries.drawing.postcards import draw_postcard as draw_postcard
