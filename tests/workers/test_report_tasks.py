"""What ReportLab wrote is read back by pypdf."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pypdf import PageObject, PdfReader
from reportlab.pdfbase.pdfmetrics import stringWidth

from libraries.drawing.patterns import pattern_strokes
from libraries.drawing.strokes import measure
from libraries.files import output_dir
from libraries.job_manager import enqueue_background_job, wait_for_job
from libraries.reports.report import REGULAR, writable
from qdjobs.client.tasks import check_call
from qdjobs.errors import InvalidJobError, PermanentJobError
from workers import report_tasks
from workers.report_tasks import DrawingsParams, TableParams, generate_pdf, generate_report

REPORT, SHEET = 'workers.report_tasks.generate_report', 'workers.report_tasks.generate_pdf'
DAY = date(2026, 11, 22)
A4 = (595.28, 841.89)  # points


def table(**changes: Any) -> TableParams:
    params: Any = {
        'title': 'Paper in stock',
        'columns': ['Paper', 'Sheets', 'Remark'],
        'rows': [['A4', 250, 'smooth'], ['A3', 1.5, None]],
        'date': DAY,
    }
    params.update(changes)
    return cast(TableParams, params)


def drawings(**changes: Any) -> DrawingsParams:
    params: Any = {
        'title': 'Two drawings',
        'drawings': [
            {'pattern_type': 'spiral', 'width': 60, 'height': 80, 'seed': 5},
            {'pattern_type': 'truchet', 'width': 100, 'height': 40.5},
        ],
        'date': DAY,
    }
    params.update(changes)
    return cast(DrawingsParams, params)


def read(path: str) -> PdfReader:
    return PdfReader(path, strict=True)


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def words(page: PageObject) -> list[str]:
    return page.extract_text().split()


class Seen(NamedTuple):
    """What a page holds: its text, and its drawing operators with what each is given."""

    page: PageObject
    text: str
    operations: list[tuple[str, list[Any]]]

    @property
    def operators(self) -> list[str]:
        return [operator for operator, _ in self.operations]

    @property
    def points(self) -> list[tuple[float, float]]:
        """Where paths begin and go to."""
        return [(float(at[0]), float(at[1])) for kind, at in self.operations if kind in 'ml']


def look_at(path: str) -> Seen:
    """The only page of a document."""
    (page,) = read(path).pages
    operations: list[tuple[str, list[Any]]] = []

    def note(operator: bytes, operands: list[Any], page: list[float], _: object) -> None:
        kind = operator.decode()
        at = list(operands)
        if kind in ('m', 'l'):  # each drawing has an origin of its own
            x, y = map(float, at)
            at = [page[0] * x + page[4], page[3] * y + page[5]]
        operations.append((kind, at))

    return Seen(page, page.extract_text(visitor_operand_before=note), operations)


@cache
def table_page() -> Seen:
    return look_at(generate_report('table', table()))


@cache
def drawings_page() -> Seen:
    return look_at(generate_report('drawings', drawings()))


@cache
def sheet(user: int | str) -> Seen:
    return look_at(generate_pdf(user))


@pytest.fixture
def plain_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every drawing is one stroke: for tests of something else."""
    monkeypatch.setattr(report_tasks, 'pattern_strokes', lambda *_: [[(5.0, 5.0), (15.0, 15.0)]])


def places(page: PageObject) -> dict[str, tuple[float, float]]:
    """Each line of text → where it begins."""
    found: dict[str, tuple[float, float]] = {}

    def visit(text: str, outer: list[float], matrix: list[float], *_: object) -> None:
        if text.strip():
            found[text.strip()] = (matrix[4] + outer[4], matrix[5] + outer[5])

    page.extract_text(visitor_text=visit)
    return found


def reports() -> list[Path]:
    return sorted(path for path in output_dir().rglob('*') if path.is_file())


# The document


def test_a_report_is_an_a4_page_with_title_date_and_rows() -> None:
    path = generate_report('table', table())
    assert path.startswith(str(output_dir() / 'reports' / 'table-'))
    reader = read(path)
    (page,) = reader.pages
    size = float(page.mediabox.width), float(page.mediabox.height)
    assert size == pytest.approx(A4, abs=0.01)
    assert reader.metadata is not None
    assert reader.metadata.title == 'Paper in stock'
    lines = lines_of(page.extract_text())
    assert lines[0] == 'Paper in stock'
    for line in ('22 November 2026', 'Page 1 of 1', 'smooth', '250', '1.5'):
        assert line in lines


