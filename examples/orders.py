"""Orders that commit with their jobs, a fan-out with a summary, and a nightly report.

    python -m examples.orders

It starts a Valkey and a worker, keeps a SQLite database meanwhile, and takes a few seconds.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from flask import Flask
from sqlalchemy import select

from examples.demo import DEADLINE, worker
from examples.order_tasks import Order, db, print_label, queue
from qdjobs import enqueue_background_jobs, get_job_status, wait_for_job
from qdjobs.errors import JobNotFoundError
from qdjobs.server import embedded_redis, point_here

APP = 'examples.orders:create_app'
FLASK = str(Path(sys.executable).with_name('flask'))


def create_app() -> Flask:
    app = Flask(__name__)
    app.config['SQLALCHEMY_DATABASE_URI'] = os.environ['DATABASE_URL']
    db.init_app(app)
    queue.init_app(app, db)
    return app


def main() -> None:
    with tempfile.TemporaryDirectory(prefix='orders-') as folder, embedded_redis() as url:
        point_here(url)
        os.environ |= {'DATABASE_URL': f'sqlite:///{folder}/orders.db', 'JOB_APP': APP}
        os.environ['JOB_TASK_MODULES'] = 'examples'
        with create_app().app_context():
            db.create_all()
            queue.outbox.create_all()
            with worker(Path(folder, 'worker.log')):
                take_orders()
                print_labels()
                show_report()


def take_orders() -> None:
    """Commit orders, each with the job of its receipt, and roll one back."""
    receipts = [place_order(f'customer-{n}@example.com', 500 * n) for n in range(1, 9)]
    db.session.commit()
    click.echo(f'{len(receipts)} orders are committed, each with the job of its receipt:')
    for job_id in receipts:
        click.echo(f'  {wait_for_job(job_id, DEADLINE)["result"]}')
    withdrawn = place_order('zoe@example.com', 1250)
    db.session.rollback()
    try:
        get_job_status(withdrawn)
    except JobNotFoundError:
        click.echo('One more was rolled back, so there is no job for it.\n')


def place_order(customer: str, cents: int) -> str:
    """Add an order and its job to the transaction, and return the id of the job."""
    order = Order(customer=customer, cents=cents)
    db.session.add(order)
    db.session.flush()  # which numbers it
    return queue.outbox.enqueue(db.session, 'send_receipt', order=order.id).id


def print_labels() -> None:
    """Fan out over the orders, and sum up once all have finished. No worker waits."""
    orders = db.session.scalars(select(Order.id))
    labels = enqueue_background_jobs(print_label, [{'order': order} for order in orders])
    summary = queue.enqueue('sum_up', job_after=labels)
    click.echo(f'Job {summary.id} waits for {len(labels)} labels, then says:')
    click.echo(f'  {wait_for_job(summary.id, DEADLINE)["result"]}\n')


def show_report() -> None:
    """Show when the report runs, and run it now."""
    command = ['flask', '--app', APP, 'jobs', 'schedule']
    click.echo(f'$ {" ".join(command)}')
    subprocess.run([FLASK, *command[1:]], check=True)  # noqa: S603
    click.echo('By hand, the report says:')
    click.echo(f'  {wait_for_job(queue.enqueue("report").id, DEADLINE)["result"]}')


if __name__ == '__main__':
    main()
