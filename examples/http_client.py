"""Enqueue a hundred jobs through the HTTP API, as a client in any language can.

Start `make up`, type the two lines that it prints into a second terminal, then run

    python -m examples.http_client
"""

import os
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import click
import requests

DEADLINE = 600.0  # seconds, for a busy machine
TIMEOUT = 60.0  # seconds for a request
ENDED = ('finished', 'failed', 'stopped', 'canceled')
NUMBERS = range(100)


def main() -> None:
    if not {'JOBS_API_TOKEN', 'JOBS_URL'} <= os.environ.keys():
        raise SystemExit('Set JOBS_API_TOKEN and JOBS_URL, as `make up` prints them.')
    with requests.Session() as session:
        session.headers['Authorization'] = f'Bearer {os.environ["JOBS_API_TOKEN"]}'
        client = Client(session, os.environ['JOBS_URL'])
        began = time.monotonic()
        ids = [client.enqueue(*job_of(number)) for number in NUMBERS]
        click.echo(f'{len(ids)} jobs are queued, after {time.monotonic() - began:.2f} s.')
        jobs = [client.wait(job_id, began + DEADLINE) for job_id in ids]
    click.echo(f'All have ended, after {time.monotonic() - began:.2f} s:')
    for (task, status), count in sorted(
        Counter((job['task'], job['status']) for job in jobs).items()
    ):
        click.echo(f'  {count:3} {task} {status}')


def job_of(number: int) -> tuple[str, dict[str, Any]]:
    """Return the task and the payload of a job."""
    if number % 25 == 0:
        return 'generate_pdf', {'user_id': number}
    if number % 3 == 0:
        address = f'customer-{number}@example.com'
        return 'email_notification', {'email': address, 'subject': 'Hello', 'body': 'Hi!'}
    if number % 3 == 1:
        return 'data_processing', {'data': [1, 2.5, number]}
    return 'flaky_api_call', {'endpoint': f'/users/{number}'}


class Client:
    def __init__(self, session: requests.Session, url: str) -> None:
        self.session = session
        self.url = url

    def enqueue(self, task: str, payload: dict[str, Any]) -> str:
        """Enqueue a job under an id chosen here, so that repeating the request is safe."""
        body = {'task_name': task, 'payload': payload, 'max_retries': 3, 'id': str(uuid4())}
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = self.session.post(self.url, json=body, timeout=TIMEOUT)
            if answer.status_code != 503 or time.monotonic() > deadline:
                break
            time.sleep(float(answer.headers['Retry-After']))
        if not answer.ok:  # the body names the error and the field
            raise SystemExit(f'{answer.status_code}: {answer.text}')
        return str(answer.json()['job_id'])

    def wait(self, job_id: str, deadline: float) -> dict[str, Any]:
        """Poll a job until it has ended, or until the deadline; return its status."""
        while True:
            answer = self.session.get(f'{self.url}/{job_id}', timeout=TIMEOUT)
            answer.raise_for_status()
            job: dict[str, Any] = answer.json()
            if job['status'] in ENDED or time.monotonic() > deadline:
                return job
            time.sleep(0.1)


if __name__ == '__main__':
    main()
