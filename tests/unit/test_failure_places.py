"""Each directive, for each kind of entity, in each place where it can fail: what becomes of it, and of its neighbour."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from remora import (
    App,
    Backoff,
    Client,
    Corrupt,
    Directive,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    Failure,
    HandlerFailed,
    RemoraError,
    Rule,
    Settings,
    Stopped,
    Supervision,
    Supervisor,
    Transient,
    command,
    on,
    query,
)
from remora.local import LocalPlatform
from remora.runtime import registry_status
from remora.runtime.cell import Cell
from remora.testing import FaultyStore
from tests import platforms
from tests.clock import until


class BoomError(Exception):
    """What the entities here fail with."""


BROKEN: set[str] = set()
"""Where they do."""
ONCE = {"apply"}
"""Where they do so once, and not again when they are read back for that."""


def fails(place: str) -> None:
    if place in BROKEN:
        BROKEN.discard(place if place in ONCE else "")
        raise BoomError(place)


@pytest.fixture(autouse=True)
def mended() -> Iterator[None]:
    BROKEN.clear()
    yield
    BROKEN.clear()


class Count(BaseModel):
    n: int = 0

    @field_validator("n")
    @classmethod
    def _readable(cls, n: int) -> int:
        fails("reading")
        return n

    @field_serializer("n")
    def _writable(self, n: int) -> int:
        fails("writing")
        return n


class Added(Event):
    """One more."""


class Common:
    """What all three kinds do alike; each says how it adds one."""

    def one_more(self) -> None:
        """Add one."""

    @command
    async def add(self) -> int:
        self.one_more()
        fails("handler")
        n: int = self.state.n  # type: ignore[attr-defined]  # of the entity that this is a part of
        return n

    @command
    async def add_after_a_wait(self) -> None:
        await asyncio.sleep(0)  # noqa: TID251 - a handler that suspends
        self.one_more()
        fails("handler that awaits")

    @command(run_in="thread")
    async def add_in_a_thread(self) -> None:
        self.one_more()
        fails("handler in a thread")

    @command
    async def wake(self) -> None:
        self.remind("again", after=timedelta(0))  # type: ignore[attr-defined]  # as above

    async def on_reminder(self, name: str) -> None:
        del name
        fails("reminder")

    @query
    async def total(self) -> int:
        fails("query")
        n: int = self.state.n  # type: ignore[attr-defined]  # as above
        return n

    @command
    async def receive(self) -> None:
        fails("delivery")


class Booked(Common, EventSourced[Count, Added]):
    options = EntityOptions(snapshot_every=3)

    def one_more(self) -> None:
        self.emit(Added())

    def apply(self, event: Added) -> None:
        del event
        fails("apply")
        fails("replay")
        self.state.n += 1


class Kept(Common, Durable[Count]):
    def one_more(self) -> None:
        self.state.n += 1


class Fleeting(Common, Transient[Count]):
    """In memory only."""

    def one_more(self) -> None:
        self.state.n += 1


class Sender(Durable[Count]):
    @command
    async def tell(self, kind: str, ident: str) -> None:
        self.send(KINDS[kind].receive, ident)


KINDS: dict[str, Any] = {"booked": Booked, "kept": Kept, "fleeting": Fleeting}
HANDLERS = {
    "handler": "add", "handler that awaits": "add_after_a_wait", "handler in a thread": "add_in_a_thread", "query": "total",
    "apply": "add", "writing": "add",
}  # fmt: skip
"""Place of a failure in a command or query → the command or query."""
PLACES: dict[str, tuple[str, ...]] = {
    "booked": ("handler", "handler that awaits", "handler in a thread", "query", "apply", "reminder", "delivery", "snapshot", "recovery"),
    "kept": ("handler", "handler that awaits", "handler in a thread", "query", "writing", "reminder", "delivery", "recovery"),
    "fleeting": ("handler", "handler that awaits", "handler in a thread", "query", "delivery"),
}  # fmt: skip
"""A transient entity has no journal, so nothing to recover or to snapshot, and no durable reminders."""
ALL = [(kind, place) for kind, places in PLACES.items() for place in places]
WHAT = (BoomError, "PydanticSerializationError")
"""The latter is what pydantic makes of an exception of a serializer."""
RULES: dict[Directive, Rule] = {
    Directive.RESUME: on(*WHAT).resume(),
    Directive.RESTART: on(*WHAT).restart(Backoff(min_s=0)),
    Directive.STOP: on(*WHAT).stop(),
    Directive.ESCALATE: on(*WHAT).escalate(),
}


class Judge(Supervisor):
    """Says what the test says."""

    says: ClassVar[Directive]
    heard: ClassVar[list[str]] = []
    """Of each failure, what was decided already; nothing where it was asked."""

    async def on_failure(self, failure: Failure) -> Directive | None:
        self.heard.append(failure.directive)
        return type(self).says


@asynccontextmanager
async def running(
    directive: Directive, store: FaultyStore | None = None, *, by: str = "rule"
) -> AsyncIterator[tuple[LocalPlatform, Client]]:
    Judge.says = directive
    Judge.heard.clear()
    declared = {Directive.RESUME: Directive.STOP}.get(directive, Directive.RESUME) if by == "supervisor" else directive
    rules: dict[str, tuple[Rule, ...]] = dict.fromkeys(KINDS, (RULES[declared],))
    supervision = Supervision(entities=rules, shard=(on(*WHAT).stop(),))
    settings = Settings(shards=1, supervisor_ask_s=30.0)
    supervisors = [Judge] if by == "supervisor" else []
    app = App(
        "places",
        entities=[*KINDS.values(), Sender],
        settings=settings,
        supervision=supervision,
        supervisors=supervisors,
    )
    async with platforms.running(app, store) as started:
        yield started


def cell_of(platform: LocalPlatform, kind: str, ident: str = "a") -> Cell:
    return platform.hosts["host-1"].cells[f"{kind}/{ident}"]


async def fail(platform: LocalPlatform, client: Client, kind: str, place: str) -> None:
    """Have an entity that counts 1 fail in a place; return when that was judged."""
    entity, failures = client.ref(KINDS[kind], "a"), platform.hosts["host-1"].failures
    if place in HANDLERS:
        BROKEN.add(place)
        with pytest.raises(HandlerFailed, match="BoomError"):
            await getattr(entity, HANDLERS[place])()
    elif place == "snapshot":
        BROKEN.add("writing")
        await entity.add()
        await entity.add()  # the third entry, after which a snapshot is due: what it did is recorded
    elif place == "reminder":
        BROKEN.add(place)
        await entity.wake()
    elif place == "delivery":
        BROKEN.add(place)
        await client.ref(Sender, "s").tell(kind, "a")
    else:
        BROKEN.update({"replay", "reading"})
        cell_of(platform, kind).restart()
        asking = asyncio.ensure_future(entity.total())
        await until(lambda: failures.count)
        BROKEN.clear()
        with suppress(RemoraError):
            await asking
    await until(lambda: failures.count)
    BROKEN.clear()


@pytest.mark.parametrize("by", ["rule", "supervisor"])
@pytest.mark.parametrize("directive", list(RULES))
@pytest.mark.parametrize(("kind", "place"), ALL)
async def test_whatever_fails_wherever_the_rule_or_the_supervisor_decides_and_nothing_acknowledged_is_lost(
    kind: str, place: str, directive: Directive, by: str
) -> None:
    async with running(directive, by=by) as (platform, client):
        entity, neighbour = client.ref(KINDS[kind], "a"), client.ref(KINDS[kind], "b")
        assert [await entity.add(), await neighbour.add()] == [1, 1]
        before, other = cell_of(platform, kind), cell_of(platform, kind, "b").entity
        state = before.entity

        await fail(platform, client, kind, place)

        acknowledged = 3 if place == "snapshot" else 1
        if directive is Directive.ESCALATE:
            for asked in (entity, neighbour):
                with pytest.raises(Stopped, match="Boom"):
                    await asked.total()
        elif directive is Directive.STOP or (place == "recovery" and directive is Directive.RESUME):
            with pytest.raises(Corrupt if place == "recovery" else Stopped, match=r"Boom|replay|reading"):
                await entity.total()
        elif directive is Directive.RESTART:
            assert await entity.total() == (0 if kind == "fleeting" else acknowledged)
            assert cell_of(platform, kind).entity is not state, "it was read back or begun anew"
        else:
            assert await entity.total() == acknowledged
            assert cell_of(platform, kind).entity is state
        if directive is not Directive.ESCALATE:
            assert await neighbour.total() == 1
            assert cell_of(platform, kind, "b").entity is other, "its neighbour noticed nothing"
        await until(lambda: platform.hosts["host-1"].failures.noted)
        (noted,) = await registry_status.failures(platform.registry, 10, f"{kind}/a")
        assert (noted["kind"].endswith(("BoomError", "SerializationError")), noted["latest"]["host"]) == (
            True,
            "host-1",
        )
        assert noted["command"] == named(place)
        assert Judge.heard == ([""] * noted["times"] if by == "supervisor" else [])


def named(place: str) -> str:
    """Return what stands for a place where failures are noted."""
    return HANDLERS.get(place) or {"reminder": "on_reminder", "delivery": "receive"}.get(place, place)


@pytest.mark.parametrize("directive", list(RULES))
@pytest.mark.parametrize("kind", ["booked", "kept"])
async def test_a_commit_that_fails_is_the_stores_and_no_rule_is_asked(kind: str, directive: Directive) -> None:
    store = FaultyStore()
    async with running(directive, store) as (platform, client):
        entity = client.ref(KINDS[kind], "a")
        assert await entity.add() == 1
        store.fail_next()

        assert await entity.add() == 2, "it was sent again by itself"

        assert platform.hosts["host-1"].failures.count == 0
        assert await entity.total() == 2


async def test_without_a_rule_what_cannot_be_read_back_is_stopped_and_what_cannot_be_snapshot_goes_on() -> None:
    app = App("places", entities=[Booked], settings=Settings(shards=1))
    async with platforms.running(app) as (platform, client):
        entity = client.ref(Booked, "a")
        await entity.add()
        await fail(platform, client, "booked", "snapshot")
        assert await entity.total() == 3

        BROKEN.add("replay")
        cell_of(platform, "booked").restart()

        with pytest.raises(Corrupt, match="replay"):
            await entity.total()


async def test_79_what_cannot_be_read_back_is_read_again_after_longer_and_longer_pauses_until_it_can() -> None:
    rules = (on(*WHAT).restart(Backoff(min_s=0.1, jitter=0)),)
    app = App(
        "places", entities=[Booked], settings=Settings(shards=1), supervision=Supervision(entities={"booked": rules})
    )
    async with platforms.running(app) as (platform, client):
        entity, failures = client.ref(Booked, "a"), platform.hosts["host-1"].failures
        await entity.add()
        BROKEN.add("replay")
        cell_of(platform, "booked").restart()
        asking = asyncio.ensure_future(entity.total())

        await until(lambda: failures.count == 2)
        assert (await entity.why()).state == "backoff"
        BROKEN.clear()

        assert await asking == 1


async def test_79_commands_that_wait_behind_a_failure_are_kept_and_run_in_order_after_the_restart() -> None:
    async with running(Directive.RESTART) as (platform, client):
        entity = client.ref(Booked, "a")
        BROKEN.add("handler that awaits")
        failing = asyncio.ensure_future(entity.add_after_a_wait())
        waiting = [asyncio.ensure_future(client.ref(Booked, "a").add()) for _ in range(3)]
        await until(lambda: platform.hosts["host-1"].failures.count)
        BROKEN.clear()

        with pytest.raises(HandlerFailed, match="BoomError"):
            await failing
        assert await asyncio.gather(*waiting) == [1, 2, 3]
