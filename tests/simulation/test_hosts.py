"""Hosts that join, leave, die and come back, on virtual time: what moves, what stays, and that all answer throughout.

Numbers are those of the scenarios of Akka, Pekko and Orleans that a test is written after.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from pydantic import BaseModel

from remora import App, Client, Durable, EntityOptions, Settings, command, query
from remora.clock import Clock
from remora.runtime import host as hosts
from remora.runtime.registry import YIELD_MAX_S, Registry
from remora.sharding.table import HostRow, encode_table
from remora.storage.memory import MemoryStore
from tests.conftest import SEED
from tests.platforms import host_of
from tests.simulation.net import Apart, apart
from tests.simulation.virtual import VirtualClock, VirtualLease, passing, run, until

SETTINGS = Settings(shards=48, rebalance_s=0.5, rebalance_max=16)
SOON_S = 30.0
NAMES = [str(number) for number in range(100)]


class Sum(BaseModel):
    amount: int = 0
    rung: int = 0


class Tally(Durable[Sum]):
    """Counts; may ring."""

    options = EntityOptions(deadline_s=60.0)

    @command
    async def add(self) -> int:
        self.state.amount += 1
        return self.state.amount

    @command
    async def ring_later(self, seconds: float) -> None:
        self.remind("bell", after=timedelta(seconds=seconds))

    @command
    async def pass_on(self, to: str) -> int:
        return await self.ref(Tally, to).add()

    async def on_reminder(self, name: str) -> None:
        assert name == "bell"
        self.state.rung += 1

    @query
    async def rung(self) -> int:
        return self.state.rung


APP = App("counters", entities=[Tally], settings=SETTINGS)


@pytest.fixture(autouse=True)
def _virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "Lease", VirtualLease)


async def add_all(client: Client, expected: int) -> None:
    """Have every entity count on; each has to say how often that was."""
    assert await asyncio.gather(*(client.ref(Tally, name).add() for name in NAMES)) == [expected] * len(NAMES)


async def count_on(client: Client, name: str, over: asyncio.Event, pause_s: float, waits: list[float]) -> int:
    """Have an entity count until that is over; return how far it came, and note how long each answer took."""
    ref, number, loop = client.ref(Tally, name), 0, asyncio.get_running_loop()
    while not over.is_set():
        number += 1
        began_s = loop.time()
        assert await ref.add() == number
        waits.append(loop.time() - began_s)
        await passing(pause_s)
    return number


def shares(platform: Apart) -> list[int]:
    table = platform.registry.current
    return sorted(len(table.owned_by(number)) for number in table.hosts)


def even(platform: Apart, count: int) -> bool:
    found = shares(platform)
    return len(found) == count and sum(found) == SETTINGS.shards and found[-1] - found[0] <= 1


# -- who joins --------------------------------------------------------------------------------------------


def test_01_a_host_that_joins_gets_its_share_and_every_counter_counts_on() -> None:
    async def main() -> None:
        async with apart(APP, 1) as (platform, client):
            await add_all(client, 1)
            await platform.add_host()
            await until(lambda: even(platform, 2), SOON_S)

            await add_all(client, 2)
            assert {host_of(platform, f"tally/{name}").name for name in NAMES} == {"host-1", "host-2"}

    run(main())


def test_06_a_process_that_hosts_nothing_reaches_entities_and_they_reach_each_other_wherever_they_are() -> None:
    async def main() -> None:
        async with apart(APP, 2) as (platform, client):
            here = next(name for name in NAMES if host_of(platform, f"tally/{name}").name == "host-1")
            there = next(name for name in NAMES if host_of(platform, f"tally/{name}").name == "host-2")
            second = await platform.client().start()

            assert await client.ref(Tally, here).pass_on(there) == 1
            assert await second.ref(Tally, there).pass_on(here) == 1

    run(main())


def test_10_twenty_types_on_one_host_all_answer_from_the_start() -> None:
    async def main() -> None:
        types: list[Any] = [type(f"Kind{number}", (Tally,), {"__module__": __name__}) for number in range(20)]
        async with apart(App("kinds", entities=types, settings=SETTINGS), 1) as (_, client):
            answers = await asyncio.gather(*(client.ref(one, "a").add() for one in types))

            assert answers == [1] * 20

    run(main())


def test_11_hosts_that_start_together_share_evenly_and_no_shard_is_placed_before_the_last_is_up() -> None:
    async def main() -> None:
        async with apart(APP, 3) as (platform, client):
            table = platform.registry.current
            assert shares(platform) == [16, 16, 16]
            assert {row.epoch for row in table.shards.values()} == {1}, "none has moved"
            assert platform.registry.rebalance.moved == 0
            await add_all(client, 1)

    run(main())


# -- who leaves -------------------------------------------------------------------------------------------


def test_20_what_was_being_emptied_when_the_registry_died_is_emptied_by_the_next_one() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with apart(APP, 3, store) as (platform, client):
            await platform.add_host(node="second")
            await until(lambda: even(platform, 4), SOON_S)
            await add_all(client, 1)
            former = platform.registry
            platform.net.cut("registry", "host-1", "host-4")  # so that it does not get far
            draining = [asyncio.create_task(former.drain(what)) for what in ("host-1", "second")]
            await until(lambda: len(former.current.draining) == 2, SOON_S)
            await former.close()
            platform.net.heal()

            clock: Clock = VirtualClock()
            platform.registry = Registry(APP, platform.store, platform, clock, name="next")
            await platform.registry.start()
            await platform.registry.leave([])  # as it looks at its nodes, again and again

            await until(lambda: even(platform, 2), SOON_S)
            assert {row.name for row in platform.registry.current.hosts.values()} == {"host-2", "host-3"}
            await add_all(client, 2)
            for task in draining:
                task.cancel()

    run(main())


def test_52_many_hosts_join_leave_and_come_back_one_by_one_and_in_batches_and_all_is_even_soon_each_time() -> None:
    async def main() -> None:
        took: list[float] = []
        async with apart(APP, 2) as (platform, client):

            async def becomes(count: int) -> None:
                took.append(await until(lambda: even(platform, count), 90.0))
                await add_all(client, len(took))

            for count in range(3, 9):  # one by one
                await platform.add_host()
                await becomes(count)
            await asyncio.gather(*(platform.add_host() for _ in range(5)))  # in a batch
            await becomes(13)
            for count in range(12, 8, -1):
                await platform.registry.drain(min(platform.hosts))
                await becomes(count)
            for name in sorted(platform.hosts)[:3]:  # they die, and others take their places
                await platform.crash(name)
            await becomes(9)

        assert max(took) < SOON_S, took

    run(main())


def test_53_after_many_came_and_went_the_table_is_no_larger_than_before() -> None:
    async def main() -> None:
        sizes: list[int] = []
        async with apart(APP, 2) as (platform, client):
            for number in range(1, 41):
                await platform.add_host()
                await until(lambda: even(platform, 3), SOON_S)
                await platform.registry.drain(max(platform.hosts, key=lambda name: int(name.rpartition("-")[2])))
                await until(lambda: even(platform, 2), SOON_S)
                sizes.append(len(encode_table(platform.registry.current)))
                await add_all(client, number)

            await passing(SETTINGS.lease_ttl_s)  # a look at leases forgets who is gone
            assert len(platform.hosts) == 2
            assert len(platform.registry.gone_lately) <= 20
            assert not platform.registry.detection.watch.suspicions
            assert len(platform.registry.detection.watch.sights) == 2
        assert max(sizes) - min(sizes) < 200, "numbers get longer, and nothing else"

    run(main())


def test_54_a_host_that_comes_back_at_once_is_another_one_and_the_former_never_serves_again() -> None:
    async def main() -> None:
        async with apart(APP, 2) as (platform, client):
            await add_all(client, 1)
            former = platform.hosts["host-1"]
            number = former.incarnation
            await platform.crash("host-1")
            await until(lambda: even(platform, 2), SOON_S)

            assert number not in platform.registry.current.hosts
            assert all(after > number for after in platform.registry.current.hosts if after != 2)
            assert not former.shards
            await add_all(client, 2)

    run(main())


# -- while all goes on ------------------------------------------------------------------------------------


def test_55_ever_new_entities_answer_while_hosts_die_and_join_and_in_the_end_each_shard_has_one_host() -> None:
    async def main() -> None:
        rng = random.Random(f"{SEED}/elastic")
        seen: Counter[int] = Counter()
        async with apart(APP, 4) as (platform, client):
            over = asyncio.Event()

            async def ping(worker: int) -> None:
                number = 0
                while not over.is_set():
                    number += 1
                    seen[await client.ref(Tally, f"{worker}.{number}").add()] += 1
                    await passing(0.1)

            pinging = [asyncio.create_task(ping(worker)) for worker in range(8)]
            for _ in range(20):
                await passing(10.0)
                names = sorted(platform.hosts)
                if len(names) > 3 and rng.random() < 0.4:
                    await platform.registry.drain(rng.choice(names))
                elif len(names) < 6 and rng.random() < 0.5:
                    await platform.add_host()
                else:
                    await platform.crash(rng.choice(names))
            over.set()
            await asyncio.gather(*pinging)
            await until(lambda: even(platform, len(platform.hosts)), SOON_S)

            table = platform.registry.current
            held = [shard for host in platform.hosts.values() for shard in host.shards]
            assert sorted(held) == sorted(table.shards), "no duplicates, no orphans"
            for host in platform.hosts.values():
                assert all(table.shards[shard].owner == host.incarnation for shard in host.shards)
        assert set(seen) == {1}, "each was new, and answered once"
        assert seen[1] > 5_000

    run(main())


def test_56_with_a_host_lost_every_half_minute_no_command_fails_and_the_longest_wait_is_stated() -> None:
    async def main() -> None:
        waits: list[float] = []
        async with apart(APP, 3) as (platform, client):
            over = asyncio.Event()

            counting = [asyncio.create_task(count_on(client, name, over, 0.2, waits)) for name in NAMES[:20]]
            for _ in range(4):
                await passing(30.0)
                await platform.crash(min(platform.hosts))
            await passing(60.0)
            over.set()
            totals = await asyncio.gather(*counting)

            assert [await client.ref(Tally, name).add() for name in NAMES[:20]] == [total + 1 for total in totals]
        assert max(waits) < 1.0, "a death that is told at once costs less than a second"

    run(main())


def test_57_reminders_ring_once_though_their_host_dies_before_they_are_due() -> None:
    async def main() -> None:
        async with apart(APP, 2) as (platform, client):
            for name in NAMES[:20]:
                await client.ref(Tally, name).ring_later(10.0)
            for name in ("host-1", "host-2"):
                await passing(4.0)
                await platform.crash(name)
            await passing(20.0)

            assert [await client.ref(Tally, name).rung() for name in NAMES[:20]] == [1] * 20

    run(main())


def test_27_hosts_restarted_one_after_the_other_cost_no_error_and_no_more_than_two_moves_of_a_shard() -> None:
    async def main() -> None:
        async with apart(APP, 4) as (platform, client):
            over = asyncio.Event()

            counting = [asyncio.create_task(count_on(client, name, over, 0.02, [])) for name in NAMES]
            before = {shard: row.epoch for shard, row in platform.registry.current.shards.items()}
            for name in sorted(platform.hosts):
                await platform.add_host()  # first the next one, as a rolling restart with room to spare does
                told = await platform.registry.drain(name)
                assert told["left"] == []
            over.set()
            totals = await asyncio.gather(*counting)

            moved = Counter(row.epoch - before[shard] for shard, row in platform.registry.current.shards.items())
            assert len(totals) == len(NAMES)
            assert max(moved) <= 2, moved

    run(main())


@pytest.mark.parametrize(("takes_s", "pause_s"), [(0.1, 0.1), (3.0, YIELD_MAX_S)])
def test_between_moves_a_host_that_is_emptied_serves_on_for_as_long_as_each_took_within_a_bound(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, pause_s: float
) -> None:
    async def main() -> None:
        async with apart(APP, 3) as (platform, client):
            await add_all(client, 1)
            loop, release = asyncio.get_running_loop(), platform.release
            spans: list[tuple[float, float, int]] = []

            async def slow(host: HostRow, targets: Mapping[str, str]) -> None:
                began_s = loop.time()
                await passing(takes_s)
                await release(host, targets)
                spans.append((began_s, loop.time(), len(targets)))

            monkeypatch.setattr(platform, "release", slow)
            assert (await platform.registry.drain("host-2"))["left"] == []

            assert {moved for _, _, moved in spans} == {1}
            assert len(spans) == SETTINGS.shards // 3
            for (_, ended_s, _), (began_s, _, _) in pairwise(spans):
                assert pause_s - 1e-6 <= began_s - ended_s < pause_s + SETTINGS.rebalance_s
            await add_all(client, 2)

    run(main())
