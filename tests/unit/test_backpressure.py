"""What a host refuses and grants when it has more to do than it gets done in time."""

# ruff: noqa: SLF001 - looks are made by hand, and channels are looked into

import asyncio
from collections.abc import Iterator

import pytest

from remora import App, Client, Overloaded, Settings
from remora.process import memory_limit_bytes, resident_bytes
from remora.runtime import recovery
from remora.runtime.backpressure import CREDITS_MIN, Reading, Refusals, refusals
from remora.runtime.host import Host
from remora.testing import FaultyStore, ManualClock
from tests import flows, platforms, things
from tests.clock import turns, until
from tests.flows import Alarm, Listener, Relay, Teller
from tests.things import GATES, REACHED, Crowded, Diary, Till

GIB = 2**30
SETTINGS = Settings()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


def press(host: Host, reading: Reading | None = None) -> None:
    """Have a host refuse new work as after such a look, and look no more."""
    host.backpressure.act(reading or Reading(commit_s=60.0))
    host.backpressure.act = nothing  # type: ignore[method-assign]  # the timer's looks change nothing any more


def nothing(reading: Reading) -> None:
    """Do nothing about what a look has found."""


def few(credits_: int) -> App:
    return App("few", entities=[Till, Diary], settings=Settings(shards=8, channel_credits=credits_))


# -- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "because"),
    [
        (Reading(commit_s=5.1), "the store has not confirmed a commit for 5.1 s"),
        (Reading(late_s=6.0), "its event loop is 6.0 s behind"),
        (Reading(resident_bytes=9 * GIB), "its process has 9.0 GiB of 10.0 GiB in memory"),
    ],
)
def test_new_work_is_refused_for_the_age_of_commits_a_late_loop_and_memory(reading: Reading, because: str) -> None:
    assert refusals(reading, SETTINGS, 10 * GIB) == Refusals(all=because)


def test_where_only_recoveries_wait_only_entities_that_are_not_in_memory_are_refused() -> None:
    found = refusals(Reading(recovery_s=7.0), SETTINGS, 10 * GIB)

    assert (found.all, "for their turn to be read back" in found.activations) == ("", True)


def test_up_to_the_bounds_nothing_is_refused() -> None:
    assert refusals(Reading(5.0, 5.0, 5.0, 8 * GIB), SETTINGS, 10 * GIB) == Refusals()


def test_the_memory_of_this_process_is_within_the_machines() -> None:
    assert 10_000_000 < resident_bytes() < memory_limit_bytes()


async def test_a_refused_command_was_not_applied_and_says_when_to_come_back() -> None:
    async with platforms.running(things.app) as (platform, client):
        till = client.ref(Till, "a")
        await till.add()
        host = platform.hosts["host-1"]
        press(host)

        with pytest.raises(Overloaded, match="the store has not confirmed a commit for 60 s") as caught:
            await till.with_options(deadline_s=0.2, command_id="one").add()
        with pytest.raises(Overloaded):
            await till.with_options(deadline_s=0.1).total()

        assert (caught.value.retry_after_s, caught.value.command_id) == (0.5, "one")
        assert host.backpressure.refused >= 2
        host.pressed = False
        assert await till.with_options(command_id="one").add() == 2


async def test_refused_commands_are_sent_again_in_order_and_applied_when_the_host_has_caught_up() -> None:
    async with platforms.running(things.app) as (platform, client):
        diary = client.ref(Diary, "a")
        host = platform.hosts["host-1"]
        press(host)
        asked = [asyncio.ensure_future(diary.write(str(n))) for n in range(3)]
        await until(lambda: host.backpressure.refused >= 3)
        host.pressed = False
        asked += [asyncio.ensure_future(diary.write(str(n))) for n in range(3, 6)]

        await asyncio.gather(*asked)

        assert await diary.read() == [str(n) for n in range(6)]


