"""The application factories of docs/tracing.md work as they are written there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import blocks
from tests.support.processes import ROOT, Worker
from tests.support.sentry import receiving

pytestmark = pytest.mark.slow  # a worker for each, with the SDK

TASKS = "def pay() -> None:\n    raise ValueError('no money')\n"
REQUEST = """
from qdjobs import enqueue_background_job
from shop import create_app

with create_app().app_context():
    enqueue_background_job('shop.tasks.pay')
"""


@pytest.mark.parametrize('number', [0, 1])
def test_the_factory_reports_a_failed_job(
    settings: pytest.MonkeyPatch, tmp_path: Path, own_worker: Worker, number: int
) -> None:
    document = (ROOT / 'docs/tracing.md').read_text()
    path, factory = [block.file for block in blocks(document) if block.file][number]
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text(factory)
    (tmp_path / 'shop/tasks.py').write_text(TASKS)
    settings.setenv('PYTHONPATH', f'{ROOT}:{tmp_path}')
    settings.setenv('JOB_TASK_MODULES', 'shop.tasks')
    with receiving() as (dsn, received):
        settings.setenv('SENTRY_DSN', dsn)
        subprocess.run([sys.executable, '-c', REQUEST], cwd=tmp_path, check=True, timeout=60)
        with own_worker('--burst', JOB_APP='shop:create_app', JOB_LEASE='10') as worker:
            assert worker.wait(60) == 0
    if number == 0:
        assert [event['tags']['task'] for event in received.events] == ['shop.tasks.pay']
    else:
        log = (tmp_path / 'worker.log').read_text()
        assert '"name": "process default"' in log
        assert '"qdjobs.outcome": "failed"' in log