@pytest.mark.slow
@pytest.mark.parametrize(
    'make', [table_page, drawings_page, lambda: sheet('zoë')], ids=['table', 'drawings', 'sheet']
)
def test_each_document_holds_a_drawing_as_vectors_and_no_bitmap(make: Callable[[], Seen]) -> None:
    found = make()
    assert found.operators.count('l') > 200  # segments of paths
    assert len(found.page.images) == 0
    assert 'Do' not in found.operators


def test_every_stroke_of_the_drawings_is_drawn_within_its_frame() -> None:
    plain, drawn = table_page(), drawings_page()
    strokes = [pattern_strokes('spiral', 60, 80, 5), pattern_strokes('truchet', 100, 40.5)]
    # Rules are strokes too: as many as in a table without drawings.
    lifts = drawn.operators.count('m') - plain.operators.count('m')
    assert lifts == sum(map(len, strokes))
    assert all(50 < x < 546 and 60 < y < 786 for x, y in drawn.points)


def test_the_sheet_of_drawings_tells_how_a_pen_draws_them() -> None:
    text = drawings_page().text
    lines = lines_of(text)
    pen = measure(pattern_strokes('truchet', 100, 40.5))
    row = ['2', 'truchet', '100', '40.5', '0', str(pen.lifts)]
    row += [f'{pen.drawn / 1000:.2f}', f'{pen.travel / 1000:.2f}']
    assert lines[lines.index('truchet') - 1 :][: len(row)] == row
    assert '1 spiral' in ' '.join(text.split())


@pytest.mark.usefixtures('plain_drawings')
def test_twenty_four_drawings_leave_room_for_their_table() -> None:
    one = {'pattern_type': 'hilbert', 'width': 40, 'height': 60}
    pages = read(generate_report('drawings', drawings(drawings=[one] * 24))).pages
    assert len(pages) == 2
    assert words(pages[0]).count('hilbert') > 24
    assert sum(words(page).count('hilbert') for page in pages) == 48


def test_a_long_table_repeats_its_heading_and_numbers_its_pages() -> None:
    rows = [[f'row{number}', number, 'remark'] for number in range(1, 151)]
    pages = read(generate_report('table', table(rows=rows))).pages
    assert len(pages) > 2
    for number, page in enumerate(pages, start=1):
        text = words(page)
        assert f'Page {number} of {len(pages)}' in ' '.join(text)
        assert text.count('Sheets') == 1
    found = [word for page in pages for word in words(page) if re.fullmatch(r'row\d+', word)]
    assert found == [f'row{number}' for number in range(1, 151)]


def test_numbers_end_where_their_column_ends() -> None:
    rows = [['x', number, 'y'] for number in (1, 22, -333.25, None)]
    (page,) = read(generate_report('table', table(rows=rows))).pages
    found = places(page)
    ends = {
        round(found[text][0] + stringWidth(text, REGULAR, 8.5), 1)
        for text in ('1', '22', '-333.25')
    }
    assert len(ends) == 1
    assert found['x'][0] == found['Paper'][0]


def test_a_column_with_a_word_in_it_holds_no_numbers() -> None:
    rows = [['x', 1, 'y'], ['x', 'many', 'y'], ['x', 22222, 'y']]
    (page,) = read(generate_report('table', table(rows=rows))).pages
    found = places(page)
    assert found['1'][0] == found['many'][0] == found['22222'][0] == found['Sheets'][0]


def test_long_text_wraps_within_its_column() -> None:
    text = ' '.join(f'word{number}' for number in range(50))
    unbroken = 'x' * 400
    (page,) = read(generate_report('table', table(rows=[[text, 7, unbroken]]))).pages
    assert {f'word{number}' for number in range(50)} <= set(words(page))
    assert ''.join(re.findall('x{8,}|x+$', page.extract_text(), re.M)).count('x') >= 390
    right = 192 / 25.4 * 72
    for line, (x, y) in places(page).items():
        if not line.startswith('Page'):  # which stands flush right, in smaller type
            assert x + stringWidth(line, REGULAR, 20 if line == 'Paper in stock' else 8.5) < right
        assert y > 30


def test_an_empty_table_and_a_single_column_are_reports_too() -> None:
    (page,) = read(generate_report('table', table(rows=[], columns=['Alone']))).pages
    assert 'Alone' in words(page)


@pytest.mark.slow
def test_as_much_as_is_allowed_fits() -> None:
    wide = table(
        title='W' * 120,
        columns=[f'{number:02}' + 'W' * 58 for number in range(12)],
        rows=[['lorem ipsum ' * 12] * 12] * 8,
    )
    pages = read(generate_report('table', wide)).pages
    assert sum(words(page).count('ipsum') for page in pages) == 8 * 12 * 12


