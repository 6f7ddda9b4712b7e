"""The states of a job: what holds its id in each, and which are terminal.

Python and the Lua scripts read this one table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """`place` is the kind of the key that holds the job's id: its queue, or a registry."""

    place: str
    is_terminal: bool = False


STATES = {
    'queued': State('queue'),
    'scheduled': State('scheduled'),
    'deferred': State('deferred'),
    'started': State('wip'),
    'finished': State('finished', is_terminal=True),
    'failed': State('failed', is_terminal=True),
    'stopped': State('failed', is_terminal=True),
    'canceled': State('canceled', is_terminal=True),
}

ENDED = tuple(name for name, state in STATES.items() if state.is_terminal)

LUA_STATES = (
    f'local PLACE = {{{", ".join(f"{name}={state.place!r}" for name, state in STATES.items())}}}\n'
    f'local ENDED = {{{", ".join(f"{name}=true" for name in ENDED)}}}\n'
)
