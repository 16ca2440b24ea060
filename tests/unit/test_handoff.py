"""A shard moves with what its entities know: nothing is replayed, nothing is doubled, and the journal is the way back."""

# ruff: noqa: SLF001 - shards are moved as the rebalance moves them, at times of the test's choice

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, PrivateAttr

from remora import (
    App,
    Client,
    CommandIdReused,
    Durable,
    EntityOptions,
    HandlerFailed,
    RemoraError,
    Settings,
    TooOld,
    Transient,
    command,
    query,
)
from remora.errors import HostGone
from remora.journal import Recovered, Want
from remora.local import LocalPlatform
from remora.messages import Answer, Ask, Batch, decode_answers, encode
from remora.runtime.handoff import CALLS_S, FORMAT, Parcel, Passenger
from remora.runtime.host import Host
from remora.sharding.allocation import Move
from remora.testing import FaultyStore, ManualClock
from tests import flows, things
from tests.clock import turns, until
from tests.platforms import host_of, move
from tests.things import Box, Counter, Crowded, Diary, Fragile, Lamp, Till


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


class CountingStore(FaultyStore):
    """Counts the entities that are read back."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        self.loaded.extend(want.entity for want in wants)
        return await super().load(wants)


class Movers(LocalPlatform):
    """Hands over as it is told: by default what a host hands over arrives."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - as the base class
        super().__init__(*args)
        self.parcels: list[tuple[str, bytes]] = []
        self.carry: Callable[[str, bytes], Awaitable[None]] = super().hand_over

    async def hand_over(self, host: str, data: bytes) -> None:
        self.parcels.append((host, data))
        await self.carry(host, data)


class Moves:
    """A platform of two hosts with one client, and its insides at hand."""

    def __init__(self, platform: Movers, client: Client, store: CountingStore, clock: ManualClock) -> None:
        self.platform = platform
        self.client = client
        self.store = store
        self.clock = clock

    def host(self, key: str) -> Host:
        """Return the host that owns an entity."""
        return host_of(self.platform, key)

    async def move(self, key: str) -> Host:
        """Move an entity's shard to the other host and forget what was read before; return that host."""
        self.store.loaded.clear()
        return self.platform.hosts[await move(self.platform, key)]

    def refuse(self, error: Exception) -> None:
        """Have no hand-over arrive."""

        async def refused(_host: str, _data: bytes) -> None:
            raise error

        self.platform.carry = refused


@asynccontextmanager
async def moving(app: App = things.app, hosts: int = 2) -> AsyncIterator[Moves]:
    store, clock = CountingStore(), ManualClock()
    platform = Movers(app, store, clock)
    try:
        await platform.start(hosts)
        yield Moves(platform, await platform.client().start(), store, clock)
    finally:
        store.mend()
        await platform.close()


def at_home(host: Host, kind: str, but: str = "") -> str:
    """Return the id of an entity of a shard of this host, not the shard of ``but``."""
    return next(
        str(n)
        for n in range(999)
        if host.shard_name(f"{kind}/{n}") in host.shards
        and (not but or host.shard_name(f"{kind}/{n}") != host.shard_name(but))
    )


async def taken(moves: Moves, key: str, waiting: int) -> None:
    """Wait until so many commands wait in an entity's mailbox."""
    await until(lambda: len(moves.host(key).cells[key].mailbox) == waiting)


# -- what travels --------------------------------------------------------------------------------------


async def test_entities_of_every_kind_move_with_their_state_and_nothing_is_read_from_the_store() -> None:
    async with moving() as here:
        for cls, ask in ((Till, "add"), (Counter, "add"), (Diary, "write"), (Box, "put"), (Lamp, "put")):
            kind = cls.__remora__.type
            ref: Any = here.client.ref(cls, "a")
            argument: Any = 1 if ask == "add" else "x"
            await getattr(ref, ask)(argument)
            await getattr(ref, ask)(argument)

            target = await here.move(f"{kind}/a")

            assert await getattr(ref, ask)(argument) == 3, kind
            assert here.store.loaded == [], kind
            assert f"{kind}/a" in target.cells
        assert sum(host.handoff.opened for host in here.platform.hosts.values()) == 5
        assert sum(host.recovery.count for host in here.platform.hosts.values()) == 4


