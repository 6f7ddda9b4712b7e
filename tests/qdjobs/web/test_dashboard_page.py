"""The dashboard as an operator has it: a real Chromium, the real application, a real worker."""

import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from playwright.sync_api import ConsoleMessage, Page, WebError, expect
from redis import Redis
from rq import Queue

from app import create_app
from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    get_job_status,
    wait_for_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.config import environment_config
from qdjobs.web.dashboard import pages
from qdjobs.web.dashboard import views as main
from tests.support.applications import serving, shared_app
from tests.support.browsers import Chromium
from tests.support.dashboard import bare_app, finished_with, running
from tests.support.processes import eventually
from tests.support.shared_worker import SharedWorker

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning:flask')  # of the bare one

# Each would call pwned() if some page took it for more than text.
MARKUP = (
    "<img src=x onerror=pwned()><script>pwned()</script>\"><svg onload=pwned()>');pwned();('"
    '<%= pwned() %>{{ pwned() }}<a href="javascript:pwned()">&amp;</a>'
)
COUNT = 'window.calls = 0; window.pwned = () => { window.calls += 1 }'

Visit = Callable[..., Page]
Answer = tuple[str, int]  # a method, and the status that it got


@pytest.fixture(autouse=True)
def login(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(main, 'POLL_INTERVAL', 200)
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


def wait_until(job_id: str, status: str) -> None:
    eventually(lambda: get_job_status(job_id)['status'] == status)


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
    row = page.locator('#queues tbody tr').filter(has_text='default')
    expect(row.locator('td').nth(6)).to_have_text('1')  # failed

    page.get_by_role('link', name='Workers').click()
    worker = page.locator('#workers tbody tr')
    expect(worker).to_have_count(1)
    expect(worker).to_contain_text('high, default, low')
    expect(worker).to_contain_text('idle')

    page.get_by_role('link', name='Queues').click()
    row.locator('td').nth(6).get_by_role('link').click()
    failed = page.locator('#jobs tbody tr')
    expect(failed).to_contain_text('FileNotFoundError')
    failed.get_by_role('link', name=job.id).click()
    expect(page.locator('.exc_info')).to_contain_text('Traceback (most recent call last)')
    lines.parent.mkdir()
    page.get_by_role('button', name='Requeue').click()
    expect(page.locator('#job-data')).to_contain_text('finished')
    assert lines.read_text() == 'at last\n'
    assert said == []


@pytest.mark.slow
def test_requeueing_and_deleting_from_the_list(
    visit: Visit, address: str, said: list[str], shared_worker: SharedWorker
) -> None:
    jobs = [enqueue_background_job('tests.support.tasks.fail', str(n)) for n in range(4)]
    for job in jobs:
        wait_for_job(job.id, 60)
    with shared_worker.held():
        page = visit(f'{address}rq/0/view/jobs/default/failed/8/asc/1')
        table = page.locator('#jobs tbody tr')
        expect(table).to_have_count(4)
        table.filter(has_text=jobs[0].id).get_by_role('link', name='Requeue').click()
        wait_until(jobs[0].id, 'queued')
        table.filter(has_text=jobs[1].id).get_by_role('link', name='Delete').click()
        page.get_by_role('button', name='Yes').click()
        expect(table.filter(has_text=jobs[1].id)).to_have_count(0)
        page.get_by_role('link', name='Requeue All').click()
        page.get_by_role('button', name='Yes').click()
        for job in jobs[2:]:
            wait_until(job.id, 'queued')
        page.goto(f'{address}rq/0/view/jobs')
        expect(table).to_have_count(3)
        expect(page.get_by_role('link', name='Compact')).to_have_count(0)
        page.get_by_role('link', name='Empty queue').click()
        page.get_by_role('button', name='Yes').click()
        expect(table).to_have_count(1)
        expect(table).to_contain_text('No jobs.')
        assert {get_job_status(job.id)['status'] for job in jobs if job != jobs[1]} == {'canceled'}
    assert said == []


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
        page = visit(f'{address}rq/0/view/workers')
        expect(page.locator('#workers')).to_contain_text('stop_half_way(')
        page.locator('#workers').get_by_role('link').click()
        expect(page.locator('#job-data')).to_contain_text('"message":"half-way"')
        cancel_job(job.id)
        expect(page.locator('#job-data')).to_contain_text('stopped')
    assert said == []


AGE = re.compile(r'Created at: *(\d+ seconds?|a second) ago')


@pytest.mark.parametrize(
    'zone', ['Asia/Tokyo', pytest.param('America/New_York', marks=pytest.mark.slow)]
)
def test_times_are_told_wherever_the_operator_is(visit: Visit, address: str, zone: str) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    page = visit(f'{address}rq/0/view/job/{job.id}', timezone_id=zone)
    expect(page.locator('#job-data')).to_contain_text(AGE)


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
        'queues': 'rq/0/view/queues',
        'workers': 'rq/0/view/workers',
        'finished': 'rq/0/view/jobs/default/finished/8/asc/1',
        'failed': 'rq/0/view/jobs/default/failed/8/asc/1',
        'result and metadata': f'rq/0/view/job/{done}',
        'exception': f'rq/0/view/job/{broken}',
        'queue': f'rq/0/view/job/{other.id}',
    }


