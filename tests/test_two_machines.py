"""A web process and a worker that share a bucket, Redis and no folder."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from libraries.job_manager import enqueue_background_job, wait_for_job
from qdjobs.config import environment_config
from qdjobs.server import free_port
from qdjobs.testing import run_jobs
from tests.support.object_store import SECRET, ObjectStore, behind_proxy
from tests.support.processes import Worker, eventually, kill_group

pytestmark = pytest.mark.slow  # `make test-all` installs the server and its client

TASKS = 'workers'
JOB_APP = 'app:create_app'


@pytest.fixture
def web(tmp_path: Path, object_store: ObjectStore) -> Iterator['Web']:
    """gunicorn as the Procfile starts it, in a folder of its own."""
    folder = tmp_path / 'web'
    folder.mkdir()
    port = free_port()
    command = [
        str(Path(sys.executable).with_name('gunicorn')), '--no-control-socket', '--workers', '1',
        '--worker-class', 'libraries.web_worker.WebWorker', '--threads', '4',
        '--bind', f'127.0.0.1:{port}', 'app:create_app()',
    ]  # fmt: skip
    log = tmp_path / 'web.log'
    with log.open('wb') as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {'JOB_TASK_MODULES': TASKS},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    web = Web(f'http://127.0.0.1:{port}', folder, log, process.pid)
    try:
        eventually(web.is_up)
        yield web
    finally:
        kill_group(process.pid)
        process.wait()


class Web:
    """The web process, by HTTP."""

    def __init__(self, address: str, folder: Path, log: Path, pid: int) -> None:
        self.address, self.folder, self.log, self.pid = address, folder, log, pid

    def is_up(self) -> bool:
        try:
            return self.ask('/healthz')[0] == 200
        except OSError:
            return False

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data, {'Content-Type': 'application/json'} | headers)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def peak(self) -> int:
        """The most memory in MB that its worker process has used."""
        [child] = Path(f'/proc/{self.pid}/task/{self.pid}/children').read_text().split()
        found = re.search(r'VmHWM:\s+(\d+) kB', Path(f'/proc/{child}/status').read_text())
        assert found
        return int(found[1]) // 1024


def files_in(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob('*') if path.is_file()]


@pytest.fixture(autouse=True)
def all_tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', TASKS)
    environment_config.cache_clear()


def test_the_web_process_serves_what_a_worker_elsewhere_has_drawn(
    web: Web, own_worker: Worker, object_store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / 'worker').mkdir()
    object_store.put('up/pens.csv', b'ink,bottles\nblack,12\n')
    with own_worker(cwd=tmp_path / 'worker', JOB_APP=JOB_APP):
        made = json.loads(web.ask('/api/artboard/create', {'pattern': 'grid', 'width': 60})[1])
        table = enqueue_background_job('workers.data_tasks.process_file', 'pens.csv')
        assert wait_for_job(made['job_id'], 60)['result'] == f'{made["job_id"]}.svg'
        assert wait_for_job(table.id, 60)['result'] == 'converted/pens.csv.json'
    path = f'/api/artboard/jobs/{made["job_id"]}/svg'
    status, drawing, headers = web.ask(path)
    assert (status, headers['Content-Type']) == (200, 'image/svg+xml; charset=utf-8')
    assert 'sandbox' in headers['Content-Security-Policy']
    assert drawing == object_store.get(f'out/{made["job_id"]}.svg')
    status, part, headers = web.ask(path, Range='bytes=10-19')
    assert (status, part) == (206, drawing[10:20])
    assert headers['Content-Range'] == f'bytes 10-19/{len(drawing)}'
    assert json.loads(object_store.get('out/converted/pens.csv.json')) == [
        {'ink': 'black', 'bottles': '12'}
    ]
    assert files_in(web.folder) == files_in(tmp_path / 'worker') == []
    assert SECRET not in web.log.read_text() + (tmp_path / 'worker.log').read_text()


def test_a_worker_killed_while_it_writes_leaves_nothing_under_the_name(
    own_worker: Worker,
    object_store: ObjectStore,
    settings: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    drawing: dict[str, Any] = {
        'width': 60,
        'height': 60,
        'pattern_type': 'grid',
        'output_filename': 'a.svg',
    }
    with (
        behind_proxy(settings, object_store) as proxy,
        own_worker(JOB_APP=JOB_APP) as worker,
    ):
        proxy.hang_when = lambda: True  # the first byte of the upload arrives nowhere
        job = enqueue_background_job('workers.svg_tasks.generate_complex_svg', **drawing)
        eventually(lambda: proxy.hang)
        kill_group(worker.pid)
    assert object_store.keys() == []
    with own_worker(JOB_APP=JOB_APP):
        assert wait_for_job(job.id, 60)['result'] == 'a.svg'
    assert object_store.keys() == ['out/a.svg']


def draw(web: Web) -> str:
    """The path of a drawing that was made in this process, which has the same settings."""
    made = json.loads(web.ask('/api/artboard/create', {'pattern': 'grid', 'width': 60})[1])
    run_jobs()
    path = f'/api/artboard/jobs/{made["job_id"]}/svg'
    assert web.ask(path)[0] == 200
    return path


def key_of(path: str) -> str:
    return f'out/{path.split("/")[-2]}.svg'


def test_the_memory_of_the_web_process_does_not_grow_with_a_drawing(
    web: Web, object_store: ObjectStore
) -> None:
    path, size = draw(web), 48 << 20
    before = web.peak()
    object_store.put(key_of(path), b'x' * size)
    with urlopen(web.address + path, timeout=60) as answer:
        assert sum(map(len, iter(lambda: answer.read(1 << 20), b''))) == size
    assert web.peak() - before < 20


def test_a_store_that_dies_under_a_download_cuts_it_off(
    web: Web, object_store: ObjectStore
) -> None:
    """The client sees that it is not whole, and the log has one line."""
    path, size = draw(web), 48 << 20
    object_store.put(key_of(path), b'x' * size)
    with urlopen(web.address + path, timeout=60) as answer:
        received = len(answer.read(10))
        object_store.delete(key_of(path))
        with contextlib.suppress(ConnectionResetError):
            while block := answer.read(1 << 20):
                received += len(block)
    assert received < size
    eventually(lambda: 'has ended early' in web.log.read_text())
    assert 'Traceback' not in web.log.read_text()
    assert web.ask(path)[0] == 404
