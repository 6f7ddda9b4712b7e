"""Render reports as PDF. What a report holds is here: naming it imports no ReportLab."""

from collections.abc import Sequence

from libraries.drawing.strokes import Polyline

Columns = Sequence[tuple[str, bool]]  # headings, and whether the column is numeric
Rows = Sequence[Sequence[str]]  # one text per column
Figure = tuple[Sequence[Polyline], float, float, str]  # strokes, their page in mm, a caption
