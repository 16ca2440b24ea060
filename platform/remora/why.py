"""What ``why`` answers: what an entity does or waits for, and for how long.

The entity's host knows best and is asked first. If it says nothing within ``HOST_S``, the answer is
made from the registry's view of that host and shard, and without the registry from the client's
own table: within ``ALL_S`` there is an answer, whatever is dead, frozen or cut off.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

HOST_S = 0.6
"""Longest wait for the entity's host, in seconds."""
BESIDE_S = 0.1
"""Seconds after which the registry is asked too, while the host is waited for."""
GLANCE_S = 0.45
"""Seconds after which another thread of the host's process is asked too: by then its loop is not just busy."""
LIVELY_S = 1.0
"""A host whose lease was renewed this recently has a process that lives: its other thread is waited for."""
ALL_S = 0.85
"""Longest wait for everybody together, in seconds: a second, less the way through gateway and command line."""

STATES: dict[str, str] = {
    "idle": "In memory, with nothing to do.",
    "running": "A handler runs.",
    "blocking": "A handler runs and keeps its host from everything else: it neither ends nor awaits.",
    "calling": "A handler waits for another entity's answer; `calls` has the chain.",
    "committing": "All it did waits for the store to confirm the commit.",
    "recovering": "It is being read back from the store; commands wait in its mailbox.",
    "restarting": "Its activation starts over from the journal; commands wait in its mailbox.",
    "backoff": "After a failure its restart is held back, for `retry_in_s` more.",
    "stopped": "It answers every command with an error; `reason` says which.",
    "judged": "Something of it failed, a command or that it could not be read back, and its supervisor is asked what is to become of it.",
    "quarantined": "It kept taking its host down and is held apart; `reason` says with what.",
    "passivating": "It asked to leave memory and does so at the next round.",
    "passive": "Not in memory; the next command brings it back.",
    "new": "Never used: nothing is recorded of it.",
    "not_ready": "Its type is not served yet, or no more; `reason` says what is waited for.",
    "held": "New commands wait, in order, until its host has delivered durable sends.",
    "moving": "Its shard is on its way to another host.",
    "no_lease": "Its host holds no lease: it answers no query from memory until it has renewed it.",
    "store_away": "The store does not answer its host: nothing can be committed or read back.",
    "host_blocked": "Another entity's handler keeps its host from everything else.",
    "host_silent": "Its host does not answer: dead, frozen, cut off or starting.",
    "no_owner": "No host owns its shard at the moment.",
    "starting": "The actor of this dedicated entity is being started.",
    "unknown": "Neither its host nor the registry answers.",
}
"""Every ``Why.state`` and what it means."""


Teller = Literal["host", "registry", "client"]


class Subject(NamedTuple):
    """What a question is about, as its asker knows it."""

    entity: str
    """``type/id``"""
    shard: str
    host: str
    """Name of the shard's owner; empty if none is known."""
    node: str
    durable: bool
    """Whether its type is kept in the journal."""
    dedicated: bool
    """Whether it has an actor of its own."""


class RunningHandler(msgspec.Struct, frozen=True, kw_only=True):
    """The handler that runs."""

    method: str
    for_s: float
    command_id: str = ""
    callers: tuple[str, ...] = ()
    """Entities that wait for it, outermost first."""
    where: str = ""
    """The innermost lines of its stack, where it blocks its host."""


