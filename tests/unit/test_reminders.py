"""Reminders: durable timers that ring once, late rather than never."""

# ruff: noqa: SLF001 - looks are made by hand, without the housekeeping

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import remora
from remora import App, Client, HandlerFailed
from remora.local import LocalPlatform
from remora.storage.sqlite import SqliteStore
from remora.testing import Fault, FaultyStore, ManualClock
from tests import flows, platforms, things
from tests.clock import until
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
        platform.hosts["host-1"].passivate_idle()
        assert not platform.hosts["host-1"].cells

        await look(platform)

        assert await alarm.rang() == ["tea"]


async def test_a_reminder_rings_after_the_loss_of_its_host_and_after_a_move() -> None:
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

        GATES["mend"].set()
        await look(platform)
        await look(platform)

        assert (await alarm.rang(), RUNS) == (["bad"], ["bad", "bad"])


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
