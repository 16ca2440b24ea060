"""Entities that take their host's process down, in every way there is, and neighbours that do not."""

import asyncio
import ctypes
import os
from pathlib import Path

from remora import App, Backoff, Blame, Durable, EntityOptions, Event, EventSourced, Settings, Supervision, command, on
from remora.supervision.levels import HOST_DIED
from tests.integration.apps import BY_NUMBER, Count, Witness


class Brittle(Durable[Count]):
    """Counts, and ends its process when it is told to."""

    options = EntityOptions(deadline_s=30.0)

    @command
    async def add(self) -> int:
        self.state.value += 1
        return self.state.value

    @command
    async def segfault(self) -> None:
        ctypes.string_at(0)

    @command
    async def segfault_after_a_wait(self) -> None:
        await asyncio.sleep(0.01)  # noqa: TID251 - of the entity, which runs on real time
        ctypes.string_at(0)

    @command
    async def leave(self) -> None:
        os._exit(3)

    @command(run_in="thread")
    async def leave_in_a_thread(self) -> None:
        os._exit(3)

    @command
    async def spin(self) -> None:
        while True:
            pass

    @command
    async def hoard(self) -> None:
        kept = []
        while True:
            kept.append(bytearray(1 << 20))


class Lone(Brittle):
    """The same in an actor of its own."""

    options = EntityOptions(placement="dedicated", deadline_s=30.0)


class Tripped(Event):
    """It was stepped on."""

    fuse: str


class Mine(EventSourced[Count, Tripped]):
    """Ends the process that reads it back, while there is a file of the name it was given."""

    @command
    async def step_on(self, fuse: str) -> int:
        self.emit(Tripped(fuse=fuse))
        return self.state.value

    def apply(self, event: Tripped) -> None:
        self.state.value += 1
        if self.state.value > 1 and Path(event.fuse).exists():
            os._exit(4)


QUICK = Settings(shards=16, blocked_s=0.2, hung_s=3.0, memory_end_share=0.04)
"""Ended after three seconds, and with a gigabyte on a machine that has 24."""
RULE = Blame(at_most=1, within_s=600, backoff=Backoff(min_s=0.3, max_s=0.3))

unlucky = App(
    "unlucky", entities=[Witness], settings=Settings(shards=16), allocation=BY_NUMBER,
    supervision=Supervision(
        host=(on(HOST_DIED, Exception).restart(Backoff(min_s=0.5, factor=2, jitter=0), at_most=3, within_s=120),),
    ),
)  # fmt: skip
looping = App(
    "looping", entities=[Brittle, Witness], settings=Settings(shards=64), allocation=BY_NUMBER,
    supervision=Supervision(crashes=Blame(at_most=2, backoff=Backoff(min_s=12, max_s=15, jitter=0))),
)  # fmt: skip
"""Pauses are longer than a host takes to start: in between everything is as it was."""
brittle = App(
    "brittle", entities=[Brittle, Lone, Mine, Witness], settings=QUICK, allocation=BY_NUMBER,
    supervision=Supervision(crashes=RULE),
)  # fmt: skip
