"""The apps the integration tests run; each test that kills something has one of its own."""

import time

from pydantic import BaseModel

from remora import App, Durable, EntityOptions, Event, EventSourced, LeastShards, Settings, command, query


class Marks(BaseModel):
    numbers: list[int] = []


class Marked(Event):
    number: int


class Witness(EventSourced[Marks, Marked]):
    """Remembers every number it was given, in the order given: what is lost, doubled or swapped shows."""

    options = EntityOptions(snapshot_every=50)

    @command
    async def mark(self, number: int) -> int:
        self.emit(Marked(number=number))
        return len(self.state.numbers)

    @command
    async def fail(self) -> None:
        raise ArithmeticError

    @query
    async def marks(self) -> list[int]:
        return self.state.numbers

    def apply(self, event: Marked) -> None:
        self.state.numbers.append(event.number)


class Count(BaseModel):
    value: int = 0


class Alone(Durable[Count]):
    """Lives in an actor of its own."""

    options = EntityOptions(placement="dedicated")

    @command
    async def add(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value

    @query
    async def value(self) -> int:
        return self.state.value


class Lasting(Alone):
    """Does not leave its actor however long others take to start."""

    options = EntityOptions(placement="dedicated", passivate_after_s=3600.0)


class Hog(Durable[Count]):
    """Keeps its host's loop without an await."""

    @command
    async def hog(self, seconds: float) -> None:
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            self.state.value += 1

    @command
    async def add(self, amount: int) -> int:
        self.state.value += amount
        return self.state.value


BY_NUMBER = LeastShards(load_share=0.0)
"""By measured load some shards count for more, and hosts under load never have evenly many."""


def _app(name: str) -> App:
    return App(name, entities=[Witness, Alone], allocation=BY_NUMBER)


common = _app("common")
host_killed = _app("host-killed")
moved = _app("moved")
all_killed = _app("all-killed")
registry_killed = _app("registry-killed")
both_killed = _app("both-killed")
both_frozen = _app("both-frozen")
frozen = _app("frozen")
all_frozen = _app("all-frozen")
fenced = _app("fenced")
alone_killed = _app("alone-killed")
many = App("many", entities=[Witness, Lasting], allocation=BY_NUMBER)
few_shards = App("few-shards", entities=[Witness], settings=Settings(shards=16))
unopened = _app("unopened")
why = App("why", entities=[Witness, Alone, Hog], settings=Settings(shards=16, lease_ttl_s=6.0))
"""Leases are long, so that a test can look at a frozen host before it is replaced."""
metrics = App("metrics", entities=[Witness, Hog], settings=Settings(shards=16))
