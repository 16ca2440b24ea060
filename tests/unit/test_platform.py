"""A whole platform in one process: who owns what while hosts come, go, and are moved to and fro."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel

import remora
from remora import App, Durable, EntityOptions, StoreMismatch, UnknownEntity, command, query
from remora.client import Client
from remora.clock import SystemClock
from remora.errors import DeadlineExceeded, Fenced, HostGone, NotOwner
from remora.journal import Append
from remora.storage.memory import MemoryStore
from remora.storage.sqlite import SqliteStore
from remora.testing import Fault, FaultyStore
from remora.why import Glance
from tests import platforms, things
from tests.clock import turns, until
from tests.platforms import host_of, move
from tests.things import Box, Till


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


class Numbers(BaseModel):
    total: int = 0


class Board(Durable[Numbers]):
    """One of its own actor each."""

    options = EntityOptions(placement="dedicated")

    @command
    async def add(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    @query
    async def total(self) -> int:
        return self.state.total


boards = App("boards", entities=[Board, Till], settings=things.SETTINGS)


# -- placement ---------------------------------------------------------------------------------------


async def test_hosts_share_the_shards_evenly() -> None:
    async with platforms.running(things.app, hosts=3) as (platform, _):
        assert sorted(len(host.shards) for host in platform.hosts.values()) == [2, 3, 3]


async def test_a_dedicated_entity_gets_a_host_of_its_own_under_its_documented_name() -> None:
    async with platforms.running(boards) as (platform, client):
        assert await client.ref(Board, "network").add(2) == 2
        assert await client.ref(Board, "other").add(3) == 3
        assert await client.ref(Till, "a").add(1) == 1

        host = platform.hosts["entity/board/network"]
        assert set(host.shards) == {"board/network"}
        assert set(host.cells) == {"board/network"}
        assert set(platform.hosts) == {"host-1", "entity/board/network", "entity/board/other"}
        assert not any("/" in shard for shard in platform.hosts["host-1"].shards)


async def test_many_first_commands_to_a_dedicated_entity_start_it_once() -> None:
    async with platforms.running(boards) as (platform, client):
        other = await platform.client().start()
        replies = await asyncio.gather(
            *(one.ref(Board, "network").add(1) for one in (client, other) for _ in range(20))
        )

        assert sorted(replies) == list(range(1, 41))
        assert len(platform.hosts) == 2


async def test_a_dedicated_entity_comes_back_with_its_state_after_the_loss_of_its_host() -> None:
    async with platforms.running(boards) as (platform, client):
        await client.ref(Board, "network").add(2)
        for _ in range(2):
            await platform.crash("entity/board/network")

            assert await client.ref(Board, "network").total() == 2
            await until(lambda: "entity/board/network" in platform.hosts)


async def test_a_dedicated_entity_comes_back_on_the_same_store(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        async with platforms.running(boards, SqliteStore(tmp_path / "boards.db")) as (_, client):
            assert await client.ref(Board, "network").add(1) == expected


async def test_a_dedicated_type_that_the_app_does_not_have_is_unknown() -> None:
    async with platforms.running(things.app) as (platform, client):
        with pytest.raises(UnknownEntity):
            await client.ref(Board, "network").with_options(deadline_s=2).add(1)
        assert set(platform.hosts) == {"host-1"}


# -- hosts come and go -------------------------------------------------------------------------------


async def test_the_shards_of_a_lost_host_are_served_by_survivors_before_it_is_replaced() -> None:
    async with platforms.running(things.app, hosts=2) as (platform, client):
        for n in range(20):
            await client.ref(Till, str(n)).add(n)

        await platform.crash("host-1")

        assert len(platform.hosts["host-2"].shards) == 8
        for n in range(20):
            assert await client.ref(Till, str(n)).total() == n


async def test_a_lost_host_is_replaced_and_the_rebalance_gives_it_its_share() -> None:
    settings = remora.Settings(shards=8, rebalance_s=0.02)
    async with platforms.running(App("things", entities=[Till], settings=settings), hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        await platform.crash("host-1")

        await until(lambda: [len(host.shards) for host in platform.hosts.values()] == [4, 4])

        assert await client.ref(Till, "a").add(1) == 2


async def test_the_loss_of_the_last_host_is_mended_too() -> None:
    async with platforms.running(things.app) as (platform, client):
        await client.ref(Till, "a").add(1)
        for _ in range(2):
            await platform.crash("host-1")
            assert await client.ref(Till, "a").total() == 1


async def test_a_host_that_was_given_up_commits_nothing_and_drops_all_it_had() -> None:
    async with platforms.running(things.app, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        frozen = host_of(platform, "till/a")
        shards, incarnation = dict(frozen.shards), frozen.incarnation
        platform.hosts.pop(frozen.name)  # nobody reaches it any more, and it does not know

        await platform.registry.gone([incarnation], replace=False)
        assert await client.ref(Till, "a").add(1) == 2
        frozen.cells["till/a"].commit = None
        commit = frozen.committer.open()
        commit.append.entries.append(("till/a", 2, 2, b"[]", "late", 0, b"1", 0, 0))
        await frozen.committer.flush()

        assert shards
        assert not frozen.shards
        assert not frozen.cells
        assert await client.ref(Till, "a").total() == 2
        with pytest.raises(Fenced):
            await platform.store.append(incarnation, Append(entries=[("till/z", 1, 1, b"[]", "x", 0, b"1", 0, 0)]))
        await frozen.close()
        await frozen.client.close()


async def test_a_host_serves_nothing_before_it_is_told_and_nothing_after_it_let_go() -> None:
    async with platforms.running(things.app, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        source = host_of(platform, "till/a")
        target = next(host for host in platform.hosts.values() if host is not source)
        shard = source.shard_name("till/a")
        assert shard not in target.shards

        await move(platform, "till/a")

        assert shard not in source.shards
        assert "till/a" not in source.cells
        assert await client.ref(Till, "a").add(1) == 2


async def test_a_host_that_is_told_of_a_shard_of_a_later_epoch_starts_over_from_the_journal() -> None:
    async with platforms.running(things.app) as (platform, client):
        box = client.ref(Box, "a")
        await box.put("x")
        host = platform.hosts["host-1"]
        stale = host.cells["box/a"]
        stale.entity.state.items.append("somebody else was here")
        shard = host.shard_name("box/a")

        await host.own(host.incarnation, {shard: host.shards[shard].epoch + 2})

        assert await box.look() == ["x"]
        assert host.cells["box/a"] is not stale


async def test_a_host_that_hears_late_of_a_shard_that_it_let_go_since_does_not_take_it_back() -> None:
    async with platforms.running(things.app, hosts=2) as (platform, client):
        box = client.ref(Box, "a")
        await box.put("x")
        host = host_of(platform, "box/a")
        shard = host.shard_name("box/a")
        incarnation, epoch = host.incarnation, host.shards[shard].epoch
        await move(platform, "box/a")
        await box.put("y")

        await host.own(incarnation, {shard: epoch})

        assert shard not in host.shards
        await move(platform, "box/a")
        assert shard in host.shards
        assert await box.look() == ["x", "y"]


async def test_a_host_refuses_shards_of_an_incarnation_that_it_never_was() -> None:
    async with platforms.running(things.app) as (platform, _):
        host = platform.hosts["host-1"]

        with pytest.raises(NotOwner):
            await host.own(99, {"0": 5})


async def test_a_hand_over_waits_for_the_store_and_is_finished() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        store.fail_next("release", times=2)

        await move(platform, "till/a")

        assert not store.failing
        assert await client.ref(Till, "a").add(1) == 2


async def test_a_hand_over_that_meets_a_new_incarnation_of_its_host_is_finished_under_that_one() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        host = host_of(platform, "till/a")
        other = next(
            key
            for key in map("till/{}".format, range(99))
            if host.shard_name(key) in host.shards and host.shard_name(key) != host.shard_name("till/a")
        )
        real = store.inner.release
        met: list[int] = []

        async def release(incarnation: int, shards: Sequence[str]) -> None:
            if not met:
                met.append(incarnation)
                store.faults = [Fault.AFTER_WRITE]
                await client.ref(Till, other.partition("/")[2]).add(1)  # its commit fails: a new incarnation
            await real(incarnation, shards)

        store.release = release  # type: ignore[method-assign]  # in front of the inner one's

        await move(platform, "till/a")

        assert host.incarnation > met[0]
        assert host.shard_name("till/a") not in host.shards
        assert await client.ref(Till, "a").add(1) == 2


async def test_a_commit_that_never_ends_on_a_busy_host_does_not_hold_up_a_hand_over() -> None:
    async with platforms.running(things.app, hosts=2) as (platform, client):
        host = host_of(platform, "till/a")
        busy = next(
            str(n)
            for n in range(99)
            if host.shard_name(f"till/{n}") in host.shards and host.shard_name(f"till/{n}") != host.shard_name("till/a")
        )
        await client.ref(Till, "a").add(1)
        stop = False

        async def load() -> None:
            while not stop:
                await asyncio.gather(*(client.ref(Till, busy).add(1) for _ in range(20)))

        loads = [asyncio.create_task(load()) for _ in range(3)]
        await turns(20)
        async with asyncio.timeout(5):
            await move(platform, "till/a")
        stop = True
        await asyncio.gather(*loads)

        assert await client.ref(Till, "a").total() == 1


async def test_shards_that_were_released_and_given_to_nobody_are_given_to_somebody() -> None:
    settings = remora.Settings(shards=8, rebalance_s=0.02)
    async with platforms.running(App("things", entities=[Till], settings=settings), hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        host = host_of(platform, "till/a")

        await host.release({host.shard_name("till/a"): ""})  # as if the registry had died in the middle of a move

        assert await client.ref(Till, "a").add(1) == 2


async def test_a_host_that_is_lost_right_after_it_took_a_new_incarnation_is_missed() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        host = host_of(platform, "till/a")
        former = host.incarnation
        host.incarnation = await store.reincarnate(former)  # and the registry does not hear of it

        host.abandon()
        platform.hosts.pop(host.name)
        await platform.registry.gone([former])

        assert await client.ref(Till, "a").add(1) == 2
        with pytest.raises(Fenced):
            await store.append(host.incarnation, Append(entries=[("till/z", 1, 1, b"[]", "x", 0, b"1", 0, 0)]))
        await host.client.close()


# -- starting ----------------------------------------------------------------------------------------


async def test_a_second_platform_on_a_store_fences_the_hosts_of_the_first() -> None:
    store = MemoryStore()
    async with platforms.running(things.app, store) as (first, one):
        await one.ref(Till, "a").add(1)
        incarnation = first.hosts["host-1"].incarnation

        async with platforms.running(things.app, store) as (_, two):
            assert await two.ref(Till, "a").add(1) == 2
            with pytest.raises(Fenced):
                await store.append(incarnation, Append(entries=[("till/z", 1, 1, b"[]", "x", 0, b"1", 0, 0)]))


async def test_a_store_of_another_shard_count_is_refused(tmp_path: Path) -> None:
    async with platforms.running(things.app, SqliteStore(tmp_path / "t.db")):
        pass
    other = App("things", entities=[Till], settings=remora.Settings(shards=16))

    with pytest.raises(StoreMismatch, match=r"created with 8 shards, the app asks for 16.*Settings\(shards=8\)"):
        async with remora.local(other, store=f"sqlite:///{tmp_path}/t.db"):
            pass


async def test_an_app_needs_a_host() -> None:
    with pytest.raises(ValueError, match="at least one host"):
        async with remora.local(things.app, hosts=0):
            pass


async def test_a_client_that_is_closed_says_so_at_once() -> None:
    async with platforms.running(things.app) as (_, client):
        till = client.ref(Till, "a")
        await client.close()

        with pytest.raises(HostGone, match="connect again"):
            await till.add()


class Silent:
    """A way to hosts on which nothing comes back."""

    async def exchange(self, host: str, data: bytes) -> bytes:
        del host, data
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # never

    async def glance(self, host: str) -> Glance:
        raise HostGone(host)


async def test_deadlines_are_kept_when_no_host_says_a_word_also_by_a_client_that_had_nothing_under_way_meanwhile() -> (
    None
):
    async with (
        platforms.running(things.app) as (platform, _),
        Client(platform, Silent(), SystemClock(), things.SETTINGS, "deaf") as client,
    ):
        for number in range(3):
            with pytest.raises(DeadlineExceeded, match="till/a"):
                await client.ref(Till, "a").with_options(deadline_s=0.01, command_id=f"n-{number}").add()
            assert client.in_flight == 0


async def test_what_was_under_way_when_the_platform_is_closed_fails_with_a_typed_error() -> None:
    async with platforms.running(things.app) as (_, client):
        slow = asyncio.create_task(client.ref(Till, "a").add_slowly("never"))
        await things.REACHED["never"].wait()

    with pytest.raises(remora.RemoraError):
        await slow
