"""Applications with periodic jobs, and tasks that note when they ran."""

import os
import time
from pathlib import Path

from flask import Flask, request

from qdjobs import JobQueue
from qdjobs.client.call import Call
from qdjobs.progress import current_job


def note() -> None:
    """Append the id of this job to the file NOTES; then wait for the file GATE, if it is named."""
    job = current_job()
    assert job is not None
    with Path(os.environ['NOTES']).open('a') as file:
        file.write(f'{job.id}\n')
    while (gate := os.environ.get('GATE')) and not Path(gate).exists():
        time.sleep(0.02)


def create_app() -> Flask:
    """An application whose task is due each INTERVAL, with OVERLAP."""
    app = Flask('periodic')
    queue = JobQueue(app)
    queue.add(
        'note',
        note,
        every=os.environ['INTERVAL'],
        overlap='skip' if os.environ.get('OVERLAP') == 'skip' else 'queue',
    )
    return app


def create_shop() -> Flask:
    """An application with another key prefix."""
    app = Flask('shop')
    app.config.update(JOB_KEY_PREFIX='shop', JOB_TASK_MODULES='tests.support.periodic_apps')
    JobQueue(app).add('note', note, every='1s')
    return app


def create_refusing() -> Flask:
    """An application whose hook needs a request for one of two tasks."""
    app = create_app()
    queue: JobQueue = app.extensions['job_queue']
    queue.add('refused', 'tests.support.tasks.app_name', every='1s')

    @queue.before_enqueue
    def add_address(call: Call) -> None:
        if call.id == 'refused':
            call.meta['address'] = request.remote_addr

    return app
