"""Reminders: durable timers that ring once, late rather than never."""

# ruff: noqa: SLF001 - looks are made by hand, without the housekeeping

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

import pytest

import remora
from remora import App, Client, HandlerFailed
from remora.journal import ReminderRow
from remora.local import LocalPlatform
from remora.runtime import reminders
from remora.storage.memory import MemoryStore
from remora.storage.sqlite import SqliteStore
from remora.testing import Fault, FaultyStore, ManualClock
from tests import flows, platforms, things
from tests.clock import turns, until
from tests.flows import Alarm, Listener, Sleeper
from tests.platforms import host_of, move
from tests.things import GATES, RUNS


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


def running(
    clock: ManualClock,
    store: Any = None,  # noqa: ANN401 - any store
    *,
    hosts: int = 1,
    app: App = flows.app,
) -> AbstractAsyncContextManager[tuple[LocalPlatform, Client]]:
    return platforms.running(app, store, hosts=hosts, clock=clock)


async def look(platform: LocalPlatform) -> None:
    """Have every host look for due reminders now, and wait until those it found have run."""
    for host in list(platform.hosts.values()):
        await host.reminders.fire_due()
    await until(lambda: not any(host.reminders._firing for host in platform.hosts.values()))


async def until_async(rang: Callable[[], Awaitable[list[str]]], count: int) -> None:
    async with asyncio.timeout(5):
        while len(await rang()) < count:
            await turns(1)


async def test_a_reminder_rings_when_it_is_due_and_not_before() -> None:
    clock = ManualClock()
    async with running(clock, hosts=2) as (platform, client):
        alarm = client.ref(Alarm, "a")
        await alarm.wake_me("tea", 60)
        await look(platform)
        clock.advance(59.9)
        await look(platform)
        assert await alarm.rang() == []

        clock.advance(0.2)
        for _ in range(3):
            await look(platform)

        assert await alarm.rang() == ["tea"], "once"


async def test_a_reminder_rings_by_itself() -> None:
    async with platforms.running(flows.app) as (_, client):
        await client.ref(Alarm, "a").wake_me("tea", 0)

        await until(lambda: RUNS == ["tea"])


async def test_setting_a_reminder_again_replaces_it_and_cancelling_removes_it() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        alarm = client.ref(Alarm, "a")
        await alarm.wake_me("tea", 10)
        await alarm.wake_me("tea", 100)
        await alarm.wake_me("eggs", 10)
        await alarm.never_mind("eggs")
        await alarm.never_mind("nothing")
        clock.advance(50)
        await look(platform)
        assert await alarm.rang() == []

        clock.advance(51)
        await look(platform)

        assert await alarm.rang() == ["tea"]


async def test_a_command_that_fails_sets_no_reminder() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        with pytest.raises(HandlerFailed):
            await client.ref(Alarm, "a").wake_me_and_raise("tea", 1)
        clock.advance(2)
        await look(platform)

        assert await client.ref(Alarm, "a").rang() == []


async def test_a_reminder_rings_also_when_the_entity_has_left_memory() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        alarm = client.ref(Alarm, "a")
        await alarm.wake_me("tea", 60)
        clock.advance(61)
        platform.hosts["host-1"].passivation.round()
        assert not platform.hosts["host-1"].cells

        await look(platform)

        assert await alarm.rang() == ["tea"]


async def test_57_a_reminder_rings_after_the_loss_of_its_host_and_after_a_move() -> None:
    clock = ManualClock()
    async with running(clock, hosts=2) as (platform, client):
        alarm = client.ref(Alarm, "a")
        await alarm.wake_me("tea", 60)
        await alarm.wake_me("eggs", 120)
        await platform.crash(host_of(platform, "alarm/a").name)
        clock.advance(61)
        await look(platform)
        await move(platform, "alarm/a")
        clock.advance(61)
        await look(platform)

        assert await alarm.rang() == ["tea", "eggs"]


