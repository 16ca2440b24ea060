"""Entities that tests put through their paces, and the gates they wait at."""

import asyncio
from collections import defaultdict
from typing import Any

from pydantic import BaseModel

from remora import (
    App,
    Backoff,
    Durable,
    Entity,
    EntityOptions,
    Event,
    EventSourced,
    Rejected,
    Settings,
    Transient,
    command,
    on,
    query,
)

GATES: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""Where handlers wait for tests, by name; emptied before every test."""
REACHED: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""Where tests wait for handlers."""
RUNS: list[str] = []
"""What handlers note outside of their entity, to count runs."""


def forget() -> None:
    """Begin anew."""
    GATES.clear()
    REACHED.clear()
    RUNS.clear()


async def gate(name: str) -> None:
    """Wait until the test opens the gate."""
    REACHED[name].set()
    await GATES[name].wait()


class Boom(Exception):  # noqa: N818 - what happened
    """What broken handlers raise."""


# -- one shape of entity, as each kind and with flat and nested state ----------------------------------


class Flat(BaseModel):
    total: int = 0


class Nested(BaseModel):
    items: list[str] = []
    counts: dict[str, int] = {}


class Added(Event):
    amount: int


class Wrote(Event):
    text: str


class Till(EventSourced[Flat, Added]):
    """Event sourced, flat state."""

    options = EntityOptions(snapshot_every=5, dedup_window=50, deadline_s=5.0)

    @command
    async def add(self, amount: int = 1) -> int:
        self.emit(Added(amount=amount))
        return self.state.total

    @command
    async def add_slowly(self, name: str, amount: int = 1) -> int:
        await gate(name)
        self.emit(Added(amount=amount))
        return self.state.total

    @command
    async def add_then_wait(self, name: str, amount: int = 1) -> int:
        self.emit(Added(amount=amount))
        await gate(name)
        return self.state.total

    @command
    async def add_and_raise(self, amount: int = 1) -> int:
        RUNS.append("add_and_raise")
        self.emit(Added(amount=amount))
        raise Boom

    @command
    async def add_and_reject(self, amount: int = 1) -> int:
        RUNS.append("add_and_reject")
        self.emit(Added(amount=amount))
        msg = "Not today"
        raise Rejected(msg)

    @command
    async def add_twice(self, amount: int) -> int:
        self.emit(Added(amount=amount))
        self.emit(Added(amount=amount))
        return self.state.total

    @command
    async def leave(self) -> None:
        self.passivate()

    @query
    async def total(self) -> int:
        return self.state.total

    @query
    async def total_later(self, name: str) -> int:
        await gate(name)
        return self.state.total

    def apply(self, event: Added) -> None:
        self.state.total += event.amount


class Diary(EventSourced[Nested, Wrote]):
    """Event sourced, nested state: only the journal can undo."""

    options = EntityOptions(snapshot_every=1, supervision=(on(Exception).restart(Backoff(min_s=0)),))

    @command
    async def write(self, text: str) -> int:
        self.emit(Wrote(text=text))
        return len(self.state.items)

    @command
    async def write_and_raise(self, text: str) -> int:
        self.emit(Wrote(text=text))
        raise Boom

    @command
    async def write_and_reject(self, text: str) -> int:
        self.emit(Wrote(text=text))
        msg = "Not today"
        raise Rejected(msg)

    @command
    async def write_and_swallow(self, text: str) -> int:
        try:
            self.emit(Wrote(text=text))
        except Boom:
            RUNS.append("swallowed")
        return len(self.state.items)

    @query
    async def read(self) -> list[str]:
        return self.state.items

    def apply(self, event: Wrote) -> None:
        self.state.items.append(event.text)
        if event.text == "unspeakable":
            raise Boom


