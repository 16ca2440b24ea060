"""The dedup window: what a cell remembers of the commands it has decided.

A command is recognised by its id, a durable send by its sender and number. The window holds the
last ``dedup_window`` decisions, younger than ``dedup_age_s``; it is part of the journal's entries,
so that it survives crashes and moves.

Hardly any of it is ever asked for: whoever makes a command's id for it says that it is sent for the first time. So what an
entity decided before it was read back stays in the store (``Unread``). Recovery looks up the commands that wait for it
and may be repeats, in the same read; when another one comes, all of the window is read, once, and those behind it wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from remora.errors import CommandIdReused, NonDeterministic, OutOfOrder, StoreUnavailable, TooOld
from remora.ids import fingerprint, made_at_ms, send_of
from remora.journal import PAGE_ENTRIES, Span
from remora.messages import FIRST, REPEATED, SEND, Ask

if TYPE_CHECKING:
    from remora.journal import Known, Tail
    from remora.runtime.cell import Cell, Item
    from remora.runtime.host import Host

Decided = tuple[int, bytes, int, int]
"""(verdict, payload, wall clock in ms, fingerprint of what was asked or 0); of one that was read back and that nobody has
asked for again, (UNREAD, nothing, wall clock in ms, number of its entry)"""
LOOKED_UP_MAX = 16
"""Commands of an entity that are looked up by id as it is read back; where more wait its window is read. SQLite compares
each entry with each of them."""
UNREAD = -1
UNKNOWN = -2
_OK = b"null"


def answered(entry: Tail) -> Decided:
    """Return what is remembered of an entry that was read with its answer."""
    return entry.verdict, entry.reply.encode(), entry.at, entry.fingerprint


class Unread(NamedTuple):
    """What of a window is in the store alone."""

    upto: int
    """Number of its last entry; all that is in memory is younger."""
    looked_up: Mapping[str, Decided | None] = MappingProxyType({})
    """What was found of the commands that were looked up there; None if nothing was."""


def asked_again(cell: Cell) -> tuple[str, ...]:
    """Return the commands that wait for a cell and may have been decided before, if those are few."""
    ids = dict.fromkeys(ask.command_id for ask, _, _ in cell.mailbox if _may_be_repeat(ask))
    return tuple(islice(ids, LOOKED_UP_MAX))


def _may_be_repeat(ask: Ask) -> bool:
    return bool(ask.command_id) and not ask.flags & (FIRST | SEND)


class Windows:
    """Reads windows whole, for commands that may be repeats: beside recoveries, and many in one read.

    Args:
        host: The host whose entities need them.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._reader = _Reader(host)
        self._reading: dict[Cell, asyncio.Task[None]] = {}

    def read(self, cell: Cell, item: Item) -> None:
        """Read an entity's window; the command that needs it, and those behind it, wait for that."""
        cell.mailbox.insert(0, item)
        task = self._reading[cell] = self._host.spawn(self._read(cell))
        cell.begin_waiting(task)

    def is_read(self, cell: Cell) -> bool:
        """Return whether a cell waits for its window."""
        return cell.task is not None and self._reading.get(cell) is cell.task

    def abandon(self, cell: Cell) -> None:
        """Have a cell not wait for its window any more; what waits stays in its mailbox."""
        if self.is_read(cell):
            cell.task = None

    async def _read(self, cell: Cell) -> None:
        task = asyncio.current_task()
        try:
            await self._fill(cell)
        except StoreUnavailable:  # this host is closed
            raise
        except Exception as failure:  # noqa: BLE001 - some row cannot be read: begun anew, it is looked for by itself
            if self.is_read(cell):
                self._host.log_failure(cell, "its window", failure)
                cell.restart()
        finally:
            if self._reading.get(cell) is task:
                del self._reading[cell]
        if cell.task is task:
            cell.task = None
            cell.pump()

    async def _fill(self, cell: Cell) -> None:
        host, upto = self._host, cell.unread.upto if cell.unread else 0
        after = forgotten = max(cell.n - cell.spec.options.dedup_window, 0)
        last = max(upto, after + 1)  # the oldest in any case: what came before it is forgotten
        found: list[Known] = []
        while self.is_read(cell) and after < last:
            page = await self._reader.read(Span(cell.key, after, last))
            if not page:
                break
            found += page
            after = page[-1].n
        if not self.is_read(cell):  # restarted meanwhile, or about to leave this host
            return
        if forgotten or not found or found[0].n > 1:
            cell.forgot_ms = found[0].at if found else host.clock.now_ms()  # if it is not written yet, it is that young
        before = (one for one in found if one.n <= upto and send_of(one.command_id) is None)
        cell.window = {one.command_id: (UNREAD, b"", one.at, one.n) for one in before} | cell.window
        cell.unread = None


