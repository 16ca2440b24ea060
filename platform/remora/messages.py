"""What travels between a client and a host: msgpack arrays around JSON payloads.

A batch carries the asks of one session; an answer names the ask it answers by number. Nothing
here is ever unpickled; all bytes are decoded into these typed structures.
"""

from __future__ import annotations

import msgspec

VALUE = 0
"""Verdict of an answer whose payload is the reply as JSON."""
ERROR = 1
"""Verdict of an answer whose payload is an encoded error."""
REPEATED = 2
"""Verdict of an answer with the recorded reply of a command applied before."""
REPEATED_ERROR = 3
"""Verdict of an answer with the recorded rejection of a command decided before."""

CREDITS = 4
"""Verdict of what answers no ask (its number is 0): how many asks the session may have under way, as decimal digits."""

STALE = 1
"""Flag: answer a query from memory even when the lease is in doubt."""
SEND = 2
"""Flag: a durable send; the receiver recognises repeats by lane and number."""
REMINDER = 4
"""Flag: a due reminder of the entity itself."""
FIRST = 8
"""Flag: the id was made for this ask, and no other sending of it can have been applied, before or since: it is no repeat."""
ADMITTED = SEND | REMINDER
"""Flags of asks that the platform owes: never refused by admission of new work."""


class Ask(msgspec.Struct, array_like=True, gc=False):
    """One command or query on its way to an entity."""

    n: int
    """Number within the session; answers carry it."""
    type: str
    id: str
    method: str
    args: bytes
    """Arguments as JSON."""
    command_id: str
    ttl_s: float
    """Seconds left until the caller stops waiting."""
    lane: str
    """Who the order of commands is kept for: a client session or a sending entity; empty: none."""
    seq: int
    """Number within the lane's client, rising; 0 without a lane."""
    prev: int
    """Number of the lane's command before this one that is still open; 0 if none is."""
    chain: tuple[str, ...]
    """Keys of the entities that wait for this call, outermost first."""
    flags: int


class Batch(msgspec.Struct, array_like=True, gc=False):
    """Asks of one session, in the order sent."""

    session: str
    asks: list[Ask]


Answer = tuple[int, int, bytes]
"""(number of the ask, verdict, payload)"""

encode = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_answers = msgspec.msgpack.Decoder(list[Answer]).decode
