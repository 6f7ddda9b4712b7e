import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libraries.drawing.builder import SVGBuilder

Draw = Callable[[SVGBuilder], SVGBuilder]

ELEMENTS: list[tuple[Draw, str]] = [
    (
        lambda svg: svg.rect(0, 0, 50, 50, {'fill': 'blue'}),
        '<rect x="0" y="0" width="50" height="50" fill="blue" />',
    ),
    (lambda svg: svg.line(1, 2, 3.5, -4), '<line x1="1" y1="2" x2="3.5" y2="-4" />'),
    (
        lambda svg: svg.circle(5, 6, 7, {'stroke-width': 0.30000000000000004}),
        '<circle cx="5" cy="6" r="7" stroke-width="0.3" />',
    ),
    (lambda svg: svg.ellipse(1, 2, 3, 4), '<ellipse cx="1" cy="2" rx="3" ry="4" />'),
    (
        lambda svg: svg.polyline([(0, 0), (10, 12.499999999), (-0.0, 1e-9)], {'fill': 'none'}),
        '<polyline points="0,0 10,12.5 0,0" fill="none" />',
    ),
    (lambda svg: svg.polyline([]), '<polyline points="" />'),
    (lambda svg: svg.path('M0,0 L1,1 Z'), '<path d="M0,0 L1,1 Z" />'),
    (lambda svg: svg.text(1, 2, 'a < b'), '<text x="1" y="2">a &lt; b</text>'),
    (lambda svg: svg.title('Tom & "Jerry"'), '<title>Tom &amp; &quot;Jerry&quot;</title>'),
    (lambda svg: svg.desc('3 > 2'), '<desc>3 &gt; 2</desc>'),
    (
        lambda svg: svg.begin_group({'stroke': 'red'}).line(0, 0, 1, 1).end_group(),
        '<g stroke="red">\n<line x1="0" y1="0" x2="1" y2="1" />\n</g>',
    ),
    (lambda svg: svg.begin_group().end_group(), '<g>\n</g>'),
    (
        lambda svg: svg.hershey_text(0, 0, 'L', 0.5),
        '<path d="M2,-10.5 2,0 M2,0 8,0" fill="none" stroke="black" />',
    ),
    (
        lambda svg: svg.begin_group({'stroke': 'red'}).hershey_text(9, 0, '-').end_group(),
        '<g stroke="red">\n<path d="M13,-9 31,-9" fill="none" />\n</g>',
    ),
]


@pytest.mark.parametrize(('draw', 'text'), ELEMENTS)
def test_element_text(draw: Draw, text: str) -> None:
    assert draw(SVGBuilder(210, 297)).elements == [text]


@pytest.mark.parametrize(('draw', 'text'), ELEMENTS)
def test_every_call_returns_the_builder(draw: Draw, text: str) -> None:
    svg = SVGBuilder(210, 297)
    assert draw(svg) is svg


def test_document() -> None:
    assert SVGBuilder(210, 297.5).rect(0, 0, 1, 2).to_string() == (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
        '<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297.5mm"'
        ' viewBox="0 0 210 297.5">\n'
        '<rect x="0" y="0" width="1" height="2" />\n'
        '</svg>\n'
    )


def test_width_and_height_are_those_given() -> None:
    svg = SVGBuilder(210, 297.5)
    assert (svg.width, svg.height) == (210, 297.5)


def test_attributes_stand_over_the_default_styles() -> None:
    svg = SVGBuilder(10, 10, {'stroke': 'black', 'fill': 'none'})
    svg.rect(0, 0, 1, 1, {'stroke': 'red', 'rx': 2}).begin_group().end_group()
    assert svg.elements == [
        '<rect x="0" y="0" width="1" height="1" stroke="red" fill="none" rx="2" />',
        '<g>\n</g>',
    ]


def test_groups_nest_and_count_as_one_element() -> None:
    svg = SVGBuilder(10, 10).begin_group().begin_group({'id': 'inner'}).circle(1, 1, 1)
    assert svg.elements == []
    svg.end_group().end_group()
    inner = '<g id="inner">\n<circle cx="1" cy="1" r="1" />\n</g>'
    assert svg.elements == [f'<g>\n{inner}\n</g>']


def test_a_group_left_open_is_an_error() -> None:
    with pytest.raises(ValueError, match=r'1 group\(s\) still open'):
        SVGBuilder(10, 10).begin_group().to_string()


def test_a_group_closed_twice_is_an_error() -> None:
    svg = SVGBuilder(10, 10).begin_group().end_group()
    with pytest.raises(ValueError, match='without a begin_group'):
        svg.end_group()


def test_a_title_comes_first_wherever_it_is_given() -> None:
    svg = SVGBuilder(10, 10).rect(0, 0, 1, 1).title('late')
    assert svg.elements[0] == '<title>late</title>'