class _Reader:
    """Reads spans of many entities in one trip to the store, one trip after the other: its store has other things to read.

    What is asked for during a trip goes with the next.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked: deque[tuple[Span, asyncio.Future[list[Known]]]] = deque()
        self._reads = False

    async def read(self, span: Span) -> list[Known]:
        """Return the first page of a span."""
        page: asyncio.Future[list[Known]] = self._host.loop.create_future()
        self._asked.append((span, page))
        if not self._reads:
            self._reads = True
            self._host.spawn(self._read())
        return await page

    async def _read(self) -> None:
        try:
            while self._asked:
                await self._some(self._take())
        finally:
            self._reads = False

    def _take(self) -> list[tuple[Span, asyncio.Future[list[Known]]]]:
        """Choose what is read next: as many entries as one page has, and one span in any case."""
        chosen, room = [self._asked.popleft()], PAGE_ENTRIES
        room -= _entries(chosen[0][0])
        while self._asked and (room := room - _entries(self._asked[0][0])) >= 0:
            chosen.append(self._asked.popleft())
        return chosen

    async def _some(self, asked: list[tuple[Span, asyncio.Future[list[Known]]]]) -> None:
        host, spans = self._host, [span for span, _ in asked]
        try:
            pages = list(zip(asked, await host.patiently(lambda: host.store.known(spans)), strict=True))
        except Exception as error:  # noqa: BLE001 - each that asked hears of its own
            for one in asked:
                if len(asked) > 1 and not isinstance(error, StoreUnavailable):
                    await self._some([one])  # something in the store cannot be read: find out whose it is
                elif not one[1].done():
                    one[1].set_exception(error)
            return
        for (_, page), found in pages:
            if not page.done():
                page.set_result(found)


def _entries(span: Span) -> int:
    return min(span.upto - span.after, PAGE_ENTRIES)


def recall(cell: Cell, ask: Ask) -> tuple[int, bytes] | None:
    """Return the recorded answer if ``ask`` was decided before: (verdict, payload).

    (UNREAD, nothing) where the answer is still to be read: see ``read``; (UNKNOWN, nothing) where the store alone knows
    whether it was: see ``Windows``.

    Raises:
        CommandIdReused: Its id stands for another command, or the same with other arguments.
        NonDeterministic: The same, of a call that a command made.
        TooOld: It may have been decided before, and has been forgotten since.
        OutOfOrder: A durable send whose predecessor has not been applied.
    """
    if ask.flags & SEND:
        return _recall_send(cell, ask)
    known = cell.window.get(ask.command_id)
    if known is None and cell.unread is not None and _may_be_repeat(ask):
        if ask.command_id not in cell.unread.looked_up:
            return UNKNOWN, b""
        known = cell.unread.looked_up[ask.command_id]
    if known is not None:
        if known[0] == UNREAD:
            return UNREAD, b""
        _check_same(cell, ask, known[3])
        return REPEATED + known[0], known[1]
    if cell.forgot_ms and not ask.flags & FIRST:
        made_at = made_at_ms(ask.command_id)
        if made_at is not None and made_at <= cell.forgot_ms + cell.host.clock_skew_ms:
            options = cell.spec.options
            msg = (
                f"{cell.key}: command {ask.command_id} is older than the last {options.dedup_window} commands of the "
                f"last {options.dedup_age_s:.0f} s that it remembers; whether it was applied is not known."
            )
            raise TooOld(msg, entity=cell.key, command_id=ask.command_id)
    return None


async def read(cell: Cell, ask: Ask) -> tuple[int, bytes]:
    """Return the answer to a command that was decided before the entity was read back: (verdict, payload).

    Raises:
        CommandIdReused: See ``recall``.
        NonDeterministic: See ``recall``.
        TooOld: The entry is not kept any more.
        StoreUnavailable: This host is closed.
    """
    known, store = cell.window.get(ask.command_id), cell.host.store
    if known is not None and known[0] == UNREAD:
        number = known[3]
        entries = await cell.host.patiently(lambda: store.entries(cell.key, number - 1, 1))
        if entries and entries[0].command_id == ask.command_id:
            entry, before = entries[0], known
            known = answered(entry)
            if cell.window.get(ask.command_id) is before:  # not forgotten meanwhile, nor the activation begun anew
                cell.window[ask.command_id] = known
    if known is None or known[0] == UNREAD:
        msg = f"{cell.key}: command {ask.command_id} was applied, and its answer is not kept any more."
        raise TooOld(msg, entity=cell.key, command_id=ask.command_id)
    _check_same(cell, ask, known[3])
    return REPEATED + known[0], known[1]


def _recall_send(cell: Cell, ask: Ask) -> tuple[int, bytes] | None:
    applied = 0 if cell.marks is None else cell.marks.get(ask.lane, 0)
    if ask.seq <= applied:
        return REPEATED, _OK
    if ask.prev > applied:
        msg = f"{cell.key} has not applied send {ask.prev} of {ask.lane}, which comes first."
        raise OutOfOrder(msg, entity=cell.key)
    return None


def _check_same(cell: Cell, ask: Ask, recorded: int) -> None:
    if not recorded or fingerprint(ask.method, ask.args) == recorded:
        return
    if ask.chain:
        msg = (
            f"{ask.chain[-1]} ran a command again and asked {cell.key}.{ask.method} something else than the first time "
            f"(call {ask.command_id}): decide about calls from state, arguments and self.now() alone."
        )
        raise NonDeterministic(msg, entity=cell.key, command_id=ask.command_id)
    msg = (
        f"{cell.key}: command id {ask.command_id} was used for another command or other arguments before; "
        f"{ask.method} was not applied. Use a new id for a new command."
    )
    raise CommandIdReused(msg, entity=cell.key, command_id=ask.command_id)


def remember(cell: Cell, command_id: str, decided: Decided) -> None:
    """Add a decision, and forget the oldest if there are too many or it is too old."""
    window = cell.window
    window[command_id] = decided
    options = cell.spec.options
    oldest = next(iter(window))
    if len(window) > options.dedup_window or decided[2] - window[oldest][2] > options.dedup_age_s * 1000:
        cell.forgot_ms = window.pop(oldest)[2]
        cell.unread = None  # all of that is older
