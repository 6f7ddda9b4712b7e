"""Build an SVG document from shapes in millimetres."""

from collections.abc import Iterable
from typing import Self

from libraries.drawing.hershey import DEFAULT_FONT, load_font, text_strokes
from libraries.drawing.text import Attrs, Point, attributes, escape, length, number, points_text

DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="no"?>'
SIZES = {'width', 'height', 'r', 'rx', 'ry'}  # which are not negative


class SVGBuilder:
    """An SVG drawing of `width` by `height` millimetres, built by chained calls.

    Every length and coordinate is in millimetres; y grows downwards. `default_styles` are
    attributes of every shape and text; the attributes of a call override them. Groups, titles
    and descriptions do not get them.

    Every method raises ValueError, naming the bad value, for a number that is not finite,
    a negative size or an invalid attribute name, and then adds nothing.
    """

    def __init__(self, width: float, height: float, default_styles: Attrs | None = None) -> None:
        self.width, self.height = width, height
        wide, high = length('width', width), length('height', height)
        if '0' in (wide, high):
            raise ValueError(f'a drawing needs an area, got {width!r} by {height!r} mm')
        self._defaults = dict(default_styles or {})
        attributes(self._defaults)
        self.elements: list[str] = []  # outside open groups; a closed group is one
        root = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}mm" height="{high}mm"'
            f' viewBox="0 0 {wide} {high}">'
        )
        self._open = [(root, self.elements)]  # and the open groups
        self._font = DEFAULT_FONT

    def rect(
        self, x: float, y: float, width: float, height: float, attrs: Attrs | None = None
    ) -> Self:
        """Add a rectangle with its upper left corner at x, y."""
        return self._shape('rect', attrs, x=x, y=y, width=width, height=height)

    def line(self, x1: float, y1: float, x2: float, y2: float, attrs: Attrs | None = None) -> Self:
        """Add a straight line between two points."""
        return self._shape('line', attrs, x1=x1, y1=y1, x2=x2, y2=y2)

    def circle(self, cx: float, cy: float, r: float, attrs: Attrs | None = None) -> Self:
        """Add a circle centred on cx, cy."""
        return self._shape('circle', attrs, cx=cx, cy=cy, r=r)

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float, attrs: Attrs | None = None
    ) -> Self:
        """Add an ellipse centred on cx, cy."""
        return self._shape('ellipse', attrs, cx=cx, cy=cy, rx=rx, ry=ry)

    def polyline(self, points: Iterable[Point], attrs: Attrs | None = None) -> Self:
        """Add a line through (x, y) pairs; fast enough for millions of points."""
        return self._draw('polyline', {'points': points_text(points)}, attrs)

    def path(self, d: str, attrs: Attrs | None = None) -> Self:
        """Add a path; `d` is SVG path data, escaped but not checked."""
        return self._draw('path', {'d': escape(d)}, attrs)

    def text(self, x: float, y: float, content: str, attrs: Attrs | None = None) -> Self:
        """Add text in a font of the viewer, its baseline starting at x, y.

        A pen plotter cannot draw it: use `hershey_text`.
        """
        end = f'>{escape(content)}</text>'
        return self._draw('text', {'x': number(x), 'y': number(y)}, attrs, end)

    def set_hershey_font(self, name: str) -> Self:
        """Set the font of later hershey_text calls.

        Raises ValueError, listing all fonts, for an unknown name.
        """
        load_font(name)
        self._font = name
        return self

    def hershey_text(
        self, x: float, y: float, content: str, scale: float = 1.0, attrs: Attrs | None = None
    ) -> Self:
        """Add one line of text as single strokes for a pen, its baseline starting at x, y.

        `scale` is millimetres per font unit; capitals are 21 units high. A character that the
        font lacks becomes a similar one, or `?`.
        """
        number(x), number(y), length('scale', scale)
        strokes = text_strokes(x, y, content, scale, self._font)
        d = ' '.join('M' + points_text(stroke) for stroke in strokes)
        # Without a stroke colour, of its own or inherited, the letters would be invisible.
        inherits = 'stroke' in self._defaults or any(' stroke="' in text for text, _ in self._open)
        styles = {'fill': 'none'} if inherits else {'fill': 'none', 'stroke': 'black'}
        return self.path(d, {**styles, **(attrs or {})})

    def title(self, content: str) -> Self:
        """Set the title of the drawing, or of the open group."""
        # SVG 1.1 viewers show a title only if it is the first child.
        self._open[-1][1].insert(0, f'<title>{escape(content)}</title>')
        return self

    def desc(self, content: str) -> Self:
        """Add a description of the drawing, or of the open group."""
        return self._add(f'<desc>{escape(content)}</desc>')

    def begin_group(self, attrs: Attrs | None = None) -> Self:
        """Open a group; later elements go into it until `end_group`. Groups nest."""
        self._open.append((f'<g{attributes(attrs or {})}>', []))
        return self

    def end_group(self) -> Self:
        """Close the innermost open group; raises ValueError if none is open."""
        if len(self._open) == 1:
            raise ValueError('end_group() without a begin_group() before it')
        opening, children = self._open.pop()
        return self._add('\n'.join([opening, *children, '</g>']))

    def to_string(self) -> str:
        """Return the whole document; raises ValueError while a group is open."""
        (root, elements), *groups = self._open
        if groups:
            raise ValueError(f'{len(groups)} group(s) still open: call end_group()')
        return '\n'.join([DECLARATION, root, *elements, '</svg>', ''])

    def _shape(self, tag: str, attrs: Attrs | None, **geometry: float) -> Self:
        texts = {
            name: length(name, value) if name in SIZES else number(value)
            for name, value in geometry.items()
        }
        return self._draw(tag, texts, attrs)

    def _draw(
        self, tag: str, geometry: dict[str, str], attrs: Attrs | None, end: str = ' />'
    ) -> Self:
        styles = {**self._defaults, **(attrs or {})}
        if twice := geometry.keys() & styles.keys():
            raise ValueError(f'{tag} takes {", ".join(sorted(twice))} as arguments, not in attrs')
        # Geometry is escaped already; escaping a million points again takes 25 % longer.
        geometry_text = ''.join([f' {name}="{text}"' for name, text in geometry.items()])
        return self._add(f'<{tag}{geometry_text}{attributes(styles)}{end}')

    def _add(self, element: str) -> Self:
        self._open[-1][1].append(element)
        return self