async def test_an_entity_that_is_asked_for_the_first_time_after_the_move_of_its_shard_is_read_as_ever() -> None:
    async with moving() as here:
        await here.client.ref(Till, "a").add(1)
        other = next(
            str(n)
            for n in range(99)
            if here.host(f"till/{n}").shard_name(f"till/{n}") == here.host("till/a").shard_name("till/a")
        )
        await here.move("till/a")

        assert await here.client.ref(Till, other).add(5) == 5
        assert here.store.loaded == [f"till/{other}"]


async def test_a_command_decided_before_the_move_gets_its_recorded_answer_after_it() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        once = till.with_options(command_id="pay-7")
        assert await once.add(1) == 1
        await till.add(1)

        await here.move("till/a")

        assert await once.add(1) == 1
        with pytest.raises(CommandIdReused):
            await once.add(2)
        assert await till.total() == 2
        assert here.store.loaded == []


async def test_what_the_window_has_forgotten_before_the_move_is_too_old_after_it() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        old = here.client.ids.next()
        await till.with_options(command_id=old).add(1)
        here.clock.advance(1.0)
        for _ in range(till_window := 50):
            await till.add(1)

        await here.move("till/a")

        with pytest.raises(TooOld):
            await till.with_options(command_id=old).add(1)
        assert await till.total() == till_window + 1
        assert here.store.loaded == []


async def test_snapshots_go_on_where_they_were() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        for _ in range(8):  # one every five entries
            await till.add(1)
        before = here.host("till/a").cells["till/a"]
        expected = (before.n, before.seq, before.snapshot_n, before.tail_bytes, before.kept)

        target = await here.move("till/a")
        await till.total()

        after = target.cells["till/a"]
        assert (after.n, after.seq, after.snapshot_n, after.tail_bytes, after.kept) == expected
        assert after.snapshot_n == 5


async def test_a_durable_send_that_was_applied_before_the_move_is_not_applied_again_after_it() -> None:
    async with moving(flows.app) as here:
        await here.client.ref(flows.Teller, "t").tell(["a"], "one")
        listener = here.client.ref(flows.Listener, "a")
        await until(lambda: here.host("teller/t").outbox.pending == 0)
        assert await listener.heard() == ["one"]

        target = await here.move("listener/a")
        await listener.heard()
        marks = target.cells["listener/a"].marks
        again = Ask(9, "listener", "a", "hear", b'{"text":"one"}', "", 9.0, "teller/t", marks["teller/t"], 0, (), 2) if marks else None  # fmt: skip
        assert again is not None
        target.dispatch(again, target.session("s", 0.0), here.clock.monotonic_s() + 9)
        await here.client.ref(flows.Teller, "t").tell(["a"], "two")
        await until(lambda: here.host("teller/t").outbox.pending == 0)

        assert await listener.heard() == ["one", "two"]
        assert "listener/a" not in here.store.loaded


async def test_an_entity_that_was_to_leave_memory_does_not_travel() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        await till.leave()

        target = await here.move("till/a")

        assert await till.total() == 1
        assert here.store.loaded == ["till/a"]
        assert target.handoff.opened == 0


class Kept(Durable[things.Flat]):
    """Stays in memory however long it is idle."""

    options = EntityOptions(remember=True, passivate_after_s=60.0)

    @command
    async def add(self) -> int:
        self.state.total += 1
        return self.state.total


async def test_a_remembered_entity_travels_however_long_it_was_idle() -> None:
    async with moving(App("kept", entities=[Kept], settings=things.SETTINGS)) as here:
        kept = here.client.ref(Kept, "a")
        await kept.add()
        here.clock.advance(600.0)
        assert "kept/a" in here.host("kept/a").cells

        target = await here.move("kept/a")

        assert await kept.add() == 2
        assert here.store.loaded == []
        assert target.handoff.opened == 1


