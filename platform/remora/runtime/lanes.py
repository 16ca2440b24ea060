"""Lanes at an entity: the commands of one client to it, numbered, so that none overtakes another and none waits twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remora.errors import OutOfOrder
from remora.messages import ERROR, SEND

if TYPE_CHECKING:
    from remora.messages import Ask
    from remora.runtime.cell import Cell, Item


def renew(cell: Cell, item: Item) -> bool:
    """Let a command that was sent again take the place of itself among what waits; return whether it waited there.

    What lost its answer is sent again, and may wait still. One that succeeds is recorded and its copies are
    repeats; one that fails is not, so each copy would fail once more, count against its entity and answer nobody.
    """
    n = _place(cell, item[0])
    if n is None:
        return False
    waited, cell.mailbox[n] = cell.mailbox[n], item
    _give_up(cell, waited)
    return True


def arrive(cell: Cell, item: Item) -> bool:
    """Give up a command that travelled if it was sent again on another way and waits; return whether that was so."""
    if _place(cell, item[0]) is None:
        return False
    _give_up(cell, item)
    return True


def _place(cell: Cell, ask: Ask) -> int | None:
    if not ask.seq or ask.flags & SEND:
        return None
    for n, (waiting, _, _) in enumerate(cell.mailbox):
        if waiting.seq == ask.seq and waiting.lane == ask.lane and not waiting.flags & SEND:
            return n
    return None


def _give_up(cell: Cell, item: Item) -> None:
    """Answer a copy that nobody waits for: its sender knows the command by another number now."""
    ask, sink, _ = item
    error = OutOfOrder(f"{cell.key}: command {ask.seq} of this lane was sent again.", entity=cell.key)
    sink.answer(ask.n, ERROR, error.encode())


def break_at(cell: Cell, ask: Ask) -> None:
    """A command that was taken is to be sent again: those of its lane behind it must not overtake it."""
    if not ask.seq or ask.flags & SEND:
        return
    lanes = cell.lanes = cell.lanes or {}
    lanes[ask.lane] = min(lanes.get(ask.lane, 0), ask.seq - 1)
    behind = [item for item in cell.mailbox if item[0].lane == ask.lane and not item[0].flags & SEND]
    if behind:
        cell.mailbox = [item for item in cell.mailbox if item not in behind]
    for other, sink, _ in behind:
        error = OutOfOrder(f"{cell.key} waits for command {ask.seq} of this lane to be sent again.", entity=cell.key)
        sink.answer(other.n, ERROR, error.encode())
