"""Write A4 PDF reports with tables and drawings to the `reports` folder of OUTPUT_DIR."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from random import Random
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

import msgspec

from libraries.drawing.patterns import Millimetres, PatternName, pattern_strokes
from libraries.drawing.strokes import measure
from libraries.files import call_digest, write_output
from libraries.reports import Columns, Figure, Rows
from qdjobs.errors import PermanentJobError
from qdjobs.progress import track

ReportType = Literal['drawings', 'table']
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Heading = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
Text = Annotated[str, msgspec.Meta(max_length=400)]
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Cell = Text | Whole | float | None
UserId = (
    Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    | Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
)

HEADINGS = ('No.', 'Pattern', 'Width mm', 'Height mm', 'Seed', 'Pen lifts', 'Drawn m', 'Pen-up m')


class TableParams(TypedDict):
    """A table: one cell per column in each row. `date` defaults to the day of the run, in UTC."""

    title: Title
    columns: Annotated[list[Heading], msgspec.Meta(min_length=1, max_length=12)]
    rows: Annotated[list[list[Cell]], msgspec.Meta(max_length=2000)]
    date: NotRequired[date]


class Drawing(TypedDict):
    """The arguments of generate_complex_svg, without the file name."""

    width: Millimetres
    height: Millimetres
    pattern_type: PatternName
    seed: NotRequired[int]


class DrawingsParams(TypedDict):
    """Drawings to show, with a table of their pen lifts and lengths; `date` as in TableParams."""

    title: Title
    drawings: Annotated[list[Drawing], msgspec.Meta(min_length=1, max_length=24)]
    date: NotRequired[date]


Content = tuple[Columns, Rows, Sequence[Figure]]
PARAMS: dict[str, Any] = {'drawings': DrawingsParams, 'table': TableParams}


def generate_report(report_type: ReportType, params: TableParams | DrawingsParams) -> str:
    """Write an A4 report as PDF; return the file's path.

    The file name depends on the arguments only; the same arguments, with the same date, give the
    same document. Raises PermanentJobError, naming the field, for `params` that do not fit the
    report type, and for characters that the font lacks (it has Latin, Greek, Cyrillic, Armenian
    and Georgian).
    """
    given: Any = params
    try:  # the hints accept the params of either report type
        msgspec.convert(given, PARAMS[report_type], builtin_types=(date,))
    except msgspec.ValidationError as error:
        problem = str(error).replace('`', '').replace(' - at', ' at')
        raise PermanentJobError(
            f'params do not fit a report of type {report_type!r}: {problem}'
        ) from None
    content = _table(given) if report_type == 'table' else _drawings(given)
    return _write(f'{report_type}-{call_digest(report_type, params)}', given, content)


def generate_pdf(user_id: UserId) -> str:
    """Write a PDF with a drawing that belongs to one user; return the file's path.

    Raises PermanentJobError for an id that contains characters the font lacks.
    """
    # The id is not looked up: it is the seed of the drawing.
    random = Random(f'user {user_id!r}')
    pattern: PatternName = random.choice(get_args(PatternName))
    seed = random.randrange(10**6)
    drawing: Drawing = {'width': 174, 'height': 174, 'pattern_type': pattern, 'seed': seed}
    params: DrawingsParams = {'title': f'A drawing for {user_id}', 'drawings': [drawing]}
    return _write(f'user-{call_digest(user_id)}', params, _drawings(params))


def _write(name: str, params: TableParams | DrawingsParams, content: Content) -> str:
    from libraries.reports.report import render_report  # slow to import

    day = params.get('date', datetime.now(UTC).date())
    try:
        document = render_report(params['title'], day, *content)
    except ValueError as error:
        raise PermanentJobError(str(error)) from error
    return str(write_output(f'reports/{name}.pdf', document))


def _table(params: TableParams) -> Content:
    columns = params['columns']
    for number, row in enumerate(params['rows'], start=1):
        if len(row) != len(columns):
            raise PermanentJobError(
                f'params: row {number} has {len(row)} cells, but there are {len(columns)} columns'
            )
    numeric = [_is_numeric([row[place] for row in params['rows']]) for place in range(len(columns))]
    rows = [['' if cell is None else str(cell) for cell in row] for row in params['rows']]
    return list(zip(columns, numeric, strict=True)), rows, []


def _drawings(params: DrawingsParams) -> Content:
    rows, figures = [], []
    for number, drawing in enumerate(track(params['drawings'], message='drawing'), start=1):
        pattern, width, height = drawing['pattern_type'], drawing['width'], drawing['height']
        seed = drawing.get('seed', 0)
        strokes = pattern_strokes(pattern, width, height, seed)
        pen = measure(strokes)
        sizes = [f'{width:g}', f'{height:g}', str(seed), str(pen.lifts)]
        lengths = [f'{pen.drawn / 1000:.2f}', f'{pen.travel / 1000:.2f}']
        rows.append([str(number), pattern, *sizes, *lengths])
        figures.append((strokes, width, height, f'{number}  {pattern}'))
    return [(heading, heading != 'Pattern') for heading in HEADINGS], rows, figures


def _is_numeric(cells: Sequence[Cell]) -> bool:
    """Whether a column has numbers and no text; empty cells do not count."""
    values = [cell for cell in cells if cell is not None]
    return bool(values) and not any(isinstance(cell, str) for cell in values)
