"""An application with named tasks and their HTTP API.

    python -m examples.job_queue

It starts a Valkey, a worker and this application on port 5004, with the API at /jobs, and prints
how to use it. Ctrl-C stops everything.
"""

import os
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click
from flask import Flask

from examples.demo import use_settings, worker
from examples.queue_tasks import Item, queue, send_receipt
from qdjobs.server import HOST, embedded_redis


def create_app() -> Flask:
    app = Flask(__name__)
    queue.init_app(app)

    @app.post('/order')
    def order() -> str:
        # Enqueued by function, so that editors complete the arguments and mypy checks them;
        # queue.enqueue('send_receipt', …) does the same by name.
        items: list[Item] = [{'name': 'ink', 'cents': 1250}]
        today = datetime.now(UTC).date()
        job = queue.using(job_delay='1s').enqueue(send_receipt, 'zoe@example.com', items, today)
        return f'Thank you: a receipt is on its way, as job {job.id}.\n'

    return app


@click.command()
@click.option('--port', default=5004, show_default=True)
def main(port: int) -> None:
    """Start a Valkey, a worker and the application."""
    token = os.environ.setdefault('JOBS_API_TOKEN', secrets.token_urlsafe(16))
    with tempfile.TemporaryDirectory(prefix='job-queue-') as folder, embedded_redis() as url:
        use_settings(url, Path(folder))
        with worker(Path(folder) / 'worker.log'):
            click.echo(
                f'export JOBS_API_TOKEN={token} JOBS_URL=http://{HOST}:{port}/jobs\n\n'
                'Run this in another terminal, then one of\n\n'
                '  python -m examples.http_client\n'
                '  curl $JOBS_URL -H "Authorization: Bearer $JOBS_API_TOKEN" '
                "-H 'Content-Type: application/json' \\\n"
                '       -d \'{"task": "count_words", "params": {"text": "ink on paper"}}\'\n'
                '  curl $JOBS_URL -H "Authorization: Bearer $JOBS_API_TOKEN"\n'
            )
            create_app().run(HOST, port)


if __name__ == '__main__':
    main()
