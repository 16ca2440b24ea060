"""Parties that do not reach each other, on virtual time: who goes on, who is given up, and that nobody serves twice.

Numbers are those of the scenarios of Akka, Pekko and Orleans that a test is written after. Theirs decide by votes which
side of a partition lives on; here the store decides, by the lease that is renewed in it.
"""

import asyncio
import random

import pytest

from remora import App, DeadlineExceeded, Settings
from remora.errors import RemoraError
from remora.runtime import host as hosts
from remora.sharding.membership import HostState
from remora.storage.memory import MemoryStore
from tests.conftest import SEED
from tests.platforms import host_of
from tests.simulation.net import Apart, apart
from tests.simulation.test_crashes import Book, Caller, Model, Shelf, check, read_all
from tests.simulation.virtual import VirtualLease, passing, run, until

SETTINGS = Settings(shards=6, rebalance_s=1.0, unreachable_s=10.0)
APP = App("library", entities=[Book, Shelf], settings=SETTINGS)
TTL_S = SETTINGS.lease_ttl_s
SOON_S = 5 * TTL_S
"""A lease, the time to notice that it is over, and the time to start another host."""
RUNS = 12


@pytest.fixture(autouse=True)
def _virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "Lease", VirtualLease)


def owners(platform: Apart) -> dict[str, tuple[int, int]]:
    return {name: (row.owner, row.epoch) for name, row in platform.registry.current.shards.items()}


# -- between hosts and the store -------------------------------------------------------------------------


def test_07_while_a_host_is_cut_off_from_the_store_new_entities_wait_and_nothing_that_was_sent_is_lost() -> None:
    async def main() -> None:
        async with apart(APP, 1) as (platform, client):
            known, fresh, leaving = (client.ref(Book, name) for name in ("known", "fresh", "leaving"))
            await known.write("1")
            await leaving.write("1")
            platform.net.cut("host-1", "store")
            platform.net.cut("registry", "store")  # so that nobody is given up for it: all lose sight of the store
            written = [asyncio.create_task(known.write(text)) for text in ("2", "3")]
            first = asyncio.create_task(fresh.write("1"))
            left = asyncio.create_task(leaving.leave())
            looked = asyncio.create_task(leaving.read())

            await passing(5 * TTL_S)
            assert not any(task.done() for task in (first, left, looked)), "an answer now might be untrue"

            platform.net.heal()
            assert await asyncio.gather(*written) == [2, 3]
            assert await first == 1
            await left
            assert await looked == ["1"]
            assert await leaving.write("2") == 2
            assert list(platform.hosts) == ["host-1"]
            assert platform.registry.gone_lately == []

    run(main())


def test_47_a_host_that_does_not_reach_the_store_owns_nothing_and_one_without_a_lease_answers_no_query() -> None:
    async def main() -> None:
        async with apart(APP, 1) as (platform, client):
            await client.ref(Book, "b").write("1")
            platform.net.cut("host-2", "store")
            joining = asyncio.create_task(platform.add_host("host-2"))
            await passing(2 * TTL_S)
            assert {owner for owner, _ in owners(platform).values()} == {1}, "it is not in the store: it owns nothing"
            with pytest.raises(RemoraError):
                await joining

            platform.net.heal()
            await platform.add_host("host-2")
            moved = platform.hosts["host-2"]
            await until(lambda: moved.shards, SOON_S)
            moved.lease.stop()  # it renews no more
            key = next(f"book/{n}" for n in range(99) if moved.shard_name(f"book/{n}") in moved.shards)
            looking = asyncio.create_task(client.ref(Book, key.partition("/")[2]).read())
            await passing(TTL_S / 2)

            assert not looking.done(), "without a lease it answers no query"
            assert await looking == [], "who has its shards next does"
            assert host_of(platform, key) is not moved

    run(main())


