"""Starting and stopping in order: what waits for what, in a platform of this process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from remora import (
    App,
    Client,
    DeadlineExceeded,
    Durable,
    EntityOptions,
    HostGroup,
    Readiness,
    Settings,
    StartError,
    StoreUnavailable,
    TryAgain,
    Unavailable,
    command,
    query,
)
from remora.clock import SystemClock
from remora.local import LocalPlatform
from remora.runtime import registry_status
from remora.runtime.readiness import OPENED, Trial
from remora.runtime.registry import Registry
from remora.runtime.startup import stop_in_order
from remora.sharding.table import HostRow
from remora.testing import FaultyStore
from tests import things
from tests.clock import turns, until
from tests.things import GATES, REACHED, RUNS, Flat, Till

READY: dict[str, bool] = {}
"""What the checks of this module find, by name."""
ASKED: list[str] = []
"""Which of them were called, in order."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    READY.clear()
    ASKED.clear()
    yield
    things.forget()


def found(name: str) -> Readiness:
    """Return a check that passes once ``READY[name]`` is set."""

    async def check() -> bool:
        ASKED.append(name)
        return READY.get(name, False)

    return Readiness(check, name, every_s=0.01)


class Model(Durable[Flat]):
    """Waits for what it is made from."""

    options = EntityOptions(ready_when=(found("weights"),), deadline_s=0.3, remember=True)

    @command
    async def add(self, amount: int = 1) -> int:
        RUNS.append(f"model {self.id}")
        self.state.total += amount
        return self.state.total

    @command
    async def add_slowly(self, name: str) -> int:
        await things.gate(name)
        self.state.total += 1
        return self.state.total

    @command
    async def remind_me(self) -> None:
        self.remind("ring", after=0.0)

    async def on_reminder(self, name: str) -> None:
        RUNS.append(f"reminder {name}")

    @query
    async def total(self) -> int:
        return self.state.total


class Shop(Durable[Flat]):
    """Is of no use before there is a model."""

    options = EntityOptions(depends_on=(Model,), deadline_s=0.3)

    @command
    async def sell(self) -> int:
        self.state.total += 1
        return self.state.total


class Teller(Durable[Flat]):
    """Depends on nothing."""

    @command
    async def tell(self) -> None:
        self.send(Model.add, "m", amount=5)

    @query
    async def total(self) -> int:
        return self.state.total


class Own(Durable[Flat]):
    """Has a host of its own, once there is a model."""

    options = EntityOptions(placement="dedicated", depends_on=("model",), ready_when=(found("device"),), deadline_s=0.3)

    @command
    async def add(self) -> int:
        self.state.total += 1
        return self.state.total


SETTINGS = Settings(shards=4, reminder_tick_s=0.01)
shop = App("shop", entities=[Shop, Model, Teller, Own], settings=SETTINGS)


@asynccontextmanager
async def starting(
    app: App = shop, store: FaultyStore | None = None, hosts: int = 2
) -> AsyncIterator[tuple[LocalPlatform, "asyncio.Task[None]", Client]]:
    """Begin to start an app; yield its platform, what waits for its start, and a client."""
    platform = LocalPlatform(app, store or FaultyStore(), SystemClock())
    start = asyncio.create_task(platform.start(hosts))
    try:
        await until(lambda: platform.registry.startup.shown() or start.done())
        client = await platform.client().start()
        yield platform, start, client
    finally:
        start.cancel()
        await asyncio.wait([start])
        await platform.close()


def waiting(platform: LocalPlatform) -> dict[str, str]:
    """Return what ``remora status`` shows: what → what it waits for."""
    return {one["what"]: one["waits_for"] for one in platform.registry.startup.shown()}


# -- checks ---------------------------------------------------------------------------------------------


async def outcome_of(*checks: Readiness) -> "tuple[Trial, asyncio.Task[None]]":
    trial = Trial(checks)
    return trial, asyncio.create_task(trial.run())


@pytest.mark.parametrize("answer", [True, None])
async def test_a_check_that_returns_true_or_nothing_has_passed(answer: object) -> None:
    async def check() -> object:
        return answer

    for one in (check, lambda: answer):
        trial, running = await outcome_of(Readiness(one))
        await running
        assert (trial.passed, trial.waits_for) == (True, "")


