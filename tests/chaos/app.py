"""The app the chaos runs on: entities whose every answer names one prefix of one history.

Every command adds an item that no other command adds. ``chain`` is a digest over the items in order, so
that a pair (count, chain) is true of one prefix of one history or of none. Each entry carries the token
of the activation that made it: a token that comes back after another is an activation that committed
when it was none any more.
"""

import os
import secrets
import zlib

from pydantic import BaseModel

from remora import App, Durable, EntityOptions, Event, EventSourced, Rejected, Settings, command, query

OPTIONS = EntityOptions(
    snapshot_every=20,
    passivate_after_s=8.0,  # entities leave memory and come back all the time
    deadline_s=10.0,
    dedup_window=1_000_000,  # of a Durable entity the entries testify: a window of that size keeps them all
)


class Prefix(BaseModel):
    """What was taken so far."""

    count: int = 0
    chain: int = 0

    def take(self, item: str) -> "Prefix":
        """Return what it is with one item more."""
        return Prefix(count=self.count + 1, chain=zlib.crc32(item.encode(), self.chain))


class Taken(Prefix):
    """The answer to a command."""

    item: str
    token: str


class Appended(Event):
    item: str
    token: str


class Ledger(EventSourced[Prefix, Appended]):
    """Kept as events."""

    options = OPTIONS

    @command
    async def append(self, item: str) -> Taken:
        token = _token(self)
        self.emit(Appended(item=item, token=token))
        return Taken(**self.state.model_dump(), item=item, token=token)

    @command
    async def refuse(self, item: str) -> None:
        before = self.state
        self.emit(Appended(item=item, token=_token(self)))
        raise Rejected(before.model_dump_json())

    @query
    async def seen(self) -> Prefix:
        return self.state

    def apply(self, event: Appended) -> None:
        self.state = self.state.take(event.item)


class Purse(Durable[Prefix]):
    """Kept as its latest state."""

    options = OPTIONS

    @command
    async def append(self, item: str) -> Taken:
        self.state = self.state.take(item)
        return Taken(**self.state.model_dump(), item=item, token=_token(self))

    @command
    async def refuse(self, item: str) -> None:
        before = self.state
        self.state = self.state.take(item)
        raise Rejected(before.model_dump_json())

    @query
    async def seen(self) -> Prefix:
        return self.state


def _token(entity: Ledger | Purse) -> str:
    """Return the token of this activation: an instance belongs to one, and to one process."""
    made: str | None = entity.__dict__.get("_token")
    if made is None:
        made = entity.__dict__["_token"] = f"{os.getpid()}-{secrets.token_hex(6)}"
    return made


app = App("chaos", entities=[Ledger, Purse], settings=Settings(shards=60))
"""A shard count that three nodes, and two, divide evenly."""
