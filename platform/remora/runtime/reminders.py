"""Durable timers: set and cancelled with a command's commit, fired by whoever owns the shard.

The store is asked for due reminders every ``reminder_tick_s``, in pages, so that millions of waiting
ones cost no memory. A reminder fires as a command of its own id (name and due time); it is deleted,
or set to its next time, in the commit of that command, so it fires at least once and is applied
once. One that came due while nobody ran the shard fires late; of a periodic one, its misfire
policy decides how often.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from remora.errors import ErrorBody, HandlerFailed, StoreUnavailable
from remora.journal import Append, ReminderRow
from remora.messages import ERROR, REMINDER, Ask
from remora.reminder import CODES, next_due_ms, rings

if TYPE_CHECKING:
    from remora.entity import Turn
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

FIRE_MAX = 512
"""Reminders read at a time."""
IN_FLIGHT_MAX = 1024
"""Reminders fired and not answered, so that a flood of due ones does not crowd out commands."""
BACKOFF_MIN_S = 0.25
BACKOFF_MAX_S = 60.0
"""Pauses before a reminder whose handler failed rings again: each twice as long as the one before."""
_decode_error = msgspec.json.Decoder(ErrorBody).decode

Token = tuple[str, str, int]
"""(entity, name, due in ms)"""


class Reminders:
    """A host's reminders."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._firing: dict[Token, ReminderRow] = {}
        self._failing: dict[Token, tuple[float, float]] = {}
        """Those whose handler failed: (not before, pause), in seconds."""
        self._room = asyncio.Event()
        self.reading = False
        """Whether the store is being asked: what it says may be older than what entities do meanwhile."""
        self.fired = 0
        """Reminders fired so far."""

    def admit(self, cell: Cell, ask: Ask) -> bool:
        """Return whether a fired reminder is to ring: it may have been cancelled, set anew or missed meanwhile."""
        name, due_ms = _named(ask)
        if cell.reminders is not None and cell.reminders.get(name, due_ms) != due_ms:
            return False
        row = self._firing.get((cell.key, name, due_ms))
        now_ms = self._host.clock.now_ms()
        if row is None or rings(due_ms, row.every, CODES[row.misfire], now_ms):
            return True
        self._set_on(cell, cell.open_commit().append, row, now_ms)
        return False

    def add(self, cell: Cell, append: Append, turn: Turn, ask: Ask) -> None:
        """Write what a command set and cancelled; a fired reminder is used up, or set on, by its own command."""
        fired, fired_ms = "", 0
        if ask.flags & REMINDER:
            fired, fired_ms = _named(ask)
            row = self._firing.get((cell.key, fired, fired_ms))
            if row is not None and row.every and not turn.erase:
                self._set_on(cell, append, row, turn.now_ms)
            else:
                self._write(cell, append, fired, None, 0, 0)
        for name, due_ms, every_ms, misfire in turn.reminders:
            if due_ms is not None and name == fired:
                due_ms = max(due_ms, fired_ms + 1)  # noqa: PLW2901 - due again at the same instant it would be taken for a repeat
            self._write(cell, append, name, due_ms, every_ms, misfire)

    def _set_on(self, cell: Cell, append: Append, row: ReminderRow, now_ms: int) -> None:
        due_ms = next_due_ms(row.due, row.every, CODES[row.misfire], now_ms)
        self._write(cell, append, row.name, due_ms, row.every, row.misfire)

    @staticmethod
    def _write(cell: Cell, append: Append, name: str, due_ms: int | None, every_ms: int, misfire: int) -> None:
        cell.reminders = cell.reminders or {}
        cell.reminders[name] = due_ms
        append.reminders[cell.key, name] = (
            None if due_ms is None else (cell.key, name, cell.shard.key, due_ms, every_ms, misfire)
        )

    async def run(self) -> None:
        """Fire what comes due, until cancelled."""
        while True:
            try:
                await self.fire_due()
            except StoreUnavailable as error:
                self._host.log.warning("reminders wait for the store: %s", error)
            except Exception:  # one look that fails must not be the last
                self._host.log.exception("a look for due reminders failed")
            await asyncio.sleep(self._host.settings.reminder_tick_s)  # noqa: TID251 - the period of looks

    async def fire_due(self) -> None:
        """Fire what is due for the shards of this host, page after page, as fast as it is answered."""
        host = self._host
        after = (-1, "", "")
        now_ms, now_s = host.clock.now_ms(), host.clock.monotonic_s()
        for token in [token for token, (_, pause_s) in self._failing.items() if self._stale(token, pause_s, now_s)]:
            del self._failing[token]
        while host.shards:
            self.reading = True
            try:
                rows = await host.store.due(list(host.shards), now_ms, FIRE_MAX, after)
                for row in rows:
                    self._fire(row, now_s)
            finally:
                self.reading = False
            if len(rows) < FIRE_MAX:
                return
            after = (rows[-1].due, rows[-1].entity, rows[-1].name)
            while len(self._firing) > IN_FLIGHT_MAX // 2:
                self._room.clear()
                await self._room.wait()

    def _stale(self, token: Token, pause_s: float, now_s: float) -> bool:
        """Whether a failing reminder was not due any more when it should have rung again."""
        return token not in self._firing and now_s > self._failing[token][0] + 2 * pause_s + BACKOFF_MIN_S

    def _fire(self, row: ReminderRow, now_s: float) -> None:
        host = self._host
        token = (row.entity, row.name, row.due)
        kind, _, ident = row.entity.partition("/")
        spec = host.app.specs.get(kind)
        if (
            token in self._firing
            or spec is None
            or kind in host.closed
            or host.shard_name(row.entity) not in host.shards
        ):
            return
        if self._failing.get(token, (0.0, 0.0))[0] > now_s:
            return
        self._firing[token] = row
        args = msgspec.json.encode({"name": row.name})
        command_id = f"reminder:{row.name}:{row.due}"
        ask = Ask(0, kind, ident, "on_reminder", args, command_id, spec.options.deadline_s, "", 0, 0, (), REMINDER)
        host.dispatch(ask, _Fired(self, token), now_s + spec.options.deadline_s)

    def answered(self, token: Token, verdict: int, payload: bytes) -> None:
        """Note that one rang; if its handler failed, its row is still due and it rings again, later each time."""
        del self._firing[token]
        self.fired += 1
        if verdict == ERROR and _decode_error(payload).code == HandlerFailed.code:
            _, pause_s = self._failing.get(token, (0.0, 0.0))
            pause_s = min(max(pause_s * 2, BACKOFF_MIN_S), BACKOFF_MAX_S)
            self._failing[token] = (self._host.clock.monotonic_s() + pause_s, pause_s)
        elif self._failing:
            self._failing.pop(token, None)
        self._room.set()


def _named(ask: Ask) -> tuple[str, int]:
    """Return name and due time of a fired reminder."""
    return msgspec.json.decode(ask.args)["name"], int(ask.command_id.rpartition(":")[2])


class _Fired:
    """Takes the answer of a fired reminder."""

    def __init__(self, reminders: Reminders, token: Token) -> None:
        self._reminders = reminders
        self._token = token

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        """Pass the answer on."""
        del n
        self._reminders.answered(self._token, verdict, payload)
