"""Lay out a table of any length on A4 pages, with its headings on every page."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from libraries.reports.page import BODY, HAIRLINE, INK, LEFT, WIDTH, ZEBRA, rule, write
from libraries.reports.text import BOLD, REGULAR, text_width, wrap, writable

LEADING = 11.0  # points from one line of a cell to the next
PAD = 5.0  # points around the text of a cell


class Table(NamedTuple):
    """Columns as (heading, whether they are numeric), and rows with one text per column."""

    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str]]


class Grid:
    """A table laid out in points: the width of each column, the lines and height of each row.

    Row 0 is the heading.
    """

    def __init__(self, table: Table) -> None:
        self.numeric = [numeric for _, numeric in table.columns]
        texts = [[writable(heading) for heading, _ in table.columns]]
        texts += [[writable(cell) for cell in row] for row in table.rows]
        self.widths = _widths(list(zip(*texts, strict=True)))
        self.rows = [self._wrap(row, REGULAR if index else BOLD) for index, row in enumerate(texts)]
        self.heights = [max(map(len, row)) * LEADING + 2 * PAD - 2 for row in self.rows]

    def _wrap(self, row: Sequence[str], font: str) -> list[list[str]]:
        pairs = zip(row, self.widths, strict=True)
        return [wrap(text, width - 2 * PAD, BODY, font) for text, width in pairs]

    def pages(self, first_room: float, room: float) -> Iterator[range]:
        """The numbers of the rows on each page, without the heading.

        `first_room` and `room` are the heights available on the first and on later pages.
        """
        head, *heights = self.heights
        left, begin = first_room - head, 1
        for row, height in enumerate(heights, start=1):
            if height > room - head:
                raise ValueError(f'row {row} does not fit on a page: shorten its texts')
            if height > left:
                yield range(begin, row)
                left, begin = room - head, row
            left -= height
        yield range(begin, len(self.rows))

    def draw(self, canvas: Any, rows: range, top: float) -> None:
        """Draw the heading and these rows, from `top` downwards."""
        if not rows and len(self.rows) > 1:
            return  # no row fits on the first page: no heading there either
        self._draw_row(canvas, 0, top, BOLD)
        top -= self.heights[0]
        rule(canvas, top, INK, 0.8)
        for row in rows:
            if row % 2 == 0:
                canvas.setFillColor(ZEBRA)
                canvas.rect(LEFT, top - self.heights[row], WIDTH, self.heights[row], 0, 1)
            self._draw_row(canvas, row, top, REGULAR)
            top -= self.heights[row]
        rule(canvas, top, HAIRLINE, 0.6)

    def _draw_row(self, canvas: Any, row: int, top: float, font: str) -> None:
        left = LEFT
        for lines, width, numeric in zip(self.rows[row], self.widths, self.numeric, strict=True):
            x = left + width - PAD if numeric else left + PAD
            for index, line in enumerate(lines):
                y = top - PAD - BODY * 0.85 - index * LEADING
                write(canvas, x, y, line, BODY, INK, font, right=numeric)
            left += width


def _widths(columns: Sequence[Sequence[str]]) -> list[float]:
    """Column widths that sum to WIDTH: room for the longest words first, then for whole texts."""
    words = _share([max(map(_longest_word, column)) for column in columns], WIDTH)
    wanted = [max(map(_cell_width, column)) for column in columns]
    lacking = [max(0.0, want - has) for want, has in zip(wanted, words, strict=True)]
    more = _share(lacking, WIDTH - sum(words))
    spare = (WIDTH - sum(words) - sum(more)) / len(columns)
    return [word + extra + spare for word, extra in zip(words, more, strict=True)]


def _share(wanted: Sequence[float], room: float) -> list[float]:
    """Share the room: a column that wants less than an equal share gets what it wants."""
    shares = list(wanted)
    for place, column in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[column] = min(wanted[column], room / (len(wanted) - place))
        room -= shares[column]
    return shares


def _longest_word(text: str) -> float:
    return max(map(_cell_width, text.split(' ')))


def _cell_width(text: str) -> float:
    # As wide as in a bold heading, plus half a point against rounding errors.
    return text_width(text, BODY, BOLD) + 2 * PAD + 0.5
