"""Drawing: an SVG document to draw on, and the patterns and postcards that are drawn on it."""

from libraries.drawing.builder import SVGBuilder
from libraries.drawing.patterns import draw_pattern
from libraries.drawing.postcards import draw_postcard

__all__ = ['SVGBuilder', 'draw_pattern', 'draw_postcard']
