"""The shop of `examples/shop` adopts qdjobs as docs/adopting.md says, from the wheel."""

import json
import os
import re
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from qdjobs.server import HOST, free_port
from tests.support.documents import blocks, commands
from tests.support.newcomer import Newcomer
from tests.support.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SHOP = ROOT / 'examples/shop'
DOCUMENT = (ROOT / 'docs/adopting.md').read_text()
RECEIPT = '3 x Pen, 37.50 €. Thank you!'
SEND = 'shop.tasks.receipts.send_receipt'
WORKER = 'flask --app shop jobs worker'
RQ_WORKER = 'JOB_TASK_MODULES=shop.tasks rq worker --burst --worker-class qdjobs.JobWorker'
UNWANTED = ('.*', '__pycache__', 'build', 'dist', 'instance', 'output', 'uploads', 'var')

# An application whose tasks and queues have the names of the shop's.
OTHER = """
from flask import Flask
from qdjobs import JobQueue

app = Flask(__name__)
app.config.update(JOB_KEY_PREFIX='other', JOB_TASK_MODULES='shop.tasks', JOB_QUEUES='receipts')
JobQueue(app)
"""
TWICE = """
from qdjobs import JobQueue
from shop import create_app

JobQueue(create_app())
"""


@dataclass
class Shop:
    """The shop after all that the document says: a Valkey, a worker and gunicorn run."""

    user: Newcomer
    url: str
    redis_port: int
    courier_port: int
    customer: requests.Session

    def command(self, command: str) -> str:
        """Run a command that works; what it writes."""
        done = self.user.run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self, job_id: str, app: str = 'shop') -> dict[str, Any]:
        told = self.command(f'flask --app {app} jobs status {job_id} --json')
        status: dict[str, Any] = json.loads(told)
        return status

    def get(self, path: str, **options: Any) -> requests.Response:
        """A page, as a stranger sees it."""
        return requests.get(self.url + path, timeout=60, allow_redirects=False, **options)

    def order(self) -> int:
        """Buy a pen; the number of the order."""
        answer = self.customer.post(f'{self.url}/orders', {'product': 1}, timeout=60)
        return int(answer.url.rpartition('/')[2])

    def row(self, order: int) -> tuple[str | None, str | None]:
        """The receipt and the parcel of an order, as the database has them."""
        database = sqlite3.connect(self.user.folder / 'instance/shop.sqlite')
        query = 'SELECT receipt, parcel FROM "order" WHERE id = ?'
        found: tuple[str | None, str | None] = database.execute(query, [order]).fetchone()
        database.close()
        return found


def its_files_are_those_of_the_example(shop: Shop) -> None:
    files = [path for path in SHOP.rglob('*.py') if '__pycache__' not in path.parts]
    assert len(files) > 10
    for path in files:
        assert (shop.user.folder / path.relative_to(SHOP)).read_text() == path.read_text()


def its_job_has_used_the_database(shop: Shop) -> None:
    assert shop.row(1) == (f'Order 1 for zoe: {RECEIPT}', None)
    assert shop.status('receipt-1')['result'] == f'Order 1 for zoe: {RECEIPT}'
    assert RECEIPT in shop.customer.get(f'{shop.url}/orders/1', timeout=60).text


def nothing_shadows_its_libraries(shop: Shop) -> None:
    told = shop.command('python -c "import qdjobs, libraries; print(libraries.__path__)"')
    assert told.strip() == str([str(shop.user.folder / 'libraries')])
    installed = shop.command('pip show --files qdjobs').partition('Files:')[2].split()
    assert {file.partition('/')[0] for file in installed if '.dist-info' not in file} == {'qdjobs'}


def its_pages_stay_its_own(shop: Shop) -> None:
    for path in ('/pencils', '/metrics'):  # for the second there is no secret
        missing = shop.get(path)
        assert missing.status_code == 404
        assert missing.headers['Content-Type'].startswith('text/html')
        assert 'We do not sell that' in missing.text


def its_api_is_closed_without_a_token(shop: Shop) -> None:
    closed = shop.get('/api/jobs')
    assert closed.status_code == 401
    assert 'JOBS_API_TOKEN' in closed.json()['detail']


def its_login_stays_its_own(shop: Shop) -> None:
    assert shop.get('/orders/1').headers['Location'] == '/login'
    data = {'name': 'zoe', 'password': 'wrong'}
    refused = requests.post(f'{shop.url}/login', data, timeout=60)
    assert refused.status_code == 401
    assert 'The name or the password is wrong.' in refused.text
    assert 'WWW-Authenticate' not in refused.headers


