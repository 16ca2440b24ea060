"""The dedup window: what a cell remembers of the commands it has decided.

A command is recognised by its id, a durable send by its sender and number. The window holds the
last ``dedup_window`` decisions, younger than ``dedup_age_s``; it is part of the journal's entries,
so that it survives crashes and moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remora.errors import CommandIdReused, NonDeterministic, OutOfOrder, TooOld
from remora.ids import fingerprint, made_at_ms
from remora.messages import FIRST, REPEATED, SEND, Ask

if TYPE_CHECKING:
    from remora.journal import Known
    from remora.runtime.cell import Cell

Decided = tuple[int, bytes, int, int]
"""(verdict, payload, wall clock in ms, fingerprint of what was asked or 0); of one that was read back and that nobody has
asked for again, (UNREAD, nothing, wall clock in ms, number of its entry)"""
UNREAD = -1
_OK = b"null"


def unread(known: Known) -> dict[str, Decided]:
    """Return what is remembered of entries that were read back without their answers."""
    return {
        command_id: (UNREAD, b"", at_ms, number)
        for number, (command_id, at_ms) in enumerate(zip(known.command_ids, known.at_ms, strict=True), known.first)
        if not is_send(command_id)
    }


def is_send(command_id: str) -> bool:
    """Return whether a recorded id is that of a durable send: only the outbox makes ids that end in '>' and a number."""
    _, mark, number = command_id.rpartition(">")
    return bool(mark) and number.isdecimal()


def recall(cell: Cell, ask: Ask) -> tuple[int, bytes] | None:
    """Return the recorded answer if ``ask`` was decided before: (verdict, payload).

    (UNREAD, nothing) where the answer is still to be read: see ``read``.

    Raises:
        CommandIdReused: Its id stands for another command, or the same with other arguments.
        NonDeterministic: The same, of a call that a command made.
        TooOld: It may have been decided before, and has been forgotten since.
        OutOfOrder: A durable send whose predecessor has not been applied.
    """
    if ask.flags & SEND:
        return _recall_send(cell, ask)
    known = cell.window.get(ask.command_id)
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
            known = (entry.verdict, entry.reply.encode(), entry.at, entry.fingerprint)
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
