"""What waits for an entity whose restart is held back: until its caller gives up, and not in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remora.errors import Unavailable
from remora.lifecycle import Phase
from remora.messages import ERROR, SEND
from remora.runtime import lanes
from remora.why import how_long

if TYPE_CHECKING:
    from remora.runtime.cell import Cell, Item

TOLD_S = 0.1
"""Seconds before its caller's deadline at which a command is told: an answer's way."""


def bound(cell: Cell, item: Item) -> None:
    """See to it that a command is told when the restart will be, if that is after its caller's deadline."""
    if item[0].flags & SEND:
        return  # the outbox waits for ever
    wait_s = item[2] - cell.host.clock.monotonic_s() - TOLD_S
    cell.host.loop.call_later(max(wait_s, 0.0), _tell, cell, item)


def _tell(cell: Cell, item: Item) -> None:
    if cell.phase is not Phase.BACKOFF or not any(one is item for one in cell.mailbox):
        return
    cell.mailbox = [one for one in cell.mailbox if one is not item]
    ask, sink, _ = item
    after_s, because = (0.0, "") if cell.reason is None else (cell.reason.retry_after_s, cell.reason.message)
    left_s = max(cell.busy_since_s + after_s - cell.host.clock.monotonic_s(), 0.0)
    msg = f"{cell.key} is held back for {how_long(left_s)} more, after: {because}"
    lanes.break_at(cell, ask)  # it is to be sent again: what came behind it in its lane must not overtake it
    error = Unavailable(msg, entity=cell.key, command_id=ask.command_id, retry_after_s=left_s)
    sink.answer(ask.n, ERROR, error.encode())