async def test_an_image_that_nobody_asked_for_is_dropped_when_its_entity_would_have_left_memory() -> None:
    async with moving() as here:
        await here.client.ref(Till, "a").add(1)
        target = await here.move("till/a")
        shard = target.shards[target.shard_name("till/a")]
        assert list(shard.images) == ["till/a"]

        here.clock.advance(Till.options.passivate_after_s + 1)
        target.handoff.tidy(here.clock.monotonic_s())

        assert shard.images == {}
        assert await here.client.ref(Till, "a").total() == 1
        assert here.store.loaded == ["till/a"]


async def test_images_that_nobody_asked_for_travel_on_with_the_next_move() -> None:
    async with moving() as here:
        lamp = here.client.ref(Lamp, "a")
        await lamp.put("x")
        for _ in range(3):
            await here.move("lamp/a")

        assert await lamp.look() == ["x"]


# -- Transient and dedicated ---------------------------------------------------------------------------


async def test_a_planned_move_keeps_the_state_of_a_transient_entity() -> None:
    async with moving() as here:
        lamp = here.client.ref(Lamp, "a")
        await lamp.put("x")

        await here.move("lamp/a")

        assert await lamp.put("y") == 2
        assert await lamp.look() == ["x", "y"]


class Cached(BaseModel):
    total: int = 0
    _seen: list[int] = PrivateAttr(default_factory=list)


class Cache(Transient[Cached]):
    """Keeps a part of its state where no JSON shows it."""

    @command
    async def add(self, amount: int) -> int:
        self.state.total += amount
        self.state._seen.append(amount)
        return self.state.total


async def test_a_transient_state_that_its_json_does_not_show_as_a_whole_begins_anew() -> None:
    async with moving(App("caches", entities=[Cache], settings=things.SETTINGS)) as here:
        cache = here.client.ref(Cache, "a")
        assert await cache.add(2) == 2

        await here.move("cache/a")

        assert await cache.add(3) == 3


class Numbers(BaseModel):
    total: int = 0


