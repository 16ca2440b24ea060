"""A whole platform on PostgreSQL, in one process: the same code as on a cluster, and a real database."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

import remora
from remora.errors import RemoraError
from remora.storage.postgres import PostgresStore
from tests import flows, platforms, postgres, things
from tests.clock import turns, until
from tests.flows import Alarm, Listener, Relay, Teller
from tests.platforms import host_of, move
from tests.things import RUNS, Counter, Till


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    made = await postgres.fresh_database()
    yield made
    await postgres.drop_database(made)


async def test_state_replies_and_history_outlive_the_platform(url: str) -> None:
    async with remora.local(things.app, store=url) as client:
        till, counter = client.ref(Till, "a"), client.ref(Counter, "c")
        for n in range(1, 13):  # past two snapshots
            assert await till.with_options(command_id=f"c-{n}").add(n) == n * (n + 1) // 2
            await counter.add(n)

    async with remora.local(things.app, store=url) as client:
        till = client.ref(Till, "a")
        assert await till.total() == 78
        assert await client.ref(Counter, "c").total() == 78
        assert await till.with_options(command_id="c-5").add(5) == 15, "the first answer"
        assert await till.total() == 78
        assert [row["seq"] for row in await till.history(limit=100)] == list(range(1, 13))


async def test_sends_calls_and_reminders_survive_the_loss_of_hosts_and_moves(url: str) -> None:
    async with platforms.running(flows.app, PostgresStore(url), hosts=2) as (platform, client):
        expected = []
        for n in range(12):
            await client.ref(Teller, "t").tell(["a", "b"], str(n))
            expected.append(str(n))
            if n == 3:
                await platform.crash(host_of(platform, "teller/t").name)
            if n == 6:
                await platform.crash(host_of(platform, "listener/a").name)
            if n == 9:
                await move(platform, "listener/b")
        assert await client.ref(Relay, "r").relay("c", "called") == 1
        await client.ref(Alarm, "tea").wake_me("tea", 0.1)

        async with asyncio.timeout(20):
            while await platform.store.outbox_counts() != (0, 0):
                await turns(5)
        assert await client.ref(Listener, "a").heard() == expected
        assert await client.ref(Listener, "b").heard() == expected
        assert await client.ref(Listener, "c").heard() == ["called"]
        await until(lambda: RUNS == ["tea"])
        assert await client.ref(Alarm, "tea").rang() == ["tea"]


async def test_commands_go_on_while_hosts_crash_and_none_is_lost_or_doubled(url: str) -> None:
    async with platforms.running(things.app, PostgresStore(url), hosts=2) as (platform, client):
        names = [str(number) for number in range(20)]
        answered = 0

        async def add(name: str) -> None:
            nonlocal answered
            for _ in range(15):
                await client.ref(Till, name).with_options(deadline_s=20).add(1)
                answered += 1

        working = asyncio.gather(*(add(name) for name in names))
        for host, at in (("host-1", 60), ("host-2", 180)):
            await until(lambda: answered >= at, 20.0)  # noqa: B023 - awaited in this round
            assert answered < 20 * 15, "there is still work to lose"
            await platform.crash(host)
        await working

        assert [await client.ref(Till, name).total() for name in names] == [15] * 20


async def test_a_second_platform_on_the_database_fences_the_hosts_of_the_first(url: str) -> None:
    async with platforms.running(things.app, PostgresStore(url)) as (first, old):
        assert await old.ref(Till, "a").add(1) == 1
        former = first.hosts["host-1"].incarnation
        async with platforms.running(things.app, PostgresStore(url)) as (second, new):
            assert await new.ref(Till, "a").add(2) == 3
            with pytest.raises(RemoraError):
                await old.ref(Till, "a").with_options(deadline_s=1).add(4)

            assert former not in (await second.store.read_table()).hosts
            assert await new.ref(Till, "a").total() == 3


async def test_two_apps_run_on_one_database(url: str) -> None:
    async with remora.local(things.app, store=url) as some, remora.local(flows.app, store=url) as others:
        assert await some.ref(Till, "a").add(1) == 1
        assert await others.ref(Listener, "a").hear("hello") == 1
