"""Typed payloads, and tasks that look at their job, in the process of the caller."""

from dataclasses import dataclass

import pytest
from flask import Flask, request

from qdjobs import JobQueue, UnknownTaskError, current_job, get_job_status
from qdjobs.testing import eager_jobs

app = Flask(__name__)
queue = JobQueue()


@dataclass
class EmailPayload:
    to: str
    subject: str
    retries: int = 0


@queue.task('send_email')
def send_email(payload: EmailPayload) -> str:
    job = current_job()
    assert job is not None
    if job.attempt < 3:
        raise ConnectionError(f'attempt {job.attempt} of {job.id}')
    return f'{payload.subject} to {payload.to}'


@queue.task('report')
def report(**params: object) -> dict[str, object]:
    return params


@pytest.fixture(autouse=True)
def named(settings: pytest.MonkeyPatch) -> JobQueue:
    settings.setitem(app.config, 'JOB_TASK_MODULES', [__name__])
    app.extensions.clear()
    app.cli.commands.clear()
    queue.init_app(app)
    return queue


def test_max_attempts_and_delay_are_options_of_the_job() -> None:
    with app.app_context(), eager_jobs():
        job = queue.enqueue(
            'send_email',
            EmailPayload('zoe@example.com', 'Hello'),
            job_max_retries=4,  # max_attempts=5
            job_delay=60,
            job_id='mail-7',
        )
        assert (job.id, job.status, job.error) == ('mail-7', 'finished', None)
        assert job.result == 'Hello to zoe@example.com'
        errors = [attempt['error'] for attempt in get_job_status(job.id)['attempts']]
    assert errors == [f'ConnectionError: attempt {number} of mail-7' for number in (1, 2)]


def test_the_query_of_a_request_is_an_argument() -> None:
    with app.test_request_context('/?kind=sales&year=2030'), eager_jobs():
        assert queue.enqueue('report', params=request.args).result == {
            'params': {'kind': 'sales', 'year': '2030'}
        }


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with app.app_context(), pytest.raises(UnknownTaskError, match='there is send_email'):
        queue.enqueue('send_mail')