def test_47_a_host_that_lost_its_lease_has_no_entities_left_when_it_reaches_the_store_again() -> None:
    async def main() -> None:
        async with apart(APP) as (platform, client):
            await client.ref(Book, "b").write("1")
            lost = host_of(platform, "book/b")
            platform.net.cut(lost.name, "store", "registry", "client")
            took_s = await until(lambda: lost.incarnation not in platform.registry.current.hosts, SOON_S)
            assert await client.ref(Book, "b").write("2") == 2
            platform.net.heal()
            await passing(SOON_S)

            assert took_s >= TTL_S - TTL_S / 4, "its lease was waited for"
            assert not lost.shards
            assert not lost.cells
            assert await client.ref(Book, "b").read() == ["1", "2"]

    run(main())


# -- between hosts, the registry and clients -----------------------------------------------------------------


def test_44_when_a_client_alone_does_not_reach_a_host_nobody_is_given_up() -> None:
    async def main() -> None:
        async with apart(APP) as (platform, client):
            await client.ref(Book, "b").write("1")
            other = await platform.client().start()  # of a host that reaches everybody
            before = owners(platform)
            name = host_of(platform, "book/b").name
            platform.net.cut("client", name)
            waiting = asyncio.create_task(client.ref(Book, "b").with_options(deadline_s=60.0).write("2"))
            await passing(5 * SETTINGS.unreachable_s)

            assert not waiting.done()
            assert platform.registry.gone_lately == []
            assert owners(platform) == before
            platform.net.heal()
            assert await waiting == 2
            assert await other.ref(Book, "b").write("3") == 3

    run(main())


def test_44_a_host_that_neither_client_nor_registry_reaches_is_given_up_and_those_that_are_reached_stay() -> None:
    async def main() -> None:
        async with apart(APP) as (platform, client):
            await client.ref(Book, "b").write("1")
            lost = host_of(platform, "book/b")
            before, number = owners(platform), lost.incarnation
            platform.net.cut(lost.name, "client", "registry")

            writing = asyncio.create_task(client.ref(Book, "b").with_options(deadline_s=120.0).write("2"))
            took_s = await until(writing.done, 60.0)

            assert await writing == 2
            assert took_s >= SETTINGS.unreachable_s
            now = owners(platform)
            assert all(now[shard] == row for shard, row in before.items() if row[0] != number), (
                "08: no other shard moved"
            )
            assert [name for name, *_ in platform.registry.gone_lately] == [lost.name]

    run(main())


def test_45_a_host_whose_network_comes_and_goes_is_kept_for_as_long_as_it_renews_its_lease_in_time() -> None:
    async def main() -> None:
        async with apart(APP) as (platform, client):
            await client.ref(Book, "b").write("0")
            flapping = host_of(platform, "book/b")
            before = owners(platform)
            for n in range(1, 40):
                platform.net.cut(flapping.name, "store", "registry", "client")
                await passing(TTL_S * 0.4)
                platform.net.heal()
                await passing(TTL_S * 0.4)
                assert await client.ref(Book, "b").write(str(n)) == n + 1

            assert owners(platform) == before
            assert platform.registry.gone_lately == []
            assert platform.registry.detection.state(flapping.incarnation) is HostState.UP

    run(main())


def test_49_reports_about_a_host_that_answers_the_registry_never_end_it_however_many_there_are() -> None:
    async def main() -> None:
        async with apart(APP) as (platform, client):
            await client.ref(Book, "b").write("1")
            for _ in range(300):
                for name in platform.hosts:
                    await platform.registry.suspect(name)
                await passing(0.2)

            assert platform.registry.gone_lately == []
            assert await client.ref(Book, "b").write("2") == 2

    run(main())