async def test_what_the_platform_owes_and_what_handlers_call_is_never_refused() -> None:
    async with platforms.running(flows.app) as (platform, client):
        host = platform.hosts["host-1"]
        relay = asyncio.ensure_future(client.ref(Relay, "r").call_at("s", "go"))
        await REACHED["go"].wait()
        await client.ref(Alarm, "a").wake_me("tell>", 0.05)
        await client.ref(Teller, "t").tell(["b"], "wait b")
        await REACHED["wait b"].wait()
        press(host, Reading(resident_bytes=2**60))
        GATES["go"].set()
        GATES["wait b"].set()

        assert await relay == 1, "a handler's call to an entity that is not in memory"
        await until(lambda: "tell>" in things.RUNS and "listener/all" in host.cells)
        async with asyncio.timeout(5):
            while await platform.store.outbox_counts() != (0, 0):
                await turns(5)
        assert (await client.ref(Listener, "x").why()).state == "new"
        with pytest.raises(Overloaded):
            await client.ref(Listener, "x").with_options(deadline_s=0.1).hear("new")


async def test_while_recoveries_wait_too_long_entities_in_memory_go_on_and_others_are_refused() -> None:
    clock, store = ManualClock(), FaultyStore()
    async with platforms.running(things.app, store, clock=clock) as (platform, client):
        here = client.ref(Till, "here")
        await here.add()
        store.hold("load")
        behind = []
        for n in range(recovery.READS):
            behind.append(asyncio.ensure_future(client.ref(Till, str(n)).with_options(deadline_s=60).add()))
            await until(lambda: store.waiting == len(behind))
        host = platform.hosts["host-1"]
        asked = asyncio.ensure_future(client.ref(Till, "next").with_options(deadline_s=60).add())
        await until(lambda: host.recovery.oldest_s is not None)
        clock.advance(6.0)
        await until(lambda: host.pressed)

        assert await here.add() == 2
        cold = asyncio.ensure_future(client.ref(Till, "cold").with_options(deadline_s=10).add())
        await until(lambda: host.backpressure.refused)
        clock.advance(20.0)
        with pytest.raises(Overloaded, match="for their turn to be read back"):
            await cold

        store.let_go("load")
        assert await asyncio.gather(*behind, asked) == [1] * (recovery.READS + 1)
        await until(lambda: not host.pressed)


async def test_entities_that_come_back_without_being_asked_have_nobody_refused() -> None:
    clock, store = ManualClock(), FaultyStore()
    app = App("patient", entities=[Till], settings=Settings(shards=8, recoveries_max=1))
    async with platforms.running(app, store, clock=clock) as (platform, client):
        here = client.ref(Till, "here")
        await here.add()
        host = platform.hosts["host-1"]
        store.hold("load")
        for name in "abc":
            key = f"till/{name}"
            host.activation(host.shards[host.shard_name(key)], key)
        await until(lambda: store.waiting and host.recovery.waiting == 2)
        clock.advance(60.0)

        reading = host.backpressure.read()

        assert (reading.recovery_s, refusals(reading, SETTINGS, 2**50)) == (0.0, Refusals())
        assert await here.add() == 2
        store.let_go("load")


async def test_a_store_that_confirms_nothing_is_noticed_by_the_age_of_the_commit() -> None:
    store = FaultyStore()
    app = App("impatient", entities=[Till], settings=Settings(shards=8, queue_age_max_s=0.05))
    async with platforms.running(app, store) as (platform, client):
        till = client.ref(Till, "a")
        await till.add()
        store.hold()
        adding = asyncio.ensure_future(till.add())
        await until(lambda: platform.hosts["host-1"].pressed)

        with pytest.raises(Overloaded):
            await client.ref(Till, "b").with_options(deadline_s=0.1).add()

        store.let_go()
        assert await adding == 2
        await until(lambda: not platform.hosts["host-1"].pressed)
        assert await client.ref(Till, "b").add() == 1


async def test_an_entity_that_is_slow_by_itself_has_nobody_else_refused() -> None:
    app = App("impatient", entities=[Till, Crowded], settings=Settings(shards=8, queue_age_max_s=0.05))
    async with platforms.running(app) as (platform, client):
        slow = asyncio.ensure_future(client.ref(Till, "a").add_slowly("slow"))
        await REACHED["slow"].wait()
        behind = asyncio.ensure_future(client.ref(Till, "a").add())
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 0.4
        await until(lambda: loop.time() > until_s)

        assert not platform.hosts["host-1"].pressed
        assert await client.ref(Till, "b").add() == 1
        GATES["slow"].set()
        await asyncio.gather(slow, behind)


