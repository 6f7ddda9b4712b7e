"""The calls of `enqueue_background_job` in the documents of the systems that this one replaces."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs.testing import RecordedJobs, eager_jobs
from tests.support.smtp import Mailbox, mail_server, text_of


@pytest.fixture
def jobs() -> Iterator[RecordedJobs]:
    with eager_jobs() as jobs:
        yield jobs


@pytest.fixture
def mailbox(settings: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    with mail_server() as mailbox:
        settings.setenv('SMTP_URL', f'smtp://127.0.0.1:{mailbox.port}')
        yield mailbox


@pytest.fixture
def upload_folder() -> Path:
    folder = Path(os.environ['UPLOAD_DIR'])
    folder.mkdir()
    (folder / 'data.csv').write_text('pen,ink\n007,sepia\n')
    return folder


@pytest.mark.usefixtures('jobs')
def test_a_notification_needs_no_further_variables(mailbox: Mailbox) -> None:
    job = enqueue_background_job(
        'workers.email_tasks.send_notification',
        recipient='user@example.com',
        subject='Your order is ready',
        template='order_complete',
    )
    assert get_job_status(job.id)['error'] is None
    [message] = mailbox.messages
    assert (message['To'], message['Subject']) == ('user@example.com', 'Your order is ready')
    texts = [text_of(part) for part in message.iter_parts()]
    assert texts[0] == (
        'Hello,\n\nyour order is complete and on its way to you.\n\n'
        'Thank you for ordering from us.\n'
    )
    assert '<p>your order is complete and on its way to you.</p>' in texts[1]


@pytest.mark.usefixtures('jobs', 'mailbox')
def test_each_included_template_can_be_filled_in_without_variables() -> None:
    templates = Path(__file__).parents[2] / 'workers' / 'templates' / 'email'
    names = {file.stem for file in templates.iterdir()}
    assert names >= {'order_complete', 'welcome'}
    for name in names:
        job = enqueue_background_job(
            'workers.email_tasks.send_notification',
            recipient='user@example.com',
            subject='Hello',
            template=name,
        )
        assert get_job_status(job.id)['error'] is None


def test_a_file_is_named_as_web_code_names_uploads(jobs: RecordedJobs, upload_folder: Path) -> None:
    job = enqueue_background_job(
        'workers.data_tasks.process_file',
        file_path='/uploads/data.csv',
        format='json',
        job_timeout='15m',
    )
    status = get_job_status(job.id)
    assert status['error'] is None
    assert json.loads(Path(status['result']).read_text()) == [{'pen': '007', 'ink': 'sepia'}]
    jobs.assert_enqueued('workers.data_tasks.process_file', job_timeout='15m')


@pytest.mark.usefixtures('jobs')
def test_a_file_can_be_named_by_the_path_at_which_it_was_saved(upload_folder: Path) -> None:
    def save_file() -> str:
        return os.path.join(os.path.abspath(upload_folder), 'data.csv')

    with Flask('an-app').app_context():
        job = enqueue_background_job('workers.data_tasks.process_file', save_file())
    assert get_job_status(job.id)['error'] is None
