"""Enqueue the periodic jobs whose tick is due. Lives in the parent of every worker, busy or idle.

A horse says what is periodic: the parent loads no application. What is due is decided by the clock
of Redis, in the script that enqueues; here it is only guessed when to ask. So workers whose clocks
differ, or that stood still, enqueue nothing twice and nothing early.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from redis.exceptions import RedisError

from qdjobs.schedule.entries import Plan, Refused
from qdjobs.schedule.state import job_id_of, send_ticks
from qdjobs.worker.contact import Contact

PAUSE = 2.0  # seconds before another attempt, after an error
SOON = 0.05  # seconds, at least, that an idle worker waits for a tick

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Entry:
    """A periodic job, with the ticks before and after the present time of Redis."""

    plan: Plan
    tick: int = 0
    following: int = 0
    handled: int = 0  # the last tick with an outcome
    error: str = ''  # of the last attempt, which is logged

    def is_due(self, now: float) -> bool:
        """Return whether its latest tick has no outcome that is known here."""
        if not self.tick <= now < self.following:
            self.tick = self.plan.rule.latest(now)
            self.following = self.plan.rule.following(now)
        return self.tick != self.handled


class Ticks:
    """The periodic jobs that one worker serves."""

    def __init__(self, contact: Contact, clock: Callable[[], float] = time.monotonic) -> None:
        self._contact = contact
        self._clock = clock
        self._decoder = msgspec.msgpack.Decoder(list[Plan | Refused])
        self._entries: list[_Entry] = []
        self._lead: float | None = None  # seconds that the clock of Redis is ahead of ours
        self._next_beat = 0.0  # on our clock
        self._next_look = 0.0

    def serve(self, news: bytes) -> None:
        """Take over what a new horse says that is periodic.

        What a hook refuses now stays as the horse before has planned it.
        """
        before = {entry.plan.name: entry.plan for entry in self._entries}
        found = self._decoder.decode(news)
        plans = [before.get(each.name) if isinstance(each, Refused) else each for each in found]
        self._entries = [_Entry(plan) for plan in plans if plan is not None]
        self._next_beat = self._next_look = 0.0

    def seconds_left(self) -> float:
        """Return how long there is nothing to do."""
        if not self._entries:
            return float('inf')
        return max(SOON, self._next_look - self._clock())

    def run_if_due(self) -> None:
        """Enqueue what is due. Logs all errors of Redis."""
        if not self._entries or self._clock() < self._next_look:
            return
        try:
            is_first = self._lead is None  # then it has sent no tick
            is_well = self._run() and (not is_first or self._run())
        except RedisError as error:
            self._contact.failed('enqueue periodic jobs', error)
            is_well = False
        if not is_well:
            self._next_look = max(self._next_look, self._clock() + PAUSE)

    def _run(self) -> bool:
        """Send what is due, and with each beat all names. Returns whether Redis took all of it."""
        is_beat = self._clock() >= self._next_beat
        now = None if self._lead is None else self._clock() + self._lead
        due = {entry for entry in self._entries if now is not None and entry.is_due(now)}
        outcomes: dict[_Entry, str] = {}
        if due or is_beat:
            sent = self._entries if is_beat else due
            ticks = [(e.plan, e.tick if e in due else 0, e.following) for e in sent]
            served = send_ticks(self._contact.connection, ticks)
            self._lead = served.now - self._clock()
            if is_beat:
                self._next_beat = self._clock() + self._contact.config.heartbeat_interval
            outcomes = dict(zip(sent, served.outcomes, strict=True))
        for entry in due:
            self._note(entry, outcomes[entry])
        self._next_look = self._next_beat
        for entry in self._entries:
            now = self._clock() + (self._lead or 0.0)
            wait = 0.0 if entry.is_due(now) else entry.following - now
            self._next_look = min(self._next_look, self._clock() + wait)
        return not any(outcome.startswith('error') for outcome in outcomes.values())

    def _note(self, entry: _Entry, outcome: str) -> None:
        name, job_id = entry.plan.name, job_id_of(entry.plan.name, entry.tick)
        error = outcome if outcome.startswith('error') else ''
        if error and error != entry.error:
            log.error('Periodic job %s cannot be enqueued: %s', name, error)
        entry.error = error
        if not error and outcome != 'elsewhen':
            entry.handled = entry.tick
        level = logging.DEBUG if entry.plan.is_own else logging.INFO
        if outcome == 'added':
            log.log(level, 'Periodic job %s: enqueued %s', name, job_id)
        elif outcome == 'skipped':
            log.log(level, 'Periodic job %s: skipped %s, the last job has not ended', name, job_id)
