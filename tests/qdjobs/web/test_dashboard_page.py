"""The dashboard as an operator has it: a real Chromium, the real application, a real worker."""

import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from playwright.sync_api import Browser, Page, expect
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
from tests.qdjobs.web.test_dashboard import bare_app, finished_with, running
from tests.support.applications import serving
from tests.support.processes import Worker, eventually

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning:flask')  # of the bare one

# Each would call pwned() if some page took it for more than text.
MARKUP = (
    "<img src=x onerror=pwned()><script>pwned()</script>\"><svg onload=pwned()>');pwned();('"
    '<%= pwned() %>{{ pwned() }}<a href="javascript:pwned()">&amp;</a>'
)
COUNT = 'window.calls = 0; window.pwned = () => { window.calls += 1 }'

Visit = Callable[..., Page]


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
def visit(browser: Browser, said: list[str]) -> Iterator[Visit]:
    """Open an address in a browser of its own, logged in; `pwned()` is counted there."""
    contexts = []

    def open_page(address: str, **options: Any) -> Page:
        login = {'username': 'anna', 'password': 'pass:word'}
        context = browser.new_context(**{'http_credentials': login} | options)
        contexts.append(context)
        context.add_init_script(COUNT)
        context.on('console', lambda message: said.append(message.text))
        context.on('weberror', lambda error: said.append(str(error.error)))
        page = context.new_page()
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


def wait_until(job_id: str, status: str) -> None:
    eventually(lambda: get_job_status(job_id)['status'] == status)


def calls(page: Page) -> int:
    return int(page.evaluate('window.calls'))


# What an operator does


def test_who_does_not_log_in_sees_nothing(visit: Visit, address: str) -> None:
    page = visit(f'{address}healthz', http_credentials={'username': 'anna', 'password': 'wrong'})
    answer = page.goto(f'{address}rq')
    assert answer is not None
    assert answer.status == 401
    expect(page.locator('table')).to_have_count(0)


def test_an_operator_finds_a_failed_job_and_requeues_it(
    visit: Visit, address: str, said: list[str], job_worker: Worker, tmp_path: Path
) -> None:
    lines = tmp_path / 'late' / 'lines'
    job = enqueue_background_job('tests.support.tasks.append', str(lines), 'at last')
    with job_worker():
        wait_for_job(job.id, 20)
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


def test_requeueing_and_deleting_from_the_list(
    visit: Visit, address: str, said: list[str], rq_worker: Worker
) -> None:
    jobs = [enqueue_background_job('tests.support.tasks.fail', str(n)) for n in range(4)]
    with rq_worker('--burst') as worker:
        worker.wait(60)
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
    address: str,
    settings: pytest.MonkeyPatch,
    said: list[str],
    job_worker: Worker,
    tmp_path: Path,
) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.progress_tasks')
    environment_config.cache_clear()
    job = enqueue_background_job(
        'tests.support.progress_tasks.stop_half_way', str(tmp_path / 'gate')
    )
    with job_worker():
        page = visit(f'{address}rq/0/view/workers')
        expect(page.locator('#workers')).to_contain_text('stop_half_way(')
        page.locator('#workers').get_by_role('link').click()
        expect(page.locator('#job-data')).to_contain_text('"message":"half-way"')
        cancel_job(job.id)
        expect(page.locator('#job-data')).to_contain_text('stopped')
    assert said == []


AGE = re.compile(r'Created at: *(\d+ seconds?|a second) ago')


@pytest.mark.parametrize('zone', ['UTC', 'Asia/Tokyo', 'America/New_York'])
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


def look(visit: Visit, address: str, path: str, **options: Any) -> Page:
    """Open a page and wait until it shows what it has asked for, twice."""
    page = visit('about:blank', **options)
    with page.expect_response(lambda answer: '/data/' in answer.url):
        page.goto(address + path)
    with page.expect_response(lambda answer: '/data/' in answer.url):
        pass
    page.wait_for_timeout(300)  # for what an event may still run
    return page


PAGES = ['queues', 'workers', 'finished', 'failed', 'result and metadata', 'exception', 'queue']