# -- what is granted ------------------------------------------------------------------------------------


def under_way(client: Client) -> int:
    (channel,) = client._channels.values()
    return len(channel.in_flight())


async def test_what_is_over_a_sessions_credits_waits_in_the_client_and_leaves_in_order() -> None:
    async with platforms.running(few(3)) as (platform, client):
        slow = [asyncio.ensure_future(client.ref(Till, str(n)).add_slowly(f"slow {n}")) for n in range(3)]
        for n in range(3):
            await REACHED[f"slow {n}"].wait()
        diary = client.ref(Diary, "a")
        asked = [asyncio.ensure_future(diary.write(str(n))) for n in range(5)]
        await turns(50)
        assert [under_way(client), platform.hosts["host-1"].commands] == [3, 3]

        GATES["slow 1"].set()
        assert await asyncio.gather(*asked) == [1, 2, 3, 4, 5]

        assert await diary.read() == ["0", "1", "2", "3", "4"]
        for n in range(3):
            GATES[f"slow {n}"].set()
        await asyncio.gather(*slow)


async def test_a_command_that_was_given_up_while_it_waited_for_credits_never_leaves() -> None:
    async with platforms.running(few(1)) as (_, client):
        slow = asyncio.ensure_future(client.ref(Till, "a").add_slowly("slow"))
        await REACHED["slow"].wait()
        diary = client.ref(Diary, "a")
        given_up = asyncio.ensure_future(diary.write("given up"))
        late = asyncio.ensure_future(diary.with_options(deadline_s=60).write("late"))
        await turns(20)
        given_up.cancel()
        GATES["slow"].set()

        assert await late == 1
        assert await slow == 1
        assert await diary.read() == ["late"]


async def test_questions_about_the_host_and_calls_of_handlers_need_no_credits() -> None:
    settings = Settings(shards=8, channel_credits=1)
    app = App("tight", entities=[Relay, Listener], settings=settings)
    async with platforms.running(app, hosts=2) as (platform, client):
        asked = asyncio.ensure_future(client.ref(Relay, "r").round_trip(["s", "t", "u", "v", "w"]))
        assert await asked == 5
        slow = asyncio.ensure_future(client.ref(Listener, "a").hear("wait"))
        await REACHED["wait"].wait()
        source = platforms.host_of(platform, "listener/a")
        name = next(str(n) for n in range(100) if platforms.host_of(platform, f"listener/{n}") is source)
        queued = asyncio.ensure_future(client.ref(Listener, name).hear("x"))
        await turns(20)

        assert (await client.ref(Listener, "a").why()).state == "running"
        assert not queued.done()
        GATES["wait"].set()
        assert list(await asyncio.gather(slow, queued)) == [1, 1]


async def test_a_host_that_falls_behind_grants_less_and_step_by_step_more_when_it_has_caught_up() -> None:
    async with platforms.running(few(512)) as (platform, client):
        till = client.ref(Till, "a")
        await till.add()
        (channel,) = client._channels.values()
        assert channel._credits == 512
        pressure = platform.hosts["host-1"].backpressure
        real = pressure.act
        pressure.act = nothing  # type: ignore[method-assign]  # looks are made here

        granted = []
        for reading in [Reading(commit_s=60.0)] * 5 + [Reading()] * 4:
            real(reading)
            await till.with_options(stale=True).why()
            granted.append(channel._credits)

        assert granted == [256, 128, CREDITS_MIN, CREDITS_MIN, CREDITS_MIN, 128, 256, 512, 512]


async def test_when_a_host_is_lost_what_waited_for_its_credits_goes_to_the_next_owner() -> None:
    async with platforms.running(few(1)) as (platform, client):
        slow = asyncio.ensure_future(client.ref(Till, "a").add_slowly("slow"))
        await REACHED["slow"].wait()
        queued = [asyncio.ensure_future(client.ref(Diary, "a").write(str(n))) for n in range(3)]
        await turns(20)

        GATES["slow"].set()
        await platform.crash("host-1")

        assert await asyncio.gather(*queued) == [1, 2, 3]
        assert await slow == 1
