"""Lay out a report on A4 pages: a title, a date, drawings as vectors and a table."""

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab import platypus, rl_config
from reportlab.graphics import shapes
from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.pdfmetrics import registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph

from libraries.drawing.patterns import pattern_strokes
from libraries.reports import Columns, Figure, Rows
from qdjobs.errors import short_repr

REGULAR, BOLD = 'DejaVuSansCondensed', 'DejaVuSansCondensed-Bold'
LEFT, BOTTOM, FOOT = 18 * mm, 22 * mm, 12 * mm
WIDTH, HEIGHT = 174 * mm, 255 * mm  # between the margins
PAD, CAPTION = 6, 18  # what ReportLab leaves on either side in a cell; room below a drawing
COLOURS = '#1c2430', '#667080', '#c9d1d9', '#f3f5f8', '#2e5c8a'
INK, GREY, HAIRLINE, ZEBRA, ACCENT = map(HexColor, COLOURS)
PEN = {'strokeColor': ACCENT, 'fillColor': None, 'strokeLineCap': 1, 'strokeLineJoin': 1}
TITLE = ParagraphStyle('title', fontName=BOLD, fontSize=20, leading=24, spaceAfter=9, textColor=INK)
DATE = ParagraphStyle('date', fontName=REGULAR, fontSize=10, leading=12, textColor=GREY)
TEXT = ParagraphStyle('text', fontName=REGULAR, fontSize=8.5, leading=11, textColor=INK)
NUMBER = ParagraphStyle('number', TEXT, alignment=TA_RIGHT)


def render_report(
    title: str, day: date, columns: Columns, rows: Rows, figures: Sequence[Figure] = ()
) -> bytes:
    """Render the PDF; the same arguments give the same bytes.

    Raises ValueError for characters that the font lacks, and for a row taller than a page.
    """
    rl_config.useA85 = 0  # binary streams: 20 % smaller
    title = writable(title)
    story = [*_head(title, day), *_drawings(figures), _table(columns, rows)]
    content, pages = _build(title, story, pages=1)
    return content if pages == 1 else _build(title, story, pages)[0]


def _build(title: str, story: list[Any], pages: int) -> tuple[bytes, int]:
    """The PDF, whose feet say that it has so many pages, and how many it has."""

    def write_foot(canvas: Any, document: Any) -> None:
        canvas.setStrokeColor(HAIRLINE)  # below the table, with which each page ends
        canvas.line(LEFT, document.frame._y, LEFT + WIDTH, document.frame._y)
        canvas.setFont(REGULAR, 7.5)
        canvas.setFillColor(GREY)
        canvas.drawString(LEFT, FOOT, title if len(title) < 65 else f'{title[:64]}…')
        canvas.drawRightString(LEFT + WIDTH, FOOT, f'Page {document.page} of {pages}')

    frame = platypus.Frame(LEFT, BOTTOM, WIDTH, HEIGHT, 0, 0, 0, 0)
    # invariant: no time stamp and no random id in the file.
    about = {'title': title, 'author': '', 'subject': '', 'creator': '', 'lang': 'en'}
    document = platypus.BaseDocTemplate(file := BytesIO(), pagesize=A4, invariant=1, **about)
    document.addPageTemplates(platypus.PageTemplate(frames=[frame], onPageEnd=write_foot))
    document.build(list(story))
    return file.getvalue(), document.page


@cache
def use_fonts() -> frozenset[int]:
    """Register both faces with ReportLab, once; return the code points that both have."""
    folder = Path(__file__).with_name('fonts')
    fonts: list[Any] = [TTFont(name, folder / f'{name}.ttf') for name in (REGULAR, BOLD)]
    for font in fonts:
        registerFont(font)
    return frozenset(fonts[0].face.charToGlyph) & frozenset(fonts[1].face.charToGlyph)


def writable(text: str) -> str:
    """The text in NFC, on one line; raises ValueError, naming them, for what the font lacks."""
    line = ' '.join(unicodedata.normalize('NFC', text).split())
    if lacking := sorted({letter for letter in line if ord(letter) not in use_fonts()}):
        named = ', '.join(f'{short_repr(letter)} (U+{ord(letter):04X})' for letter in lacking[:5])
        raise ValueError(
            f'{short_repr(text)} cannot be written: the font has no {named}. It has Latin, '
            'Greek, Cyrillic, Armenian and Georgian letters and the usual signs.'
        )
    return line


