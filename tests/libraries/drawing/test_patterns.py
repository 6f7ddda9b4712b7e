import logging
import xml.etree.ElementTree as ET
from functools import cache
from itertools import chain, pairwise
from math import sin, sqrt
from typing import Any, get_args

import pytest

from libraries.drawing.patterns import (
    PATTERNS,
    PatternName,
    draw_pattern,
    drawing_area,
    pattern_strokes,
    sketch_pattern,
)
from libraries.drawing.strokes import Polyline, join_strokes, measure, order_strokes, simplify
from tests.support.svg_references import REFERENCE, difference, drawn_strokes, stored_drawing

SVG = '{http://www.w3.org/2000/svg}'
*_, SEED = REFERENCE

every_pattern = pytest.mark.parametrize('pattern', get_args(PatternName))
every_size = pytest.mark.parametrize(
    ('width', 'height'), [(105, 148), (20, 20), (20, 300), (400, 25), (120, 120.5)]
)


def test_every_name_has_a_pattern() -> None:
    assert tuple(PATTERNS) == get_args(PatternName)


# Some take a while: each is drawn once for all tests.
drawing = cache(draw_pattern)


@cache
def drawn(pattern: PatternName, width: float, height: float) -> list[Polyline]:
    return drawn_strokes(drawing(pattern, width, height, SEED))


@every_pattern
@every_size
def test_pattern_is_well_formed_and_within_the_margin(
    pattern: PatternName, width: float, height: float
) -> None:
    root = ET.fromstring(drawing(pattern, width, height, SEED))
    assert root.get('viewBox') == f'0 0 {width:g} {height:g}'
    strokes = drawn(pattern, width, height)
    assert len(root.findall(f'{SVG}g/{SVG}polyline')) == len(strokes) > 0
    assert all(len(stroke) > 1 for stroke in strokes)
    margin = 0.06 * min(width, height) - 0.001
    for x, y in chain.from_iterable(strokes):
        assert margin <= x <= width - margin
        assert margin <= y <= height - margin


@every_pattern
@every_size
def test_pattern_fills_the_page(pattern: PatternName, width: float, height: float) -> None:
    area = drawing_area(width, height)
    xs, ys = zip(*chain.from_iterable(drawn(pattern, width, height)), strict=True)
    assert max(xs) - min(xs) > 0.75 * area.width
    assert max(ys) - min(ys) > 0.75 * area.height


@every_pattern
def test_a_sketch_is_the_drawing_at_fewer_points(pattern: PatternName) -> None:
    whole, sketch = drawn(pattern, 105, 148), drawn_strokes(sketch_pattern(pattern, 105, 148, SEED))
    assert len(sketch) == len(whole)
    for stroke, fewer in zip(whole, sketch, strict=True):
        assert (fewer[0], fewer[-1]) == (stroke[0], stroke[-1])
        rest = iter(stroke)
        assert all(point in rest for point in fewer)  # in their order
    assert len(list(chain(*sketch))) < 0.9 * len(list(chain(*whole)))


def test_simplifying_keeps_the_line_within_the_tolerance() -> None:
    wave = [(x / 10, sin(x / 10)) for x in range(1000)]
    fewer = simplify(wave, 0.05)
    assert len(fewer) < 200
    for (ax, ay), (bx, by) in pairwise(fewer):
        for x, y in wave[wave.index((ax, ay)) : wave.index((bx, by))]:
            # 0.05 across the line, which is no steeper than 45 degrees.
            assert abs(ay + (by - ay) * (x - ax) / (bx - ax) - y) < 0.05 * sqrt(2)
    assert simplify([(0, 0), (5, 0)], 0.1) == [(0, 0), (5, 0)]
    loop = [(0.0, 0.0), (5.0, 0.0), (5.0, 5.0), (0.0, 5.0), (0.0, 0.0)]
    assert simplify(loop, 0.1) == loop


@every_pattern
def test_same_seed_same_drawing_and_another_seed_another(pattern: PatternName) -> None:
    first = draw_pattern(pattern, 40, 60, seed=1)
    assert draw_pattern(pattern, 40, 60, seed=1) == first
    # Not by its title alone, which names the seed.
    assert drawn_strokes(draw_pattern(pattern, 40, 60, seed=2)) != drawn_strokes(first)


@every_pattern
def test_drawing_matches_its_reference(pattern: PatternName) -> None:
    assert difference(stored_drawing(pattern), drawing(pattern, *REFERENCE)) == ''


