"""Clients that POST a task's name and a payload, and read the job's id."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests

from qdjobs.config import environment_config
from tests.support.processes import Worker, eventually
from tests.support.smtp import Mailbox, mail_server

TOKEN = 's3cret'
PAYLOADS: dict[str, dict[str, Any]] = {
    'email_notification': {'email': 'user@example.com', 'subject': 'Hello', 'body': 'Hi!'},
    'data_processing': {'data': [1, 2, 3, 4, 5]},
    'generate_pdf': {'user_id': 123},
    'flaky_api_call': {'endpoint': '/users'},
}


@pytest.fixture
def mailbox(settings: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    settings.setenv('JOBS_API_TOKEN', TOKEN)
    environment_config.cache_clear()
    with mail_server() as mailbox:
        settings.setenv('SMTP_URL', f'smtp://127.0.0.1:{mailbox.port}')
        yield mailbox


@pytest.mark.slow
def test_a_hundred_jobs_in_a_loop(mailbox: Mailbox, address: str, own_worker: Worker) -> None:
    url = f'{address}api/jobs'
    with requests.Session() as session:
        session.headers['Authorization'] = f'Bearer {TOKEN}'

        def enqueue(task_name: str) -> str:
            response = session.post(
                url,
                json={'task_name': task_name, 'payload': PAYLOADS[task_name], 'max_retries': 3},
                timeout=60,
            )
            return str(response.json()['job_id'])

        def read(job_id: str) -> dict[str, Any]:
            job: dict[str, Any] = session.get(f'{url}/{job_id}', timeout=60).json()
            return job

        def has_ended(job_id: str) -> bool:
            return read(job_id)['status'] in ('finished', 'failed')

        names = ['generate_pdf', *['email_notification', 'data_processing', 'flaky_api_call'] * 33]
        ids = [enqueue(name) for name in names]
        with own_worker():
            for job_id in ids:
                eventually(partial(has_ended, job_id), 300)
        jobs = [read(job_id) for job_id in ids]
        dead = session.get(url, params={'status': 'failed', 'limit': '100'}, timeout=60).json()
    assert [job['task'] for job in jobs] == names
    flaky = [job for job in jobs if job['task'] == 'flaky_api_call']
    assert any(job['attempts'] for job in flaky)
    failed = {job['job_id'] for job in jobs if job['status'] == 'failed'}
    assert failed <= {job['job_id'] for job in flaky}
    assert {job['job_id'] for job in dead['jobs']} == failed
    assert len(mailbox.messages) == 33


def test_without_the_token_the_answer_says_how_to_get_one(mailbox: Mailbox, address: str) -> None:
    body = {'task_name': 'data_processing', 'payload': PAYLOADS['data_processing']}
    for header in ({}, {'Authorization': 'Bearer wrong'}):
        answer = requests.post(f'{address}api/jobs', json=body, headers=header, timeout=60)
        assert answer.status_code == 401
        assert 'Authorization: Bearer' in answer.json()['detail']
        assert 'JOBS_API_TOKEN' in answer.json()['detail']
