"""Claim the jobs of one worker: the next, and one ahead while jobs are short. Lives in the parent.

While short jobs run, the worker claims the next job before the present one has ended, so that
neither the horse nor Redis waits for the other. A job claimed ahead is released, untouched, if the
present one turns out to be long: nothing waits behind it, and no job of higher priority either.
"""

import time
from collections.abc import Callable
from uuid import uuid4

import msgspec
from redis.exceptions import RedisError, ResponseError

from qdjobs.client.keys import is_wrong_type
from qdjobs.worker.contact import Contact
from qdjobs.worker.lease import (
    Claim,
    Claimed,
    ClaimRequest,
    claim_job,
    claim_request,
    wait_for_wake_up,
)
from qdjobs.worker.orders import Orders

SHORT = 0.005  # seconds, on average, that recent jobs take
LATE = 0.02  # seconds that a job claimed ahead waits before it is released
WEIGHT = 0.2  # of the latest job in the average


class Claims:
    """The claims of one worker."""

    def __init__(self, contact: Contact, orders: Orders, queues: Callable[[], list[str]]) -> None:
        """`queues` returns the names of the queues in the order in which they are served now."""
        self.ahead: Claim | None = None
        self.is_suspended = False
        self.found_nothing = True
        self._contact = contact
        self._config = contact.config
        self._orders = orders
        self._queues = queues
        self._average = 1.0  # seconds that a job takes
        self._due_check_at = 0.0  # on the monotonic clock
        self._is_woken = False
        self._unanswered: ClaimRequest | None = None  # it may have claimed a job

    @property
    def has_short_jobs(self) -> bool:
        """Whether recent jobs were so short that it pays to claim the next one ahead."""
        return self._average < SHORT

    def note_duration(self, seconds: float) -> None:
        """Take a job's duration into the average."""
        self._average += WEIGHT * (seconds - self._average)

    @property
    def is_unanswered(self) -> bool:
        """Whether a request may have claimed a job, but its reply was lost."""
        return self._unanswered is not None

    def request(self, is_ahead: bool = False, is_due_check: bool = False) -> ClaimRequest:
        """Return a new request, to send with an ending."""
        moment = time.monotonic()
        if is_due_check or moment >= self._due_check_at:
            is_due_check = True
            self._due_check_at = moment + self._config.due_interval
        lease, queues = self._config.lease, self._queues()
        is_woken, self._is_woken = self._is_woken, False
        return claim_request(
            self._contact.worker, uuid4().hex, lease, queues, is_due_check, is_ahead, is_woken
        )

    def read(self, claimed: Claimed) -> Claim | None:
        """Read the reply to a request."""
        self._unanswered = None
        self.is_suspended = claimed.is_suspended
        self.found_nothing = claimed.claim is None
        if claimed.has_more:
            self._due_check_at = 0.0
        return claimed.claim

    def lose_reply(self, request: ClaimRequest) -> None:
        """Note that a request may have claimed a job, but the reply was lost."""
        self._unanswered = request

    def try_once(self, is_ahead: bool = False, is_due_check: bool = False) -> Claim | None:
        """Claim a job, or the one that an unanswered request has claimed. Raises RedisError."""
        repeated = self._unanswered
        if repeated is not None:
            request = msgspec.structs.replace(repeated, made_at=time.monotonic())
        else:
            request = self.request(is_ahead, is_due_check)
        self._unanswered = request
        connection = self._contact.own_connection
        claim = self.read(claim_job(connection, request, reply_lost=repeated is not None))
        self._contact.restored()
        return claim

    @property
    def has_more(self) -> bool:
        """Whether another claim must follow at once."""
        return self._due_check_at == 0.0

    def wait(self, most: float) -> None:
        """Wait for a job, but for no more than JOB_IDLE_WAIT and `most` seconds.

        Raises RedisError.
        """
        if not self.has_more:
            seconds = min(self._config.idle_wait, self._config.heartbeat_interval, most)
            try:
                self._is_woken = wait_for_wake_up(
                    self._contact.connection, self._queues(), seconds, self._orders.pipe
                )
            except ResponseError as error:
                if not is_wrong_type(error):
                    raise
                self._orders.pause(seconds)  # maintenance says which key is wrong

    def claim_ahead(self) -> None:
        """Claim a job ahead of the present one's end, if there is one."""
        try:
            self.ahead = self.try_once(is_ahead=True)
        except RedisError as error:
            self._contact.failed('claim a job', error)

    def take_ahead(self) -> Claim | None:
        """Return the job claimed ahead, if any: it begins now."""
        ahead, self.ahead = self.ahead, None
        return ahead