async def test_a_check_that_is_not_ready_is_tried_again_and_says_why() -> None:
    answers: list[object] = [False, ConnectionRefusedError("port 5432"), True]

    async def database() -> object:
        answer = answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    trial, running = await outcome_of(Readiness(database, every_s=0.001))
    await until(lambda: trial.waits_for == "check database: not yet")
    answers.pop(0)
    await until(lambda: trial.waits_for == "check database: ConnectionRefusedError: port 5432")
    assert not trial.passed
    answers.pop(0)
    await running
    assert trial.passed


async def test_checks_of_one_part_are_run_one_after_the_other_and_none_again_once_it_has_passed() -> None:
    READY["first"] = True
    trial, running = await outcome_of(found("first"), found("second"))
    await until(lambda: ASKED.count("second") > 1)

    assert trial.waits_for == "check second: not yet"
    assert ASKED.count("first") == 1
    READY["second"] = True
    await running


async def test_a_check_that_does_not_answer_is_not_ready_and_is_tried_again() -> None:
    calls = 0

    async def slow() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()

    trial, running = await outcome_of(Readiness(slow, timeout_s=0.01, every_s=0.001))
    await until(lambda: "no answer within 0.01 s" in trial.waits_for or trial.passed)
    await running
    assert calls == 2


async def test_a_plain_check_that_blocks_has_one_thread_however_often_it_is_waited_for() -> None:
    release, calls = threading.Event(), []

    def load() -> bool:
        calls.append(threading.current_thread().daemon)
        return release.wait(5)

    trial, running = await outcome_of(Readiness(load, timeout_s=0.005, every_s=0.001))
    await until(lambda: "no answer within" in trial.waits_for)
    await turns(50)
    assert calls == [True], "and it does not keep its process from ending"
    release.set()
    await running
    assert len(calls) == 1


async def test_a_plain_check_that_returns_a_coroutine_is_told_to_be_async() -> None:
    async def ping() -> None: ...

    trial, running = await outcome_of(Readiness(lambda: ping(), "ping", every_s=0.001))  # noqa: PLW0108 - the mistake
    await until(lambda: "make it an async function" in trial.waits_for)
    running.cancel()


# -- types ------------------------------------------------------------------------------------------------


async def test_a_type_is_served_once_its_checks_pass_and_its_dependents_after_it() -> None:
    async with starting() as (platform, start, client):
        await until(lambda: "check weights: not yet" in waiting(platform).get("model", ""))

        with pytest.raises(Unavailable, match=r"model is not served yet by .*check weights: not yet") as refused:
            await client.ref(Model, "m").add()
        assert refused.value.retry_after_s > 0
        with pytest.raises(Unavailable, match=r"shop is not served yet by .* which waits for: model"):
            await client.ref(Shop, "s").sell()
        assert await client.ref(Teller, "t").total() == 0, "what depends on nothing is served"
        assert waiting(platform)["shop"] == "model"
        assert not start.done()

        READY["weights"] = True
        await start
        assert waiting(platform) == {}
        assert await client.ref(Model, "m").add() == 1
        assert await client.ref(Shop, "s").sell() == 1


async def test_a_command_that_waits_is_served_within_its_deadline_when_its_type_becomes_ready() -> None:
    async with starting() as (_, start, client):
        adding = asyncio.ensure_future(client.ref(Model, "m").with_options(deadline_s=5).add())
        await until(lambda: client.retries > 0)
        READY["weights"] = True
        assert await adding == 1
        await start


async def test_nothing_of_a_closed_type_runs_by_itself_and_all_of_it_does_once_it_is_open() -> None:
    store = FaultyStore()
    READY["weights"] = True
    async with starting(store=store) as (_, start, client):
        await start
        await client.ref(Model, "m").add(1)
        await client.ref(Model, "m").remind_me()
        await until(lambda: "reminder ring" in RUNS)
        store.hold("due")  # from now on it rings no more
        await client.ref(Model, "m").remind_me()
    store.mend()
    RUNS.clear()
    READY.clear()

    async with starting(store=store) as (platform, start, client):
        await client.ref(Teller, "t").tell()
        await until(lambda: ASKED.count("weights") > 5)
        assert RUNS == []
        assert "model/m" not in {key for host in platform.hosts.values() for key in host.cells}

        READY["weights"] = True
        await start
        await until(lambda: {"reminder ring", "model m"} <= set(RUNS))
        assert await client.ref(Model, "m").total() == 6
        await until(lambda: any("model/m" in host.cells for host in platform.hosts.values()))


