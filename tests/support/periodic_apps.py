"""Applications with periodic jobs, and tasks that note when they ran."""

import os
import time
from pathlib import Path

from flask import Flask

from qdjobs import JobQueue
from qdjobs.progress import current_job


def note() -> None:
    """Append the id of this job to the file NOTES."""
    job = current_job()
    assert job is not None
    with Path(os.environ['NOTES']).open('a') as file:
        file.write(f'{job.id}\n')


def note_and_wait(gate: str) -> None:
    note()
    while not Path(gate).exists():
        time.sleep(0.02)


def create_app() -> Flask:
    """An application that notes each tick of INTERVAL, in seconds."""
    app = Flask('periodic')
    queue = JobQueue(app)
    queue.add('note', note, every=os.environ['INTERVAL'], overlap='queue')
    return app
