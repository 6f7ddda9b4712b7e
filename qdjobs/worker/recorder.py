"""Record how runs have ended, until Redis has answered. Lives in the parent."""

import logging
import time
from dataclasses import dataclass

from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from qdjobs.client.redis import FORMER_PRIMARY
from qdjobs.worker import ending
from qdjobs.worker.contact import Contact
from qdjobs.worker.ending import Encoded
from qdjobs.worker.lease import Claim, ClaimRequest, Ended, Lease, end_run
from qdjobs.worker.runner import FollowUp
from qdjobs.worker.successors import enqueue_all_dependents, free_slot
from qdjobs.worker.untrusted import CheckedJob

RETRY_INTERVAL = 0.2  # seconds
DEPENDENTS_BUDGET = 1.0  # seconds for dependents of one job; maintenance goes on later

log = logging.getLogger(__name__)

# Refusals that end when Redis is whole again, besides those of OUTAGES.
_OUTAGE_PREFIXES = (*FORMER_PRIMARY, 'MISCONF', 'BUSY', 'TRYAGAIN')
_OUTAGES = (ReadOnlyError, OutOfMemoryError, NoPermissionError, ClusterDownError)


@dataclass(frozen=True)
class Outcome:
    """How a run has ended, and what the horse does once that is recorded."""

    ending: Encoded
    follow_up: FollowUp | None = None


@dataclass
class Pending:
    """An ending that Redis has not accepted yet."""

    claim: Claim
    ending: Encoded
    follow_up: FollowUp | None
    begun: Lease | None  # of a run that was claimed ahead and has begun meanwhile
    is_replaced: bool = False  # by a failure, since Redis will never accept it


class Recorder:
    """Writes endings in their order; keeps those that Redis has not accepted yet."""

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        self.follow_ups: list[FollowUp] = []  # of recorded endings, for the horse
        self._pending: list[Pending] = []
        self._retry_at = 0.0

    @property
    def is_behind(self) -> bool:
        """Whether endings wait for Redis. No job is to be started then."""
        return bool(self._pending)

    @property
    def leases(self) -> list[Lease]:
        """The leases of the runs whose endings are not recorded yet."""
        return [pending.claim.lease for pending in self._pending]

    def record(
        self,
        claim: Claim,
        outcome: Outcome,
        begun: Claim | None = None,
        request: ClaimRequest | None = None,
    ) -> Ended | None:
        """Record an ending, and claim the next job if there is a request, in one step.

        Returns None if Redis has not answered: the ending is then recorded later.
        """
        started = begun.lease if begun is not None else None
        pending = Pending(claim, outcome.ending, outcome.follow_up, started)
        if self._pending:
            self._pending.append(pending)
            return None
        ended = self._write(pending, request)
        if ended is None:
            self._pending.append(pending)
        return ended

    def retry_if_due(self) -> None:
        """Record pending endings, if it is time to try again."""
        if not self._pending or time.monotonic() < self._retry_at:
            return
        while self._pending and self._write(self._pending[0]) is not None:
            del self._pending[0]

    def _write(self, pending: Pending, request: ClaimRequest | None = None) -> Ended | None:
        lease = pending.claim.lease
        try:
            connection = self._contact.own_connection
            ended = end_run(connection, lease, pending.ending, pending.begun, request)
        except RedisError as error:
            self._retry_at = time.monotonic() + RETRY_INTERVAL
            self._contact.failed(f'record how job {lease.job_id} has ended', error)
            if _is_refusal(error) and not pending.is_replaced:
                self._replace(pending, error)
            return None
        self._contact.restored()
        if pending.follow_up is not None and ended.state != 'lost':
            self.follow_ups.append(pending.follow_up)
        self._release_others(pending.claim, ended)
        return ended

    def _replace(self, pending: Pending, error: RedisError) -> None:
        """Let the job fail with the reason for which Redis will never accept its ending."""
        job = CheckedJob(pending.claim.lease.job_id, self._contact.connection)
        text = f'{type(error).__name__}: Redis refuses the outcome of the job: {error}'
        pending.ending = ending.failed(job, self._contact.worker, text).encode()
        pending.is_replaced = True

    def _release_others(self, claim: Claim, ended: Ended) -> None:
        """Let those jobs run that have waited for this one."""
        job_id = claim.lease.job_id
        if ended.state == 'lost':
            log.error(
                'Worker %s: discards the outcome of job %s: its lease is lost, or the job was '
                'cancelled or deleted',
                self._contact.worker,
                job_id,
            )
        if ended.has_dependents:
            try:
                enqueue_all_dependents(self._contact.connection, job_id, DEPENDENTS_BUDGET)
            except RedisError as error:  # maintenance repeats it
                log.warning('Dependents of job %s are not enqueued yet: %s', job_id, error)
        if limit := claim.fields.get(b'rate_limit_key'):
            free_slot(self._contact.connection, limit.decode(errors='replace'), job_id)


def _is_refusal(error: RedisError) -> bool:
    """Return whether Redis would refuse the same again."""
    return (
        isinstance(error, ResponseError)
        and not isinstance(error, _OUTAGES)
        and not str(error).startswith(_OUTAGE_PREFIXES)
    )
