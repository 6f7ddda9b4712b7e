"""Public names for drawing: the SVG builder, the patterns and the postcards."""

from libraries.drawing.builder import SVGBuilder
from libraries.drawing.patterns import draw_pattern
from libraries.drawing.postcards import draw_postcard

__all__ = ['SVGBuilder', 'draw_pattern', 'draw_postcard']