async def test_an_entity_that_is_remembered_comes_back_once_its_type_is_open() -> None:
    store = FaultyStore()
    READY["weights"] = True
    async with starting(store=store) as (_, start, client):
        await start
        await client.ref(Model, "m").add(1)
    READY.clear()

    async with starting(store=store) as (platform, start, _):
        await until(lambda: ASKED.count("weights") > 60)  # longer than they wait before they come back
        assert not any("model/m" in host.cells for host in platform.hosts.values())
        READY["weights"] = True
        await start
        await until(lambda: any("model/m" in host.cells for host in platform.hosts.values()))


async def test_a_dedicated_entity_gets_a_host_once_its_type_is_open_and_serves_once_its_checks_pass() -> None:
    async with starting() as (platform, start, client):
        with pytest.raises(Unavailable, match="own is not served yet, it waits for: model"):
            await client.ref(Own, "o").add()
        assert (await client.ref(Own, "o").why()).state == "not_ready"

        READY["weights"] = True
        await start
        adding = asyncio.ensure_future(client.ref(Own, "o").with_options(deadline_s=5).add())
        await until(lambda: waiting(platform).get("host entity/own/o") == "check device: not yet")
        READY["device"] = True
        assert await adding == 1


# -- hosts ------------------------------------------------------------------------------------------------


class Far(Durable[Flat]):
    """Lives in a host group."""

    options = EntityOptions(host_group="far", deadline_s=0.2)

    @command
    async def add(self) -> int:
        self.state.total += 1
        return self.state.total


grouped = App(
    "grouped",
    entities=[Till, Far],
    host_groups={
        "near": HostGroup(hosts=2, ready_when=(found("licence"),)),
        "far": HostGroup(depends_on=("near", "shared")),
    },
    settings=SETTINGS,
    ready_when=(found("database"),),
)


async def test_hosts_join_once_their_checks_pass_and_those_of_a_group_start_after_the_groups_before_it() -> None:
    async with starting(grouped) as (platform, start, client):
        await until(lambda: waiting(platform).get("host host-1") == "check database: not yet")
        assert platform.registry.current.hosts == {}
        with pytest.raises(Unavailable, match=r"till/a\.add was not begun .* has no owner at the moment"):
            await client.ref(Till, "a").with_options(deadline_s=0.1).add()
        with pytest.raises(DeadlineExceeded):  # under an id of the caller's own it may have been done before
            await client.ref(Till, "a").with_options(deadline_s=0.1, command_id="mine").add()
        assert (await client.ref(Till, "a").why()).state == "not_ready"

        READY["database"] = True
        assert await client.ref(Till, "a").add() == 1
        await until(lambda: "check licence: not yet" in waiting(platform).get("host group near", ""))
        await until(lambda: waiting(platform).get("host group far") == "host group near")
        assert {row.group for row in platform.registry.current.hosts.values()} == {""}
        why = await client.ref(Far, "a").why()
        assert (why.state, why.told_by, why.reason) == ("not_ready", "registry", "host group near")

        READY["licence"] = True
        await start
        numbers = {row.name: row.incarnation for row in platform.registry.current.hosts.values()}
        assert numbers["far-1"] > max(numbers["near-1"], numbers["near-2"], numbers["host-1"])
        assert await client.ref(Far, "a").add() == 1


async def test_a_host_that_is_replaced_passes_the_checks_of_what_is_open_before_it_joins() -> None:
    READY["weights"] = True
    async with starting() as (platform, start, client):
        await start
        READY.clear()
        platform.registry.settings = SETTINGS
        lost = platform.hosts["host-1"].incarnation
        await platform.crash("host-1")
        await until(lambda: waiting(platform).get("host host-1") == "check weights: not yet")

        # Its shards are served by the other one meanwhile.
        for number in range(8):
            await client.ref(Model, f"m{number}").with_options(deadline_s=5).add()
        assert [row.name for row in platform.registry.current.hosts.values()] == ["host-2"]
        READY["weights"] = True
        await until(lambda: "host-1" in platform.hosts)
        assert platform.hosts["host-1"].incarnation > lost
        assert platform.hosts["host-1"].closed == {}
        assert await client.ref(Shop, "s").with_options(deadline_s=5).sell() == 1


async def test_a_host_that_missed_what_was_opened_as_it_joined_is_told_again() -> None:
    READY["weights"] = True
    async with starting() as (platform, start, _):
        await start
        store: Any = platform.store
        note = await store.note(OPENED)
        await platform.registry.note(OPENED, [])  # as it stood before anything was open
        await platform.add_host("late")
        await until(lambda: platform.hosts["late"].closed == {})
        assert "type:model" in note


# -- bounds, and who leads next ------------------------------------------------------------------------