class Box(Durable[Nested]):
    """Durable, nested state."""

    options = EntityOptions(snapshot_every=3, supervision=(on(Exception).resume(),))

    @command
    async def put(self, item: str) -> int:
        self.state.items.append(item)
        self.state.counts[item] = self.state.counts.get(item, 0) + 1
        return len(self.state.items)

    @command
    async def put_and_raise(self, item: str) -> int:
        self.state.items.append(item)
        self.state.counts[item] = -1
        raise Boom

    @command
    async def put_and_reject(self, item: str) -> int:
        self.state.items.append(item)
        msg = "Full"
        raise Rejected(msg)

    @query
    async def look(self) -> list[str]:
        return self.state.items


class Counter(Durable[Flat]):
    """Durable, flat state; its rules resume."""

    options = EntityOptions(snapshot_every=4, supervision=(on(Exception).resume(),))

    @command
    async def add(self, amount: int = 1) -> int:
        self.state.total += amount
        return self.state.total

    @command
    async def add_and_raise(self) -> int:
        self.state.total += 100
        raise Boom

    @command
    async def replace_and_raise(self) -> int:
        self.state = None  # type: ignore[assignment]  # what a handler may do by mistake
        raise Boom

    @command
    async def replace(self, total: int) -> int:
        self.state = Flat(total=total)
        return self.state.total

    @command
    async def set_to(self, value: Any) -> None:  # noqa: ANN401 - a value that does not fit
        self.state.total = value

    @query
    async def total(self) -> int:
        return self.state.total


class Gauge(BaseModel):
    level: float = 0.0
    other: float | None = None


class Meter(Durable[Gauge]):
    """Durable, with numbers that JSON cannot hold."""

    @command
    async def double(self) -> float:
        self.state.level = self.state.level * 2 or 1e300
        return 0.0

    @command
    async def overflow(self) -> float:
        self.state.level = 1e308 * 10
        return 0.0

    @query
    async def level(self) -> float:
        return self.state.level


class Lamp(Transient[Nested]):
    """Memory only."""

    options = EntityOptions(passivate_after_s=60.0)

    @command
    async def put(self, item: str) -> int:
        self.state.items.append(item)
        return len(self.state.items)

    @command
    async def put_and_raise(self, item: str) -> int:
        self.state.items.append(item)
        raise Boom

    @query
    async def look(self) -> list[str]:
        return self.state.items


class Fragile(Durable[Flat]):
    """Stopped by its first failure."""

    options = EntityOptions(supervision=(on(Exception).stop(),))

    @command
    async def add(self) -> int:
        self.state.total += 1
        return self.state.total

    @command
    async def fail(self) -> None:
        raise Boom

    @command
    async def leave_the_process(self) -> None:
        raise SystemExit(3)

    @command
    async def leave_the_process_later(self, name: str) -> None:
        await gate(name)
        raise SystemExit(3)


class Alarmist(Durable[Flat]):
    """Escalates: every entity of its shard restarts."""

    options = EntityOptions(supervision=(on(Exception).escalate(),))

    @command
    async def fail(self) -> None:
        raise Boom


class Crowded(Durable[Nested]):
    """A mailbox of two."""

    options = EntityOptions(mailbox_max=2)

    @command
    async def put(self, item: str) -> int:
        self.state.items.append(item)
        return len(self.state.items)

    @command
    async def put_slowly(self, item: str, name: str) -> int:
        await gate(name)
        self.state.items.append(item)
        return len(self.state.items)

    @query
    async def look(self) -> list[str]:
        return self.state.items


class Restless(Durable[Nested]):
    """Passivates after a minute; takes its time when told to."""

    options = EntityOptions(passivate_after_s=60.0, deadline_s=30.0)

    @command
    async def put(self, item: str) -> int:
        self.state.items.append(item)
        return len(self.state.items)

    @command
    async def never(self) -> None:
        self.state.items.append("never")
        await asyncio.Event().wait()

    @command
    async def stubborn(self) -> None:
        self.state.items.append("stubborn")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                RUNS.append("ignored")

    @query
    async def look(self) -> list[str]:
        return self.state.items


THINGS: list[type[Entity[Any]]] = [Till, Diary, Box, Counter, Meter, Lamp, Fragile, Alarmist, Crowded, Restless]
SETTINGS = Settings(shards=8)
app = App("things", entities=THINGS, settings=SETTINGS)
