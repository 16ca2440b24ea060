"""The app the crash tests run: entities that remember the order of all they took, in answers of constant size.

Every command adds a value no other command adds. ``chain`` is a digest over the values in order, so that
a pair (count, chain) names one prefix of one history: an answer that shows it can be checked for ever.
"""

import dataclasses
import zlib

from pydantic import BaseModel

from remora import App, Durable, EntityOptions, Event, EventSourced, Rejected, Settings, command, query

OPTIONS = EntityOptions(snapshot_every=20, deadline_s=60.0)


class Prefix(BaseModel):
    """What was taken so far."""

    count: int = 0
    total: int = 0
    chain: int = 0

    def take(self, value: int) -> "Prefix":
        return Prefix(count=self.count + 1, total=self.total + value, chain=zlib.crc32(b"%d" % value, self.chain))


class Added(Event):
    value: int
    pad: str = ""


class Took(Event):
    sender: str
    value: int


class Ledger(EventSourced[Prefix, Added]):
    """Takes values, tells an inbox of some, says no to others."""

    options = OPTIONS

    @command
    async def add(self, value: int, pad: str = "") -> Prefix:
        self.emit(Added(value=value, pad=pad))
        return self.state

    @command
    async def add_and_tell(self, value: int, inbox: str) -> Prefix:
        self.emit(Added(value=value))
        self.send(Inbox.take, inbox, self.id, value)
        return self.state

    @command
    async def refuse(self, value: int) -> Prefix:
        before = self.state
        self.emit(Added(value=value))
        self.send(Inbox.take, "0", self.id, value)
        raise Rejected(before.model_dump_json())

    @query
    async def seen(self) -> Prefix:
        return self.state

    def apply(self, event: Added) -> None:
        self.state = self.state.take(event.value)


class Purse(Durable[Prefix]):
    """As a ledger, with nothing but its latest state."""

    # The journal testifies here: a window of that size keeps every entry in it.
    options = dataclasses.replace(OPTIONS, dedup_window=1_000_000)

    @command
    async def add(self, value: int) -> Prefix:
        self.state = self.state.take(value)
        return self.state

    @command
    async def refuse(self, value: int) -> Prefix:
        before = self.state
        self.state = self.state.take(value)
        raise Rejected(before.model_dump_json())

    @query
    async def seen(self) -> Prefix:
        return self.state


class Inbox(EventSourced[Prefix, Took]):
    """Takes what ledgers send."""

    options = OPTIONS

    @command
    async def take(self, sender: str, value: int) -> None:
        self.emit(Took(sender=sender, value=value))

    @query
    async def seen(self) -> Prefix:
        return self.state

    def apply(self, event: Took) -> None:
        self.state = self.state.take(event.value)


SETTINGS = Settings(shards=12, rebalance_s=0.2, lease_ttl_s=1.0, lease_margin_s=0.2)
"""A short lease: tests wait for its end."""
app = App("crash", entities=[Ledger, Purse, Inbox], settings=SETTINGS)