@pytest.mark.parametrize('pattern', ['truchet', 'hilbert'])
def test_the_comparison_sees_a_change(pattern: PatternName) -> None:
    stored = stored_drawing(pattern)
    first, _, rest = stored.partition('<polyline points="')
    point, _, others = rest.partition(' ')
    x, y = (float(part) for part in point.split(','))
    moved = f'{first}<polyline points="{x},{y + 0.02:.3f} {others}'
    assert difference(stored, moved) == 'stroke 0 is 0.020 mm off'
    shorter = f'{first}<polyline points="{others}'
    assert 'points instead of' in difference(stored, shorter)
    more = stored.replace('</g>', '<polyline points="0,0 1,1" />\n</g>')
    assert 'strokes instead of' in difference(stored, more)
    red = stored.replace('stroke="black"', 'stroke="red"')
    assert difference(stored, red) == 'the same strokes in another dress'


@every_pattern
def test_strokes_that_touch_are_joined(pattern: PatternName) -> None:
    strokes = drawn(pattern, 105, 148)
    assert len(join_strokes(strokes)) == len(strokes)


@pytest.mark.parametrize('pattern', ['spiral', 'hilbert', 'lissajous'])
def test_one_line_patterns_never_lift_the_pen(pattern: PatternName) -> None:
    assert measure(drawn(pattern, 105, 148)).lifts == 0


@pytest.mark.parametrize('pattern', ['phyllotaxis', 'flow_field', 'truchet', 'contours'])
def test_the_pen_travels_a_fraction_of_what_it_draws(pattern: PatternName) -> None:
    report = measure(drawn(pattern, 105, 148))
    assert report.travel < 0.15 * report.drawn


def test_the_drawing_and_the_log_report_the_pen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger='libraries.drawing.patterns'):
        desc = ET.fromstring(draw_pattern('truchet', 105, 148, 3)).findtext(f'{SVG}desc')
    report = str(measure(pattern_strokes('truchet', 105, 148, 3)))
    assert desc == report
    assert 'pen lifts' in report
    assert 'm pen-up travel' in report
    assert caplog.messages == [f'truchet 105 x 148 mm, seed 3: {report}']


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (('doodle', 100, 100), "unknown pattern 'doodle': use one of spiral, grid"),
        (('grid', 19.9, 100), 'width must be 20 to 1200 mm, got 19.9'),
        (('grid', 100, 1201), 'height must be 20 to 1200 mm, got 1201'),
        (('grid', '100', 100), "width must be 20 to 1200 mm, got '100'"),
        (('grid', 100, float('nan')), 'height must be 20 to 1200 mm, got nan'),
    ],
)
def test_bad_input_says_what_is_allowed(arguments: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        draw_pattern(*arguments)


def test_measure_counts_lifts_and_travel() -> None:
    report = measure([[(0, 0), (3, 4)], [(3, 10), (3, 11)], [(0, 11), (0, 12)]])
    assert report == (2, 7, 9)
    assert str(measure([[(0, 0), (1000, 0)]])) == 'no pen lift, 1.00 m drawn, 0.00 m pen-up travel'
    assert measure([]) == (0, 0, 0)


def test_joining_turns_strokes_and_closes_loops() -> None:
    pieces = [[(1.0, 0.0), (2.0, 0.0)], [(1.0, 0.0), (0.0, 0.0)], [(2.0, 0.0), (2.0, 1.0)]]
    (line,) = join_strokes(pieces)
    assert line in ([(0, 0), (1, 0), (2, 0), (2, 1)], [(2, 1), (2, 0), (1, 0), (0, 0)])
    (loop,) = join_strokes([*pieces, [(2.0, 1.0), (0.0, 0.0)]])
    assert loop[0] == loop[-1]
    assert len(loop) == 5


def test_ordering_turns_strokes_and_enters_loops_where_the_pen_is() -> None:
    far = [(50.0, 0.0), (10.0, 0.0)]
    near = [(1.0, 0.0), (0.0, 0.0)]
    loop = [(60.0, 9.0), (70.0, 0.0), (52.0, 0.0), (60.0, 9.0)]
    assert order_strokes([loop, far, near]) == [
        [(0, 0), (1, 0)],
        [(10, 0), (50, 0)],
        [(52, 0), (60, 9), (70, 0), (52, 0)],
    ]
