"""Entities that come back without being asked, on virtual time: after a crash, a move, a restart, whatever fails meanwhile.

Numbers are those of the scenarios of Akka and Pekko that a test is written after. Their 41, a change of the function that
says which shard an entity is in, has no counterpart: that never changes here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from pydantic import BaseModel

from remora import App, Backoff, Client, Durable, EntityOptions, Event, EventSourced, Settings, command, on, query
from remora.clock import Clock
from remora.errors import RemoraError
from remora.journal import Append, Store
from remora.local import LocalPlatform
from remora.runtime import host as hosts
from remora.runtime import remembered
from remora.sharding.table import HostRow
from remora.storage.memory import MemoryStore
from remora.testing import FaultyStore
from tests.platforms import host_of, move
from tests.simulation.virtual import VirtualClock, VirtualLease, passing, run

SOON_S = 3.0
"""Well above the jitter and the portions of the few entities here."""


class Sum(BaseModel):
    amount: int = 0


class Added(Event):
    amount: int


class Pump(EventSourced[Sum, Added]):
    """Has to be at work."""

    options = EntityOptions(
        remember=True, deadline_s=300.0, supervision=(on(Exception).restart(Backoff(min_s=5.0, jitter=0.0)),)
    )

    @command
    async def add(self, amount: int = 1) -> int:
        self.emit(Added(amount=amount))
        return self.state.amount

    @command
    async def fail(self) -> None:
        msg = "leaks"
        raise RuntimeError(msg)

    @command
    async def rest(self) -> None:
        self.passivate()

    @query
    async def amount(self) -> int:
        return self.state.amount

    def apply(self, event: Added) -> None:
        self.state.amount += event.amount


class Valve(Durable[Sum]):
    """The same, and keeps a state."""

    options = EntityOptions(remember=True, deadline_s=300.0)

    @command
    async def add(self) -> int:
        self.state.amount += 1
        return self.state.amount

    @command
    async def add_and_rest(self) -> int:
        self.state.amount += 1
        self.passivate()
        return self.state.amount


class Ledger(Durable[Sum]):
    """Comes when it is asked for."""

    options = EntityOptions(deadline_s=300.0)

    @command
    async def add(self) -> int:
        self.state.amount += 1
        return self.state.amount


class Engine(Durable[Sum]):
    """Has a host of its own."""

    options = EntityOptions(remember=True, placement="dedicated", deadline_s=300.0)

    @command
    async def add(self) -> int:
        self.state.amount += 1
        return self.state.amount


SETTINGS = Settings(shards=8, rebalance_s=10**6)
app = App("plant", entities=[Pump, Valve, Ledger, Engine], settings=SETTINGS)


@pytest.fixture(autouse=True)
def _virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "Lease", VirtualLease)


@asynccontextmanager
async def running(
    store: Store | FaultyStore, count: int = 2, of: App = app
) -> AsyncIterator[tuple[LocalPlatform, Client]]:
    clock: Clock = VirtualClock()
    platform = LocalPlatform(of, store, clock)
    try:
        await platform.start(count)
        yield platform, await platform.client().start()
    finally:
        await platform.close()


def live(platform: LocalPlatform) -> list[str]:
    return sorted(
        key for host in platform.hosts.values() for key, cell in host.cells.items() if cell.phase.value == "ready"
    )


# -- coming back -----------------------------------------------------------------------------------------


def test_36_after_a_crash_of_their_host_remembered_entities_are_back_without_a_message_and_others_are_not() -> None:
    async def main() -> None:
        async with running(MemoryStore()) as (platform, client):
            for n in range(20):
                await client.ref(Pump, str(n)).add(n)
                await client.ref(Valve, str(n)).add()
                await client.ref(Ledger, str(n)).add()
            for name in list(platform.hosts):
                await platform.crash(name)
            assert live(platform) == []
            await passing(SOON_S)

            assert live(platform) == sorted(f"{kind}/{n}" for kind in ("pump", "valve") for n in range(20))
            states = [host.cells[key].entity.state.amount for host in platform.hosts.values() for key in host.cells]
            assert sorted(states) == sorted([*range(20), *[1] * 20])

    run(main())


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
def test_36_after_a_full_restart_of_the_platform_remembered_entities_are_back_without_a_message(
    *, closed: bool
) -> None:
    async def main() -> None:
        store = MemoryStore()
        async with running(store) as (platform, client):
            for n in range(10):
                await client.ref(Pump, str(n)).add(n)
                await client.ref(Ledger, str(n)).add()
            if not closed:
                for host in platform.hosts.values():
                    host.abandon()
        async with running(store, 3) as (platform, client):
            await passing(SOON_S)

            assert live(platform) == sorted(f"pump/{n}" for n in range(10))
            assert await client.ref(Pump, "7").add() == 8

    run(main())


def test_37_one_that_asked_to_leave_stays_passive_after_a_restart_while_its_sibling_is_revived() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with running(store) as (platform, client):
            for name in ("rests", "works", "rested"):
                await client.ref(Pump, name).add()
                await client.ref(Valve, name).add()
            for name in ("rests", "rested"):
                await client.ref(Pump, name).rest()
                await client.ref(Valve, name).add_and_rest()
            await passing(1.0)
            assert live(platform) == ["pump/works", "valve/works"]
            await client.ref(Pump, "rested").add()
            await client.ref(Valve, "rested").add()
            for name in list(platform.hosts):
                await platform.crash(name)
            await passing(SOON_S)
            expected = ["pump/rested", "pump/works", "valve/rested", "valve/works"]
            assert live(platform) == expected
        async with running(store) as (platform, client):
            await passing(SOON_S)

            assert live(platform) == expected
            assert await client.ref(Valve, "rests").add() == 3

    run(main())


def test_37_one_that_is_used_again_before_it_could_leave_is_remembered() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with running(store, 1) as (platform, client):
            pump = client.ref(Pump, "a")
            await asyncio.gather(pump.add(), pump.rest(), pump.add())
            await platform.crash("host-1")
            await passing(SOON_S)

            assert live(platform) == ["pump/a"]

    run(main())


def test_37_a_query_alone_does_not_make_it_remembered() -> None:
    async def main() -> None:
        async with running(MemoryStore(), 1) as (platform, client):
            assert await client.ref(Pump, "looked at").amount() == 0
            await platform.crash("host-1")
            await passing(SOON_S)

            assert live(platform) == []

    run(main())


def test_38_one_that_fails_without_asking_to_leave_is_back_after_its_backoff_without_a_message() -> None:
    async def main() -> None:
        async with running(MemoryStore(), 1) as (platform, client):
            pump = client.ref(Pump, "a")
            await pump.add(4)
            with pytest.raises(RemoraError):
                await pump.fail()
            await passing(4.9)
            assert live(platform) == []
            await passing(0.2)

            assert live(platform) == ["pump/a"]
            assert platform.hosts["host-1"].cells["pump/a"].entity.state.amount == 4

    run(main())


def test_39_after_a_move_of_their_shard_remembered_entities_are_started_there_and_others_are_not() -> None:
    async def main() -> None:
        async with running(MemoryStore()) as (platform, client):
            source = host_of(platform, "pump/0")
            names = [str(n) for n in range(40)]
            for name in names:
                await client.ref(Pump, name).add()
                await client.ref(Ledger, name).add()
            shard = source.shard_name("pump/0")
            moved = [f"pump/{name}" for name in names if source.shard_name(f"pump/{name}") == shard]
            assert len(moved) > 2
            target = platform.hosts[await move(platform, "pump/0")]
            await passing(SOON_S)

            here = {key for key, cell in target.cells.items() if cell.shard.key == shard}
            assert {key for key in here if key.startswith("pump")} == set(moved)
            assert target is not source

    run(main())


def test_36_a_remembered_entity_with_a_host_of_its_own_is_back_after_a_crash_of_that_host() -> None:
    async def main() -> None:
        async with running(MemoryStore(), 1) as (platform, client):
            await client.ref(Engine, "a").add()
            await platform.crash("entity/engine/a")
            await passing(SOON_S)

            assert live(platform) == ["engine/a"]

    run(main())


# -- how they come back ------------------------------------------------------------------------------------


def test_they_come_back_so_many_a_second_and_no_faster() -> None:
    async def main() -> None:
        store, slow = MemoryStore(), App("plant", entities=[Pump], settings=Settings(shards=8, remembered_per_s=50))
        async with running(store, 1, slow) as (_, client):
            await asyncio.gather(*(client.ref(Pump, str(n)).add() for n in range(500)))
        async with running(store, 1, slow) as (platform, _):
            counts = []
            await passing(remembered.JITTER_S)
            for _ in range(12):
                counts.append(len(live(platform)))
                await passing(1.0)

            steps = [later - earlier for earlier, later in pairwise(counts)]
            assert counts[-1] == 500
            assert max(steps) <= 55
            assert steps[1] >= 45

    run(main())


def test_they_are_never_idle_and_never_too_many() -> None:
    async def main() -> None:
        small = App("plant", entities=[Pump, Ledger], settings=Settings(shards=8, live_max=10))
        async with running(MemoryStore(), 1, small) as (platform, client):
            for n in range(12):
                await client.ref(Pump, str(n)).add()
                await client.ref(Ledger, str(n)).add()
            await passing(400.0)

            assert live(platform) == sorted(f"pump/{n}" for n in range(12))

    run(main())


def test_a_host_without_room_leaves_the_others_until_they_are_asked_for() -> None:
    async def main() -> None:
        store = MemoryStore()
        small = App("plant", entities=[Pump], settings=Settings(shards=8, live_max=10, remembered_per_s=50))
        async with running(store, 1, small) as (_, client):
            for n in range(40):
                await client.ref(Pump, str(n)).add()
        async with running(store, 1, small) as (platform, client):
            await passing(60.0)
            assert len(live(platform)) == 10
            absent = next(str(n) for n in range(40) if f"pump/{n}" not in live(platform))

            assert await client.ref(Pump, absent).add() == 2

    run(main())


def test_commands_go_before_what_is_remembered() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        one = App("plant", entities=[Pump], settings=Settings(shards=8, recoveries_max=8))
        async with running(store, 1, one) as (_, client):
            await asyncio.gather(*(client.ref(Pump, str(n)).add(n) for n in range(300)))
        store.delay("load", 0.1)
        async with running(store, 1, one) as (platform, client):
            host = platform.hosts["host-1"]
            await passing(2.0)
            assert host.recovery.waiting > 100
            asleep = next(str(n) for n in reversed(range(300)) if host.cells[f"pump/{n}"].phase.value == "recovering")
            began_s = asyncio.get_running_loop().time()
            assert await client.ref(Pump, asleep).amount() == int(asleep)

            assert asyncio.get_running_loop().time() - began_s < 0.35
            assert host.recovery.waiting > 50

    run(main())


def test_remembering_costs_one_row_per_activation_and_none_per_command() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        async with running(store, 1) as (_, client):
            for _ in range(10):
                await client.ref(Valve, "a").add()

            assert [list(append.remembered) for _, append in store.appends] == [["valve/a"], *[[]] * 9]

    run(main())


def test_what_a_type_remembered_once_is_left_alone_when_it_does_not_any_more() -> None:
    async def main() -> None:
        store = MemoryStore()
        host = await store.join(HostRow(0, "writer", "n", "m", 1, 0.0))
        keys = ["ledger/a", "gone/a"]
        await store.append(host, Append(remembered={key: (key, str(n)) for key in keys for n in range(8)}))
        async with running(store, 1) as (platform, _):
            await passing(SOON_S)

            assert live(platform) == []

    run(main())


# -- whatever fails ----------------------------------------------------------------------------------------

Moment = Callable[[LocalPlatform, Client], Awaitable[object]]


async def _load(platform: LocalPlatform, client: Client) -> None:
    del client
    await platform.crash(min(platform.hosts))


async def _start(platform: LocalPlatform, client: Client) -> None:
    del platform
    await client.ref(Pump, "new").add()


async def _crash_while_it_starts(platform: LocalPlatform, client: Client) -> None:
    starting = asyncio.create_task(client.ref(Pump, "new").add())
    await passing(0.001)
    await platform.crash(host_of(platform, "pump/new").name)
    await starting


async def _rest(platform: LocalPlatform, client: Client) -> None:
    del platform
    await client.ref(Pump, "rests").rest()


async def _move(platform: LocalPlatform, client: Client) -> None:
    del client
    await move(platform, "pump/works")


MOMENTS: dict[str, tuple[str, Moment]] = {
    "reading what is remembered": ("remembered", _load),
    "storing a start": ("append", _start),
    "storing a start, and the host crashes": ("append", _crash_while_it_starts),
    "storing that one leaves": ("append", _rest),
    "storing who owns a shard": ("write_table", _load),
    "storing that a shard moves": ("release", _move),
}
FAILURES: dict[str, Callable[[FaultyStore, str], None]] = {
    "no response": lambda store, method: store.hold(method),
    "done and not confirmed": lambda store, method: store.fail_next(method, after=True),
    "not done": lambda store, method: store.fail_next(method, times=2),
    "late": lambda store, method: store.delay(method, 1.5),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_40_whatever_the_store_does_when_all_of_it_is_over_those_that_work_are_back_and_those_that_rest_are_not(
    moment: str, failure: str
) -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        async with running(store) as (platform, client):
            for name in ("works", "rests"):
                await client.ref(Pump, name).add()
            method, act = MOMENTS[moment]
            FAILURES[failure](store, method)
            asyncio.get_running_loop().call_later(12.0, store.mend)
            await act(platform, client)
            await passing(20.0)
            for name in list(platform.hosts):
                await platform.crash(name)
            await passing(20.0)

            expected = {"pump/works", "pump/new", "pump/rests"}
            expected -= {"pump/rests"} if act is _rest else set()
            expected -= {"pump/new"} if act not in {_start, _crash_while_it_starts} else set()
            assert set(live(platform)) == expected

    run(main())
