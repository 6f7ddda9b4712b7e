import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from libraries.drawing.patterns import draw_pattern
from libraries.drawing.postcards import PostcardTemplate, draw_postcard
from libraries.files import output_dir
from qdjobs.errors import PermanentJobError
from workers.svg_tasks import (
    Drawing,
    batch_generate_svgs,
    generate_complex_svg,
    generate_postcard_svg,
)

SVG = '{http://www.w3.org/2000/svg}'
PANGRAM = 'Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. '

every_template = pytest.mark.parametrize('template', get_args(PostcardTemplate))


@pytest.fixture
def output() -> Path:
    folder = output_dir()
    folder.mkdir()
    return folder


def test_the_drawing_is_written_under_its_name(output: Path) -> None:
    path = generate_complex_svg(100, 140, 'hilbert', 'curve.svg', seed=4)
    assert Path(path) == output / 'curve.svg'
    assert Path(path).read_text('utf-8') == draw_pattern('hilbert', 100, 140, 4)


def test_a_bad_drawing_writes_nothing(output: Path) -> None:
    with pytest.raises(PermanentJobError, match='width must be 20 to 1200 mm'):
        generate_complex_svg(5, 140, 'hilbert', 'curve.svg')
    assert not list(output.iterdir())


def test_a_batch_returns_paths_in_order(output: Path) -> None:
    drawings: list[Drawing] = [
        {'width': 40, 'height': 50, 'pattern_type': 'grid', 'output_filename': 'b.svg'},
        {
            'width': 40,
            'height': 50,
            'pattern_type': 'spiral',
            'output_filename': 'a.svg',
            'seed': 9,
        },
    ]
    assert batch_generate_svgs(drawings) == [str(output / 'b.svg'), str(output / 'a.svg')]
    assert (output / 'a.svg').read_text('utf-8') == draw_pattern('spiral', 40, 50, 9)
    assert batch_generate_svgs([]) == []


def test_a_batch_does_not_write_a_file_twice(output: Path) -> None:
    one: Drawing = {
        'width': 40,
        'height': 50,
        'pattern_type': 'grid',
        'output_filename': 'same.svg',
    }
    with pytest.raises(PermanentJobError, match=r'more than one drawing .* same\.svg'):
        batch_generate_svgs([one, {**one, 'seed': 2}])
    assert not list(output.iterdir())


@pytest.mark.parametrize(
    'change',
    [{'width': 5}, {'height': 'tall'}, {'pattern_type': 'doodle'}, {'seed': 1.5}],
)
def test_the_types_refuse_a_bad_drawing_before_it_is_drawn(change: dict[str, Any]) -> None:
    good = {'width': 40, 'height': 50, 'pattern_type': 'grid', 'output_filename': 'a.svg'}
    assert msgspec.convert(good, Drawing)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(good | change, Drawing)


@every_template
def test_a_card_goes_to_a_file_of_its_own_every_time(template: PostcardTemplate) -> None:
    path = generate_postcard_svg('Zoë', 'Hello', template)
    assert generate_postcard_svg('Zoë', 'Hello', template) == path
    assert generate_postcard_svg('Zoë', 'Hello!', template) != path
    assert Path(path).read_text('utf-8') == draw_postcard('Zoë', 'Hello', template)


@every_template
@pytest.mark.parametrize('message', ['', 'Hi', PANGRAM * 5, 'm' * 200, 'a\n\nb\n' * 4, '<&"'])
@pytest.mark.parametrize('recipient', ['Zoë', 'W' * 50, 'Frau Æ\nAllée 1\n1050 Bruxelles'])
def test_every_stroke_stays_on_the_card(
    template: PostcardTemplate, recipient: str, message: str
) -> None:
    root = ET.fromstring(draw_postcard(recipient, message, template))
    assert (root.get('width'), root.get('height')) == ('148mm', '105mm')
    for element in root.iter():
        written = element.get('points') or element.get('d') or ''
        for pair in written.replace('M', '').split():
            x, y = map(float, pair.split(','))
            assert 2 < x < 146
            assert 2 < y < 103


@every_template
def test_words_make_a_difference_to_what_is_drawn(template: PostcardTemplate) -> None:
    def strokes(message: str) -> set[str]:
        card = ET.fromstring(draw_postcard('Zoë', message, template))
        return {path.attrib['d'] for path in card.iter(f'{SVG}path')}

    assert strokes('naïve') == strokes('naive')
    assert strokes('naïve') != strokes('native')


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (('Zoë', 'Hi', 'condolence'), "unknown template 'condolence': use one of plain, birth"),
        (('  ', 'Hi', 'plain'), 'needs a recipient'),
        (('Zoë', 'word ' * 2000, 'plain'), 'characters do not fit on'),
        (('Zoë', 'Cake \U0001f382!', 'birthday'), "no letters for '\U0001f382'"),
        (('日本', 'Hi', 'plain'), "no letters for '日本'"),
    ],
)
def test_a_bad_card_says_why(output: Path, arguments: Any, complaint: str) -> None:
    with pytest.raises(PermanentJobError, match=complaint):
        generate_postcard_svg(*arguments)
    assert not list(output.iterdir())
