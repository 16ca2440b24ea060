"""Durable timers: set and cancelled with a command's commit, fired by whoever owns the shard.

The store is asked for due reminders twice a second, so that millions of waiting ones cost no
memory. A reminder fires as a command of its own id (name and due time); it is deleted in the
commit of that command, so it fires at least once and is applied once. One that came due while
nobody ran the shard fires late, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from remora.journal import Append
from remora.messages import REMINDER, Ask

if TYPE_CHECKING:
    from remora.entity import Turn
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

FIRE_MAX = 256
"""Reminders fired per look, so that a flood of due ones does not crowd out commands."""


class Reminders:
    """A host's reminders."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._firing: set[tuple[str, str, int]] = set()
        self.fired = 0
        """Reminders fired so far."""

    def add(self, cell: Cell, append: Append, turn: Turn, ask: Ask) -> None:
        """Write what a command set and cancelled; a fired reminder is used up by its own command."""
        fired, fired_ms = "", 0
        if ask.flags & REMINDER:
            fired, fired_ms = msgspec.json.decode(ask.args)["name"], int(ask.command_id.rpartition(":")[2])
            append.reminders[cell.key, fired] = None
        for name, due_ms in turn.reminders:
            if due_ms is not None and name == fired:
                due_ms = max(due_ms, fired_ms + 1)  # noqa: PLW2901 - due again at the same instant it would be taken for a repeat
            append.reminders[cell.key, name] = (
                None if due_ms is None else (cell.key, name, cell.shard.key, due_ms, 0, 0)
            )

    async def fire_due(self) -> None:
        """Fire what is due for the shards of this host."""
        host = self._host
        if not host.shards:
            return
        for row in await host.store.due(list(host.shards), host.clock.now_ms(), FIRE_MAX):
            token = (row.entity, row.name, row.due)
            if token in self._firing:
                continue
            kind, _, ident = row.entity.partition("/")
            spec = host.app.specs.get(kind)
            if spec is None:
                continue
            self._firing.add(token)
            args = msgspec.json.encode({"name": row.name})
            command_id = f"reminder:{row.name}:{row.due}"
            ask = Ask(0, kind, ident, "on_reminder", args, command_id, spec.options.deadline_s, "", 0, 0, (), REMINDER)
            host.dispatch(ask, _Fired(self, token), host.clock.monotonic_s() + spec.options.deadline_s)


class _Fired:
    """Takes the answer of a fired reminder."""

    def __init__(self, reminders: Reminders, token: tuple[str, str, int]) -> None:
        self._reminders = reminders
        self._token = token

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        """Note that it ran; if it failed, its row is still due and it fires again."""
        del n, verdict, payload
        self._reminders._firing.discard(self._token)  # noqa: SLF001 - one thing in two classes
        self._reminders.fired += 1
