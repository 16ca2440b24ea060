"""The levels above the shard, carried out: hosts, groups of hosts and the app, after escalations and ends of processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from remora import (
    App,
    Backoff,
    Client,
    ContractError,
    DeadlineExceeded,
    Directive,
    Durable,
    EntityOptions,
    HandlerFailed,
    HostGroup,
    Settings,
    StartError,
    Stopped,
    Supervision,
    Unavailable,
    command,
    on,
)
from remora.clock import SystemClock
from remora.errors import HostGone
from remora.local import LocalPlatform
from remora.runtime import failures, registry_status
from remora.runtime.levels import HALTED
from remora.runtime.registry import Registry
from remora.sharding.table import HostRow, slot_order
from remora.storage.memory import MemoryStore
from remora.supervision.levels import HOST_DIED, Level, Strategy
from tests import platforms
from tests.clock import turns, until
from tests.platforms import host_of


class BoomError(Exception):
    """What escalates."""


class Count(BaseModel):
    n: int = 0


UP = (on(BoomError, HOST_DIED, Exception).escalate(),)
AT_ONCE = Backoff(min_s=0)


class Part(Durable[Count]):
    options = EntityOptions(supervision=UP)

    @command
    async def add(self) -> int:
        self.state.n += 1
        return self.state.n

    @command
    async def fail(self) -> None:
        raise BoomError


class Model(Part):
    options = EntityOptions(supervision=UP, host_group="gpu")


class Alone(Part):
    options = EntityOptions(supervision=UP, placement="dedicated")


SETTINGS = Settings(shards=12, lease_ttl_s=2.0)


def _app(**levels: Any) -> App:  # noqa: ANN401 - the fields of Supervision
    return App(
        "levelled", entities=[Part, Model, Alone], settings=SETTINGS, host_groups={"gpu": HostGroup(hosts=2)},
        supervision=Supervision(shard=UP, **levels),
    )  # fmt: skip


@asynccontextmanager
async def levelled(**levels: Any) -> AsyncIterator[tuple[LocalPlatform, Client]]:  # noqa: ANN401 - as above
    async with platforms.running(_app(**levels), hosts=3) as running:
        yield running


async def fail(client: Client, cls: type[Part], name: str) -> None:
    with pytest.raises(HandlerFailed):
        await client.ref(cls, name).fail()


def lives(platform: LocalPlatform) -> dict[str, int]:
    """Return the incarnation of each shared host."""
    return {row.name: row.incarnation for row in platform.registry.current.hosts.values() if not row.dedicated}


async def restarted(platform: LocalPlatform, before: dict[str, int]) -> set[str]:
    """Wait until all stand again; return which of them are new."""
    levels = platform.registry.levels
    await until(lambda: lives(platform) != before)
    await until(lambda: lives(platform).keys() == before.keys() and not levels.replacing)
    return {name for name, number in lives(platform).items() if number != before[name]}


def on_host(platform: LocalPlatform, name: str) -> str:
    """Return an id of a Part that lives on a host."""
    return next(str(n) for n in range(1000) if host_of(platform, f"part/{n}").name == name)


async def test_79_a_host_that_restarts_takes_all_that_lives_in_it_along_and_nothing_beside_it() -> None:
    async with levelled() as (platform, client):
        for n in range(20):
            await client.ref(Part, str(n)).add()
        before = lives(platform)

        await fail(client, Part, on_host(platform, "host-2"))

        assert await restarted(platform, before) == {"host-2"}
        assert [await client.ref(Part, str(n)).add() for n in range(20)] == [2] * 20


async def test_many_entities_that_escalate_together_restart_their_host_once() -> None:
    async with levelled(host=(on(BoomError).restart(AT_ONCE),)) as (platform, client):
        names = [str(n) for n in range(60) if host_of(platform, f"part/{n}").name == "host-1"][:8]
        before = lives(platform)
        await asyncio.gather(*(fail(client, Part, name) for name in names))

        await restarted(platform, before)
        await turns()

        assert platform.registry.given_up == 1


async def test_a_host_that_the_rules_stop_stays_so_also_for_who_leads_next_and_its_shards_live_elsewhere() -> None:
    async with levelled(host=(on(BoomError).stop(),)) as (platform, client):
        victim = on_host(platform, "host-2")
        await fail(client, Part, victim)
        await until(lambda: platform.registry.levels.stopped)

        assert await client.ref(Part, victim).add() == 1
        assert "host-2" not in lives(platform)
        assert (await registry_status.status(platform.registry))["refused"] == platform.registry.levels.stopped

        following = Registry(platform.app, platform.store, platform, platform.clock, name="other")
        await following.start(await following.leadership.take(), anew=False)
        assert list(following.levels.stopped) == ["host-2"]
        assert "rules say stop" in following.refused["host-2"]
        await following.close()


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.ONE_FOR_ONE, {"host-2"}),
        (Strategy.ALL_FOR_ONE, {"host-1", "host-2", "host-3"}),
        (Strategy.REST_FOR_ONE, {"host-2", "host-3"}),
    ],
)
async def test_a_group_restarts_its_hosts_by_its_strategy_and_no_other_groups(
    strategy: Strategy, expected: set[str]
) -> None:
    async with levelled(host=UP, groups={"shared": Level(strategy=strategy)}) as (platform, client):
        for n in range(12):
            await client.ref(Part, str(n)).add()
        before = lives(platform)

        await fail(client, Part, on_host(platform, "host-2"))

        assert await restarted(platform, before) == expected
        assert [await client.ref(Part, str(n)).add() for n in range(12)] == [2] * 12


async def test_a_host_whose_process_ended_is_its_groups_concern_where_its_own_rules_escalate_that() -> None:
    async with levelled(host=UP, groups={"gpu": Level(strategy=Strategy.ALL_FOR_ONE)}) as (platform, client):
        assert await client.ref(Model, "a").add() == 1
        before = lives(platform)

        await platform.crash("gpu-2")

        assert await restarted(platform, before) == {"gpu-1", "gpu-2"}
        assert await client.ref(Model, "a").add() == 2


async def test_a_host_that_failed_once_may_stay_where_it_is_and_one_that_failed_twice_in_a_row_had_better_not() -> None:
    async with levelled() as (platform, _):
        levels, before = platform.registry.levels, lives(platform)
        await platform.crash("host-1")
        await restarted(platform, before)
        assert not levels.failing("host-1")

        before = lives(platform)
        await platform.crash("host-1")
        await restarted(platform, before)

        assert levels.failing("host-1")
        assert not levels.failing("host-2")


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.ONE_FOR_ONE, {"gpu-1", "gpu-2"}),
        (Strategy.ALL_FOR_ONE, {"host-1", "host-2", "host-3", "gpu-1", "gpu-2"}),
    ],
)
async def test_the_app_restarts_whole_groups_by_its_strategy(strategy: Strategy, expected: set[str]) -> None:
    app = Level(rules=(on(BoomError).restart(AT_ONCE),), strategy=strategy)
    async with levelled(host=UP, groups={"gpu": Level(rules=UP)}, app=app) as (platform, client):
        before = lives(platform)
        await fail(client, Model, "a")
        assert await restarted(platform, before) == expected
        assert await client.ref(Model, "a").add() == 1


async def test_a_dedicated_entity_is_in_a_group_of_its_kind() -> None:
    async with levelled(host=UP, groups={"dedicated": Level(strategy=Strategy.ALL_FOR_ONE)}) as (platform, client):
        assert await client.ref(Alone, "a").add() == 1
        assert await client.ref(Alone, "b").add() == 1
        shared = lives(platform)
        before = {row.dedicated: row.incarnation for row in platform.registry.current.hosts.values() if row.dedicated}

        await fail(client, Alone, "a")

        assert await client.ref(Alone, "a").add() == 2
        assert await client.ref(Alone, "b").add() == 2
        after = {row.dedicated: row.incarnation for row in platform.registry.current.hosts.values() if row.dedicated}
        assert [after[key] != before[key] for key in before] == [True, True]
        assert lives(platform) == shared


async def test_at_the_top_the_app_stops_everybody_is_told_why_and_nothing_acknowledged_is_lost() -> None:
    store = MemoryStore()
    app = _app(host=UP, groups={"shared": Level(rules=UP)})
    platform = LocalPlatform(app, store, SystemClock())
    await platform.start(3)
    client = await platform.client().start()
    for n in range(12):
        await client.ref(Part, str(n)).add()
    waiting = asyncio.create_task(fail(client, Part, "3"))
    await waiting
    await until(lambda: not platform.registry.current.hosts)

    for cls in (Part, Model, Alone):
        with pytest.raises(Stopped, match=r"App levelled was stopped by its supervision rules, after: part/3\.fail"):
            await client.ref(cls, "4").add()
    assert await platform.registry.noted(HALTED, str, "") == platform.registry.levels.halted

    following = Registry(app, store, platform, platform.clock, name="other")
    await following.start(await following.leadership.take(), anew=False)
    assert following.levels.halted == platform.registry.levels.halted, "who leads next starts nothing either"
    await following.close()
    await platform.close()

    again = LocalPlatform(app, store, SystemClock())
    await again.start(2)
    client = await again.client().start()
    assert [await client.ref(Part, str(n)).add() for n in range(12)] == [2] * 12
    assert await again.registry.noted(HALTED, str, "") == ""
    await again.close()


async def test_a_host_that_cannot_be_started_climbs_until_a_limit_stops_the_app() -> None:
    rules = (on(HOST_DIED, StartError).restart(AT_ONCE, at_most=2),)
    async with levelled(host=UP, groups={"shared": Level(rules=UP)}, app=Level(rules=rules)) as (platform, client):
        tried = []

        async def fails(host: HostRow) -> None:
            tried.append(host.name)
            msg = "no room"
            raise StartError(msg)

        platform.replace = fails  # type: ignore[method-assign]  # as a process that cannot start would
        await platform.crash("host-2")
        await until(lambda: platform.registry.levels.halted)

        assert "no room" in platform.registry.levels.halted
        assert set(tried) >= {"host-2"}
        with pytest.raises(Stopped):
            await client.ref(Part, "1").add()


async def test_what_is_escalated_while_the_registry_is_away_arrives_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failures, "ESCALATION_PAUSES_S", (0.01, 0.01, 0.01))
    async with levelled() as (platform, client):
        victim = on_host(platform, "host-1")
        host = platform.hosts["host-1"]
        escalated, away = platform.registry.levels.escalated, [Unavailable("No registry leads.") for _ in range(3)]

        async def sometimes(failure: bytes) -> None:
            if away:
                raise away.pop()
            await escalated(failure)

        host.failures._escalation = sometimes  # noqa: SLF001 - as a registry that is being replaced
        before = lives(platform)
        await fail(client, Part, victim)

        assert await restarted(platform, before) == {"host-1"}


async def test_a_dedicated_entity_that_is_stopped_or_held_back_is_not_started_by_a_command() -> None:
    rules = (on(BoomError).restart(Backoff(min_s=60, max_s=60), at_most=1, then=Directive.STOP),)
    async with levelled(host=rules) as (platform, client):
        alone = client.ref(Alone, "a")
        assert await alone.add() == 1
        await fail(client, Alone, "a")
        await until(lambda: "entity/alone/a" in platform.registry.levels.replacing)

        with pytest.raises((Unavailable, DeadlineExceeded)):
            await alone.with_options(deadline_s=0.3).add()
        assert "entity/alone/a" not in platform.hosts

        levels = platform.registry.levels
        levels.replacing.discard("entity/alone/a")
        levels.stopped["entity/alone/a"] = "its supervision rules say stop"
        with pytest.raises(Stopped, match="its supervision rules say stop"):
            await alone.with_options(deadline_s=0.3).add()
        assert "entity/alone/a" not in platform.hosts


async def test_a_host_whose_incarnation_was_ended_as_it_joined_is_turned_away_and_holds_up_nobody() -> None:
    async with levelled() as (platform, client):
        late = await platform._new_host("host-4")  # noqa: SLF001 - as one that is being started
        await platform.registry.fence([late.incarnation])

        with pytest.raises(HostGone, match="its incarnation was ended before it could join"):
            await platform.registry.joined([late])

        assert "host-4" not in platform.hosts
        assert await client.ref(Part, "1").add() == 1


async def test_a_host_that_comes_up_while_the_app_stops_is_turned_away() -> None:
    async with levelled() as (platform, _):
        late = await platform._new_host("host-4")  # noqa: SLF001 - as above
        await platform.registry.levels.halt("a test")

        with pytest.raises(HostGone, match="the app is being stopped"):
            await platform.registry.joined([late])

        assert platform.hosts == {}
        assert not platform.registry.current.hosts


async def test_who_leads_after_one_that_was_stopping_the_app_comes_to_the_end_of_that() -> None:
    async with levelled() as (platform, client):
        await client.ref(Part, "1").add()
        registry = platform.registry
        registry.levels.halted = "App levelled was stopped"
        await registry.note(HALTED, registry.levels.halted)

        following = Registry(platform.app, platform.store, platform, platform.clock, name="other")
        await following.start(await following.leadership.take(), anew=False)
        assert following.current.hosts, "the former one did not get so far"
        await following.levels.end_all()

        assert platform.hosts == {}
        assert not following.current.hosts
        await following.close()


async def test_clients_learn_that_the_app_has_stopped_also_where_no_host_was_left_to_be_closed() -> None:
    app = App("levelled", entities=[Part], settings=SETTINGS, supervision=Supervision(host=UP, groups={"shared": Level(rules=UP)}))  # fmt: skip
    async with platforms.running(app, hosts=1) as (platform, client):
        await client.ref(Part, "1").add()
        await platform.crash("host-1")
        with pytest.raises(Stopped, match=r"stopped by its supervision rules, after: remora\.HostDied"):
            await client.ref(Part, "1").add()
        assert (await platform.store.read_table()).version == client.table.version, (
            "who leads next counts on from there"
        )


async def test_of_one_shard_one_failure_at_a_time_is_on_its_way_to_the_levels_above() -> None:
    async with levelled() as (platform, client):
        host, gate, asked = platform.hosts["host-1"], asyncio.Event(), []

        async def slow(failure: bytes) -> None:
            asked.append(failure)
            await gate.wait()

        host.failures._escalation = slow  # noqa: SLF001 - as a registry that is slow
        victim = on_host(platform, "host-1")
        for _ in range(5):
            await fail(client, Part, victim)
        await turns()
        assert len(asked) == 1
        gate.set()
        await turns()
        await fail(client, Part, victim)
        await until(lambda: len(asked) == 2)


async def test_rules_for_a_group_that_the_app_does_not_have_are_refused() -> None:
    with pytest.raises(ContractError, match=r"supervision\.groups names 'gpus'; the app has dedicated, gpu, shared"):
        _app(groups={"gpus": Level()})


def test_slots_start_in_the_order_people_count_in() -> None:
    assert sorted(["host-10", "host-2", "gpu-1"], key=slot_order) == ["gpu-1", "host-2", "host-10"]