class OpenCall(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a chain of calls: an entity, its running handler, and whom that waits for."""

    entity: str
    method: str
    waits_for: str
    for_s: float


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """What an entity does or waits for. As JSON it has all of these keys, always."""

    entity: str
    """``type/id``"""
    state: str
    """One of ``STATES``."""
    because: str
    """One sentence for people."""
    for_s: float | None = None
    """Seconds it has been so; None where nobody knows."""
    told_by: Teller = "host"
    """Who knows this: its host, the registry (its host did not answer), or the client's own table alone."""
    durable: bool = True
    """Whether it is kept in the journal; False for ``Transient``, which begins anew after a crash."""
    shard: str = ""
    host: str = ""
    node: str = ""
    entries: int | None = None
    """Commands recorded so far; None where nobody knows."""
    mailbox: int = 0
    """Commands and queries that wait."""
    oldest_s: float | None = None
    """Seconds that the oldest of them has waited."""
    running: RunningHandler | None = None
    calls: list[OpenCall] = []
    """The chain of calls it waits on, itself first."""
    retry_in_s: float | None = None
    """Seconds until it is tried again by itself."""
    reason: str = ""
    """The error or failure behind its state."""


class Glance(msgspec.Struct, kw_only=True):
    """What a host's other threads can say while its event loop comes to nothing."""

    entity: str = ""
    """Whose handler keeps the loop; empty if none does."""
    method: str = ""
    for_s: float = 0.0
    where: str = ""
    """The innermost lines of its stack."""


class About(msgspec.Struct, kw_only=True):
    """What the registry knows about a shard and its owner."""

    shard: str
    owner: int = 0
    """Incarnation; 0 for none."""
    epoch: int = 0
    host: str = ""
    node: str = ""
    dedicated: bool = False
    placed: bool = True
    """Whether the shard is in the table at all."""
    renewed_s: float | None = None
    """Seconds since the registry saw the owner's lease renewed."""
    suspected_s: float | None = None
    """Seconds since it suspects the owner to be gone."""
    suspected_because: str = ""
    target: str = ""
    """Where the shard is moving to."""
    moving_s: float | None = None
    """Seconds since its hand-off began; None if it does not move."""
    unowned_s: float | None = None
    """Seconds without an owner."""
    unowned_because: str = ""
    waits_for: str = ""
    """What the app's order has to wait for before there is an owner; empty if nothing."""
    store_away_s: float | None = None
    """Seconds since the registry could last reach the store, if it cannot now."""


def how_long(seconds: float) -> str:
    """Return a time in words: ``0.4 s``, ``12 s``, ``3 min``, ``5 h``."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - tenths matter below ten


def from_outside(
    subject: Subject, waited_s: float, about: About | None, *, disowned: bool = False, reason: str = ""
) -> Why:
    """Return the answer about an entity whose host said nothing.

    Args:
        subject: The entity, and its host by the client's table.
        waited_s: How long the host was waited for.
        about: What the registry says; None if it does not answer either.
        disowned: Whether the host was heard, and only said that the shard is not its own.
        reason: The last refusal the host, or the way to it, was heard with.
    """
    if about is None:
        state, because, for_s = _without_registry(subject.shard, subject.host, waited_s)
        return _answer(subject, "client", state, because, for_s, reason)
    state, because, for_s = _by_registry(
        about, subject.host, waited_s, dedicated=subject.dedicated, disowned=disowned
    )  # fmt: skip
    owner = subject._replace(host=about.host or subject.host, node=about.node or subject.node)
    return _answer(owner, "registry", state, because, for_s, about.waits_for if state == "not_ready" else reason)


def _answer(
    subject: Subject, told_by: Teller, state: str, because: str, for_s: float | None, reason: str = "",
    running: RunningHandler | None = None,
) -> Why:  # fmt: skip
    return Why(
        entity=subject.entity, state=state, because=because, for_s=None if for_s is None else round(for_s, 3),
        told_by=told_by, durable=subject.durable, shard=subject.shard, host=subject.host, node=subject.node,
        running=running, reason=reason,
    )  # fmt: skip


def _without_registry(shard: str, host: str, waited_s: float) -> tuple[str, str, float | None]:
    if not host:
        return "unknown", f"No host owned shard {shard} when the registry was last heard, and it does not answer.", None
    because = (
        f"Its host {host} has not answered for {how_long(waited_s)}, and neither has the registry: "
        "what they do is not known from here."
    )
    return "unknown", because, waited_s


def _by_registry(
    about: About, host: str, waited_s: float, *, dedicated: bool, disowned: bool
) -> tuple[str, str, float | None]:
    away = about.store_away_s
    beside = "" if away is None else f" The registry has not reached the store for {how_long(away)}."
    if about.moving_s is not None:
        to = f" to {about.target}" if about.target else ""
        since = how_long(about.moving_s)
        return (
            "moving",
            f"Shard {about.shard} has been moving from {about.host}{to} for {since}.{beside}",
            about.moving_s,
        )
    if not about.owner:
        return _without_owner(about, beside, dedicated=dedicated)
    if about.host != host:
        return "moving", f"Shard {about.shard} has just been given to {about.host}.{beside}", None
    if disowned:
        because = f"Shard {about.shard} is on its way to or from {about.host}, which does not serve it at the moment."
        return "moving", because + beside, None
    return "host_silent", _silent(about, waited_s) + beside, max(waited_s, about.suspected_s or 0.0)


def _without_owner(about: About, beside: str, *, dedicated: bool) -> tuple[str, str, float | None]:
    since = "" if about.unowned_s is None else f" for {how_long(about.unowned_s)}"
    if about.waits_for:
        because = (
            f"Shard {about.shard} has had no owner{since}, which waits for: {about.waits_for.rstrip('.')}.{beside}"
        )
        return "not_ready", because, about.unowned_s
    if dedicated and not about.placed:
        return "new", "It was never used: its actor is started with its first command.", None
    state = "starting" if dedicated else "no_owner"
    why = about.unowned_because or "no host has been found for it"
    return state, f"Shard {about.shard} has had no owner{since}: {why}.{beside}", about.unowned_s


def _silent(about: About, waited_s: float) -> str:
    heard = ""
    if about.renewed_s is not None:
        heard = f"; its lease was last seen renewed {how_long(about.renewed_s)} ago"
    if about.suspected_s is not None:
        why = f" ({about.suspected_because})" if about.suspected_because else ""
        heard += f", and the registry has suspected it to be gone for {how_long(about.suspected_s)}{why}"
    return f"Its host {about.host} has not answered for {how_long(waited_s)}{heard}."


def from_glance(subject: Subject, seen: Glance) -> Why:
    """Return the answer about an entity of a host whose loop is kept by a handler that neither ends nor awaits."""
    since = how_long(seen.for_s)
    if seen.entity == subject.entity:
        because = f"It has run {seen.method} for {since}, which neither ends nor awaits and keeps its host from everything else."
        running = RunningHandler(method=seen.method, for_s=seen.for_s, where=seen.where)
        return _answer(subject, "host", "blocking", because, seen.for_s, running=running)
    because = f"{seen.entity}.{seen.method} has kept its host {subject.host} from everything else for {since}: it neither ends nor awaits."
    return _answer(subject, "host", "host_blocked", because, seen.for_s, seen.where)


def read(data: dict[str, Any]) -> About:
    """Return what a registry said; it may be of another release and say less or more."""
    return msgspec.convert(data, About)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Why).decode