async def test_a_reminder_that_came_due_while_nothing_ran_rings_once_when_the_store_is_opened_again(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    async with running(clock, SqliteStore(tmp_path / "flows.db")) as (_, client):
        await client.ref(Alarm, "a").wake_me("tea", 60)
    clock.advance(10_000)

    for _ in range(2):
        async with running(clock, SqliteStore(tmp_path / "flows.db")) as (platform, client):
            await look(platform)
            assert await client.ref(Alarm, "a").rang() == ["tea"]


async def test_a_reminder_whose_handler_fails_rings_again() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        alarm = client.ref(Alarm, "a")
        await alarm.wake_me("bad", 1)
        clock.advance(2)
        await look(platform)
        assert (await alarm.rang(), RUNS) == ([], ["bad"])

        await look(platform)
        assert RUNS == ["bad"], "It is left in peace for a while."

        GATES["mend"].set()
        clock.advance(0.5)
        await look(platform)
        await look(platform)

        assert (await alarm.rang(), RUNS) == (["bad"], ["bad", "bad"])


async def test_reminders_whose_handlers_fail_do_not_hold_up_those_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reminders, "FIRE_MAX", 32)
    clock = ManualClock()
    async with running(clock) as (platform, client):
        bad = [client.ref(Alarm, f"bad-{n}") for n in range(reminders.FIRE_MAX + 10)]
        await asyncio.gather(*(alarm.wake_me("bad", 1) for alarm in bad))
        await client.ref(Alarm, "good").wake_me("tea", 2)
        clock.advance(3)
        await look(platform)

        assert await client.ref(Alarm, "good").rang() == ["tea"]


async def test_a_thousand_that_come_due_at_once_all_ring_once_and_no_more_than_the_bound_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reminders, "IN_FLIGHT_MAX", 64)
    monkeypatch.setattr(reminders, "FIRE_MAX", 32)
    clock = ManualClock()
    count = 1_000
    async with running(clock) as (platform, client):
        alarms = [client.ref(Alarm, f"a{n}") for n in range(count)]
        await asyncio.gather(*(alarm.wake_me("tea", n % 7) for n, alarm in enumerate(alarms)))
        host = host_of(platform, "alarm/a0")
        dispatch, most = host.dispatch, 0

        def counted(*args: Any) -> None:  # noqa: ANN401 - passed on
            nonlocal most
            most = max(most, len(host.reminders._firing))
            dispatch(*args)

        host.dispatch = counted  # type: ignore[method-assign, assignment]  # to look in
        clock.advance(10)
        await look(platform)
        host.dispatch = dispatch  # type: ignore[method-assign]

        assert ["tea"] * count == RUNS
        assert most <= reminders.IN_FLIGHT_MAX + reminders.FIRE_MAX
        assert await host.store.due(list(host.shards), 2**60, 1) == []


@pytest.mark.parametrize(
    ("misfire", "rung", "following"),
    [("coalesce", 1, 60), ("skip", 0, 60), ("each", 5, 60)],
)
async def test_a_periodic_reminder_whose_periods_passed_while_nothing_rang_does_as_its_policy_says(
    misfire: Literal["coalesce", "skip", "each"], rung: int, following: int
) -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        await client.ref(Alarm, "a").every("beat", 10, misfire)
        clock.advance(50)
        for _ in range(7):
            await look(platform)
        assert await client.ref(Alarm, "a").rang() == ["beat"] * rung

        clock.advance(following - 50 - 0.1)
        await look(platform)
        assert await client.ref(Alarm, "a").rang() == ["beat"] * rung
        clock.advance(0.2)
        await look(platform)
        assert await client.ref(Alarm, "a").rang() == ["beat"] * (rung + 1)


async def test_a_periodic_reminder_rings_on_across_crashes_and_moves_until_it_is_cancelled() -> None:
    clock = ManualClock()
    async with running(clock, hosts=2) as (platform, client):
        alarm = client.ref(Alarm, "a")
        await alarm.every("beat", 10, "coalesce")
        for n in range(1, 6):
            clock.advance(10)
            if n == 2:
                await platform.crash(host_of(platform, "alarm/a").name)
            if n == 4:
                await move(platform, "alarm/a")
            await look(platform)
            await until_async(alarm.rang, n)
        await alarm.never_mind("beat")
        clock.advance(100)
        await look(platform)

        assert await alarm.rang() == ["beat"] * 5


async def test_a_periodic_reminder_does_not_drift_when_it_rings_late() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        await client.ref(Alarm, "a").every("beat", 10, "coalesce")
        clock.advance(13)
        await look(platform)
        host = host_of(platform, "alarm/a")

        (row,) = await host.store.due(list(host.shards), 2**60, 10)

        assert row.due == 1_357_000_000_000 + 20_000