def _head(title: str, day: date) -> list[Any]:
    """Title and date on the left, the emblem on the right."""
    emblem = _drawing((pattern_strokes('lissajous', 22, 22), 22, 22, ''), 22 * mm, 22 * mm)
    texts = [Paragraph(escape(title), TITLE), Paragraph(f'{day.day} {day:%B} {day.year}', DATE)]
    widths = [WIDTH - 22 * mm, 22 * mm + 2 * PAD]
    head = platypus.Table([[texts, emblem]], widths, style=[('VALIGN', (0, 0), (-1, -1), 'TOP')])
    return [head, platypus.HRFlowable('100%', 1.2, color=ACCENT, spaceBefore=7, spaceAfter=12)]


def _drawings(figures: Sequence[Figure]) -> Iterator[platypus.Table]:
    """The drawings in rows, each above its caption."""
    across = min(len(figures), 4) if len(figures) <= 8 else 6
    lines = [figures[start : start + across] for start in range(0, len(figures), across or 1)]
    for line in lines:
        room = (WIDTH + 2 * PAD) / across - 2 * PAD
        # One drawing leaves room for the table; many fit on the page together.
        tallest = min(170 * mm, room * 1.42, (HEIGHT - 130) / len(lines) - CAPTION - 6)
        height = max(min(tallest, high * room / wide) for _, wide, high, _ in line)
        cells = [_drawing(figure, room, height, CAPTION) for figure in line]
        yield platypus.Table([cells + [''] * (across - len(line))], room + 2 * PAD)


def _drawing(figure: Figure, width: float, height: float, below: float = 0) -> shapes.Drawing:
    """A drawing in the middle of a box; if it has a caption, in a frame and above that."""
    strokes, wide, high, caption = figure
    scale = min(width / wide, height / high)
    left, top = (width - wide * scale) / 2, below + (height + high * scale) / 2
    drawing = shapes.Drawing(width, below + height)
    if caption:
        frame = {'strokeColor': HAIRLINE, 'strokeWidth': 0.6, 'fillColor': None}
        drawing.add(shapes.Rect(left, top, wide * scale, -high * scale, **frame))
        text = {'fontName': REGULAR, 'fontSize': 7.5, 'fillColor': GREY, 'textAnchor': 'middle'}
        drawing.add(shapes.String(width / 2, below - 11, writable(caption), **text))
    # A pen of 0.4 mm to scale, but wide enough to stay visible.
    pen = PEN | {'strokeWidth': max(0.12, 0.4 * scale)}
    for stroke in strokes:
        points = [round(c, 2) for x, y in stroke for c in (left + x * scale, top - y * scale)]
        drawing.add(shapes.PolyLine(points, **pen))
    return drawing


def _table(columns: Columns, rows: Rows) -> platypus.Table:
    """The table over as many pages as it needs, with its headings on each."""
    texts = [[writable(text) for text in row] for row in [[name for name, _ in columns], *rows]]
    widths = _widths(list(zip(*texts, strict=True)))
    cells, heights = [], []
    for number, row in enumerate(texts):
        line, height = [], TEXT.leading
        for text, width, (_, numeric) in zip(row, widths, columns, strict=True):
            styled = escape(text) if number else f'<font name="{BOLD}">{escape(text)}</font>'
            line.append(Paragraph(styled, NUMBER if numeric else TEXT))
            height = max(height, line[-1].wrap(width - 2 * PAD, HEIGHT)[1])
        cells.append(line)
        heights.append(height + 8)
        if number and heights[0] + heights[-1] > HEIGHT:
            raise ValueError(f'row {number} does not fit on a page: shorten its texts')
    style = [
        ('VALIGN', (0, 0), (-1, -1), 'TOP'),
        ('TOPPADDING', (0, 0), (-1, -1), 4),
        ('ROWBACKGROUNDS', (0, 1), (-1, -1), [None, ZEBRA]),
        ('LINEBELOW', (0, 0), (-1, 0), 0.8, INK),
    ]
    return platypus.Table(cells, widths, heights, repeatRows=1, style=style)


def _widths(columns: Sequence[Sequence[str]]) -> list[float]:
    """Column widths that sum to WIDTH: no column gets more than it needs while another lacks."""
    # As in bold, and half a point against rounding errors.
    needs = [max(stringWidth(t, BOLD, 8.5) for t in column) + 2 * PAD + 0.5 for column in columns]
    widths, room = list(needs), WIDTH
    for place, column in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        widths[column] = min(needs[column], room / (len(needs) - place))
        room -= widths[column]
    return [width + room / len(widths) for width in widths]
