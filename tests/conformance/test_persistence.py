"""How entities and stores work together, on every store: failures of handlers, of commits and of recovery.

The numbers are those of the scenarios that Akka's and Pekko's own suites test for their persistence.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from pydantic import BaseModel

import remora
from remora import App, EntityOptions, Event, EventSourced, HandlerFailed, Settings, command, query
from remora.errors import StoreUnavailable
from remora.testing import Fault, FaultyStore, ManualClock
from remora.testing.store_suite import MakeStore
from tests import platforms, things
from tests.clock import until
from tests.platforms import host_of
from tests.things import GATES, REACHED, Boom, gate


class Kept(BaseModel):
    items: list[str] = []
    poison: bool = False


class Put(Event):
    item: str


class Shelf(EventSourced[Kept, Put]):
    """Small snapshots, so that every test crosses some."""

    options = EntityOptions(snapshot_every=4, dedup_window=50, deadline_s=5.0)

    @command
    async def put(self, item: str) -> int:
        self.emit(Put(item=item))
        return len(self.state.items)

    @command
    async def put_many(self, items: list[str]) -> int:
        for item in items:
            self.emit(Put(item=item))
        return len(self.state.items)

    @command
    async def put_and_raise(self, item: str) -> None:
        self.emit(Put(item=item))
        raise Boom

    @command
    async def put_after(self, item: str, name: str) -> int:
        await gate(name)
        self.emit(Put(item=item))
        return len(self.state.items)

    @command
    async def put_and_leave(self, item: str) -> None:
        self.emit(Put(item=item))
        self.passivate()

    @command
    async def remind_me(self, item: str, after: float) -> None:
        self.remind(item, after=after)

    async def on_reminder(self, name: str) -> None:
        self.emit(Put(item=name))

    @query
    async def items(self) -> list[str]:
        return self.state.items

    def apply(self, event: Put) -> None:
        if event.item == "refused" or (event.item == "later poison" and things.GATES["poisoned"].is_set()):
            raise Boom
        self.state.items.append(event.item)


app = App("shelves", entities=[Shelf], settings=Settings(shards=8))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    things.forget()


@pytest.fixture
async def store(make_store: MakeStore) -> AsyncIterator[FaultyStore]:
    made = FaultyStore(make_store())
    yield made
    made.let_go()


async def test_68_a_handler_that_raises_leaves_the_state_as_it_was_before(store: FaultyStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("a")
        with pytest.raises(HandlerFailed):
            await shelf.put_and_raise("b")
        assert await shelf.items() == ["a"]

        await platform.crash(host_of(platform, "shelf/s").name)

        assert await shelf.items() == ["a"]


@pytest.mark.parametrize("fault", list(Fault))
async def test_69_what_waits_behind_a_commit_that_fails_is_served_in_order_and_nothing_twice(
    store: FaultyStore, fault: Fault
) -> None:
    async with platforms.running(app, store) as (_, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("first")
        store.hold()
        waiting = [asyncio.ensure_future(shelf.put(str(n))) for n in range(10)]
        await until(lambda: store.waiting)
        store.faults = [fault]
        store.let_go()

        assert await asyncio.gather(*waiting) == list(range(2, 12))
        assert await shelf.items() == ["first", *map(str, range(10))]


async def test_69_a_store_that_fails_again_and_again_is_asked_less_and_less_often(store: FaultyStore) -> None:
    async with platforms.running(app, store) as (_, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("first")
        failed = 0

        def fails(_: object) -> Fault:
            nonlocal failed
            failed += 1
            return Fault.BEFORE_WRITE

        store.decide = fails
        with pytest.raises(remora.TryAgain):
            await shelf.with_options(command_id="x", deadline_s=1.0).put("second")
        assert 2 <= failed <= 8

        store.decide = lambda _: None
        assert await shelf.with_options(command_id="x").put("second") == 2


async def test_70_an_event_that_apply_refuses_is_not_written(store: FaultyStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("a")
        with pytest.raises(HandlerFailed):
            await shelf.put("refused")
        with pytest.raises(HandlerFailed):
            await shelf.put_many(["b", "refused", "c"])
        await platform.crash(host_of(platform, "shelf/s").name)

        assert await shelf.items() == ["a"]
        assert [event["data"]["item"] for event in await shelf.history()] == ["a"]


async def test_71_an_entity_whose_apply_raises_in_recovery_does_not_serve_and_its_neighbours_do(
    store: FaultyStore,
) -> None:
    clock = ManualClock()
    async with platforms.running(app, store, clock=clock) as (platform, client):
        bad, good = client.ref(Shelf, "bad"), client.ref(Shelf, "good")
        await bad.put("later poison")
        await good.put("a")
        GATES["poisoned"].set()
        await platform.crash(host_of(platform, "shelf/bad").name)

        with pytest.raises(remora.Corrupt, match="shelf/bad cannot be recovered"):
            await bad.items()
        with pytest.raises(remora.Corrupt):
            await bad.put("more")
        assert await good.items() == ["a"]

        GATES["poisoned"].clear()
        clock.advance(10)
        host_of(platform, "shelf/bad").passivation.round()
        assert await bad.items() == ["later poison"]


async def test_72_recovery_waits_for_a_store_that_does_not_answer_and_goes_on_when_it_does(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with platforms.running(app, store) as (platform, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("a")
        loads, away = 0, True
        load = store.inner.load

        async def refused(wants: list[object]) -> object:
            nonlocal loads
            loads += 1
            if away:
                msg = "gone for lunch"
                raise StoreUnavailable(msg)
            return await load(wants)  # type: ignore[arg-type]  # passed on

        monkeypatch.setattr(store.inner, "load", refused)
        await platform.crash(host_of(platform, "shelf/s").name)
        with pytest.raises(remora.DeadlineExceeded):
            await shelf.with_options(deadline_s=0.3).items()
        assert loads >= 2

        away = False
        assert await shelf.items() == ["a"]


async def test_73_what_waits_for_recovery_keeps_its_order(store: FaultyStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("a")
        await platform.crash(host_of(platform, "shelf/s").name)

        counts = await asyncio.gather(*(shelf.put(str(n)) for n in range(50)))

        assert counts == list(range(2, 52))
        assert await shelf.items() == ["a", *map(str, range(50))]


async def test_74_a_snapshot_that_cannot_be_written_does_not_hurt(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> bytes:
        raise Boom

    async with platforms.running(app, store) as (platform, client):
        shelf = client.ref(Shelf, "s")
        monkeypatch.setattr(Shelf.__remora__, "write_state", broken)
        for n in range(10):
            await shelf.put(str(n))
        await platform.crash(host_of(platform, "shelf/s").name)

        assert await shelf.items() == [str(n) for n in range(10)]


async def test_74_a_snapshot_is_behind_all_events_of_the_command_that_was_due_for_it(store: FaultyStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("a")
        await shelf.put("b")
        await shelf.put("c")
        await shelf.put_many(["d", "e", "f"])
        await platform.crash(host_of(platform, "shelf/s").name)

        assert await shelf.items() == list("abcdef")
        assert [event["seq"] for event in await shelf.history()] == [1, 2, 3, 4, 5, 6]


async def test_75_entities_that_go_while_they_are_read_back_give_their_place_to_others(store: FaultyStore) -> None:
    async with platforms.running(app, store, hosts=2) as (platform, client):
        refs = [client.ref(Shelf, f"s{n}") for n in range(300)]
        await asyncio.gather(*(ref.put("a") for ref in refs))
        for name in list(platform.hosts):
            await platform.crash(name)
        asked = [asyncio.ensure_future(ref.items()) for ref in refs]
        for key in ("shelf/s0", "shelf/s1", "shelf/s2"):
            await until(lambda: any(host.shard_name(key) in host.shards for host in platform.hosts.values()))  # noqa: B023 - awaited in this round
            await platforms.move(platform, key)

        assert await asyncio.gather(*asked) == [["a"]] * 300


async def test_76_a_reply_leaves_after_the_write(store: FaultyStore) -> None:
    async with platforms.running(app, store) as (_, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put("a")
        store.hold()
        asked = asyncio.ensure_future(shelf.put("b"))
        looked = asyncio.ensure_future(shelf.items())
        await until(lambda: store.waiting)
        done, _ = await asyncio.wait([asked, looked], timeout=0.1)
        assert not done

        store.let_go()
        assert (await asked, await looked) == (2, ["a", "b"])


async def test_77_a_reminder_due_while_a_handler_runs_and_others_wait_is_not_lost(store: FaultyStore) -> None:
    clock = ManualClock()
    async with platforms.running(app, store, clock=clock) as (platform, client):
        shelf = client.ref(Shelf, "s")
        await shelf.remind_me("rang", 1.0)
        slow = asyncio.ensure_future(shelf.put_after("slow", "go"))
        await REACHED["go"].wait()
        waiting = asyncio.ensure_future(shelf.put("waited"))
        clock.advance(2.0)
        reminders = host_of(platform, "shelf/s").reminders
        await reminders.fire_due()
        GATES["go"].set()
        await asyncio.gather(slow, waiting)
        await until(lambda: not reminders._firing)  # noqa: SLF001 - that it was answered

        assert sorted(await shelf.items()) == ["rang", "slow", "waited"]


async def test_77_an_entity_that_asks_to_leave_after_it_wrote_leaves_and_has_written(store: FaultyStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        shelf = client.ref(Shelf, "s")
        await shelf.put_and_leave("a")
        host = host_of(platform, "shelf/s")
        host.passivation.round()
        assert "shelf/s" not in host.cells
        with suppress(HandlerFailed):
            await shelf.put_and_raise("b")

        assert await shelf.items() == ["a"]
