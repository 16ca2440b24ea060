"""Looking at one entity from outside: what it waits for, and what has happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from remora.contract import EntitySpec
from remora.errors import RemoraError
from remora.messages import ERROR, VALUE, Ask
from remora.runtime.committer import Sink
from remora.schema.reading import split_name

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

_json = msgspec.json.Encoder().encode
_decode_events = msgspec.json.Decoder(list[tuple[str, msgspec.Raw]]).decode


def why(host: Host, key: str, cell: Cell | None) -> dict[str, Any]:
    """Return what an entity does or waits for, and for how long."""
    about: dict[str, Any] = {
        "entity": key,
        "host": host.name,
        "node": host.row.node,
        "phase": "passive",
        "mailbox": 0,
    }
    if cell is None:
        return about
    now_s = host.clock.monotonic_s()
    about |= {
        "phase": cell.phase.value,
        "mailbox": len(cell.mailbox),
        "idle_s": round(max(now_s - cell.last_used_s, 0.0), 3),
        "committing": cell.commit is not None and not cell.commit.done,
        "entries": cell.n,
    }
    if cell.turn is not None:
        _, handler, turn = cell.turn
        running = {"method": handler.name, "since_s": round(now_s - cell.busy_since_s, 3), "chain": turn.chain}
        about["running"] = running
    if cell.reason is not None:
        about["reason"] = cell.reason.message
    return about


async def events(host: Host, spec: EntitySpec, key: str, ask: Ask, sink: Sink) -> None:
    """Answer with an entity's recorded events, numbered, those behind a number alone."""
    try:
        query = msgspec.json.decode(ask.args)
        after, limit = int(query["after"]), min(int(query["limit"]), 1000)
        rows = await host.store.events(key, after, limit) if spec.durable else []
        out: list[dict[str, Any]] = []
        for row in rows:
            recorded = _decode_events(row.events)
            for place, (written, data) in enumerate(recorded):
                seq = row.seq - len(recorded) + place + 1
                if seq > after and len(out) < limit:
                    name, version = split_name(written)
                    out.append(
                        {"seq": seq, "event": name, "data": data, "command_id": row.command_id, "at_ms": row.at}
                        | ({"version": version} if version > 1 else {})
                    )
        sink.answer(ask.n, VALUE, _json(out))
    except RemoraError as error:
        sink.answer(ask.n, ERROR, error.encode())