@pytest.mark.parametrize('shown', PAGES)
def test_markup_is_text_without_any_policy(
    visit: Visit, address: str, hostile: dict[str, str], shown: str, said: list[str]
) -> None:
    page = look(visit, address, hostile[shown], bypass_csp=True)
    assert calls(page) == 0
    text = page.locator('body').inner_text().replace('\\"', '"')
    assert MARKUP in text or MARKUP.replace('/', '') in text
    assert '&lt;' not in text
    assert said == []


@pytest.mark.parametrize(
    'shown', ['queues', 'workers', 'result and metadata', 'exception', 'queue']
)
def test_the_policy_holds_without_the_escaping(
    visit: Visit,
    settings: pytest.MonkeyPatch,
    hostile: dict[str, str],
    shown: str,
    said: list[str],
) -> None:
    settings.setattr(pages, 'REWRITES', pages.REWRITES[2:])
    with serving(create_app()) as address:
        page = look(visit, address, hostile[shown])
        assert calls(page) == 0
        assert any('Content Security Policy' in line for line in said)
        assert calls(look(visit, address, hostile[shown], bypass_csp=True)) > 0  # the control


@pytest.mark.parametrize(
    'shown', ['queues', 'workers', 'result and metadata', 'exception', 'queue']
)
@pytest.mark.upstream
def test_the_control_upstream_runs_it(
    visit: Visit, redis_url: str, connection: Redis, hostile: dict[str, str], shown: str
) -> None:
    with serving(bare_app(redis_url)) as address:
        assert calls(look(visit, address, hostile[shown])) > 0


def leave_the_queue_s_name(page: Page) -> None:
    page.locator('#select-queue').click()
    page.mouse.move(600, 600)


@pytest.mark.parametrize('bypass_csp', [True, False])
def test_a_queue_s_name_is_no_script(
    visit: Visit, address: str, redis_url: str, connection: Redis, bypass_csp: bool
) -> None:
    path = "rq/0/view/jobs/');pwned();('/queued/8/asc/1"
    connection.sadd('rq:queues', "rq:queue:');pwned();('")
    page = look(visit, address, path, bypass_csp=bypass_csp)
    leave_the_queue_s_name(page)
    expect(page.locator('#select-queue')).to_have_value("');pwned();('")
    assert calls(page) == 0
    with serving(bare_app(redis_url)) as bare:
        page = look(visit, bare, path)
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
    visit: Visit, app: Flask, host: str, kind: str, awaited: tuple[str, int]
) -> set[tuple[str, int]]:
    """What the dashboard answers to a page of another origin, whose visitor has logged in."""
    answers: set[tuple[str, int]] = set()

    @app.after_request
    def note(answer: Response) -> Response:
        if request.path == '/rq/requeue/default':
            answers.add((request.method, answer.status_code))
        return answer

    evil = Flask('evil')
    evil.add_url_rule('/', view_func=lambda: '<!doctype html><body>A page.')
    with serving(app) as address, serving(evil) as elsewhere:
        page = visit(f'{address}rq/')
        page.goto(elsewhere.replace('127.0.0.1', host))
        page.evaluate(ATTACKS[kind], [f'{address}rq/requeue/default'])
        eventually(lambda: awaited in answers)
    return answers


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
@pytest.mark.parametrize('kind', ATTACKS)
def test_no_other_site_can_requeue(
    visit: Visit, app: Flask, hostile: dict[str, str], connection: Redis, kind: str, host: str
) -> None:
    refused = ('POST', 403)
    if kind in ('image', 'link'):
        refused = ('GET', 405)
    elif host == 'localhost' and kind in ('frame', 'fetch', 'beacon'):
        refused = ('POST', 401)  # to a third party, Chromium does not send the login
    answers = attack(visit, app, host, kind, refused)
    assert answers - {('POST', 401)} <= {refused}  # which comes before the login
    assert connection.zcard('rq:failed:default') == 1


@pytest.mark.parametrize('kind', ATTACKS)
@pytest.mark.upstream
def test_the_control_upstream_lets_it(
    visit: Visit, redis_url: str, hostile: dict[str, str], connection: Redis, kind: str
) -> None:
    done = ('GET' if kind in ('image', 'link') else 'POST', 200)
    attack(visit, bare_app(redis_url), 'localhost', kind, done)
    assert connection.zcard('rq:failed:default') == 0