class Board(Durable[Numbers]):
    options = EntityOptions(placement="dedicated")

    @command
    async def add(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    @query
    async def total(self) -> int:
        return self.state.total


async def test_a_dedicated_entity_moves_to_another_host_of_its_own_with_its_state() -> None:
    async with moving(App("boards", entities=[Board], settings=things.SETTINGS), hosts=1) as here:
        board = here.client.ref(Board, "network")
        await board.add(2)
        source = here.host("board/network")
        await here.platform.add_host("another", "board/network")
        target = here.platform.hosts["another"]
        here.store.loaded.clear()

        await here.platform.registry.move({"board/network": Move(source.incarnation, target.incarnation)})

        assert await board.add(1) == 3
        assert here.host("board/network") is target
        assert here.store.loaded == []


# -- when images count ---------------------------------------------------------------------------------


async def test_an_image_counts_under_the_very_next_epoch_alone() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        source = here.host("till/a")
        shard, epoch = source.shard_name("till/a"), source.shards[source.shard_name("till/a")].epoch
        target = next(host for host in here.platform.hosts.values() if host is not source)
        await here.move("till/a")
        (_, load), *_ = here.platform.parcels
        await till.add(1)
        back = await here.move("till/a")
        assert back is source
        await till.add(1)  # 3, and what was handed over first says 1

        target.take(load)  # once more, late: the sender's epoch was two owners ago
        here.refuse(HostGone("Cut off."))
        await here.move("till/a")

        assert target.shards[shard].epoch == epoch + 3
        assert await till.total() == 3


async def test_nothing_of_before_counts_after_a_crash_came_in_between() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        first = here.host("till/a")
        second = await here.move("till/a")
        ((_, load),) = here.platform.parcels
        await till.add(1)
        first.take(load)  # once more, to the wrong host: one that gets the shard in another way

        await here.platform.crash(second.name)

        assert here.host("till/a") is first
        assert await till.total() == 2


async def test_what_arrives_after_the_shard_was_taken_is_ignored() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        late: list[tuple[str, bytes]] = []

        async def keep(host: str, data: bytes) -> None:
            late.append((host, data))

        here.platform.carry = keep
        target = await here.move("till/a")
        assert await till.add(1) == 2

        for _ in range(2):
            target.take(late[0][1])

        assert target.shards[target.shard_name("till/a")].images == {}
        assert await till.add(1) == 3
        here.platform.carry = super(Movers, here.platform).hand_over
        await here.move("till/a")
        await here.move("till/a")
        assert await till.total() == 3


async def test_what_arrives_twice_counts_once() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        slow = asyncio.create_task(till.add_slowly("gate"))
        await things.REACHED["gate"].wait()
        behind = [asyncio.create_task(till.add(1)) for _ in range(3)]
        await taken(here, "till/a", 3)

        async def twice(host: str, data: bytes) -> None:
            for _ in range(2):
                here.platform.hosts[host].take(data)

        here.platform.carry = twice
        leaving = asyncio.create_task(here.move("till/a"))
        await turns()
        things.GATES["gate"].set()
        await leaving

        assert await asyncio.gather(slow, *behind) == [1, 2, 3, 4]
        assert await till.total() == 4


async def test_what_is_kept_of_shards_that_do_not_come_is_forgotten() -> None:
    async with moving() as here:
        await here.client.ref(Till, "a").add(1)
        source = here.host("till/a")
        target = next(host for host in here.platform.hosts.values() if host is not source)
        await source.release({source.shard_name("till/a"): target.name})
        here.clock.advance(things.SETTINGS.hand_off_keep_s + 1)

        await here.platform.registry.refresh()

        assert await here.client.ref(Till, "a").total() == 1
        assert sum(host.handoff.opened for host in here.platform.hosts.values()) == 0


async def test_a_host_that_took_a_new_incarnation_while_it_let_go_sends_nothing_that_counts() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        source = here.host("till/a")
        busy = at_home(source, "till", "till/a")
        carry = here.platform.carry

        async def fail_meanwhile(host: str, data: bytes) -> None:
            here.store.fail_next(after=True)
            await here.client.ref(Till, busy).add(1)  # its commit fails: a new incarnation, a higher epoch
            await carry(host, data)

        here.platform.carry = fail_meanwhile
        target = await here.move("till/a")

        assert await till.total() == 1
        assert target.handoff.opened == 0
        assert "till/a" in here.store.loaded


async def test_the_epoch_in_the_store_rises_by_one_with_a_move_and_the_sender_serves_the_shard_no_more() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        source = here.host("till/a")
        shard = source.shard_name("till/a")
        before = (await here.store.read_table()).shards[shard].epoch
        held = source.shards[shard]
        seen: list[bool] = []
        carry = here.platform.carry

        async def look(host: str, data: bytes) -> None:
            seen.append((await here.store.read_table()).shards[shard].owner == source.incarnation)
            seen.append(held.accepting)
            await carry(host, data)

        here.platform.carry = look
        await here.move("till/a")

        assert seen == [True, False]  # handed over before it is released, and served by nobody then
        assert (await here.store.read_table()).shards[shard].epoch == before + 1
        assert shard not in source.shards


# -- the way back to the journal -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [HostGone("Cut off."), TimeoutError(), RuntimeError("broken")], ids=["unreachable", "slow", "broken"]
)
async def test_a_hand_over_that_does_not_arrive_is_no_loss(error: Exception) -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        assert await till.with_options(command_id="x").add(1) == 1
        here.refuse(error)

        await here.move("till/a")

        assert await till.with_options(command_id="x").add(1) == 1
        assert await till.add(1) == 2
        assert "till/a" in here.store.loaded


async def test_a_target_that_does_not_answer_holds_up_a_move_for_a_bounded_time() -> None:
    settings = replace(things.SETTINGS, hand_off_s=0.05)
    async with moving(App("things", entities=[Till], settings=settings)) as here:
        till = here.client.ref(Till, "a")
        await till.add(1)

        async def never(_host: str, _data: bytes) -> None:
            await asyncio.Event().wait()

        here.platform.carry = never
        async with asyncio.timeout(5):
            await here.move("till/a")

        assert await till.add(1) == 2


