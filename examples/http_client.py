"""Run a hundred jobs through the HTTP API, as a client in any language can.

Start `python -m examples.job_queue`, set the two variables that it prints, then run

    python -m examples.http_client
"""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import click
import requests

JOBS = 100
AT_ONCE = 8  # connections
DEADLINE = 60.0  # seconds
ENDED = ('finished', 'failed', 'stopped', 'canceled')


def main() -> None:
    if not {'JOBS_API_TOKEN', 'JOBS_URL'} <= os.environ.keys():
        raise SystemExit('Set JOBS_API_TOKEN and JOBS_URL as examples.job_queue prints them.')
    with requests.Session() as session, ThreadPoolExecutor(AT_ONCE) as threads:
        session.mount('http://', requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))
        session.headers['Authorization'] = f'Bearer {os.environ["JOBS_API_TOKEN"]}'
        client = Client(session, os.environ['JOBS_URL'])
        began = time.monotonic()
        ids = list(threads.map(client.enqueue, range(JOBS)))
        click.echo(f'{JOBS} jobs are queued, after {time.monotonic() - began:.2f} s.')
        jobs = list(threads.map(client.wait, ids))
        ends = Counter(job['status'] for job in jobs)
        click.echo(f'All have ended, after {time.monotonic() - began:.2f} s: {dict(ends)}.')
        click.echo(f'The result of the last: {jobs[-1]["result"]}')


class Client:
    def __init__(self, session: requests.Session, url: str) -> None:
        self.session = session
        self.url = url

    def enqueue(self, number: int) -> str:
        """Enqueue a job under an id chosen here, so that repeating the request is safe."""
        job_id = str(uuid4())
        params = {
            'to': f'customer-{number}@example.com',
            'items': [{'name': 'ink', 'cents': 1250}, {'name': 'paper', 'cents': 5 * number}],
            'day': '2030-01-31',  # the task gets a date
        }
        body = {'task': 'send_receipt', 'params': params, 'id': job_id}
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = self.session.post(self.url, json=body, timeout=10)
            if answer.status_code != 503 or time.monotonic() > deadline:
                break
            time.sleep(float(answer.headers['Retry-After']))
        if not answer.ok:  # the body names the error and the field
            raise SystemExit(f'{answer.status_code}: {answer.text}')
        return job_id

    def wait(self, job_id: str) -> dict[str, Any]:
        """Poll a job until it has ended, or until DEADLINE; return its status."""
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = self.session.get(f'{self.url}/{job_id}', timeout=10)
            answer.raise_for_status()
            job: dict[str, Any] = answer.json()
            if job['status'] in ENDED or time.monotonic() > deadline:
                return job
            time.sleep(0.1)


if __name__ == '__main__':
    main()
