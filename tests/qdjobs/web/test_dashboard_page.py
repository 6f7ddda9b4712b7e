"""The dashboard as an operator has it: a real Chromium, the real application, a real worker."""

import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask, Response, request
from playwright.sync_api import ConsoleMessage, Dialog, Page, Route, WebError, expect
from redis import Redis
from rq import Queue

from app import create_app
from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    get_job_status,
    retry_job,
    wait_for_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from qdjobs.web.dashboard import blueprint
from tests.support.applications import serving, shared_app, use_redis
from tests.support.browsers import Chromium
from tests.support.dashboard import bare_app, finished_with, running
from tests.support.processes import eventually
from tests.support.proxy import proxy_to
from tests.support.shared_worker import SharedWorker

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning:flask')  # of the bare one

# Each would call pwned() if some page took it for more than text.
MARKUP = (
    "<img src=x onerror=pwned()><script>pwned()</script>\"><svg onload=pwned()>');pwned();('"
    '<%= pwned() %>{{ pwned() }}<a href="javascript:pwned()">&amp;</a>'
)
AS_IT_COMES = blueprint.POLL_INTERVAL
COUNT = 'window.calls = 0; window.pwned = () => { window.calls += 1 }'

Visit = Callable[..., Page]
Answer = tuple[str, int]  # a method, and the status that it got