async def test_a_target_that_dies_with_what_it_was_sent_is_no_loss() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        target = await here.move("till/a")

        await here.platform.crash(target.name)

        assert await till.add(1) == 2


async def test_a_move_to_nobody_in_particular_is_read_from_the_journal() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        source = here.host("till/a")

        await source.release({source.shard_name("till/a"): ""})
        await here.platform.registry.refresh()

        assert await till.add(1) == 2
        assert here.platform.parcels == []


async def test_an_entity_that_is_too_large_for_one_call_is_read_from_the_journal_and_its_neighbours_travel() -> None:
    settings = replace(things.SETTINGS, shards=1, hand_off_bytes_max=2_000)
    async with moving(App("things", entities=[Box], settings=settings)) as here:
        for name in "abc":
            await here.client.ref(Box, name).put("x" * (5_000 if name == "b" else 10))

        await here.move("box/a")
        sizes = [await here.client.ref(Box, name).put("y") for name in "abc"]

        assert sizes == [2, 2, 2]
        assert here.store.loaded == ["box/b"]


async def test_what_travels_is_sent_in_calls_of_bounded_size() -> None:
    settings = replace(things.SETTINGS, shards=1, hand_off_bytes_max=2_000)
    async with moving(App("things", entities=[Box], settings=settings)) as here:
        for n in range(30):
            await here.client.ref(Box, str(n)).put("x" * 300)

        await here.move("box/0")
        for n in range(30):
            assert await here.client.ref(Box, str(n)).put("y") == 2

        assert here.store.loaded == []
        assert len(here.platform.parcels) > 5
        assert max(len(load) for _, load in here.platform.parcels) < 2_000 + 1_000  # and what frames it


async def test_a_host_keeps_no_more_than_its_bound() -> None:
    settings = replace(things.SETTINGS, shards=1, hand_off_bytes_max=2_000, hand_off_kept_bytes_max=4_000)
    async with moving(App("things", entities=[Box], settings=settings)) as here:
        for n in range(30):
            await here.client.ref(Box, str(n)).put("x" * 300)

        target = await here.move("box/0")
        for n in range(30):
            assert await here.client.ref(Box, str(n)).put("y") == 2

        assert 0 < target.handoff.opened < 15
        assert len(here.store.loaded) == 30 - target.handoff.opened


async def test_an_entity_whose_state_cannot_be_written_is_read_from_the_journal() -> None:
    async with moving() as here:
        counter = here.client.ref(Counter, "a")
        await counter.add(1)
        cell = here.host("counter/a").cells["counter/a"]
        cell.entity.state.total = "not a number"  # as a query can do that changes what it looks at

        await here.move("counter/a")

        assert await counter.total() == 1
        assert here.store.loaded == ["counter/a"]


async def test_an_image_that_cannot_be_read_is_no_loss() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        target = await here.move("till/a")
        images = target.shards[target.shard_name("till/a")].images
        images["till/a"] = (images["till/a"][0], images["till/a"][1][:-3])

        assert await till.add(1) == 2
        assert here.store.loaded == ["till/a"]


async def test_a_load_that_cannot_be_read_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)

        async def garble(host: str, data: bytes) -> None:
            here.platform.hosts[host].take(data[::-1])

        here.platform.carry = garble
        with caplog.at_level(logging.WARNING, "remora.host"):
            await here.move("till/a")

        assert await till.add(1) == 2
        assert "cannot be read" in caplog.text


async def test_images_of_another_shape_of_the_state_do_not_count() -> None:
    async with moving() as here:
        till, box = here.client.ref(Till, "a"), here.client.ref(Box, "a")
        await till.add(1)
        await box.put("x")
        for host in here.platform.hosts.values():  # as two releases of one app have it during an upgrade
            host.handoff._shapes["till"] = id(host)

        await here.move("till/a")
        assert await till.add(1) == 2
        assert here.store.loaded == ["till/a"]
        await here.move("box/a")
        assert await box.put("y") == 2
        assert here.store.loaded == []


