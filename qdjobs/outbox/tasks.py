"""The task that relays an outbox from a worker."""

import logging

from qdjobs.client.outboxes import current_outbox
from qdjobs.errors import QueueUnavailableError

SECONDS = 30  # of one run: one that does not end at all would keep its worker from other jobs

log = logging.getLogger(__name__)


def relay() -> int:
    """Make jobs of what waits in the outbox of the worker's application; return of how many rows.

    Never fails, because each failure would leave a dead letter: the next run is seconds away.
    """
    outbox = current_outbox()
    if outbox is None:
        log.warning('There is no outbox: JOB_APP names no application that has one.')
        return 0
    try:
        return outbox.relay(seconds=SECONDS)
    except QueueUnavailableError as error:
        log.warning('The outbox cannot be relayed now: %s', error)
        return 0