async def test_a_start_that_waits_too_long_says_for_what() -> None:
    hasty = App("shop", entities=[Shop, Model, Teller], settings=Settings(shards=4, ready_within_s=0.1))
    platform = LocalPlatform(hasty, FaultyStore(), SystemClock())
    try:
        with pytest.raises(StartError) as failed:
            await platform.start(1)
    finally:
        await platform.close()

    assert failed.value.message.startswith("shop is not ready after 0.1 s: ")
    assert "model waits for check weights: not yet on host-1; shop waits for model" in failed.value.message


async def test_a_host_that_cannot_be_started_fails_the_start_at_once() -> None:
    store = FaultyStore()
    store.fail_next("join", times=1)
    platform = LocalPlatform(shop, store, SystemClock())
    try:
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await platform.start(1)
    finally:
        store.mend()
        await platform.close()


async def test_a_registry_that_leads_next_closes_nothing_that_is_open_and_goes_on_with_the_rest() -> None:
    READY["weights"] = True
    model_alone = App("shop", entities=[Model, Teller], settings=SETTINGS)
    store = FaultyStore()
    async with starting(model_alone, store) as (platform, start, client):
        await start
        await platform.registry.close()
        READY.clear()
        ASKED.clear()

        registry = platform.registry = Registry(model_alone, store, platform, SystemClock(), name="next")
        await registry.start()
        await registry.startup.begin(fresh=False)
        await registry.startup.ready()

        assert await client.ref(Model, "m").add() == 1
        assert ASKED == [], "what has passed is not asked again"


async def test_a_registry_that_leads_next_opens_what_the_former_one_did_not() -> None:
    store = FaultyStore()
    async with starting(store=store) as (platform, start, client):
        await until(lambda: "check weights" in waiting(platform).get("model", ""))
        start.cancel()
        await platform.registry.close()
        registry = platform.registry = Registry(shop, store, platform, SystemClock(), name="next")
        await registry.start()
        await registry.startup.begin(fresh=False)
        READY["weights"] = True
        await registry.startup.ready()
        assert await client.ref(Shop, "s").sell() == 1


async def test_a_registry_that_leads_next_says_what_is_open_before_it_has_found_its_hosts() -> None:
    READY.update(weights=True, device=True)
    store = FaultyStore()
    async with starting(store=store) as (platform, start, _):
        await start
        await platform.registry.close()

        registry = platform.registry = Registry(shop, store, platform, SystemClock(), name="next")
        await registry.start()

        assert waiting(platform) == {}
        await registry.place("own/o")
        assert registry.current.shards["own/o"].owner in registry.current.hosts


async def test_a_registry_that_finds_no_host_in_the_table_takes_nothing_for_open() -> None:
    READY.update(weights=True, device=True)
    store = FaultyStore()
    async with starting(store=store) as (platform, start, _):
        await start
        await platform.registry.gone(list(platform.registry.current.hosts), replace=False)
        await platform.registry.close()

        registry = platform.registry = Registry(shop, store, platform, SystemClock(), name="next")
        await registry.start()

        assert waiting(platform)["model"] == "the shared hosts"
        with pytest.raises(Unavailable, match="own is not served yet"):
            await registry.place("own/o")


async def test_an_app_that_is_started_anew_waits_anew() -> None:
    store = FaultyStore()
    READY["weights"] = True
    async with starting(store=store) as (_, start, _):
        await start
    READY.clear()
    async with starting(store=store) as (_, start, client):
        with pytest.raises(Unavailable):
            await client.ref(Model, "m").add()
        assert not start.done()


async def test_status_shows_what_is_waited_for_and_since_when() -> None:
    async with starting() as (platform, _, _):
        await until(lambda: "check weights: not yet" in waiting(platform).get("model", ""))
        shown = (await registry_status.status(platform.registry))["waiting"]

        assert [one["what"] for one in shown] == ["model", "shop", "own"]
        assert shown[0]["waits_for"] == "check weights: not yet on host-1; check weights: not yet on host-2"
        assert all(one["for_s"] >= 0 for one in shown)


async def test_an_app_that_declares_nothing_writes_nothing_down_and_closes_nothing() -> None:
    store = FaultyStore()
    platform = LocalPlatform(things.app, store, SystemClock())
    await platform.start(2)
    try:
        assert await store.note(OPENED) is None
        assert all(host.closed == {} for host in platform.hosts.values())
        assert platform.registry.startup.shown() == []
    finally:
        await platform.close()


