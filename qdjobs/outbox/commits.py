"""Notice that a session has committed rows of an outbox, and have them relayed."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from qdjobs.client.call import Call
from qdjobs.errors import QueueUnavailableError

_KEY = 'qdjobs_outbox'  # in the `info` of a session: its Pending of each outbox, by `on_commit`
_BREATH = 0.005  # seconds that a request has to end before its rows are relayed
_PAUSE = 1.0  # seconds after a failed attempt, in which there is no other

log = logging.getLogger(__name__)

OnCommit = Callable[[list[Call], Engine | Connection], None]


@dataclass
class _Pending:
    """What a session has added to an outbox in its transaction."""

    bind: Engine | Connection  # of the session
    calls: list[Call] = field(default_factory=list)
    is_committed: bool = False


def note_added(
    session: Session, bind: Engine | Connection, call: Call, on_commit: OnCommit
) -> None:
    """Have `on_commit` called with this call, and with `bind`, once the session has committed.

    A savepoint that is rolled back takes no call away: the table says which rows there are.
    """
    _listen()
    by_outbox: dict[OnCommit, _Pending] = session.info.setdefault(_KEY, {})
    by_outbox.setdefault(on_commit, _Pending(bind)).calls.append(call)


def _listen() -> None:
    """Listen to every session, once in a process: not at import, which acts on nothing."""
    if not event.contains(Session, 'after_commit', _committed):
        event.listen(Session, 'after_commit', _committed)
        event.listen(Session, 'after_transaction_end', _ended)


def _committed(session: Session) -> None:
    if session.in_nested_transaction():  # a savepoint's release
        return
    for pending in session.info.get(_KEY, {}).values():
        pending.is_committed = True


def _ended(session: Session, transaction: SessionTransaction) -> None:
    # Not in `_committed`, where the session still has its connections and can begin nothing.
    if transaction.parent is not None or _KEY not in session.info:
        return
    by_outbox: dict[OnCommit, _Pending] = session.info.pop(_KEY)
    for on_commit, pending in by_outbox.items():
        if pending.is_committed:
            on_commit(pending.calls, pending.bind)


class RelayThread:
    """A thread that relays whenever it is woken: begun when first needed, in each process anew."""

    def __init__(self, relay: Callable[[], object]) -> None:
        self._relay = relay
        self._wakes: dict[int, threading.Event] = {}  # by process: a fork has no threads

    def wake(self) -> None:
        """Have everything relayed soon. Waits for nothing, and never fails: the commit is done."""
        pid = os.getpid()
        if pid not in self._wakes:  # without a lock, which a fork may find locked: two do no harm
            woken = threading.Event()
            thread = threading.Thread(
                target=self._run, args=(woken,), name='qdjobs outbox', daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # too many threads, or the interpreter ends
                log.warning('The outbox cannot be relayed by a thread now: %s', error)
                return
            self._wakes = {pid: woken}
        self._wakes[pid].set()

    def _run(self, woken: threading.Event) -> None:
        while woken.wait():
            time.sleep(_BREATH)  # both run Python code, one at a time
            woken.clear()
            try:
                self._relay()
            except QueueUnavailableError as error:  # the rows wait, and any worker tries again
                log.warning('The outbox cannot be relayed now: %s', error)
                time.sleep(_PAUSE)
            except Exception:
                log.exception('The outbox cannot be relayed now')
                time.sleep(_PAUSE)
