"""The life of one activation.

::

                   load                 snapshot + entries read
    (asked) ──▶ RECOVERING ──────────────────▶ READY ──┬── idle, or passivate() ──▶ GONE
                  ▲   ▲ │                        │     │
                  │   │ └── cannot be read ──────┼─────┼──▶ STOPPED
        backoff   │   │                          │     └── supervision: stop ──▶ STOPPED
        over      │   └── failed, commit failed ─┤
               BACKOFF ◀── supervision: restart ─┤
                                                 └── its shard moves ──▶ LEAVING

One that is LEAVING and fails goes where a READY one goes. From every phase a cell becomes GONE when its shard leaves the host.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where an activation is in its life."""

    RECOVERING = "recovering"
    """It waits for the store; commands wait in the mailbox."""
    READY = "ready"
    """It runs commands as they come."""
    BACKOFF = "backoff"
    """Supervision holds its restart back; commands wait in the mailbox."""
    LEAVING = "leaving"
    """Its shard moves: what runs goes on, commands that were not begun wait to travel with it."""
    STOPPED = "stopped"
    """It answers every command with an error that says why."""
    GONE = "gone"
    """It is no longer of this host; what it still finishes is thrown away."""


_NEXT: dict[Phase, frozenset[Phase]] = {
    Phase.RECOVERING: frozenset({Phase.READY, Phase.STOPPED, Phase.BACKOFF, Phase.RECOVERING}),
    Phase.READY: frozenset({Phase.RECOVERING, Phase.BACKOFF, Phase.STOPPED, Phase.LEAVING}),
    Phase.LEAVING: frozenset({Phase.RECOVERING, Phase.BACKOFF, Phase.STOPPED}),
    Phase.BACKOFF: frozenset({Phase.RECOVERING, Phase.STOPPED}),
    Phase.STOPPED: frozenset(),
    Phase.GONE: frozenset(),
}


def step(phase: Phase, following: Phase) -> Phase:
    """Return ``following`` if it may come after ``phase``.

    Raises:
        RuntimeError: The drawing above has no such arrow; a mistake in the runtime.
    """
    if following is not Phase.GONE and following not in _NEXT[phase]:
        msg = f"An activation cannot go from {phase.value} to {following.value}."
        raise RuntimeError(msg)
    return following