def test_a_row_taller_than_a_page_is_refused() -> None:
    rows = [['W' * 400] * 12, ['a'] * 12]
    with pytest.raises(PermanentJobError, match='row 1 does not fit on a page: shorten its texts'):
        generate_report('table', table(columns=list('abcdefghijkl'), rows=rows))
    assert reports() == []


# Scripts


@pytest.mark.parametrize(
    'text',
    ['Zażółć gęślą jaźń', 'Ξεσκεπάζω τὴν ψυχοφθόρα', 'Съешь ещё этих мягких', 'Ճանաչել', 'ქართული',
     'Tiếng Việt', '€ £ ₴ № “quoted” – dash… ½ ≤ ∞ ✓',
     'a\u0301 e\u0308', '<b>&amp;</b> <img src="x"/>'],
)  # fmt: skip
def test_letters_are_written_and_can_be_read_back(text: str) -> None:
    (page,) = read(generate_report('table', table(title=text, rows=[[text, 1, text]]))).pages
    shown = page.extract_text()
    assert shown.count(writable(text)) >= 3  # title, cell, cell


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('日本', r"'日' \(U\+65E5\), '本' \(U\+672C\)"),
        ('שלום', r'U\+05DD'),
        ('हिन्दी', r'U\+0928'),
        ('ink 🖋', r'U\+1F58B'),
        ('a\x00b', r"'\\x00' \(U\+0000\)"),
        ('\ud800', r'U\+D800'),
        ('abc\u202edcba', r'U\+202E'),
        ('\u200b', r'U\+200B'),
    ],
)
@pytest.mark.usefixtures('plain_drawings')
def test_letters_that_the_font_lacks_are_named(text: str, named: str) -> None:
    for params in (
        table(title=text),
        table(columns=[text, 'b', 'c']),
        table(rows=[['a', 1, text]]),
        drawings(title=text),
    ):
        kind: Any = 'table' if 'rows' in params else 'drawings'
        with pytest.raises(PermanentJobError, match=rf'cannot be written: .* no .*{named}'):
            generate_report(kind, params)
    with pytest.raises(PermanentJobError, match=named):
        generate_pdf(text)
    assert reports() == []


cells = st.one_of(st.text(max_size=60), st.integers(-(2**63), 2**63 - 1), st.floats(), st.none())


@given(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=8), st.text(max_size=20))
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_table_becomes_a_document_or_a_sentence(rows: list[list[Any]], title: str) -> None:
    try:
        path = generate_report('table', table(rows=rows, title=title))
    except PermanentJobError as error:
        assert re.search('cannot be written|params do not fit', str(error))  # noqa: PT017
    else:
        assert len(read(path).pages) >= 1


# Names, and the same again


def test_the_same_call_writes_the_same_document_to_the_same_file() -> None:
    first = generate_report('drawings', drawings())
    content = Path(first).read_bytes()
    generate_report('table', table(title='Ξ'))  # in between, with letters of its own
    assert generate_report('drawings', drawings()) == first
    assert Path(first).read_bytes() == content
    backwards: Any = dict(reversed(list(drawings().items())))
    assert generate_report('drawings', backwards) == first


@pytest.mark.slow
@pytest.mark.usefixtures('plain_drawings')
def test_different_calls_go_to_different_files() -> None:
    paths = [
        generate_report('table', table(rows=rows, **more))
        for rows in ([['1', 1, 'x']], [['1', '1', 'x']], [['1', 1.0, 'x']], [[1, 1, 'x']])
        for more in ({}, {'title': 'Other'}, {'date': date(2026, 11, 23)})
    ]
    paths += [generate_pdf(user) for user in (7, '7', '07', 'seven')]
    assert len(set(paths)) == len(paths) == len(reports())


def test_without_a_date_it_is_that_of_the_run() -> None:
    params = table()
    del params['date']
    before = datetime.now(UTC).date()
    (page,) = read(generate_report('table', params)).pages
    days = {before, datetime.now(UTC).date()}
    assert any(f'{day.day} {day:%B} {day.year}' in page.extract_text() for day in days)


@pytest.mark.slow
def test_a_user_has_a_sheet_of_their_own_that_is_always_the_same() -> None:
    users: list[int | str] = [
        211,
        '211',
        13,
        27,
        'zoë',
    ]  # who all but the last get the same pattern
    drawn = [str(sheet(user).points) for user in users]
    assert len(set(drawn)) == len(users)
    assert all(f'A drawing for {user}' in sheet(user).text for user in users)
    assert str(look_at(generate_pdf(13)).points) == drawn[2]