def test_50_a_host_whose_lease_ended_unseen_is_told_apart_from_those_that_renew_when_the_registry_sees_again() -> None:
    async def main() -> None:
        async with apart(APP) as (platform, client):
            await client.ref(Book, "b").write("1")
            dead = host_of(platform, "book/b")
            platform.net.cut("registry", "store")
            platform.net.cut(dead.name, "store", "client", "registry")
            await passing(10 * TTL_S)
            assert platform.registry.gone_lately == [], "who does not see leases judges none"
            platform.net.heal("registry")
            platform.net.cut(dead.name, "registry")

            took_s = await until(lambda: platform.registry.gone_lately, SOON_S)

            assert [name for name, *_ in platform.registry.gone_lately] == [dead.name]
            assert took_s >= TTL_S - TTL_S / 4, "it was given a whole lease under the registry's own eyes"
            assert await client.ref(Book, "b").write("2") == 2

    run(main())


def test_without_the_registry_commands_go_on_and_what_dies_meanwhile_waits_for_it() -> None:
    async def main() -> None:
        async with apart(APP) as (platform, client):
            for n in range(20):
                await client.ref(Book, str(n)).write("1")
            dead = host_of(platform, "book/0")
            alive = next(str(n) for n in range(20) if host_of(platform, f"book/{n}") is not dead)
            platform.net.cut("registry", "client", "store", *platform.hosts)
            assert await client.ref(Book, alive).write("2") == 2
            platform.net.cut(dead.name, "client", "store", "registry")
            with pytest.raises(DeadlineExceeded):
                await client.ref(Book, "0").with_options(deadline_s=TTL_S).write("2")
            platform.net.heal("registry")
            platform.net.cut(dead.name, "registry")

            assert await client.ref(Book, "0").write("3") in {2, 3}

    run(main())


# -- whatever happens ----------------------------------------------------------------------------------------


async def storm(platform: Apart, rng: random.Random, over: asyncio.Event) -> None:
    """Cut parties off from each other for a while, cleanly or again and again, until told to stop."""
    while not over.is_set():
        await passing(rng.random() * 2.0)
        standing = sorted(platform.hosts)
        one = rng.choice([*standing, *standing, "registry"])
        others = rng.choice(
            [["store"], ["registry"], ["client"], ["store", "registry"], ["store", "registry", "client"], standing]
        )
        for _ in range(rng.choice([1, 1, 5])):  # a clean split, or a link that flaps
            platform.net.cut(one, *(other for other in others if other != one))
            await passing(rng.random() * 2 * TTL_S)
            platform.net.heal(one)
            await passing(rng.random() * 0.2)


async def simulate(seed: str) -> None:
    rng, inner, model = random.Random(seed), MemoryStore(), Model()
    async with apart(APP, rng.choice([2, 3, 4]), inner) as (platform, _):
        callers = [Caller(n, await platform.client().start(), model, random.Random(rng.random())) for n in range(3)]
        over = asyncio.Event()
        cutting = asyncio.create_task(storm(platform, rng, over))
        rounds = []
        for caller in callers:
            rounds.append(asyncio.create_task(caller.work()))
            await passing(rng.random() * 5.0)
        await passing(20.0)
        over.set()
        await cutting
        platform.net.heal()
        await asyncio.gather(*rounds)
        await passing(TTL_S)  # whoever was fenced behind a cut learns it with its next renewal
        async with asyncio.timeout(120.0):
            while await inner.outbox_counts() != (0, 0):
                await passing(0.05)
        final = await read_all(callers[0].client)
        table = platform.registry.current
        for name, host in platform.hosts.items():
            for shard, held in host.shards.items():
                row = table.shards[shard]
                assert (row.owner, row.epoch) == (host.incarnation, held.epoch), (
                    f"{name} serves {shard}, as the table says"
                )
        assert {row.owner for row in table.shards.values()} <= table.hosts.keys(), "55: every shard has a host"
    check(model, final)


@pytest.mark.parametrize("number", range(RUNS))
def test_43_whoever_is_cut_off_from_whom_nothing_is_lost_doubled_or_untrue_and_no_shard_has_two_hosts(
    number: int,
) -> None:
    run(simulate(f"{SEED}/partitions/{number}"))
