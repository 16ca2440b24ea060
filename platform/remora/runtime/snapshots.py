"""When a snapshot is taken, what may be deleted after it, and deletion of an entity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from remora.journal import Append
from remora.schema.reading import INITIAL

if TYPE_CHECKING:
    from remora.runtime.cell import Cell

_json = msgspec.json.Encoder().encode


def due(cell: Cell) -> bool:
    """Return whether enough entries or bytes of events have come since the last snapshot."""
    options = cell.spec.options
    return cell.n - cell.snapshot_n >= options.snapshot_every or cell.tail_bytes >= options.snapshot_bytes


def keep(cell: Cell, append: Append, *, erase: bool, clean: bool) -> Exception | None:
    """Begin the entity anew, or add a snapshot if one is due; return why none could be taken, if so.

    Args:
        cell: The entity, with its latest entry.
        append: What is written with that.
        erase: Whether it is to begin anew.
        clean: Whether the state in memory is that of its latest entry.
    """
    if erase:
        _erase(cell, append)
        return None
    return add(cell, append) if clean and due(cell) else None


def add(cell: Cell, append: Append) -> Exception | None:
    """Add a snapshot as of the cell's present entry, and what recovery does not need any more because of it.

    Returns:
        Why none could be taken, if so: the entity's own code raised.
    """
    spec, options = cell.spec, cell.spec.options
    upto = cell.n - options.dedup_window
    if spec.kind == "event_sourced":
        try:
            state = spec.write_state(cell.entity.state)
        except Exception as failure:  # noqa: BLE001 - whatever it raises: the events are the truth and are written
            _taken(cell)  # the next one is tried after as many entries again
            return failure
        append.snapshots[cell.key] = (cell.key, cell.n, cell.seq, state, spec.state_version, options.snapshots_kept)
        cell.state_bytes = len(state)
        cell.kept = (*cell.kept, cell.n)[-options.snapshots_kept :]
        # Before as many have been taken as are kept, older ones may be in the store whose events must stay.
        upto = min(upto, cell.kept[0] if len(cell.kept) == options.snapshots_kept and options.delete_events else 0)
    append.marks[cell.key] = (cell.key, cell.n, _json(cell.marks or {}))
    if upto > 0:
        append.trims[cell.key] = (cell.key, upto)
    _taken(cell)
    return None


def _erase(cell: Cell, append: Append) -> None:
    """Start the entity over as of its present entry: its number, what it remembers of commands and marks stay."""
    spec, key = cell.spec, cell.key
    cell.entity.state = spec.state_type()
    state = spec.write_state(cell.entity.state)
    append.deletions[key] = (key, cell.n, max(cell.n - spec.options.dedup_window, 0))
    if spec.kind == "event_sourced":
        append.snapshots[key] = (key, cell.n, cell.seq, state, INITIAL, 1)
    else:
        append.states[key] = (key, cell.n, cell.seq, state, INITIAL)
    append.marks[key] = (key, cell.n, _json(cell.marks or {}))
    append.trims.pop(key, None)
    cell.reminders = dict.fromkeys(cell.reminders or {})
    for named in [named for named in append.reminders if named[0] == key]:
        del append.reminders[named]
    cell.kept, cell.state_bytes = (cell.n,), len(state)
    _taken(cell)


def _taken(cell: Cell) -> None:
    cell.snapshot_n, cell.tail_bytes = cell.n, 0
