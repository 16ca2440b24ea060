"""Looking at one entity from outside: what it waits for, and what has happened to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from remora.contract import EntitySpec
from remora.errors import Quarantined, RemoraError
from remora.journal import Want
from remora.lifecycle import Phase
from remora.messages import ERROR, VALUE, Ask
from remora.runtime.committer import Sink
from remora.runtime.quarantine import refusal
from remora.schema.reading import split_name
from remora.sharding.hashing import entity_key
from remora.why import OpenCall, RunningHandler, Why, encode, how_long

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host
    from remora.runtime.shard import Shard

_json = msgspec.json.Encoder().encode
_decode_events = msgspec.json.Decoder(list[tuple[str, msgspec.Raw]]).decode
RENEWED_S = 0.05
"""Seconds that a lease has to be renewed once it is found over."""
LOOK_UP_S = 0.3
"""Seconds the store has to say whether an entity that is not in memory was ever used: ``why`` waits no longer."""


class Found(NamedTuple):
    """What a look found."""

    state: str
    because: str
    """A sentence without its full stop."""
    for_s: float | None = None
    running: RunningHandler | None = None
    retry_in_s: float | None = None
    reason: str = ""


async def why(host: Host, shard: Shard, spec: EntitySpec, key: str, ask: Ask, sink: Sink) -> None:
    """Answer what an entity does or waits for, and for how long."""
    try:
        cell = host.cells.get(key)
        found = _look(host, shard, key, cell)
        if found.state == "no_lease":  # which the look had renewed: only one that is not is worth telling
            await asyncio.sleep(RENEWED_S)  # noqa: TID251 - a bounded wait for the lease's own thread
            cell = host.cells.get(key)
            found = _look(host, shard, key, cell)
        calls: list[OpenCall] = []
        entries = None if cell is None else cell.n
        if found.state == "calling":
            calls = await host.deadlocks.chain(key)
            found = found._replace(because=_chain_sentence(calls) or found.because)
        elif found.state == "passive":
            entries = await _recorded(host, spec, key)
            found = _passive(entries, durable=spec.durable)
        sink.answer(ask.n, VALUE, encode(_answer(host, shard, spec, key, cell, found, entries, calls)))
    except RemoraError as error:
        sink.answer(ask.n, ERROR, error.encode())


def _answer(
    host: Host, shard: Shard, spec: EntitySpec, key: str, cell: Cell | None, found: Found, entries: int | None,
    calls: list[OpenCall],
) -> Why:  # fmt: skip
    now_s = host.clock.monotonic_s()
    waiting = [] if cell is None else list(cell.mailbox)
    waiting += [item for item in host.held if entity_key(item[0].type, item[0].id) == key]
    # A command's deadline is when it came and what it had left then.
    oldest_s = max((now_s - (deadline_s - ask.ttl_s) for ask, _, deadline_s in waiting), default=None)
    because = found.because
    if waiting and oldest_s is not None:
        one = len(waiting) == 1
        because += f"; {len(waiting)} {'command or query waits' if one else 'commands and queries wait'}, {'' if one else 'the oldest '}for {how_long(oldest_s)}"
    return Why(
        entity=key, state=found.state, because=because + ".", for_s=_rounded(found.for_s), durable=spec.durable,
        shard=shard.key, host=host.name, node=host.row.node, entries=entries, mailbox=len(waiting),
        oldest_s=_rounded(oldest_s), running=found.running, calls=calls, retry_in_s=_rounded(found.retry_in_s),
        reason=found.reason,
    )  # fmt: skip


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(seconds, 0.0), 3)


def _look(host: Host, shard: Shard, key: str, cell: Cell | None) -> Found:
    now_s = host.clock.monotonic_s()
    if not shard.accepting:
        for_s = now_s - shard.leaving_since_s
        return Found("moving", f"Shard {shard.key} has been leaving {host.name} for {how_long(for_s)}", for_s)
    if (kind := key.partition("/")[0]) in host.closed:
        waits_for, for_s = host.gate.waits_for(kind), now_s - host.closed[kind]
        because = (
            f"{kind} has not been served by {host.name} for {how_long(for_s)}, which waits for: {waits_for.rstrip('.')}"
        )
        return Found("not_ready", because, for_s, reason=waits_for)
    if cell is not None and cell.phase in _BY_PHASE:
        return _BY_PHASE[cell.phase](host, cell, now_s)
    return (
        _store_away(host, now_s)
        or (None if cell is None else _working(host, cell, now_s))
        or _held(host, key)
        or _no_lease(host, now_s)
        or _at_rest(cell, now_s)
    )


def _held(host: Host, key: str) -> Found | None:
    if not any(entity_key(ask.type, ask.id) == key for ask, _, _ in host.held):
        return None
    return Found("held", f"{host.name} has {host.outbox.pending} durable sends to deliver before it takes new commands")


def _no_lease(host: Host, now_s: float) -> Found | None:
    if host.may_answer(now_s):
        return None
    if not host.lease.until_s:
        return Found("no_lease", f"{host.name} holds no lease, without which it answers no query")
    for_s = now_s - host.lease.until_s
    because = f"{host.name} has held no lease for {how_long(for_s)}, without which it answers no query"
    return Found("no_lease", because, for_s)


def _at_rest(cell: Cell | None, now_s: float) -> Found:
    if cell is None:
        return Found("passive", "It is not in memory")
    for_s = now_s - cell.last_used_s
    return Found("idle", f"It is in memory and has had nothing to do for {how_long(for_s)}", for_s)


def _stopped(_: Host, cell: Cell, now_s: float) -> Found:
    for_s = now_s - cell.busy_since_s
    reason = "" if cell.reason is None else cell.reason.message
    because = f"It has been stopped for {how_long(for_s)} and answers every command with an error: {reason.rstrip('.')}"
    return Found("quarantined" if isinstance(cell.reason, Quarantined) else "stopped", because, for_s, reason=reason)


def _backoff(_: Host, cell: Cell, now_s: float) -> Found:
    for_s = now_s - cell.busy_since_s
    after_s, failure = (0.0, "") if cell.reason is None else (cell.reason.retry_after_s, cell.reason.message)
    left_s = max(after_s - for_s, 0.0)
    because = f"It failed with {failure} and is restarted in {how_long(left_s)}"
    return Found("backoff", because, for_s, retry_in_s=left_s, reason=failure)


def _recovering(host: Host, cell: Cell, now_s: float) -> Found:
    if (judged := _judged(host, cell, now_s)) is not None:
        return judged
    for_s = now_s - (cell.busy_since_s or cell.last_used_s)
    state = "restarting" if hasattr(cell, "entity") else "recovering"
    since = how_long(for_s)
    away = _store_away(host, now_s)
    if away is not None:
        return away
    place = host.recovery.place(cell)
    if host.recovery.trouble:
        because = f"It has waited {since} to be read back: {host.recovery.trouble.rstrip('.')}"
        return Found("store_away", because, for_s, reason=host.recovery.trouble)
    if cell.commit is not None and not cell.commit.done:
        because = f"It starts over and has waited {since} for its last commit to be written before it is read back"
    elif place:
        because = f"It has waited {since} for its turn to be read back, {place - 1} before it"
    else:
        because = f"It has been read back from the store for {since}"
    return Found(state, because, for_s)


_BY_PHASE: dict[Phase, Callable[[Host, Cell, float], Found]] = {
    Phase.STOPPED: _stopped,
    Phase.BACKOFF: _backoff,
    Phase.RECOVERING: _recovering,
}


def _store_away(host: Host, now_s: float) -> Found | None:
    if host.outage_since_s is None:
        return None
    for_s = now_s - host.outage_since_s
    return Found("store_away", f"{host.name} has not reached the store for {how_long(for_s)}", for_s)


def _working(host: Host, cell: Cell, now_s: float) -> Found | None:
    """Return what a live activation is at; None if nothing."""
    writing_s = host.committer.writing_since_s
    committing = cell.commit is not None and not cell.commit.done
    written = 0.0 if writing_s is None else host.loop.time() - writing_s
    if cell.turn is not None:
        (ask, _, _), handler, turn = cell.turn
        for_s = now_s - cell.busy_since_s
        running = RunningHandler(
            method=handler.name, for_s=round(for_s, 3), command_id=ask.command_id, callers=turn.chain[:-1]
        )  # fmt: skip
        if turn.waits:
            to, since_s = next(iter(turn.waits.values()))
            waited = how_long(now_s - since_s)
            return Found("calling", f"{handler.name} has waited {waited} for {to}", now_s - since_s, running)
        because = f"It has run {handler.name} for {how_long(for_s)}"
        if committing:
            because += f", and what it did before waits for the store ({how_long(written)})"
        return Found("running", because, for_s, running)
    if (held_up := _judged(host, cell, now_s) or _reading(cell, now_s)) is not None:
        return held_up
    if committing:
        because = f"What it did has waited {how_long(written)} for the store to confirm the commit"
        return Found("committing", because, written)
    if host.passivation.asked(cell):
        return Found("passivating", "It asked to leave memory and does so at the next round")
    return None


def _judged(host: Host, cell: Cell, now_s: float) -> Found | None:
    judged = host.failures.judging.get(cell.key)
    if judged is None or cell.task is None:
        return None
    for_s = now_s - cell.busy_since_s
    name = host.app.supervisors[cell.spec.type].name
    because = f"{judged.command} failed, and its supervisor {name} has been asked for {how_long(for_s)} what to do"
    return Found("judged", because, for_s)


def _reading(cell: Cell, now_s: float) -> Found | None:
    """Return what an entity is at that reads its dedup window, for a command that may be a repeat."""
    if not cell.host.windows.is_read(cell):
        return None
    for_s = now_s - cell.busy_since_s
    because = f"It has read back for {how_long(for_s)} which commands it has answered"
    return Found("recovering", because, for_s)


def _chain_sentence(calls: list[OpenCall]) -> str:
    """Return a chain of calls in words; empty if there is none any more."""
    if not calls or not calls[0].waits_for:
        return ""
    first = calls[0]
    said = f"{first.method} has waited {how_long(first.for_s)} for {first.waits_for}"
    for link in calls[1:]:
        if link.waits_for:
            said += f", whose {link.method} has waited {how_long(link.for_s)} for {link.waits_for}"
        else:
            said += f", which has run {link.method} for {how_long(link.for_s)}"
    return said


async def _recorded(host: Host, spec: EntitySpec, key: str) -> int | None:
    """Return how many commands the store has of an entity; None if it does not say so in time."""
    if not spec.durable:
        return None
    try:
        async with asyncio.timeout(LOOK_UP_S):
            (found,) = await host.store.load([Want(key, 1, events=False)])
    except (RemoraError, TimeoutError):
        return None
    return found.last


def _passive(entries: int | None, *, durable: bool) -> Found:
    if not durable:
        return Found("passive", "It is not in memory; the next command begins with the initial state")
    if entries is None:
        return Found(
            "passive", "It is not in memory; whether it was ever used only the store knows, which does not answer"
        )
    if not entries:
        return Found("new", "It was never used: nothing is recorded of it")
    return Found("passive", f"It has left memory with {entries} commands recorded; the next one brings it back")


def stopped(host: Host, cell: Cell | None, key: str) -> bytes:
    """Return as JSON why an entity has terminated, and whether it is in quarantine; null if it has not."""
    held = host.quarantine.entities.get(key)
    if held is not None and not held.until_ms:
        return _json([refusal(held).message, True])
    if cell is None or cell.phase is not Phase.STOPPED or cell.reason is None:
        return b"null"
    return _json([cell.reason.message, isinstance(cell.reason, Quarantined)])


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