# Refusals


@pytest.mark.parametrize(
    ('kind', 'params', 'named'),
    [
        ('invoice', {}, r"Expected .*'drawings', 'table'"),
        ('table', {}, 'title'),
        ('table', None, 'params'),
        ('table', table(title=''), r'title'),
        ('table', table(title='x' * 121), r'title'),
        ('table', table(columns=[]), r'columns'),
        ('table', table(columns=['a'] * 13), r'columns'),
        ('table', table(columns=['']), r'columns'),
        ('table', table(rows=[[]] * 2001), r'rows'),
        ('table', table(rows=[['x' * 401, 1, 2]]), r'rows\[0\]\[0\]'),
        ('table', table(rows=[[True, 1, 2]]), r'rows\[0\]\[0\]'),
        ('table', table(rows=[[[], 1, 2]]), r'rows\[0\]\[0\]'),
        ('table', table(rows=[[2**63, 1, 2]]), r'rows'),
        ('table', table(date='2026-11-22'), r'date'),
        ('table', table(colour='red'), r"Unexpected key 'colour'"),
        ('drawings', drawings(drawings=[]), 'drawings'),
        ('drawings', drawings(drawings=[drawings()['drawings'][0]] * 25), 'drawings'),
        ('drawings', drawings(drawings=[{'pattern_type': 'spiral', 'width': 9, 'height': 90}]),
         r'width'),
        ('drawings', drawings(drawings=[{'pattern_type': 'dog', 'width': 90, 'height': 90}]),
         r'pattern_type|spiral'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_named(kind: Any, params: Any, named: str) -> None:
    with pytest.raises(InvalidJobError, match=rf"argument '.*{named}"):
        enqueue_background_job(REPORT, kind, params)
    with pytest.raises(TypeError, match=rf"argument '.*{named}"):
        check_call(REPORT, (kind, params), {})


@pytest.mark.parametrize(
    ('kind', 'params', 'named'),
    [('table', drawings(), 'columns'), ('drawings', table(), 'drawings')],
)
def test_the_params_of_the_other_report_are_refused(kind: Any, params: Any, named: str) -> None:
    with pytest.raises(PermanentJobError, match=f'params do not fit .*{named}'):
        generate_report(kind, params)
    assert reports() == []
    assert enqueue_background_job(REPORT, kind, params).id  # each for itself, both are valid


def test_rows_have_a_cell_for_each_column() -> None:
    with pytest.raises(PermanentJobError, match='row 2 has 2 cells, but there are 3 columns'):
        generate_report('table', table(rows=[['a', 1, 'b'], ['a', 1]]))


@pytest.mark.parametrize('user', [-1, 2**63, '', 'x' * 65, None, 1.5, True, b'x', ['x']])
def test_what_is_no_user_id_is_refused(user: Any) -> None:
    with pytest.raises(InvalidJobError, match="argument 'user_id'"):
        enqueue_background_job(SHEET, user)
    with pytest.raises(TypeError, match="argument 'user_id'"):
        check_call(SHEET, (user,), {})


@pytest.mark.usefixtures('plain_drawings')
@pytest.mark.parametrize('user', [0, 2**63 - 1, 'x', 'W' * 64])
def test_every_user_id_makes_one_page(user: int | str) -> None:
    assert len(read(generate_pdf(user)).pages) == 1


def test_a_report_that_may_not_be_written_is_worth_another_attempt() -> None:
    output_dir().write_text('a file where the folder should be')
    with pytest.raises(OSError, match=r'File exists|Not a directory'):
        generate_report('table', table())


# As a job


@pytest.mark.usefixtures('shared_worker')
def test_a_worker_writes_them() -> None:
    jobs = [
        enqueue_background_job(REPORT, 'drawings', drawings()),
        enqueue_background_job(REPORT, report_type='table', params=table()),
        enqueue_background_job(SHEET, user_id='zoë'),
        enqueue_background_job(REPORT, 'table', table(title='日本'), job_max_retries=3),
    ]
    *good, bad = [wait_for_job(job.id, 120) for job in jobs]
    assert [len(read(job['result']).pages) for job in good] == [1, 1, 1]
    assert good[0]['progress'] == {'done': 2, 'total': 2, 'message': 'drawing'}
    assert (bad['status'], len(bad['attempts'])) == ('failed', 1)
    assert "PermanentJobError: '日本' cannot be written: the font has no" in str(bad['error'])