@pytest.fixture(autouse=True)
def login(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(blueprint, 'POLL_INTERVAL', 200)
    settings.setenv('DASHBOARD_USERNAME', 'anna')
    settings.setenv('DASHBOARD_PASSWORD', 'pass:word')
    environment_config.cache_clear()


@pytest.fixture
def said() -> list[str]:
    """What the console has said since the test began."""
    return []


@pytest.fixture
def visit(browser: Chromium, said: list[str]) -> Iterator[Visit]:
    """Open an address in a context of its own, logged in; `pwned()` is counted there."""

    def note_message(message: ConsoleMessage) -> None:
        said.append(message.text)

    def note_error(error: WebError) -> None:
        said.append(str(error.error))

    with ExitStack() as stack:

        def open_page(address: str, **options: Any) -> Page:
            login = {'username': 'anna', 'password': 'pass:word'}
            context = stack.enter_context(browser.context(**{'http_credentials': login} | options))
            context.on('console', note_message)
            context.on('weberror', note_error)
            stack.callback(context.remove_listener, 'console', note_message)
            stack.callback(context.remove_listener, 'weberror', note_error)
            page = context.new_page()
            page.add_init_script(COUNT)
            page.goto(address)
            return page

        yield open_page


def calls(page: Page) -> int:
    return int(page.evaluate('window.calls'))


# What an operator does


@pytest.mark.slow
def test_who_does_not_log_in_sees_nothing(visit: Visit, address: str) -> None:
    page = visit(f'{address}healthz', http_credentials={'username': 'anna', 'password': 'wrong'})
    answer = page.goto(f'{address}rq')
    assert answer is not None
    assert answer.status == 401
    expect(page.locator('table')).to_have_count(0)


def test_an_operator_finds_a_failed_job_and_requeues_it(
    visit: Visit, address: str, said: list[str], shared_worker: SharedWorker, tmp_path: Path
) -> None:
    lines = tmp_path / 'late' / 'lines'
    job = enqueue_background_job('tests.support.tasks.append', str(lines), 'at last')
    wait_for_job(job.id, 60)
    page = visit(f'{address}rq')
    assert page.url == f'{address}rq/'
    page.get_by_role('link', name='Workers').click()
    worker = page.locator('tbody tr')
    expect(worker).to_have_count(1)
    expect(worker).to_contain_text('high, default, low')
    expect(worker).to_contain_text('idle')

    page.get_by_role('link', name='Queues').click()
    row = page.locator('tbody tr').filter(has_text='default')
    row.locator('[data-label=Failed] a').click()
    failed = page.locator('tbody tr')
    expect(failed).to_contain_text('FileNotFoundError')
    failed.get_by_role('link', name=job.id).click()
    expect(page.locator('.traceback')).to_contain_text('Traceback (most recent call last)')
    lines.parent.mkdir()
    page.get_by_role('button', name='Requeue').click()
    expect(page.locator('#job')).to_contain_text('finished')
    expect(page.locator('#done')).to_have_text('Requeued.')
    expect(page).to_have_url(f'{address}rq/job/{job.id}')
    assert lines.read_text() == 'at last\n'
    assert said == []


def answer_questions(page: Page, yes: bool = True) -> list[str]:
    """Answer what a page asks; the questions."""
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        if yes:
            dialog.accept()
        else:
            dialog.dismiss()

    page.on('dialog', answer)
    return asked


def expect_done(page: Page, text: str) -> None:
    """Wait until a page says what was done, and can ask the next question."""
    expect(page.locator('#done')).to_have_text(text)
    expect(page.get_by_label('Live')).to_be_visible()  # its script has run


@pytest.mark.slow
def test_requeueing_and_deleting_from_the_list(
    visit: Visit, address: str, said: list[str], shared_worker: SharedWorker
) -> None:
    jobs = [enqueue_background_job('tests.support.tasks.fail', str(n)) for n in range(4)]
    for job in jobs:
        wait_for_job(job.id, 60)
    with shared_worker.held():
        page = visit(f'{address}rq/queue/default/failed')
        asked = answer_questions(page)
        table = page.locator('tbody tr')
        expect(table).to_have_count(4)
        table.filter(has_text=jobs[0].id).get_by_role('button', name='Requeue').click()
        expect_done(page, 'Requeued.')
        assert get_job_status(jobs[0].id)['status'] == 'queued'
        assert asked == []
        table.filter(has_text=jobs[1].id).get_by_role('button', name='Delete').click()
        expect_done(page, 'Deleted.')
        expect(table.filter(has_text=jobs[1].id)).to_have_count(0)
        page.get_by_role('button', name='Requeue all').click()
        expect_done(page, 'Requeued 2 jobs.')
        assert {get_job_status(job.id)['status'] for job in jobs[2:]} == {'queued'}
        page.goto(f'{address}rq/queue/default/queued')
        expect(table).to_have_count(3)
        page.get_by_role('button', name='Cancel all').click()
        expect(table).to_have_text('No jobs.')
        assert {get_job_status(job.id)['status'] for job in jobs if job != jobs[1]} == {'canceled'}
        assert asked == [
            f'Delete job {jobs[1].id} with its outcome?',
            'Requeue all 2 jobs?',
            'Cancel all 3 jobs?',
        ]
    assert said == []


def test_what_cannot_be_undone_is_done_after_a_question_only(visit: Visit, address: str) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    page = visit(f'{address}rq/job/{job.id}')
    asked = answer_questions(page, yes=False)
    page.get_by_role('button', name='Cancel').click()
    assert asked == [f'Cancel job {job.id}?']
    assert get_job_status(job.id)['status'] == 'queued'


def test_without_scripts_it_works_too(visit: Visit, address: str) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    page = visit(f'{address}rq/queue/default/queued', java_script_enabled=False)
    page.get_by_role('button', name='Cancel', exact=True).click()
    expect(page.locator('#done')).to_have_text('Canceled.')
    expect(page.locator('tbody')).to_have_text('No jobs.')
    assert get_job_status(job.id)['status'] == 'canceled'


@pytest.mark.slow
def test_without_scripts_all_jobs_of_a_registry_are_changed_after_a_question_only(
    visit: Visit, address: str
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    page = visit(f'{address}rq/queue/default/queued?size=50', java_script_enabled=False)
    page.get_by_role('button', name='Cancel all').click()
    expect(page.locator('h1')).to_have_text('Cancel all 1 job?')
    page.get_by_role('link', name='No, back').click()
    expect(page).to_have_url(f'{address}rq/queue/default/queued?page=1&order=newest&size=50')
    assert get_job_status(job.id)['status'] == 'queued'
    page.get_by_role('button', name='Cancel all').click()
    page.get_by_role('button', name='Yes').click()
    expect(page.locator('#done')).to_have_text('Canceled 1 job.')
    assert get_job_status(job.id)['status'] == 'canceled'


def test_a_stale_page_deletes_no_job_that_runs_again(
    visit: Visit, address: str, shared_worker: SharedWorker
) -> None:
    job = enqueue_background_job('tests.support.tasks.fail', 'at first')
    wait_for_job(job.id, 60)
    page = visit(f'{address}rq/queue/default/failed')
    page.get_by_label('Live').uncheck()
    answer_questions(page)
    with shared_worker.held():
        retry_job(job.id)
        page.get_by_role('button', name='Delete', exact=True).click()
        expect(page.locator('#done')).to_contain_text('nothing was changed')
        expect(page).to_have_url(f'{address}rq/job/{job.id}')
        expect(page.locator('#job .state')).to_have_text('queued')
        assert get_job_status(job.id)['status'] == 'queued'


@pytest.mark.slow
def test_a_running_job_is_shown_with_its_progress(
    visit: Visit,
    settings: pytest.MonkeyPatch,
    said: list[str],
    shared_worker: SharedWorker,
    tmp_path: Path,
) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.progress_tasks')
    environment_config.cache_clear()
    job = enqueue_background_job(
        'tests.support.progress_tasks.stop_half_way', str(tmp_path / 'gate')
    )
    with serving(shared_app(create_app)) as address:
        page = visit(f'{address}rq/workers')
        expect(page.locator('tbody')).to_contain_text('stop_half_way(')
        page.locator('tbody').get_by_role('link').click()
        expect(page.locator('#job .progress')).to_have_text('2 of 4 · half-way')
        cancel_job(job.id)
        expect(page.locator('#job .state')).to_have_text('stopped')
    assert said == []


# What the page does by itself


@pytest.mark.slow
def test_a_page_stays_as_its_reader_left_it(
    visit: Visit, address: str, shared_worker: SharedWorker
) -> None:
    job = enqueue_background_job(
        'tests.support.tasks.fail', 'wide', job_max_retries=1, job_retry_delay=0
    )
    wait_for_job(job.id, 60)
    page = visit(f'{address}rq/job/{job.id}')
    first, last = page.locator('summary').nth(0), page.locator('summary').nth(1)
    first.click()
    last.focus()
    page.mouse.move(0, 0)
    get_connection().hset(f'rq:job:{job.id}', 'description', 'has changed')
    expect(page.locator('.call')).to_have_text('has changed')
    assert page.locator('details[open]').count() == 2
    expect(last).to_be_focused()


@pytest.mark.slow
def test_a_page_that_is_not_live_does_not_change(visit: Visit, address: str) -> None:
    page = visit(f'{address}rq/queue/default/queued')
    page.get_by_label('Live').uncheck()
    enqueue_background_job('tests.support.tasks.add', 1)
    page.get_by_role('link', name='Workers').click()
    page.go_back()
    expect(page.locator('tbody tr[data-job]')).to_have_count(1)  # a new page is as things are
    other = enqueue_background_job('tests.support.tasks.add', 1)
    expect(page.get_by_label('Live')).not_to_be_checked()
    page.wait_for_timeout(600)
    expect(page.locator('tbody tr[data-job]')).to_have_count(1)
    page.get_by_label('Live').check()
    expect(page.locator(f'[data-job="{other.id}"]')).to_have_count(1)


@pytest.mark.slow
def test_a_page_that_may_store_nothing_is_live(visit: Visit, address: str) -> None:
    page = visit('about:blank')
    page.add_init_script(
        """Object.defineProperty(window, 'sessionStorage',
            {get() { throw new DOMException('denied', 'SecurityError') }})"""
    )
    page.goto(f'{address}rq/queue/default/queued')
    expect(page.get_by_label('Live')).to_be_checked()
    enqueue_background_job('tests.support.tasks.add', 1)
    expect(page.locator('tbody tr[data-job]')).to_have_count(1)
    page.get_by_label('Live').uncheck()


@pytest.mark.slow
def test_a_page_says_that_it_is_held_while_text_is_selected(visit: Visit, address: str) -> None:
    page = visit(f'{address}rq/queue/default/queued')
    held, jobs = page.locator('#held'), page.locator('tbody tr[data-job]')
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    expect(held).to_be_hidden()  # there is nothing to show
    enqueue_background_job('tests.support.tasks.add', 1)
    expect(held).to_be_visible()
    expect(jobs).to_have_count(0)
    page.evaluate('getSelection().removeAllRanges()')
    expect(jobs).to_have_count(1)
    expect(held).to_be_hidden()


def test_a_page_waits_less_than_two_seconds_before_it_says_that_there_is_no_answer() -> None:
    """From an answer to the next question, and for that one's answer: no test has to be as fast."""
    script = Path(blueprint.__file__).with_name('static') / 'dashboard.js'
    (late,) = re.findall(r'const LATE = (\d+);', script.read_text())
    assert AS_IT_COMES + int(late) < 2000


@pytest.mark.usefixtures('impatient')
@pytest.mark.parametrize('hangs', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_outage_of_redis_is_shown_and_ends_by_itself(
    visit: Visit, settings: pytest.MonkeyPatch, redis_url: str, hangs: bool
) -> None:
    with proxy_to(redis_url) as proxy:
        use_redis(settings, proxy.url)
        with serving(create_app()) as address:
            page = visit(f'{address}rq/')
            notice, table = page.locator('#notice'), page.locator('tbody')
            expect(notice).to_be_hidden()
            if hangs:
                proxy.hang = True
            else:
                proxy.cut_after = b'rq:'
            expect(notice).to_contain_text('answer')
            expect(table).to_be_visible()  # what was known last
            page.reload()
            expect(page.locator('h1')).to_have_text('The job queue is away')
            expect(page.locator('#problem')).to_contain_text('tries again by itself')
            proxy.hang, proxy.cut_after = False, None
            expect(table).to_contain_text('default')
            expect(notice).to_be_hidden()
            expect(page).to_have_title('Queues · Background jobs')


@pytest.mark.slow
def test_a_button_that_redis_did_not_answer_leads_back_by_itself(
    visit: Visit, settings: pytest.MonkeyPatch, redis_url: str
) -> None:
    with proxy_to(redis_url) as proxy:
        use_redis(settings, proxy.url)
        with serving(create_app()) as address:
            job = enqueue_background_job('tests.support.tasks.add', 1)
            page = visit(f'{address}rq/job/{job.id}')
            answer_questions(page)
            proxy.cut_after = b'rq:'
            page.get_by_role('button', name='Cancel').click()
            expect(page.locator('#problem')).to_contain_text('leads back by itself')
            proxy.cut_after = None
            expect(page.locator('#job .state')).to_be_visible()
            expect(page).to_have_url(f'{address}rq/job/{job.id}')


@pytest.mark.slow
def test_an_answer_that_does_not_come_is_missed(visit: Visit, address: str) -> None:
    page = visit(f'{address}rq/')
    held: list[Route] = []
    page.route('**/rq/', lambda route: route.continue_() if held else held.append(route))
    expect(page.locator('#notice')).to_contain_text('There is no answer yet')
    held[0].continue_()
    expect(page.locator('#notice')).to_be_hidden()


def test_an_outage_of_the_application_is_shown_and_ends_by_itself(
    visit: Visit, address: str
) -> None:
    page = visit(f'{address}rq/')
    page.context.set_offline(True)
    expect(page.locator('#notice')).to_contain_text('The application does not answer')
    page.context.set_offline(False)
    expect(page.locator('#notice')).to_be_hidden()


# What is seen


@pytest.mark.slow
@pytest.mark.parametrize('width', [1440, pytest.param(768, marks=pytest.mark.slow), 390])
def test_all_of_it_is_inside_the_frame(
    visit: Visit, address: str, hostile: dict[str, str], connection: Redis, width: int
) -> None:
    broken = hostile['exception'].rpartition('/')[2]
    connection.hset(f'rq:job:{broken}', 'description', 'no_place_to_break' * 20)
    connection.xadd(
        f'rq:results:{broken}', {'type': 2, 'exc_string': pack('ValueError: ' + 'x' * 300)}
    )
    page = visit('about:blank', viewport={'width': width, 'height': 900})
    for name in ('queues', 'workers', 'failed', 'exception'):
        page.goto(address + hostile[name])
        boxes = page.evaluate(BOXES)
        assert boxes, name
        assert [box for box in boxes if box['left'] < 0 or box['right'] > width] == [], name
        assert page.evaluate('document.documentElement.scrollWidth') <= width, name
        cells = [box for box in boxes if box['tag'] == 'TD']
        assert all(box['right'] - box['left'] >= 60 for box in cells), name  # a few words fit
        texts = [box for box in boxes if box['tag'] in ('H1', 'TABLE', 'DL')]
        for above, below in pairwise(sorted(texts, key=lambda box: float(box['top']))):
            assert above['bottom'] <= below['top'], name


@pytest.mark.slow
@pytest.mark.parametrize('width', [320, 390, pytest.param(768, marks=pytest.mark.slow)])
def test_each_count_is_one_line_inside_its_card(visit: Visit, address: str, width: int) -> None:
    page = visit('about:blank', viewport={'width': width, 'height': 900})
    page.goto(f'{address}rq/')
    page.get_by_label('Live').uncheck()
    texts = page.evaluate(COUNTS)
    assert len(texts) > 20
    for text in texts:
        assert text['left'] <= text['right'] <= text['card'], text
        assert text['height'] < 30, text
        assert text['label'] + 4 <= text['left'], text
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    tops = [page.get_by_role('link', name=name).bounding_box() for name in ('Queues', 'Workers')]
    assert len({round(box['y']) for box in tops if box}) == 1  # they are in one line


# Each count as if it were a long one, with the ends of its label and of its card.
COUNTS = """() => [...document.querySelectorAll('.counts td a')].map((count) => {
    count.textContent = '1,234,567';
    const {left, right, height} = count.getBoundingClientRect();
    const cell = count.parentElement.getBoundingClientRect();
    const canvas = document.createElement('canvas').getContext('2d');
    const style = getComputedStyle(count.parentElement);
    canvas.font = style.font;
    const label = cell.left + parseFloat(style.paddingLeft) +
        canvas.measureText(count.parentElement.dataset.label).width;
    return {left, right, height, label, card: count.closest('tr').getBoundingClientRect().right};
})"""
BOXES = """() => [...document.querySelectorAll('h1, table, dl, button, td, th, a, pre, time')]
    .filter((one) => one.checkVisibility())
    .map((one) => [one.tagName, one.getBoundingClientRect()])
    .map(([tag, {left, right, top, bottom}]) => ({tag, left, right, top, bottom}))"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'zone', ['Asia/Tokyo', pytest.param('America/New_York', marks=pytest.mark.slow)]
)
def test_a_time_has_a_date_a_clock_and_an_age_wherever_the_operator_is(
    visit: Visit, address: str, zone: str
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    created = get_job_status(job.id)['created_at']
    assert created is not None
    page = visit(f'{address}rq/job/{job.id}', timezone_id=zone)
    local = f'{created.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}'
    time = page.locator('time').first
    expect(time).to_have_text(re.compile(rf'{local} \(\d+\s(s|min)\sago\)'))
    expect(time).to_have_attribute('title', f'{created:%Y-%m-%d %H:%M:%S} UTC')


# Markup in what is shown


@pytest.fixture
def hostile(connection: Redis) -> dict[str, str]:
    """Pages on which MARKUP stands, as whoever can write to Redis could plant it."""
    done = finished_with(connection, MARKUP)
    meta = PlainSerializer.dumps({MARKUP: MARKUP})
    connection.hset(f'rq:job:{done}', mapping={'meta': meta, 'description': MARKUP})
    broken = enqueue_background_job('tests.support.tasks.fail', MARKUP).id
    connection.delete('rq:queue:default')
    connection.hset(f'rq:job:{broken}', mapping={'status': 'failed', 'description': MARKUP})
    connection.zadd('rq:failed:default', {broken: '+inf'})
    connection.xadd(f'rq:results:{broken}', {'type': 2, 'exc_string': pack(MARKUP)})
    queue = Queue(MARKUP.replace('/', ''), connection=connection, serializer=PlainSerializer)
    other = queue.enqueue('tests.support.tasks.add', MARKUP)
    running(connection, other.id)
    key = f'rq:worker:{MARKUP}'
    connection.sadd('rq:workers', key)
    connection.hset(key, mapping={'state': 'idle', 'queues': MARKUP, 'version': MARKUP})
    connection.hset(key, 'python_version', MARKUP)
    return {
        'queues': 'rq/',
        'workers': 'rq/workers',
        'finished': 'rq/queue/default/finished',
        'failed': 'rq/queue/default/failed',
        'result and metadata': f'rq/job/{done}',
        'exception': f'rq/job/{broken}',
        'queue': f'rq/job/{other.id}',
    }


@pytest.fixture
def hostile_upstream(hostile: dict[str, str]) -> dict[str, str]:
    """The same pages of rq-dashboard itself."""
    paths = {'queues': 'rq/0/view/queues', 'workers': 'rq/0/view/workers'}
    jobs = {name: path for name, path in hostile.items() if '/job/' in path}
    return paths | {name: path.replace('rq/', 'rq/0/view/') for name, path in jobs.items()}


def pack(text: str) -> bytes:
    return b64encode(zlib.compress(text.encode()))


def look(page: Page, address: str) -> None:
    """Open an address, and wait for what an event may still run."""
    page.goto(address)
    page.wait_for_timeout(600)  # it is read again meanwhile


ACTIVE = ('queues', 'workers', 'result and metadata', 'exception', 'queue')  # without escaping


# One of each template; `finished` is of the same as `failed`, and `queue` as `exception`.
TEMPLATES = ('queues', 'workers', 'failed', 'result and metadata', 'exception')
PAGES = (*TEMPLATES, 'finished', 'queue')


@pytest.mark.slow
@pytest.mark.parametrize('pages', [TEMPLATES, pytest.param(PAGES, marks=pytest.mark.slow)], ids=len)
def test_markup_is_text_without_any_policy(
    visit: Visit, address: str, hostile: dict[str, str], said: list[str], pages: tuple[str, ...]
) -> None:
    page = visit('about:blank', bypass_csp=True)
    for shown in pages:
        look(page, address + hostile[shown])
        assert calls(page) == 0, shown
        text = page.locator('body').text_content()
        assert text is not None
        text = text.replace('\\"', '"')
        assert MARKUP in text or MARKUP.replace('/', '') in text, shown
        assert '&lt;' not in text, shown
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize(
    'active', [('exception',), pytest.param(ACTIVE, marks=pytest.mark.slow)], ids=len
)
def test_the_policy_holds_without_the_escaping(
    visit: Visit,
    hostile: dict[str, str],
    said: list[str],
    active: tuple[str, ...],
) -> None:
    app = create_app()
    app.jinja_env.autoescape = False
    with serving(app) as address:
        page, control = visit('about:blank'), visit('about:blank', bypass_csp=True)
        for shown in active:
            said.clear()
            look(page, address + hostile[shown])
            assert calls(page) == 0, shown
            assert any('Content Security Policy' in line for line in said), shown
            control.goto(address + hostile[shown])
            control.wait_for_function('window.calls > 0')


@pytest.mark.upstream
def test_the_control_upstream_runs_it(
    visit: Visit, redis_url: str, hostile_upstream: dict[str, str]
) -> None:
    page = visit('about:blank')
    with serving(bare_app(redis_url)) as address:
        for shown in ACTIVE:
            page.goto(address + hostile_upstream[shown])
            page.wait_for_function('window.calls > 0')


# Other sites


ATTACKS = {
    'form': """([url]) => {
        document.body.innerHTML = `<form method=post action="${url}"><input name=a></form>`;
        document.forms[0].submit();
    }""",
    'frame': """([url]) => {
        document.body.innerHTML = `<iframe name=f></iframe>
            <form method=post target=f action="${url}"></form>`;
        document.forms[0].submit();
    }""",
    'fetch': """([url]) => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include'})
        .catch(() => 'nothing of the answer may be read')""",
    'beacon': '([url]) => navigator.sendBeacon(url)',
    'image': '([url]) => { new Image().src = url }',
    'link': """([url]) => {
        document.body.innerHTML = `<a href="${url}">prize</a>`;
        document.querySelector('a').click();
    }""",
}


def attack(
    visit: Visit, app: Flask, host: str, awaited: dict[str, Answer]
) -> dict[str, set[Answer]]:
    """What the dashboard answers to a page of another origin, whose visitor has logged in.

    By the kind of attack, for each of which one answer is awaited.
    """
    answers: dict[str, set[Answer]] = {kind: set() for kind in awaited}

    @app.after_request
    def note(answer: Response) -> Response:
        if request.path == '/rq/requeue/default':
            answers[request.query_string.decode()].add((request.method, answer.status_code))
        return answer

    evil = Flask('evil')
    evil.add_url_rule('/', view_func=lambda: '<!doctype html><body>A page.')
    with serving(app) as address, serving(evil) as elsewhere:
        page = visit(f'{address}rq/')
        for kind, answer in awaited.items():
            page.goto(elsewhere.replace('127.0.0.1', host))
            leaves: AbstractContextManager[object] = nullcontext()
            if kind in ('form', 'link'):
                leaves = page.expect_navigation()
            with leaves:
                page.evaluate(ATTACKS[kind], [f'{address}rq/requeue/default?{kind}'])
            eventually(lambda kind=kind, answer=answer: answer in answers[kind])  # type: ignore[misc]
    return answers


@pytest.mark.slow
@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_no_other_site_can_requeue(
    visit: Visit, hostile: dict[str, str], connection: Redis, host: str
) -> None:
    refused = dict.fromkeys(ATTACKS, ('POST', 403)) | dict.fromkeys(('image', 'link'), ('GET', 302))
    if host == 'localhost':  # to a third party, Chromium does not send the login
        refused |= dict.fromkeys(('frame', 'fetch', 'beacon'), ('POST', 401))
        refused |= {'image': ('GET', 401)}
    answers = attack(visit, create_app(), host, refused)
    for kind, answer in refused.items():
        before_login = {('POST', 401), ('GET', 401)}
        assert answers[kind] - before_login <= {answer}, kind
    assert connection.zcard('rq:failed:default') == 1


@pytest.mark.parametrize('kind', ATTACKS)
@pytest.mark.upstream
def test_the_control_upstream_lets_it(
    visit: Visit, redis_url: str, hostile: dict[str, str], connection: Redis, kind: str
) -> None:
    done = ('GET' if kind in ('image', 'link') else 'POST', 200)
    attack(visit, bare_app(redis_url), 'localhost', {kind: done})
    assert connection.zcard('rq:failed:default') == 0