async def test_a_parcel_of_another_format_does_not_count() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        source = here.host("till/a")
        target = next(host for host in here.platform.hosts.values() if host is not source)
        shard = source.shard_name("till/a")
        epoch = source.shards[shard].epoch
        here.refuse(HostGone("Cut off."))
        parcel = Parcel(FORMAT + 1, shard, epoch, source.name, {}, [Passenger("till/a", 0.0, b"?", [])])
        target.take(encode([parcel]))

        await here.move("till/a")

        assert await till.total() == 1
        assert target.shards[shard].images == {}


# -- commands that were not begun ----------------------------------------------------------------------


async def test_commands_that_were_not_begun_travel_and_are_applied_once_in_their_order() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        slow = asyncio.create_task(till.add_slowly("gate"))
        await things.REACHED["gate"].wait()
        behind = [asyncio.create_task(till.add(10**n)) for n in range(1, 6)]
        await taken(here, "till/a", 5)

        leaving = asyncio.create_task(here.move("till/a"))
        await turns()
        things.GATES["gate"].set()
        target = await leaving

        assert await slow == 1  # it had begun, and ended where it was
        assert await asyncio.gather(*behind) == [11, 111, 1111, 11111, 111111]
        assert await till.total() == 111111
        assert target.cells["till/a"].n == 6
        assert here.store.loaded == []


def answers(data: bytes) -> list[Answer]:
    """Return the answers to asks of a call's; what a host grants a session stands beside them."""
    return [answer for answer in decode_answers(data) if answer[0]]


async def test_they_are_begun_before_their_client_knows_of_the_move_and_answered_into_its_session() -> None:
    async with moving() as here:
        source = here.host("till/a")
        target = next(host for host in here.platform.hosts.values() if host is not source)
        await here.client.ref(Till, "a").total()

        def ask(n: int, method: str, args: bytes) -> Ask:
            return Ask(n, "till", "a", method, args, f"own-{n}", 30.0, "silent", n, n - 1, (), 0)

        batch = Batch("silent", [ask(1, "add_slowly", b'{"name":"gate"}'), ask(2, "add", b'{"amount":5}')])
        exchange = asyncio.create_task(source.exchange(encode(batch)))
        await things.REACHED["gate"].wait()
        leaving = asyncio.create_task(here.move("till/a"))
        await turns()
        things.GATES["gate"].set()
        await leaving

        first = answers(await exchange)
        second = answers(await target.exchange(encode(Batch("silent", []))))
        assert first == [(1, 0, b"1")]
        assert second == [(2, 0, b"6")]


async def test_a_command_that_travelled_gives_way_to_itself_where_it_was_sent_again_before() -> None:
    async with moving() as here:
        source = here.host("till/a")
        here.store.hold("load")
        asking = asyncio.create_task(here.client.ref(Till, "a").add(1))
        await until(lambda: "till/a" in source.cells and source.cells["till/a"].mailbox)
        cell = source.cells["till/a"]
        ask, sink, deadline_s = cell.mailbox[0]

        older = msgspec.structs.replace(ask, n=ask.n + 1_000)
        cell.carried_on((older, sink, deadline_s))

        assert cell.mailbox == [(ask, sink, deadline_s)]
        here.store.let_go("load")
        assert await asking == 1


async def test_a_command_that_travelled_is_not_begun_after_its_deadline() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        slow = asyncio.create_task(till.with_options(deadline_s=60).add_slowly("gate"))
        await things.REACHED["gate"].wait()
        short = asyncio.create_task(till.with_options(deadline_s=5).add(10))
        long = asyncio.create_task(till.with_options(deadline_s=60).add(100))
        await taken(here, "till/a", 2)

        async def late(host: str, data: bytes) -> None:
            here.platform.hosts[host].take(data)
            here.clock.advance(6.0)

        here.platform.carry = late
        leaving = asyncio.create_task(here.move("till/a"))
        await turns()
        things.GATES["gate"].set()
        await leaving

        with pytest.raises(RemoraError):
            await short
        assert await slow == 1
        assert await long == 101


