"""What `rq cron` reads."""

from rq import cron

from tests.support.tasks import add

cron.register(add, queue_name='default', args=(7,), interval=1)