@pytest.mark.parametrize("periodic", [False, True])
async def test_a_reminder_that_is_cancelled_or_set_anew_when_it_is_about_to_ring_does_not_ring(periodic: bool) -> None:  # noqa: FBT001 - a parameter of the table
    clock, store = ManualClock(), MemoryStore()
    async with running(clock, store) as (platform, client):
        alarms = [client.ref(Alarm, name) for name in ("cancelled", "anew")]
        for alarm in alarms:
            await (alarm.every("x", 10, "coalesce") if periodic else alarm.wake_me("x", 10))
        clock.advance(11)
        read = store.due

        async def read_before_they_change(*args: Any) -> list[ReminderRow]:  # noqa: ANN401 - passed on
            rows = await read(*args)
            await alarms[0].never_mind("x")
            await alarms[1].wake_me("x", 100)
            host_of(platform, "alarm/a").passivation.round()
            return rows

        store.due = read_before_they_change  # type: ignore[method-assign, assignment]
        await look(platform)
        store.due = read  # type: ignore[method-assign]
        await look(platform)
        assert [await alarm.rang() for alarm in alarms] == [[], []]

        clock.advance(101)
        await look(platform)
        await look(platform)
        assert [await alarm.rang() for alarm in alarms] == [[], ["x"]]


async def test_a_period_below_a_second_or_a_policy_that_does_not_exist_fails_the_command() -> None:
    async with running(ManualClock()) as (_, client):
        for period, policy in ((0.5, "coalesce"), (10**9, "each"), (10, "sometimes")):
            with pytest.raises(
                remora.RemoraError, match=r"every must be between|after must be between|Input should be"
            ):
                await client.ref(Alarm, "a").every("beat", period, policy)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_reminder_whose_commit_fails_is_applied_once(fault: Fault) -> None:
    clock, store = ManualClock(), FaultyStore()
    async with running(clock, store) as (platform, client):
        alarm = client.ref(Alarm, "a")
        await alarm.wake_me("tea", 1)
        clock.advance(2)
        store.faults = [fault]
        for _ in range(3):
            await look(platform)

        assert await alarm.rang() == ["tea"]


async def test_a_reminder_may_set_itself_again() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        await client.ref(Alarm, "a").repeat("tick", 3)
        for _ in range(5):
            await look(platform)
            clock.advance(0.001)

        assert await client.ref(Alarm, "a").rang() == ["tick"] * 3


async def test_calls_that_two_entities_make_from_reminders_of_one_name_and_time_are_two_calls() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        for name in ("a", "b"):
            await client.ref(Alarm, name).wake_me("tell>5", 1)
        clock.advance(2)
        await look(platform)
        for name in list(platform.hosts):
            await platform.crash(name)

        assert sorted(await client.ref(Listener, "all").heard()) == ["a", "b"]
        assert await client.ref(Alarm, "a").rang() == ["tell>5"], "what its name looks like does not matter"


@pytest.mark.parametrize("name", ["", "\ud800", "a\0b", "x" * 101])
async def test_a_name_that_cannot_be_written_fails_the_command_and_nothing_else(name: str) -> None:
    class Alarm(remora.Durable[flows.Rang]):
        @remora.command
        async def wake_me(self) -> None:
            self.remind(name, after=1)

    app = App("flows", entities=[Alarm, Listener], settings=flows.SETTINGS)
    async with running(ManualClock(), app=app) as (_, client):
        with pytest.raises(HandlerFailed, match="reminder's name is printable text"):
            await client.ref(Alarm, "a").wake_me()
        assert await client.ref(Listener, "a").hear("x") == 1


@pytest.mark.parametrize("after", [-1, 1e9])
async def test_a_time_that_makes_no_sense_fails_the_command(after: float) -> None:
    async with running(ManualClock()) as (_, client):
        with pytest.raises(HandlerFailed, match="after must be between 0"):
            await client.ref(Alarm, "a").set_badly("x", after)


async def test_an_entity_without_a_reminder_handler_does_not_disturb_its_neighbours() -> None:
    clock = ManualClock()
    async with running(clock) as (platform, client):
        await client.ref(Sleeper, "s").wake_me()
        await client.ref(Alarm, "a").wake_me("tea", 1)
        clock.advance(2)
        await look(platform)

        assert await client.ref(Alarm, "a").rang() == ["tea"]
        assert await client.ref(Listener, "a").hear("x") == 1