def its_dashboard_asks_for_its_login(shop: Shop) -> None:
    refused = shop.get('/rq/')
    assert refused.status_code == 401
    assert refused.headers['WWW-Authenticate'].startswith('Basic')
    assert shop.customer.get(f'{shop.url}/rq/', timeout=60).status_code == 401
    login = tuple(shop.command('echo "$DASHBOARD_USERNAME $DASHBOARD_PASSWORD"').split())
    page = shop.get('/rq/', auth=login).text
    assert re.findall(r'<th scope="row">(\w+)</th>', page) == ['receipts', 'default']


def an_error_of_a_job_is_problem_details(shop: Shop) -> None:
    order = shop.order()
    answer = shop.customer.get(f'{shop.url}/orders/{order}/receipt', timeout=60)
    assert answer.status_code == 404
    assert answer.headers['Content-Type'] == 'application/problem+json'
    assert answer.json()['title'] == 'There is no such job'


def a_task_that_fails_is_tried_again(shop: Shop) -> None:
    order = shop.order()
    with courier(shop.courier_port, answers=[503, 503, 201]) as orders:
        shop.command(
            f'flask --app shop jobs enqueue shop.tasks.parcels.book_parcel order={order}'
            ' job_id=parcel job_max_retries=3 job_retry_delay=1s'
        )
        shop.command('flask --app shop jobs wait parcel')
    assert orders == [order] * 3
    assert shop.row(order) == (None, f'parcel of {order}')
    failed = [attempt['error'] for attempt in shop.status('parcel')['attempts']]
    assert failed == ['HTTPError: HTTP Error 503: Service Unavailable'] * 2


def a_task_that_is_refused_is_not(shop: Shop) -> None:
    order = shop.order()
    with courier(shop.courier_port, answers=[422]) as orders:
        shop.command(
            f'flask --app shop jobs enqueue shop.tasks.parcels.book_parcel order={order}'
            ' job_id=refused job_max_retries=3'
        )
        assert shop.user.run('flask --app shop jobs wait refused').returncode == 1
    assert orders == [order]
    assert shop.status('refused')['error'].startswith('PermanentJobError: The courier refuses')


def another_application_takes_none_of_its_jobs(shop: Shop) -> None:
    (shop.user.folder / 'other.py').write_text(OTHER)
    order = shop.order()
    shop.user.stop(WORKER)
    shop.customer.post(f'{shop.url}/orders/{order}/receipt', timeout=60)
    shop.command('flask --app other jobs worker --burst')
    assert shop.status(f'receipt-{order}')['status'] == 'queued'
    assert shop.command('flask --app other jobs list').strip() == 'There are none.'
    shop.command(f'flask --app other jobs enqueue {SEND} order={order} job_id=of-the-other')
    shop.user.type(WORKER)
    shop.command(f'flask --app shop jobs wait receipt-{order}')
    assert shop.row(order)[0] == f'Order {order} for zoe: 1 x Pen, 12.50 €. Thank you!'
    assert shop.status('of-the-other', 'other')['status'] == 'queued'


def a_wrong_setting_is_one_line_and_nothing_written(shop: Shop) -> None:
    wrong = {
        f'JOB_APP=shop:nothing {RQ_WORKER}': "JOB_APP='shop:nothing' cannot be loaded: .*'nothing'",
        f'JOB_APP=nothing:create_app {RQ_WORKER}': "JOB_APP='nothing:create_app' .*'nothing'",
        f'FLASK_JOB_TASK_MODULE=x {WORKER}': 'app.config has JOB_TASK_MODULE.* JOB_TASK_MODULES',
        f"FLASK_JOB_QUEUES='high,a b' {WORKER}": "JOB_QUEUES must list names .*'a b'",
    }
    url = f'redis://{HOST}:{shop.redis_port}/1'
    for command, line in wrong.items():
        done = shop.user.run(f'REDIS_URL={url} {command}')
        assert done.returncode == 1, command
        assert done.stderr.count('\n') == 1, done.stderr
        assert re.search(line, done.stderr), done.stderr
    with Redis.from_url(url) as redis:
        assert redis.dbsize() == 0


def a_second_queue_is_one_sentence(shop: Shop) -> None:
    done = shop.user.run(f'python -c "{TWICE}"')
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == 'RuntimeError: This application has a JobQueue: use the one that is there.'