async def test_they_travel_also_when_their_entity_has_nothing_else_to_take_along() -> None:
    async with moving() as here:
        source = here.host("till/a")
        target = next(host for host in here.platform.hosts.values() if host is not source)
        here.store.hold("load")
        asking = [asyncio.create_task(here.client.ref(Till, "a").add(1)) for _ in range(3)]
        await until(lambda: "till/a" in source.cells and len(source.cells["till/a"].mailbox) == 3)

        await here.move("till/a")

        assert len(target.cells["till/a"].mailbox) == 3
        here.store.let_go("load")
        assert await asyncio.gather(*asking) == [1, 2, 3]


async def test_a_command_that_may_have_travelled_is_sent_again_as_one_that_may_have_been_applied() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        slow = asyncio.create_task(till.add_slowly("gate"))
        await things.REACHED["gate"].wait()
        behind = asyncio.create_task(till.add(10))
        await taken(here, "till/a", 1)
        (ask, _, _), *_ = here.host("till/a").cells["till/a"].mailbox
        carry = here.platform.carry

        async def lost_answer(host: str, data: bytes) -> None:
            await carry(host, data)
            msg = "The answer was lost."
            raise HostGone(msg)

        here.platform.carry = lost_answer
        leaving = asyncio.create_task(here.move("till/a"))
        await turns()
        things.GATES["gate"].set()
        target = await leaving

        assert list(await asyncio.gather(slow, behind)) == [1, 11]
        assert target.cells["till/a"].n == 2
        assert here.client.repeated == 1
        assert ask.command_id in target.cells["till/a"].window


async def test_a_handler_that_does_not_end_in_time_leaves_no_effect_and_is_run_again_before_those_behind_it() -> None:
    settings = replace(things.SETTINGS, hand_off_s=0.05)
    async with moving(App("things", entities=things.THINGS, settings=settings)) as here:
        crowd = here.client.ref(Crowded, "a")
        slow = asyncio.create_task(crowd.put_slowly("slow", "gate"))
        await things.REACHED["gate"].wait()
        behind = [asyncio.create_task(crowd.put(item)) for item in "xy"]
        await taken(here, "crowded/a", 2)

        await here.move("crowded/a")
        things.GATES["gate"].set()

        assert await asyncio.gather(slow, *behind) == [1, 2, 3]
        assert await crowd.look() == ["slow", "x", "y"]


async def test_an_entity_that_fails_while_it_leaves_is_read_from_the_journal() -> None:
    async with moving() as here:
        diary = here.client.ref(Diary, "a")
        await diary.write("x")
        cell = here.host("diary/a").cells["diary/a"]
        cell.shard.accepting = False
        cell.restart()
        await turns()
        cell.shard.accepting = True

        await here.move("diary/a")

        assert await diary.write("y") == 2
        assert here.store.loaded == ["diary/a"]


async def test_a_stopped_entity_does_not_travel() -> None:
    async with moving() as here:
        fragile = here.client.ref(Fragile, "a")
        await fragile.add()
        with pytest.raises(HandlerFailed):
            await fragile.fail()

        await here.move("fragile/a")

        assert await fragile.add() == 2
        assert here.store.loaded == ["fragile/a"]


async def test_queries_that_were_not_begun_are_asked_again_at_the_next_host() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        slow = asyncio.create_task(till.add_slowly("gate"))
        await things.REACHED["gate"].wait()
        asked = asyncio.create_task(till.total())
        await taken(here, "till/a", 1)

        leaving = asyncio.create_task(here.move("till/a"))
        await turns()
        things.GATES["gate"].set()
        await leaving

        assert list(await asyncio.gather(slow, asked)) == [1, 1]


async def test_a_handler_that_waits_for_an_entity_of_the_same_move_is_run_again_and_meets_the_recorded_answer() -> None:
    async with moving(App("flows", entities=[flows.Relay, flows.Listener], settings=Settings(shards=1))) as here:
        relay, listener = here.client.ref(flows.Relay, "r"), here.client.ref(flows.Listener, "l")
        waiting = asyncio.create_task(relay.relay("l", "wait-a"))
        await things.REACHED["wait-a"].wait()

        leaving = asyncio.create_task(here.move("relay/r"))
        await turns()
        things.GATES["wait-a"].set()
        began_s = asyncio.get_running_loop().time()
        await leaving
        took_s = asyncio.get_running_loop().time() - began_s

        assert await waiting == 1
        assert await listener.heard() == ["wait-a"]
        assert await relay.relayed() == ["wait-a"]
        assert took_s < CALLS_S  # and not the time that a handler may take otherwise