@pytest.mark.parametrize(
    'bad', [math.nan, math.inf, -math.inf, '5', None, True, 10**400], ids=lambda bad: str(bad)[:9]
)
@pytest.mark.parametrize(
    'draw',
    [
        lambda svg, bad: svg.rect(bad, 0, 1, 1),
        lambda svg, bad: svg.line(0, 0, bad, 1),
        lambda svg, bad: svg.circle(0, 0, bad),
        lambda svg, bad: svg.text(0, bad, ''),
        lambda svg, bad: svg.hershey_text(0, bad, 'a'),
        lambda svg, bad: SVGBuilder(bad, 10),
    ],
)
def test_a_number_that_is_none_is_named(draw: Callable[..., Any], bad: object) -> None:
    svg = SVGBuilder(10, 10)
    with pytest.raises(ValueError, match=f'{str(bad)[:20]}.* is not a finite number'):
        draw(svg, bad)
    assert svg.elements == []


@pytest.mark.parametrize(
    ('points', 'complaint'),
    [
        ([(0, 0)] * 5000 + [(1, math.nan)], 'nan is not a finite number'),
        ([(math.inf, 0)], 'inf is not a finite number'),
        ([('a', 0)], "'a' is not a finite number"),
        ([(1, 2, 3)], r'\(1, 2, 3\) is not an \(x, y\) pair'),
        ([7], r'7 is not an \(x, y\) pair'),
        ([(1e307, 0)], 'too large'),
        ([(10**400, 0)], 'is not a finite number'),
    ],
)
def test_a_bad_point_is_named(points: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SVGBuilder(10, 10).polyline(points)


@pytest.mark.parametrize('draw', [
    lambda svg: svg.rect(0, 0, -1, 1),
    lambda svg: svg.rect(0, 0, 1, -1),
    lambda svg: svg.circle(0, 0, -1),
    lambda svg: svg.ellipse(0, 0, 1, -1),
    lambda svg: svg.hershey_text(0, 0, 'a', -1),
])  # fmt: skip
def test_a_size_is_not_negative(draw: Draw) -> None:
    with pytest.raises(ValueError, match='must not be negative, got -1'):
        draw(SVGBuilder(10, 10))


def test_a_drawing_needs_an_area() -> None:
    with pytest.raises(ValueError, match='needs an area'):
        SVGBuilder(0, 10)


@pytest.mark.parametrize(
    'name', ['', 'a b', 'x"y', '1a', 'onclick', 'ONLOAD', 'xmlns', 'a>b', 'stroke\n', 'xlink:href']
)
def test_attribute_names_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match='not an attribute'):
        SVGBuilder(10, 10).rect(0, 0, 1, 1, {name: 'x'})
    with pytest.raises(ValueError, match='not an attribute'):
        SVGBuilder(10, 10, {name: 'x'})
    with pytest.raises(ValueError, match='not an attribute'):
        SVGBuilder(10, 10).begin_group({name: 'x'})


def test_geometry_is_not_given_twice() -> None:
    with pytest.raises(ValueError, match='rect takes x as arguments'):
        SVGBuilder(10, 10).rect(0, 0, 1, 1, {'x': 5})


# What XML 1.0 cannot hold is replaced, and not what this is about.
xml_text = st.text(st.characters(exclude_categories=('Cs', 'Cc')) | st.sampled_from('\t\n\r'))


@given(xml_text)
def test_any_text_comes_back_from_a_parser(content: str) -> None:
    content = content.replace('\ufffe', '').replace('\uffff', '')
    svg = SVGBuilder(10, 10).text(0, 0, content, {'class': content}).title(content)
    title, text = ET.fromstring(svg.to_string())
    assert (title.text or '') == (text.text or '') == text.get('class') == content


@given(st.text())
def test_any_text_at_all_is_well_formed(content: str) -> None:
    svg = SVGBuilder(10, 10).path(content).text(0, 0, content).desc(content)
    ET.fromstring(svg.hershey_text(0, 0, content).to_string())


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), max_size=50))
def test_points_are_exact_to_a_thousandth(points: list[tuple[float, float]]) -> None:
    (polyline,) = ET.fromstring(SVGBuilder(10, 10).polyline(points).to_string())
    written = polyline.attrib['points'].split()
    assert len(written) == len(points)
    for pair, point in zip(written, points, strict=True):
        for text, value in zip(pair.split(','), point, strict=True):
            assert abs(float(text) - value) <= 0.000501
            assert len(text.partition('.')[2]) <= 3
            assert text not in ('-0', '-0.0')
            assert not text.endswith('.0')


def test_points_may_come_from_a_generator_of_any_length() -> None:
    svg = SVGBuilder(10, 10).polyline((i, i / 2) for i in range(10_001))
    assert svg.elements[0].count(' ') == 10_000 + 2
    assert svg.elements[0].endswith(' 9999,4999.5 10000,5000" />')


def test_the_font_can_be_changed() -> None:
    plain = SVGBuilder(10, 10).hershey_text(0, 0, 'a').elements
    script = SVGBuilder(10, 10).set_hershey_font('scripts').hershey_text(0, 0, 'a').elements
    assert plain != script
    with pytest.raises(ValueError, match=r"no Hershey font 'arial'.*futural"):
        SVGBuilder(10, 10).set_hershey_font('arial')
