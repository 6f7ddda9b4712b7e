"""The page as a visitor has it: a real Chromium, the real application, a real worker."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from playwright.sync_api import FloatRect, Page, WebError, expect
from redis import Redis

from app import create_app
from components.artboard.main import DRAW
from libraries.drawing.patterns import PATTERNS, draw_pattern
from libraries.files import output_dir, write_output
from libraries.job_manager import enqueue_background_job, list_jobs
from qdjobs.config import environment_config
from qdjobs.server import free_port
from tests.support.applications import use_redis
from tests.support.browsers import Chromium, require_chromium
from tests.support.jobs import require_living
from tests.support.processes import ROOT, horse_of
from tests.support.shared_worker import SharedWorker
from tests.support.svg_references import drawn_strokes

WIDTH = 320
PHONE: dict[str, Any] = {
    'viewport': {'width': WIDTH, 'height': 640},
    'has_touch': True,
    'is_mobile': True,
}
KEY = 'artboard.drawings'
CHOICES: dict[str, Any] = {'pattern': 'grid', 'paper': 'A4', 'orientation': 'portrait', 'seed': 1}
WIDTHS = (320, 390, 768, 1280, 1920)


Visit = Callable[..., Page]
Outage = Callable[[], AbstractContextManager[None]]
Motion = Literal['reduce', 'no-preference']


WATCH_STATES = """
addEventListener('DOMContentLoaded', () => {
  const bed = document.getElementById('bed');
  if (!bed) return;  // a drawing
  globalThis.states = [];
  new MutationObserver(() => states.push(bed.dataset.state)).observe(bed, {attributes: true});
});
"""


@pytest.fixture
def visit(browser: Chromium, address: str) -> Iterator[Visit]:
    """Open the page in a context of its own; a script that raises there fails the test.

    Most tests are of those who want no motion, and so don't wait for the pen. What the drawing bed
    goes through is in `states`.
    """
    errors: list[str] = []

    def note(error: WebError) -> None:
        errors.append(str(error.error))

    with ExitStack() as stack:

        def open_page(motion: Motion = 'reduce', **options: Any) -> Page:
            context = stack.enter_context(browser.context(reduced_motion=motion, **options))
            context.on('weberror', note)
            stack.callback(context.remove_listener, 'weberror', note)
            page = context.new_page()
            page.add_init_script(WATCH_STATES)
            page.goto(address)
            expect(page.get_by_role('button', name='Draw it')).to_be_visible()
            return page

        yield open_page
    assert errors == []


@pytest.fixture
def outage(app: Flask, settings: pytest.MonkeyPatch, redis_url: str) -> Outage:
    """In the block the application has no Redis."""

    @contextmanager
    def away() -> Iterator[None]:
        use_redis(settings, f'redis://127.0.0.1:{free_port()}/0', app)
        yield
        use_redis(settings, redis_url, app)

    return away


@pytest.fixture
def development(settings: pytest.MonkeyPatch, app: Flask) -> None:
    settings.setitem(app.config, 'DEBUG', True)


def choose(page: Page, pattern: str = 'hilbert', paper: str = 'A6', seed: str = '5') -> None:
    page.get_by_text(pattern.replace('_', ' '), exact=True).click()
    page.get_by_text(paper, exact=True).click()
    page.get_by_label('Seed', exact=True).fill(seed)


def draw(page: Page, **choices: str) -> None:
    choose(page, **choices)
    page.get_by_role('button', name='Draw it').click()


def hold_pen(page: Page) -> None:
    """Let no drawing be animated further until it is skipped."""
    page.evaluate('window.requestAnimationFrame = () => 0')


def status(page: Page, text: str) -> None:
    expect(page.get_by_role('status')).to_contain_text(text)


def problem(page: Page, text: str) -> None:
    expect(page.locator('#problem')).to_contain_text(text)


def picture_is_shown(page: Page) -> None:
    expect(page.locator('#bed')).to_have_attribute('data-state', 'drawn')
    picture = page.locator('#picture')
    expect(picture).to_be_visible()
    assert picture.evaluate('image => image.decode().then(() => image.naturalWidth)') > 0
    status(page, 'Ready: ')


def entries(page: Page) -> Any:
    return page.locator('#drawings li')


def width_of(page: Page) -> int:
    return int(page.evaluate('document.documentElement.scrollWidth'))


def is_wide(page: Page) -> bool:
    """Whether the picture lies as a landscape, in itself and on the page."""
    picture = page.locator('#picture')
    box = picture.bounding_box()
    assert box is not None
    wide = picture.evaluate('image => image.naturalWidth > image.naturalHeight')
    assert (box['width'] > box['height']) is wide
    return bool(wide)


# From click to picture


def test_from_click_to_picture(visit: Visit, shared_worker: SharedWorker, tmp_path: Path) -> None:
    page = visit('no-preference')
    said: list[str] = []
    page.on('console', lambda message: said.append(message.text))
    draw(page, pattern='hilbert', paper='A6', seed='5')
    picture_is_shown(page)
    assert not is_wide(page)
    assert 'plotting' in page.evaluate('states')  # the control of the test without motion
    status(page, 'no pen lift')
    expect(page.get_by_role('progressbar')).to_be_hidden()
    expect(entries(page)).to_have_count(1)
    expect(entries(page)).to_contain_text('ready')
    expect(entries(page).locator('img')).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role('link', name='Download SVG').click()
    saved = tmp_path / 'saved.svg'
    download.value.save_as(saved)
    assert saved.read_text() == draw_pattern('hilbert', 105, 148, seed=5)
    assert said == []  # nothing failed, nothing was refused by the page's own policy

    # Hundreds of strokes can be skipped and watched again.
    hold_pen(page)
    skip = page.get_by_role('button', name='Skip to the end')
    draw(page, pattern='truchet', paper='A3')
    skip.click()
    picture_is_shown(page)
    page.get_by_role('button', name='Watch it again').click()
    expect(page.locator('#bed')).to_have_attribute('data-state', 'plotting')
    skip.click()
    picture_is_shown(page)


@pytest.mark.slow
def test_every_pattern_can_be_chosen_and_is_sketched(visit: Visit) -> None:
    page = visit()
    options = page.get_by_role('group', name='Pattern').get_by_role('radio')
    values = options.evaluate_all('radios => radios.map(radio => radio.value)')
    assert values == list(PATTERNS)
    page.get_by_text('A6', exact=True).click()
    seed = page.get_by_label('Seed', exact=True)
    seed.fill('0')
    page.get_by_role('button', name='dice').click()
    expect(seed).not_to_have_value('0')
    seed.fill('5')
    for pattern in PATTERNS:
        page.get_by_text(pattern.replace('_', ' '), exact=True).click()
        expect(page.locator('#caption')).to_have_text(
            f'{pattern.replace("_", " ")}, A6 portrait, seed 5'
        )
        expect(page.locator('#preview')).to_be_visible()


@pytest.mark.slow
def test_each_drawing_is_in_the_list_as_soon_as_it_is_ready(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit('no-preference')
    hold_pen(page)
    with shared_worker.held():
        draw(page, seed='1')
        expect(entries(page)).to_have_count(1)
        draw(page, pattern='truchet', paper='A3', seed='2')
        expect(entries(page)).to_have_count(2)
    for drawn in (0, 1):
        expect(entries(page).nth(drawn).locator('img')).to_be_visible()
    # Before the pen has ended.
    expect(page.locator('#bed')).to_have_attribute('data-state', 'plotting')


@pytest.mark.slow
def test_the_sketch_is_the_drawing_at_fewer_points(visit: Visit, client: FlaskClient) -> None:
    page = visit()
    choose(page, pattern='hilbert', paper='A6', seed='5')
    expect(page.locator('#preview')).to_have_attribute('data-shows', 'hilbert, A6 portrait, seed 5')
    address = page.locator('#preview').evaluate('image => new URL(image.src).pathname')
    sketched = drawn_strokes(client.get(address).text)
    whole = drawn_strokes(draw_pattern('hilbert', 105, 148, seed=5))
    assert len(sketched) == len(whole) == 1
    assert set(sketched[0]) < set(whole[0])
    assert len(sketched[0]) > len(whole[0]) / 2  # its points are corners


@pytest.mark.parametrize(
    'address',
    ['A9/portrait/grid/1', 'A4/upright/grid/1', 'A4/portrait/doodle/1', 'A4/portrait/grid/-1',
     'A4/portrait/grid/1234567890', 'A4/portrait/grid/x'],
)  # fmt: skip
def test_there_are_sketches_of_choices_only(client: FlaskClient, address: str) -> None:
    assert client.get(f'/artboard/sketches/{address}.svg').status_code == 404
    assert client.get('/artboard/sketches/A6/landscape/grid/999999999.svg').status_code == 200


# Waiting, and cancelling


def test_a_drawing_that_waits_can_be_cancelled_on_the_bed_and_in_the_list(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    with shared_worker.held():
        draw(page, seed='1')
        cancel = page.get_by_role('button', name='Cancel', exact=True)
        cancel.focus()
        cancel.press('Enter')
        status(page, 'was cancelled')
        expect(cancel).to_be_hidden()
        expect(page.get_by_role('button', name='Draw it')).to_be_focused()
        expect(page.locator('#problem')).to_be_empty()

        draw(page, seed='2')
        page.get_by_role('button', name='Cancel hilbert, A6 portrait, seed 2').click()
        status(page, 'was cancelled')
        expect(entries(page)).to_have_count(2)
        assert [job['status'] for job in list_jobs()] == ['canceled', 'canceled']
    page.get_by_role('button', name='Forget hilbert, A6 portrait, seed 2').click()
    expect(entries(page)).to_have_count(1)


@pytest.mark.slow
def test_a_drawing_that_is_stopped_is_no_crash(visit: Visit, shared_worker: SharedWorker) -> None:
    page = visit()
    require_living(shared_worker)
    os.kill(horse_of(shared_worker.pid), signal.SIGSTOP)  # so that it never ends
    draw(page)
    status(page, 'A worker is drawing it')
    page.get_by_role('button', name='Cancel', exact=True).click()
    expect(page.get_by_role('status')).to_have_text('The drawing was stopped. Draw it again?')
    expect(page.locator('#problem')).to_be_empty()
    expect(entries(page)).to_contain_text('was stopped')
    expect(page.get_by_role('list', name='The life of the job')).to_contain_text(
        re.compile(r'stopped in [\d.]+ s1 attempt$')
    )


@pytest.mark.slow
def test_a_cancel_while_the_queue_is_away_is_done_when_it_is_back(
    visit: Visit, outage: Outage, shared_worker: SharedWorker
) -> None:
    page = visit()
    with shared_worker.held():
        draw(page)
        status(page, 'In the queue')
        cancel = page.get_by_role('button', name='Cancel', exact=True)
        with outage():
            cancel.click()
            status(page, 'Cancelling it')
            expect(page.locator('#problem')).to_have_text(
                'The queue of drawings is not available. The page keeps asking.'
            )
            expect(cancel).to_be_visible()
        status(page, 'was cancelled')
        expect(page.locator('#problem')).to_be_empty()
        expect(cancel).to_be_hidden()
        assert [job['status'] for job in list_jobs()] == ['canceled']


@pytest.mark.slow
def test_the_cancel_of_another_drawing_leaves_the_one_that_is_shown_alone(
    visit: Visit, outage: Outage, shared_worker: SharedWorker
) -> None:
    page = visit()
    draw(page, seed='1')
    picture_is_shown(page)
    with shared_worker.held():
        draw(page, seed='2')
        status(page, 'In the queue')
        page.locator('#drawings .open').last.click()
        picture_is_shown(page)
        with outage():
            with page.expect_response(lambda answer: answer.status == 503):
                page.get_by_role('button', name='Cancel hilbert, A6 portrait, seed 2').click()
            expect(entries(page).first).to_contain_text('to be cancelled')
            status(page, 'Ready: ')
            expect(page.locator('#problem')).to_be_empty()
        expect(entries(page).first).to_contain_text('was cancelled')
        status(page, 'Ready: ')


@pytest.mark.slow
def test_a_long_wait_is_shown_without_the_affairs_of_the_operator(visit: Visit) -> None:
    assert wait_long(visit()) == 'Still waiting …'


@pytest.mark.slow
def test_a_long_wait_in_development_names_the_command_that_starts_a_worker(
    visit: Visit, development: None
) -> None:
    assert 'flask --app app jobs worker' in wait_long(visit())


def wait_long(page: Page) -> str:
    page.clock.install()
    draw(page)
    status(page, 'In the queue')
    page.clock.fast_forward(16_000)
    status(page, 'Still waiting')
    return page.get_by_role('status').inner_text()


# The life of the job


@pytest.mark.slow
def test_the_strip_shows_the_life_of_the_job_that_is_shown(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    life = page.get_by_role('list', name='The life of the job')
    draw(page)
    picture_is_shown(page)
    for step in (r'queued \d\d:\d\d:\d\d', r'started after [\d.]+ s$', '2 of 2'):
        expect(life.get_by_text(re.compile(step))).to_be_visible()
    expect(life).to_contain_text(re.compile(r'finished in [\d.]+ s1 attempt$'))
    expect(page.locator('.strip a')).to_have_count(0)
    page.get_by_role('button', name='dice').click()
    expect(life).to_be_empty()
    entries(page).get_by_role('button').first.click()
    expect(life).to_contain_text('finished in')


@pytest.mark.slow
def test_in_development_it_names_the_worker_and_links_to_the_queue_and_the_docs(
    visit: Visit, shared_worker: SharedWorker, development: None
) -> None:
    page = visit()
    draw(page)
    expect(page.get_by_role('list', name='The life of the job')).to_contain_text(
        f' on {shared_worker.name}'
    )
    page.get_by_role('link', name='How a job travels').click()
    expect(page.get_by_text('# Architecture')).to_be_visible()


def test_a_worker_has_its_whole_name(visit: Visit) -> None:
    job = {'status': 'started', 'worker': 'a30feffd' * 4, 'failed_attempts': 0}
    moments = {'created_at': '2026-01-01T00:00:00Z', 'started_at': '2026-01-01T00:00:01Z'}
    assert life_of(visit(), job | moments)[1] == f'started after 1.00 s on {job["worker"]}'


def test_an_attempt_counts_once(visit: Visit) -> None:
    page = visit()
    for state, failed, attempts in (
        ('started', 0, '1 attempt'), ('started', 1, '2 attempts'), ('scheduled', 1, '1 attempt'),
        ('finished', 2, '3 attempts'), ('failed', 2, '2 attempts'), ('failed', 0, '1 attempt'),
        ('stopped', 1, '1 attempt'), ('canceled', 1, '1 attempt'),
    ):  # fmt: skip
        job = {'status': state, 'failed_attempts': failed, 'started_at': '2026-01-01T00:00:01Z'}
        assert life_of(page, job)[-1] == attempts, job


def life_of(page: Page, job: dict[str, Any]) -> list[str]:
    script = "job => import('/artboard/static/life.js').then(({ life }) => life(job))"
    return list(page.evaluate(script, job))


def test_the_dashboard_is_linked_in_development_if_there_is_one(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setenv('DASHBOARD_USERNAME', 'anna')
    settings.setenv('DASHBOARD_PASSWORD', 'x')
    environment_config.cache_clear()
    app = create_app()
    assert 'href="/rq' not in app.test_client().get('/').text
    app.debug = True
    text = app.test_client().get('/').text
    assert 'href="/rq/"' in text
    assert 'href="/rq/workers"' in text


def test_the_docs_are_served_in_development_only(client: FlaskClient, app: Flask) -> None:
    address = '/artboard/docs/architecture.md'
    assert client.get(address).status_code == 404
    app.config['DEBUG'] = True
    try:
        with client.get(address) as answer:
            assert (answer.status_code, answer.mimetype) == (200, 'text/plain')
        assert client.get('/artboard/docs/..%2FREADME.md').status_code == 404
    finally:
        app.config['DEBUG'] = False


# Urgent drawings, and too many


@pytest.mark.slow
def test_urgent_is_offered_where_it_works(
    visit: Visit, settings: pytest.MonkeyPatch, connection: Redis
) -> None:
    settings.setenv('ARTBOARD_URGENT', '1')
    page = visit()
    page.get_by_label('Urgent').check()
    draw(page)
    status(page, 'In the queue')
    assert connection.llen('rq:queue:high') == 1


def test_urgent_is_not_offered_where_it_is_refused(client: FlaskClient) -> None:
    assert 'name="urgent"' not in client.get('/').text


@pytest.mark.slow
def test_too_many_waiting_drawings_are_a_sentence(
    visit: Visit, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv('ARTBOARD_MAX_WAITING', '1')
    page = visit()
    draw(page)
    status(page, 'In the queue')
    page.get_by_role('button', name='Draw it').click()
    problem(page, '1 jobs are waiting already')


# A reload, another tab, another browser


def test_a_reload_in_the_middle_of_a_job_loses_nothing(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    with shared_worker.held():
        draw(page, pattern='grid', seed='77')
        status(page, 'In the queue')
        expect(page.get_by_role('progressbar')).to_be_visible()
        page.reload()
        status(page, 'In the queue')
        expect(page.get_by_role('progressbar')).to_be_visible()
        expect(page.get_by_role('radio', name='grid')).to_be_checked()
        expect(page.get_by_label('Seed', exact=True)).to_have_value('77')
        expect(entries(page)).to_contain_text('waiting for a worker')
    picture_is_shown(page)
    page.reload()
    picture_is_shown(page)
    expect(entries(page)).to_contain_text('ready')


@pytest.mark.slow
def test_drawings_are_kept_in_one_browser_newest_first_and_can_be_forgotten(visit: Visit) -> None:
    page, stranger = visit(), visit(**PHONE)
    tab = page.context.new_page()
    tab.goto(page.url)
    for seed in ('1', '2', '3'):
        draw(page, seed=seed)
        expect(entries(page)).to_have_count(int(seed))
    assert ['seed 3' in name for name in entries(page).all_inner_texts()] == [True, False, False]
    expect(entries(tab)).to_have_count(3)
    for word in ('Cancel', 'Forget'):
        page.get_by_role('button', name=f'{word} hilbert, A6 portrait, seed 2').click()
    expect(entries(page)).to_have_count(2)
    page.reload()
    expect(entries(page)).to_have_count(2)
    stranger.reload()
    expect(stranger.locator('#caption')).not_to_be_empty()
    expect(entries(stranger)).to_have_count(0)
    expect(stranger.get_by_text('Your drawings')).to_be_hidden()


@pytest.mark.slow
def test_a_second_tab_learns_the_end_of_a_drawing_when_the_first_is_closed(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    tab = page.context.new_page()
    tab.goto(page.url)
    with shared_worker.held():
        draw(page)
        status(page, 'In the queue')
        expect(entries(tab)).to_contain_text('waiting for a worker')
        page.close()
    expect(entries(tab)).to_contain_text('ready')
    expect(entries(tab).locator('img')).to_be_visible()


@pytest.mark.slow
def test_two_tabs_that_show_one_drawing_both_show_its_end(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    with shared_worker.held():
        draw(page)
        status(page, 'In the queue')
        tab = page.context.new_page()
        tab.goto(page.url)
        status(tab, 'In the queue')
        tab.route('**/api/**', lambda route: route.abort())
        problem(tab, 'The page keeps asking')
    picture_is_shown(page)
    tab.unroute('**/api/**')
    picture_is_shown(tab)


@pytest.mark.slow
def test_a_drawing_that_is_shown_is_followed_when_it_has_left_the_list(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    with shared_worker.held():
        draw(page)
        status(page, 'In the queue')
        page.evaluate('localStorage.clear()')
        expect(entries(page)).to_have_count(0)
    picture_is_shown(page)


@pytest.mark.slow
def test_a_full_list_keeps_the_drawings_that_wait(visit: Visit) -> None:
    page = visit()
    ended = ['finished', 'failed', 'finished', *['canceled'] * 6]
    assert states_after_adding(page, [*ended, *['queued'] * 3]) == [
        'queued', *ended[:-1], *['queued'] * 3,
    ]  # fmt: skip
    assert states_after_adding(page, ['started'] * 14) == ['queued', *['started'] * 14]
    assert states_after_adding(page, ['queued'] * 12 + ['failed'] * 2) == ['queued'] * 13


def states_after_adding(page: Page, states: list[str]) -> list[str]:
    """Add a drawing that waits to a list of drawings in these states."""
    listed = [{'id': str(n), 'state': each, 'choices': CHOICES} for n, each in enumerate(states)]
    keep(page, json.dumps(listed))
    script = """async (drawing) => {
      const { add, all } = await import('/artboard/static/drawings.js');
      add(drawing);
      return all().map(({ state }) => state);
    }"""
    return list(page.evaluate(script, {'id': 'new', 'state': 'queued', 'choices': CHOICES}))


# Errors in words


def test_a_queue_or_a_network_that_is_away_is_told_and_waited_for(
    visit: Visit, outage: Outage, shared_worker: SharedWorker
) -> None:
    page = visit()
    with outage():
        draw(page)
        problem(page, 'queue of drawings is not available')
        expect(page.get_by_role('progressbar')).to_be_hidden()
        expect(entries(page)).to_have_count(0)
    page.context.set_offline(True)
    page.get_by_role('button', name='Draw it').click()
    problem(page, 'server cannot be reached')
    with shared_worker.held():
        page.context.set_offline(False)
        page.get_by_role('button', name='Draw it').click()
        status(page, 'In the queue')
        expect(page.locator('#problem')).to_be_empty()
        page.context.set_offline(True)
        problem(page, 'The page keeps asking')
        page.context.set_offline(False)
    picture_is_shown(page)
    expect(page.locator('#problem')).to_be_empty()


@pytest.mark.slow
def test_what_is_wrong_is_told_at_its_field_or_in_the_server_s_words(
    visit: Visit, connection: Redis
) -> None:
    page = visit()
    field, error = page.get_by_label('Seed', exact=True), page.locator('#seed-error')
    for seed in ('', '1.5', '-1', '1234567890'):
        draw(page, seed=seed)
        expect(error, seed).to_contain_text('must be a whole number from 0 to')
        expect(field).to_be_focused()
        expect(field).to_have_attribute('aria-invalid', 'true')
        assert connection.dbsize() == 0
        field.fill('1')
        expect(error).to_be_empty()
    page.locator('[value=A6]').evaluate('option => { option.dataset.short = 5 }')
    draw(page)
    problem(page, '>= 20')


@pytest.mark.slow
def test_what_the_browser_remembers_need_not_make_sense(visit: Visit) -> None:
    page = visit()
    entry: dict[str, Any] = {'id': 'x', 'state': 'canceled', 'choices': CHOICES}
    broken: list[dict[str, Any]] = [
        {'choices': {}}, {'choices': None}, {'choices': CHOICES | {'pattern': 5}},
        {'choices': CHOICES | {'paper': None}}, {'choices': CHOICES | {'orientation': 'upright'}},
        {'choices': CHOICES | {'seed': 'many'}}, {'id': 1}, {'state': None}, {'error': {}},
        {'thumbnail': 1},
    ]  # fmt: skip
    texts = ['{', 'null', '{"a": 1}', json.dumps([None, 1, *(entry | each for each in broken)])]
    for nonsense in texts:
        keep(page, nonsense)
        page.reload()
        expect(page.get_by_role('status')).to_contain_text('Press “Draw it”')
        expect(entries(page), nonsense).to_have_count(0)
    keep(page, json.dumps([entry]))  # the control
    page.reload()
    expect(entries(page)).to_have_count(1)


@pytest.mark.slow
def test_what_the_browser_remembers_need_not_exist(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    write_output('file', '')
    job = enqueue_background_job(DRAW, 100, 100, 'grid', 'file/below-a-file.svg')
    remember(page, job.id)
    page.reload()
    problem(page, 'The drawing failed: PermanentJobError: ')
    expect(entries(page)).to_contain_text('failed')
    remember(page, 'no-such-job')
    page.reload()
    problem(page, 'no longer knows this drawing')
    expect(entries(page)).to_contain_text('no longer on the server')


def remember(page: Page, job_id: str) -> None:
    """As if this browser had asked for the job."""
    keep(page, json.dumps([{'id': job_id, 'state': 'queued', 'choices': CHOICES}]))


def keep(page: Page, text: str) -> None:
    page.evaluate('([key, text]) => localStorage.setItem(key, text)', [KEY, text])


# From a phone to a wide screen, in every light


@pytest.mark.slow
def test_it_fits_on_every_screen(visit: Visit) -> None:
    page = visit()
    for width in WIDTHS:
        page.set_viewport_size({'width': width, 'height': 900})
        assert width_of(page) == width
        assert page.evaluate(CLIPPED) == [], width
        assert box(page, 'h1')['x'] == box(page, 'form')['x'], width


def box(page: Page, part: str) -> FloatRect:
    found = page.locator(part).bounding_box()
    assert found
    return found


CLIPPED = """[...document.querySelectorAll('label span, legend, button')]
  .filter(each => each.scrollWidth > each.clientWidth + 1 && each.clientWidth)
  .map(each => each.textContent)"""


@pytest.mark.slow
@pytest.mark.parametrize('width', [320, 390])
def test_no_shadow_of_the_sheet_is_beside_the_bed(visit: Visit, width: int) -> None:
    page = visit(viewport={'width': width, 'height': 640})
    page.locator('.sheet').scroll_into_view_if_needed()
    sheet, bed = box(page, '.sheet'), box(page, '#bed')
    beside: FloatRect = sheet | {'x': 0, 'width': bed['x'] - 1}
    shot = Image.open(io.BytesIO(page.screenshot(clip=beside))).convert('RGB')
    assert len(shot.getcolors() or []) == 1


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_every_text_can_be_read(visit: Visit, scheme: str, shared_worker: SharedWorker) -> None:
    page = visit(color_scheme=scheme)
    draw(page)
    picture_is_shown(page)
    expect(entries(page)).to_contain_text('ready')
    assert page.evaluate(FAINT) == []
    page.get_by_role('button', name='Draw it').hover()
    page.get_by_label('Seed', exact=True).fill('')
    page.context.set_offline(True)
    expect(page.locator('#seed-error')).not_to_be_empty()
    page.get_by_label('Seed', exact=True).fill('7')
    page.get_by_role('button', name='Draw it').click()
    problem(page, 'cannot be reached')
    assert page.evaluate(FAINT) == []
    remember(page, 'no-such-job')
    page.context.set_offline(False)
    page.reload()
    problem(page, 'no longer knows')
    assert page.evaluate(FAINT) == []
    page.evaluate("document.documentElement.style.setProperty('--muted', 'var(--desk)')")
    assert 'Stored in this browser only' in str(page.evaluate(FAINT))  # the control


# Texts with less contrast to what is behind them than WCAG's level AA asks for.
FAINT = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => [.2126, .7152, .0722].reduce((sum, weight, n) => {
    const part = colour[n] / 255;
    return sum + weight * (part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
  }, 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(each).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const [low, high] = [light(numbers(getComputedStyle(element).color)), light(behind(element))]
      .sort((a, b) => a - b);
    const contrast = (high + .05) / (low + .05);
    if (contrast < 4.5) faint.push(`${texts.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


@pytest.mark.slow
def test_without_javascript_the_first_screen_says_so(visit: Visit) -> None:
    page = visit(viewport={'width': 320, 'height': 640}, java_script_enabled=False)
    expect(page.locator('noscript p')).to_be_in_viewport(ratio=1)


# A phone, a keyboard


@pytest.mark.slow
def test_it_fits_on_a_phone_and_moves_nothing_for_who_wants_no_motion(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit(**PHONE)
    assert width_of(page) == WIDTH
    page.get_by_text('landscape', exact=True).tap()
    draw(page, pattern='phyllotaxis', seed='123456789')
    picture_is_shown(page)
    assert width_of(page) == WIDTH
    assert is_wide(page)
    assert 'plotting' not in page.evaluate('states')
    expect(page.locator('#picture')).to_be_in_viewport()
    page.get_by_text('portrait', exact=True).tap()
    assert width_of(page) == WIDTH


@pytest.mark.slow
def test_a_keyboard_is_enough(visit: Visit, shared_worker: SharedWorker) -> None:
    page = visit('no-preference')
    hold_pen(page)
    keys = page.keyboard
    keys.press('Tab')
    keys.press('ArrowRight')
    expect(page.get_by_role('radio', name='grid')).to_be_focused()
    assert_focus_is_visible(page)
    keys.press('Tab')
    keys.press('ArrowRight')
    expect(page.get_by_role('radio', name='A5')).to_be_checked()
    assert_focus_is_visible(page)
    keys.press('Tab')
    keys.press('ArrowDown')
    expect(page.get_by_role('radio', name='landscape')).to_be_checked()
    keys.press('Tab')
    keys.press('Control+A')
    keys.type('42')
    keys.press('Tab')
    expect(page.get_by_role('button', name='dice')).to_be_focused()
    keys.press('Tab')
    assert_focus_is_visible(page)
    keys.press('Enter')
    skip = page.get_by_role('button', name='Skip to the end')
    expect(skip).to_be_visible()
    keys.press('Tab')
    expect(skip).to_be_focused()
    keys.press('Enter')
    picture_is_shown(page)
    expect(page.get_by_role('button', name='Watch it again')).to_be_focused()
    expect(page.locator('#caption')).to_have_text('grid, A5 landscape, seed 42')
    keys.press('Shift+Tab')
    expect(page.get_by_role('link', name='Download SVG')).to_be_focused()
    assert_focus_is_visible(page)


def assert_focus_is_visible(page: Page) -> None:
    """An outline on what has the focus or, where that is an invisible radio, on its neighbour."""
    script = """() => {
      const element = document.activeElement;
      const visible = element.type === 'radio' ? element.nextElementSibling : element;
      return getComputedStyle(visible).outlineStyle;
    }"""
    assert page.evaluate(script) == 'solid'


# No script but the page's own


HOSTILE = """<svg xmlns="http://www.w3.org/2000/svg" onload="console.log('it ran')">
<script>console.log('it ran')</script><rect width="9" height="9" fill="red"/></svg>"""


@pytest.mark.slow
def test_a_drawing_runs_no_script_and_one_that_is_gone_is_told(
    visit: Visit, shared_worker: SharedWorker
) -> None:
    page = visit()
    home = page.url
    draw(page)
    picture_is_shown(page)
    file = next(output_dir().iterdir())
    file.write_text(HOSTILE)
    address = str(page.locator('#picture').evaluate('image => image.src'))
    said: list[str] = []
    page.on('console', lambda message: said.append(message.text))
    page.goto(address)
    assert 'it ran' not in said
    # The control, without our headers: it is they that stop it.
    page.route(address, lambda route: route.fulfill(body=HOSTILE, content_type='image/svg+xml'))
    page.goto(f'{address}?again')
    page.goto(address)
    assert 'it ran' in said
    page.unroute(address)

    file.unlink()
    page.goto(home)
    problem(page, 'file of this drawing is gone')
    expect(entries(page)).to_contain_text('no longer on the server')


def test_the_page_takes_no_script_from_anywhere_else(client: FlaskClient) -> None:
    answer = client.get('/')
    assert (answer.status_code, answer.mimetype) == (200, 'text/html')
    policy = answer.headers['Content-Security-Policy']
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert 'unsafe' not in policy
    assert answer.headers['X-Content-Type-Options'] == 'nosniff'
    assert '://' not in answer.text


@pytest.mark.parametrize('pattern', PATTERNS)
def test_a_thumbnail_is_an_image_that_a_browser_keeps(client: FlaskClient, pattern: str) -> None:
    answer = client.get(f'/artboard/thumbnails/{pattern}.svg')
    assert (answer.status_code, answer.mimetype) == (200, 'image/svg+xml')
    assert 'sandbox' in answer.headers['Content-Security-Policy']
    assert answer.cache_control.max_age


@pytest.mark.parametrize('name', ['doodle', '..%2Fapp', 'Spiral', '%00'])
def test_there_is_a_thumbnail_of_patterns_only(client: FlaskClient, name: str) -> None:
    assert client.get(f'/artboard/thumbnails/{name}.svg').status_code == 404


# Without Chromium


def test_without_chromium_ci_fails_and_others_are_told(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setenv('CI', 'true')
    with pytest.raises(pytest.fail.Exception, match='There is no Chromium'):
        require_chromium(None)
    settings.setenv('CI', '')
    with pytest.raises(pytest.skip.Exception, match='There is no Chromium'):
        require_chromium(None)
    assert require_chromium('/bin/chromium') == '/bin/chromium'


@pytest.mark.slow  # each starts a session
@pytest.mark.parametrize(('ci', 'outcome'), [('true', '1 error'), ('', '1 skipped')])
def test_a_session_without_chromium_says_so(ci: str, outcome: str) -> None:
    run = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', f'{__file__}::{FIRST}'],
        env=os.environ | {'PATH': str(Path(sys.executable).parent), 'CI': ci},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert outcome in run.stdout, run.stdout + run.stderr
    assert 'NO CHROMIUM' in run.stdout
    assert (run.returncode != 0) is (ci == 'true')


FIRST = test_from_click_to_picture.__name__