def an_outage_of_redis_is_503_and_its_pages_work(shop: Shop) -> None:
    shop.user.stop(f'python -m qdjobs.server --port {shop.redis_port}')
    answer = shop.customer.post(f'{shop.url}/orders/1/receipt', timeout=60)
    assert answer.status_code == 503
    assert answer.headers['Retry-After'].isdecimal()
    assert 'job_id' not in answer.json()  # no job can have been accepted
    assert shop.get('/').status_code == 200


CLAIMS: tuple[Callable[[Shop], None], ...] = (
    its_files_are_those_of_the_example,
    its_job_has_used_the_database,
    nothing_shadows_its_libraries,
    its_pages_stay_its_own,
    its_api_is_closed_without_a_token,
    its_login_stays_its_own,
    its_dashboard_asks_for_its_login,
    an_error_of_a_job_is_problem_details,
    a_task_that_fails_is_tried_again,
    a_task_that_is_refused_is_not,
    another_application_takes_none_of_its_jobs,
    a_wrong_setting_is_one_line_and_nothing_written,
    a_second_queue_is_one_sentence,
    an_outage_of_redis_is_503_and_its_pages_work,
)


def test_the_shop_adopts_qdjobs(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """One test, since one environment and its processes serve all claims."""
    with adopting(tmp_path) as shop:
        for claim in CLAIMS:
            with subtests.test(claim.__name__):
                claim(shop)


@contextmanager
def adopting(tmp_path: Path) -> Iterator[Shop]:
    """The shop without qdjobs, in a clean environment, and then all that the document says."""
    web, redis, courier = free_port(), free_port(), free_port()
    user = Newcomer(
        folder=tmp_path / 'shop',
        environment=clean_environment(tmp_path)
        | {
            'FLASK_COURIER_URL': f'http://{HOST}:{courier}/parcels',
            'GUNICORN_CMD_ARGS': f'--no-control-socket --bind {HOST}:{web}',
        },
        replaced={'127.0.0.1:8000': f'{HOST}:{web}', '6399': str(redis)},
        logs=tmp_path,
    )
    shutil.copytree(SHOP, user.folder, ignore=shutil.ignore_patterns(*UNWANTED))
    shutil.copytree(ROOT, tmp_path / 'qdjobs', ignore=shutil.ignore_patterns(*UNWANTED))
    user.unfollow(DOCUMENT)
    assert not [path for path in user.folder.rglob('*.py') if 'qdjobs' in path.read_text()]
    try:
        for block in blocks((SHOP / 'README.md').read_text()):
            for command, output in commands(block.body):
                if '../..' not in command:  # which would install qdjobs
                    user.type(command, output)
        assert 'qdjobs' not in user.run('pip list').stdout
        user.follow(DOCUMENT)
        url = f'http://{HOST}:{web}'
        with requests.Session() as customer:
            login = {'name': 'zoe', 'password': 'pen-and-ink'}
            customer.post(f'{url}/login', login, timeout=60).raise_for_status()
            yield Shop(user, url, redis, courier, customer)
    finally:
        user.leave()


def clean_environment(tmp_path: Path) -> dict[str, str]:
    """That of somebody who has a `python`, and nothing of this repository's environment."""
    unwanted = ('PYTHON', 'VIRTUAL_ENV', 'FLASK_', 'JOB', 'RQ_', 'REDIS_', 'DASHBOARD_', 'METRICS_')
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(unwanted)
    }
    python = tmp_path / 'bin/python'
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {Path(sys.executable).resolve()} "$@"\n')
    python.chmod(0o755)
    own = str(Path(sys.executable).parent)
    others = [folder for folder in environment['PATH'].split(os.pathsep) if folder != own]
    return environment | {
        'PATH': os.pathsep.join([str(python.parent), *others]),
        # The versions that we test with, of what qdjobs brings along.
        'PIP_CONSTRAINT': (ROOT / 'constraints.txt').as_uri(),
        'PIP_DISABLE_PIP_VERSION_CHECK': '1',
    }


@contextmanager
def courier(port: int, answers: list[int]) -> Iterator[list[int]]:
    """A courier that answers with these codes in turn; yields the orders that it has been sent."""
    orders: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers['Content-Length']))
            order = json.loads(body)['order']
            assert self.headers['Idempotency-Key'] == f'order-{order}'
            self.send_response(answers[len(orders)])
            orders.append(order)
            self.end_headers()
            self.wfile.write(json.dumps({'parcel': f'parcel of {order}'}).encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer((HOST, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield orders
        finally:
            server.shutdown()
            thread.join()