# -- scenarios that peers test ---------------------------------------------------------------------------


async def test_19_when_two_of_five_hosts_leave_only_what_lived_there_moves_and_nothing_is_read_back() -> None:
    async with moving(hosts=5) as here:
        names = [str(n) for n in range(40)]
        for name in names:
            await here.client.ref(Till, name).add(1)
        homes = {name: here.host(f"till/{name}").name for name in names}
        leaving, staying = (
            [here.platform.hosts[name] for name in chosen] for chosen in (["host-1", "host-3"], ["host-2", "host-4", "host-5"])
        )  # fmt: skip
        here.store.loaded.clear()

        for host in leaving:
            moves = {s: Move(host.incarnation, staying[n % 3].incarnation) for n, s in enumerate(sorted(host.shards))}
            await here.platform.registry.move(moves)

        totals = [await here.client.ref(Till, name).add(1) for name in names]
        now = {name: here.host(f"till/{name}").name for name in names}
        assert totals == [2] * 40
        assert here.store.loaded == []
        assert not any(host.shards or host.cells for host in leaving)
        gone = {host.name for host in leaving}
        assert {name for name in names if now[name] != homes[name]} == {name for name in names if homes[name] in gone}


async def test_26_a_host_that_stops_in_peace_leaves_what_was_in_memory_alone_to_the_others() -> None:
    async with moving() as here:
        lamps = [here.client.ref(Lamp, str(n)) for n in range(20)]
        for n, lamp in enumerate(lamps):
            await lamp.put(str(n))
        leaving, other = here.platform.hosts["host-1"], here.platform.hosts["host-2"]

        await here.platform.registry.move(
            dict.fromkeys(sorted(leaving.shards), Move(leaving.incarnation, other.incarnation))
        )
        await here.platform.registry.gone([leaving.incarnation], replace=False)

        assert [await lamp.look() for lamp in lamps] == [[str(n)] for n in range(20)]
        assert list(here.platform.hosts) == ["host-2"]


async def test_51_a_shard_that_was_let_go_in_peace_is_served_without_waiting_for_the_end_of_a_lease() -> None:
    async with moving() as here:
        till = here.client.ref(Till, "a")
        await till.add(1)
        source = here.host("till/a")
        before_s = here.clock.monotonic_s()

        await here.move("till/a")

        assert await till.total() == 1
        assert await till.add(1) == 2
        assert here.clock.monotonic_s() == before_s
        assert source.lease.live(before_s)  # it lives on, and with it all else that it serves


@pytest.mark.parametrize("count", [1, 300])
async def test_59_one_entity_and_many_move_with_their_state(count: int) -> None:
    async with moving(App("things", entities=[Box, Lamp], settings=replace(things.SETTINGS, shards=1))) as here:
        for n in range(count):
            await here.client.ref(Box, str(n)).put("x")
            await here.client.ref(Lamp, str(n)).put("x")

        target = await here.move("box/0")
        sizes = [(await here.client.ref(Box, str(n)).put("y"), await here.client.ref(Lamp, str(n)).put("y")) for n in range(count)]  # fmt: skip

        assert sizes == [(2, 2)] * count
        assert here.store.loaded == []
        assert target.handoff.opened == 2 * count


async def test_59_an_entity_whose_move_fails_at_either_end_is_still_reached() -> None:
    async with moving() as here:
        box = here.client.ref(Box, "a")
        await box.put("x")
        host = here.host("box/a")
        host.cells["box/a"].entity.state.items.append(object())  # what no JSON can hold
        target = await here.move("box/a")
        assert await box.put("y") == 2

        back = await here.move("box/a")
        images = back.shards[back.shard_name("box/a")].images
        images["box/a"] = (images["box/a"][0], b"")

        assert await box.put("z") == 3
        assert target.handoff.opened == back.handoff.opened == 0