def pack(text: str) -> bytes:
    return b64encode(zlib.compress(text.encode()))


def look(page: Page, address: str) -> None:
    """Open an address and wait until it shows what it has asked for, twice."""
    with page.expect_response(lambda answer: '/data/' in answer.url):
        page.goto(address)
    with page.expect_response(lambda answer: '/data/' in answer.url):
        pass
    page.wait_for_timeout(300)  # for what an event may still run


ACTIVE = ('queues', 'workers', 'result and metadata', 'exception', 'queue')  # without escaping


# One of each template; `finished` is of the same as `failed`, and `queue` as `exception`.
TEMPLATES = ('queues', 'workers', 'failed', 'result and metadata', 'exception')
PAGES = (*TEMPLATES, 'finished', 'queue')


@pytest.mark.parametrize('pages', [TEMPLATES, pytest.param(PAGES, marks=pytest.mark.slow)], ids=len)
def test_markup_is_text_without_any_policy(
    visit: Visit, address: str, hostile: dict[str, str], said: list[str], pages: tuple[str, ...]
) -> None:
    page = visit('about:blank', bypass_csp=True)
    for shown in pages:
        look(page, address + hostile[shown])
        assert calls(page) == 0, shown
        text = page.locator('body').inner_text().replace('\\"', '"')
        assert MARKUP in text or MARKUP.replace('/', '') in text, shown
        assert '&lt;' not in text, shown
    assert said == []


@pytest.mark.parametrize(
    'active', [('exception',), pytest.param(ACTIVE, marks=pytest.mark.slow)], ids=len
)
def test_the_policy_holds_without_the_escaping(
    visit: Visit,
    settings: pytest.MonkeyPatch,
    hostile: dict[str, str],
    said: list[str],
    active: tuple[str, ...],
) -> None:
    settings.setattr(pages, 'REWRITES', pages.REWRITES[2:])
    with serving(create_app()) as address:
        page, control = visit('about:blank'), visit('about:blank', bypass_csp=True)
        for shown in active:
            said.clear()
            look(page, address + hostile[shown])
            assert calls(page) == 0, shown
            assert any('Content Security Policy' in line for line in said), shown
            look(control, address + hostile[shown])
            assert calls(control) > 0, shown


@pytest.mark.upstream
def test_the_control_upstream_runs_it(
    visit: Visit, redis_url: str, hostile: dict[str, str]
) -> None:
    page = visit('about:blank')
    with serving(bare_app(redis_url)) as address:
        for shown in ACTIVE:
            look(page, address + hostile[shown])
            assert calls(page) > 0, shown


QUEUE_PAGE = "rq/0/view/jobs/');pwned();('/queued/8/asc/1"


@pytest.fixture
def hostile_queue(connection: Redis) -> None:
    connection.sadd('rq:queues', "rq:queue:');pwned();('")


def leave_the_queue_s_name(page: Page) -> None:
    page.locator('#select-queue').click()
    page.mouse.move(600, 600)


@pytest.mark.usefixtures('hostile_queue')
def test_a_queue_s_name_is_no_script_without_any_policy(visit: Visit, address: str) -> None:
    page = visit('about:blank', bypass_csp=True)
    look(page, address + QUEUE_PAGE)
    leave_the_queue_s_name(page)
    expect(page.locator('#select-queue')).to_have_value("');pwned();('")
    assert calls(page) == 0


@pytest.mark.upstream
@pytest.mark.usefixtures('hostile_queue')
def test_the_control_upstream_runs_a_queue_s_name(visit: Visit, redis_url: str) -> None:
    page = visit('about:blank')
    with serving(bare_app(redis_url)) as address:
        look(page, address + QUEUE_PAGE)
        leave_the_queue_s_name(page)
        assert calls(page) > 0


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


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_no_other_site_can_requeue(
    visit: Visit, hostile: dict[str, str], connection: Redis, host: str
) -> None:
    refused = dict.fromkeys(ATTACKS, ('POST', 403)) | dict.fromkeys(('image', 'link'), ('GET', 405))
    if host == 'localhost':  # to a third party, Chromium does not send the login
        refused |= dict.fromkeys(('frame', 'fetch', 'beacon'), ('POST', 401))
    answers = attack(visit, create_app(), host, refused)
    for kind, answer in refused.items():
        assert answers[kind] - {('POST', 401)} <= {answer}, kind  # which comes before the login
    assert connection.zcard('rq:failed:default') == 1


@pytest.mark.parametrize('kind', ATTACKS)
@pytest.mark.upstream
def test_the_control_upstream_lets_it(
    visit: Visit, redis_url: str, hostile: dict[str, str], connection: Redis, kind: str
) -> None:
    done = ('GET' if kind in ('image', 'link') else 'POST', 200)
    attack(visit, bare_app(redis_url), 'localhost', {kind: done})
    assert connection.zcard('rq:failed:default') == 0
