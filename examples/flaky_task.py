"""A job that fails, is retried, becomes a dead letter and succeeds after `flask jobs retry`.

    python -m examples.flaky_task

It starts its own Valkey and worker, and takes a few seconds.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from examples.demo import DEADLINE, use_settings, worker
from libraries.job_manager import enqueue_background_job, list_jobs, wait_for_job
from qdjobs.server import embedded_redis

FLASK = str(Path(sys.executable).with_name('flask'))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix='flaky-task-') as folder, embedded_redis() as url:
        scratch = Path(folder)
        use_settings(url, scratch)
        cable = scratch / 'cable'
        with worker(scratch / 'worker.log'):
            job = enqueue_background_job(
                'examples.demo_tasks.print_label',
                str(cable),
                job_max_retries=2,
                job_retry_delay='0.5s',  # doubles at each retry; the default is 10 s
            )
            click.echo(f'Job {job.id} is queued. There is no cable to the printer.')
            status = wait_for_job(job.id, DEADLINE)
            for attempt in status['attempts']:
                click.echo(f'  {attempt["at"]:%H:%M:%S.%f}  {attempt["error"]}')
            dead = [letter['id'] for letter in list_jobs('failed')]
            click.echo(f'It is {status["status"]}, and among the dead letters: {dead}.')

            cable.touch()
            click.echo('\nThe cable is plugged in.')
            retry(job.id)
            status = wait_for_job(job.id, DEADLINE)
            click.echo(f'It is {status["status"]}: {status["result"]}')
            click.echo(f'Dead letters: {list_jobs("failed")}.')


def retry(job_id: str) -> None:
    command = ['flask', 'jobs', 'retry', job_id]
    click.echo(f'$ {" ".join(command)}')
    subprocess.run([FLASK, *command[1:]], check=True)  # noqa: S603


if __name__ == '__main__':
    main()
