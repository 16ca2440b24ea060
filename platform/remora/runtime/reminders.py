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
        self.fired = 0
        """Reminders fired so far."""

    def add(self, cell: Cell, append: Append, turn: Turn, ask: Ask) -> None:
        """Write what a command set and cancelled; a fired reminder is used up, or set on, by its own command."""
        fired, fired_ms = "", 0
        if ask.flags & REMINDER:
            fired, fired_ms = msgspec.json.decode(ask.args)["name"], int(ask.command_id.rpartition(":")[2])
            row = self._firing.get((cell.key, fired, fired_ms))
            append.reminders[cell.key, fired] = None
            if row is not None and row.every and not turn.erase:
                self._set_on(append, cell.shard.key, row, turn.now_ms)
        for name, due_ms, every_ms, misfire in turn.reminders:
            if due_ms is not None and name == fired:
                due_ms = max(due_ms, fired_ms + 1)  # noqa: PLW2901 - due again at the same instant it would be taken for a repeat
            append.reminders[cell.key, name] = (
                None if due_ms is None else (cell.key, name, cell.shard.key, due_ms, every_ms, misfire)
            )

    @staticmethod
    def _set_on(append: Append, shard: str, row: ReminderRow, now_ms: int) -> None:
        due_ms = next_due_ms(row.due, row.every, CODES[row.misfire], now_ms)
        append.reminders[row.entity, row.name] = (row.entity, row.name, shard, due_ms, row.every, row.misfire)

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
            rows = await host.store.due(list(host.shards), now_ms, FIRE_MAX, after)
            for row in rows:
                self._fire(row, now_ms, now_s)
            if len(rows) < FIRE_MAX:
                return
            after = (rows[-1].due, rows[-1].entity, rows[-1].name)
            while len(self._firing) > IN_FLIGHT_MAX // 2:
                self._room.clear()
                await self._room.wait()

    def _stale(self, token: Token, pause_s: float, now_s: float) -> bool:
        """Whether a failing reminder was not due any more when it should have rung again."""
        return token not in self._firing and now_s > self._failing[token][0] + 2 * pause_s + BACKOFF_MIN_S

    def _fire(self, row: ReminderRow, now_ms: int, now_s: float) -> None:
        host = self._host
        token = (row.entity, row.name, row.due)
        kind, _, ident = row.entity.partition("/")
        spec = host.app.specs.get(kind)
        shard = host.shard_name(row.entity)
        if token in self._firing or spec is None or shard not in host.shards:
            return
        if not rings(row.due, row.every, CODES[row.misfire], now_ms):
            self._set_on(host.committer.open().append, shard, row, now_ms)
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


class _Fired:
    """Takes the answer of a fired reminder."""

    def __init__(self, reminders: Reminders, token: Token) -> None:
        self._reminders = reminders
        self._token = token

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        """Pass the answer on."""
        del n
        self._reminders.answered(self._token, verdict, payload)
