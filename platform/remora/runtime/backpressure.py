"""What a host refuses, and grants, when it has more to do than it can get done in time.

Mailboxes bound what waits for one entity; this is about the host as a whole. A timer looks at
what waits for the host itself, and sets one flag that commands are held against. What an entity is
slow at is not looked at: it concerns nobody else.

Refused is new work alone: never durable sends and reminders, which the platform owes, nor the
calls of a handler, which is at work already, nor questions about the host. Who is refused is told
when to come back. Before that, every client session is granted less to have under way at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from remora.errors import Overloaded
from remora.messages import ERROR, Ask
from remora.process import memory_limit_bytes, resident_bytes
from remora.runtime.committer import Sink
from remora.settings import Settings
from remora.why import how_long

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

LOOK_S = 0.1
"""Seconds between looks."""
LATE_LOOKS = 3
"""Looks in a row that have to come late before the loop counts as behind: one handler that blocked it is over by the next."""
CREDITS_MIN = 64
"""Least commands that a session is granted, so that it can always fill a call."""
RETRY_AFTER_S = 0.5
"""When to come back, in seconds: a few looks later."""


class Reading(NamedTuple):
    """What a look has found."""

    commit_s: float = 0.0
    """Age of the oldest commit that the store has not confirmed."""
    recovery_s: float = 0.0
    """Age of the oldest activation that waits for its turn to be read back."""
    late_s: float = 0.0
    """By how much the loop was late in every one of the last looks."""
    resident_bytes: int = 0
    """Memory of the process."""


class Refusals(NamedTuple):
    """Why new work is refused; empty where it is not."""

    all: str = ""
    activations: str = ""
    """Commands to entities that are not in memory."""


def refusals(reading: Reading, settings: Settings, memory_bytes: int) -> Refusals:
    """Return what is to be refused.

    Args:
        reading: What was found.
        settings: The app's.
        memory_bytes: What the process may use at most, with all others beside it.
    """
    age_max_s = settings.queue_age_max_s
    if reading.resident_bytes > settings.memory_max_share * memory_bytes:
        used, limit = reading.resident_bytes / 2**30, memory_bytes / 2**30
        return Refusals(all=f"its process has {used:.1f} GiB of {limit:.1f} GiB in memory")
    if reading.commit_s > age_max_s:
        return Refusals(all=f"the store has not confirmed a commit for {how_long(reading.commit_s)}")
    if reading.late_s > age_max_s:
        return Refusals(all=f"its event loop is {how_long(reading.late_s)} behind")
    if reading.recovery_s > age_max_s:
        waited = how_long(reading.recovery_s)
        return Refusals(activations=f"entities have waited {waited} for their turn to be read back")
    return Refusals()


class Backpressure:
    """A host's admission of new work.

    Args:
        host: Whose it is.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._settings = host.settings
        self._memory_bytes = memory_limit_bytes()
        self._late_s: deque[float] = deque([0.0] * LATE_LOOKS, maxlen=LATE_LOOKS)
        self.refusals = Refusals()
        self.credits = self._settings.channel_credits
        """What every session is granted at present."""
        self.refused = 0
        """Commands refused so far for what the host as a whole has to do."""

    async def run(self) -> None:
        """Look, again and again."""
        loop = self._host.loop
        while True:
            due_s = loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)  # noqa: TID251 - the period of looks; how late it ends is what is measured
            self._late_s.append(max(loop.time() - due_s, 0.0))
            self.act(self.read())

    def read(self) -> Reading:
        """Return what the host has to do at present."""
        host = self._host
        writing_s, recovery_s = host.committer.writing_since_s, host.recovery.oldest_s
        return Reading(
            0.0 if writing_s is None else host.loop.time() - writing_s,
            0.0 if recovery_s is None else host.clock.monotonic_s() - recovery_s,
            min(self._late_s),
            resident_bytes(),
        )

    def act(self, reading: Reading) -> None:
        """Refuse and grant accordingly."""
        host, before = self._host, self.refusals
        self.refusals = found = refusals(reading, self._settings, self._memory_bytes)
        host.pressed = bool(found.all or found.activations)
        if host.pressed and not (before.all or before.activations):
            host.log.warning("%s takes no new work: %s", host.name, found.all or found.activations)
        most = self._settings.channel_credits
        # Halved at once and raised step by step: what clients hold back must not come all at once afterwards.
        self.credits = max(self.credits // 2, min(CREDITS_MIN, most)) if host.pressed else min(self.credits * 2, most)

    def refuses(self, ask: Ask, sink: Sink, key: str, cell: Cell | None) -> bool:
        """Refuse a new ask if that is called for; return whether it was."""
        because = self.refusals.all or (self.refusals.activations if cell is None else "")
        if not because:
            return False
        self.refused += 1
        msg = f"{self._host.name} takes no new work at the moment: {because}."
        error = Overloaded(msg, entity=key, command_id=ask.command_id, retry_after_s=RETRY_AFTER_S)
        sink.answer(ask.n, ERROR, error.encode())
        return True
