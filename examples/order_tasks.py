"""The table and the tasks of `examples.orders`, for its web process and its worker."""

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qdjobs import JobQueue, current_job


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
queue = JobQueue()


class Order(db.Model):  # type: ignore[name-defined, misc]  # made by db at run time
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    cents: Mapped[int]


@queue.task('send_receipt', job_max_retries=5)
def send_receipt(order: int) -> str:
    found = db.session.get_one(Order, order)  # it is there: the job exists once it is committed
    return f'To {found.customer}: order {found.id}, {found.cents / 100:.2f} euros.'


@queue.task('print_label')
def print_label(order: int) -> int:
    """Return the postage in cents."""
    return 160 if db.session.get_one(Order, order).cents < 3000 else 0


@queue.task('sum_up')
def sum_up() -> str:
    job = current_job()
    postages = [label['result'] for label in job.parents().values()] if job else []
    return f'{len(postages)} labels, {sum(postages) / 100:.2f} euros of postage.'


@queue.task('report', cron='0 3 * * *', timezone='Europe/Berlin')
def report() -> str:
    number, cents = db.session.execute(select(func.count(), func.sum(Order.cents))).one()
    return f'{number} orders, {cents / 100:.2f} euros.'
