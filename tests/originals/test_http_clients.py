"""Clients that POST a task's name and a payload, and read the job's id."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from libraries.job_manager import get_job_status, list_jobs
from qdjobs.config import environment_config
from tests.support.processes import Worker, run_example
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
def test_a_client_of_a_hundred_jobs(mailbox: Mailbox, address: str, own_worker: Worker) -> None:
    """Those that fail half of the time end well, or among the dead letters."""
    variables = {'JOBS_API_TOKEN': TOKEN, 'JOBS_URL': f'{address}api/jobs'}
    with own_worker():
        said = run_example('examples.http_client', **variables)
    assert '100 jobs are queued' in said.stdout, said.stderr
    ended = {
        (task, status): int(count)
        for count, task, status in re.findall(r'^ +(\d+) (\w+) (\w+)$', said.stdout, re.MULTILINE)
    }
    flaky = [ended.pop(('flaky_api_call', status), 0) for status in ('finished', 'failed')]
    assert ended == {
        ('generate_pdf', 'finished'): 4,
        ('email_notification', 'finished'): 32,
        ('data_processing', 'finished'): 32,
    }
    assert sum(flaky) == 32
    assert len(list_jobs('failed')) == flaky[1]
    assert len(mailbox.messages) == 32


@pytest.mark.parametrize('task_name', PAYLOADS)
def test_each_task_has_the_name_and_the_payload_that_it_had(
    mailbox: Mailbox, address: str, task_name: str
) -> None:
    body = {'task_name': task_name, 'payload': PAYLOADS[task_name], 'max_retries': 3}
    headers = {'Authorization': f'Bearer {TOKEN}'}
    answer = requests.post(f'{address}api/jobs', json=body, headers=headers, timeout=60)
    assert answer.status_code == 201
    assert get_job_status(answer.json()['job_id'])['status'] == 'queued'


def test_a_client_with_a_wrong_token_says_what_is_wrong(mailbox: Mailbox, address: str) -> None:
    variables = {'JOBS_API_TOKEN': 'wrong', 'JOBS_URL': f'{address}api/jobs'}
    refused = run_example('examples.http_client', **variables)
    assert (refused.returncode, refused.stdout) == (1, '')
    assert '401' in refused.stderr
    assert 'Send the token' in refused.stderr


def test_without_the_token_the_answer_says_how_to_get_one(mailbox: Mailbox, address: str) -> None:
    body = {'task_name': 'data_processing', 'payload': PAYLOADS['data_processing']}
    for header in ({}, {'Authorization': 'Bearer wrong'}):
        answer = requests.post(f'{address}api/jobs', json=body, headers=header, timeout=60)
        assert answer.status_code == 401
        assert 'Authorization: Bearer' in answer.json()['detail']
        assert 'JOBS_API_TOKEN' in answer.json()['detail']