# -- stopping -----------------------------------------------------------------------------------------------


async def test_a_stop_closes_dependents_first_and_lets_what_runs_end() -> None:
    READY["weights"] = True
    store = FaultyStore()
    async with starting(store=store) as (platform, start, client):
        await start
        await client.ref(Shop, "s").sell()
        await client.ref(Model, "idle").add()
        slow = asyncio.ensure_future(client.ref(Model, "m").with_options(deadline_s=5).add_slowly("slow"))
        await REACHED["slow"].wait()
        hosts = list(platform.hosts.values())

        stopping = asyncio.ensure_future(stop_in_order(platform.registry))
        await until(lambda: all("model" in host.closed for host in hosts))
        assert all("shop" in host.closed for host in hosts), "they went first"
        assert not any("shop/s" in host.cells for host in hosts)
        with pytest.raises(TryAgain, match="shop is served no more: the app is being stopped"):
            await client.ref(Shop, "s").sell()
        assert (await client.ref(Shop, "s").why()).state == "not_ready"
        with pytest.raises(TryAgain, match="model is served no more"):
            await client.ref(Model, "idle").add()
        GATES["slow"].set()
        assert await slow == 1
        assert await stopping == []
        assert platform.hosts == {}

    async with starting(store=store) as (_, start, client):
        await start
        assert await client.ref(Model, "m").total() == 1


async def test_hosts_stop_in_the_reverse_of_the_order_they_started_in(monkeypatch: pytest.MonkeyPatch) -> None:
    READY.update(database=True, licence=True)
    stopped: list[str] = []
    async with starting(grouped, hosts=1) as (platform, start, _):
        await start
        close_host, close_types = platform.close_host, platform.close_types

        async def noted_host(host: HostRow) -> None:
            await close_host(host)
            stopped.append(host.name)

        async def noted_types(host: HostRow, types: Sequence[str]) -> None:
            stopped.extend(types)
            await close_types(host, types)

        monkeypatch.setattr(platform, "close_host", noted_host)
        monkeypatch.setattr(platform, "close_types", noted_types)
        assert await stop_in_order(platform.registry) == []

    assert stopped[:2] == ["far", "far-1"]
    assert set(stopped[2:]) == {"till", "near-1", "near-2", "host-1"}
    assert stopped.index("till") < stopped.index("host-1")


async def test_a_rollout_moves_a_group_after_those_it_depends_on_and_each_entity_keeps_its_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    READY.update(database=True, licence=True)
    moved: list[tuple[str, int]] = []
    async with starting(grouped, hosts=1) as (platform, start, client):
        await start
        for number in range(8):
            assert await client.ref(Far, f"f{number}").add() == 1
            assert await client.ref(Till, f"t{number}").add(1) == 1
        await platform.crash("host-1")  # and is replaced, so that nothing else puts its turn first: it joined last
        await until(lambda: "host-1" in {row.name for row in platform.registry.current.hosts.values()})
        old, shared = (
            {row.name for row in platform.registry.current.hosts.values()},
            platform.hosts["host-1"].incarnation,
        )
        platform.app = App(
            "grouped", entities=[Till, Far, Model], host_groups=grouped.host_groups, settings=SETTINGS,
            ready_when=(found("database"),),
        )  # fmt: skip
        for group in ("far", "near", ""):
            await platform.add_host(f"next-{group}", node="next", group=group)
        release = platform.release

        async def noted(host: HostRow, targets: Mapping[str, str]) -> None:
            moved.append((host.name, len(platform.registry.current.owned_by(shared))))
            await release(host, targets)

        monkeypatch.setattr(platform, "release", noted)
        assert (await platform.registry.drain("local"))["left"] == []

        shared_first = [*(("host-1", left) for left in (4, 3, 2, 1)), *[("far-1", 0)] * 4]
        assert moved == shared_first, "one by one; no type lives on the near ones"
        assert not old & {row.name for row in platform.registry.current.hosts.values()}
        for number in range(8):
            assert await client.ref(Far, f"f{number}").add() == 2
            assert await client.ref(Till, f"t{number}").add(1) == 2


async def test_a_stop_is_bounded_and_says_what_was_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    READY["weights"] = True
    app = App("shop", entities=[Shop, Model], settings=Settings(shards=4, stop_s=0.05))
    async with starting(app, hosts=1) as (platform, start, _):
        await start

        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(platform, "close_types", never)
            failed = await stop_in_order(platform.registry)

        assert failed == ["shop: no time was left", "model: no time was left", "the shared hosts: no time was left"]
