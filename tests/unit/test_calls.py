"""Entities that call others and wait."""

# ruff: noqa: SLF001 - looks are made by hand

import asyncio
import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from pydantic import BaseModel

from remora import (
    App,
    CallCycle,
    Client,
    ContractError,
    DeadlineExceeded,
    Durable,
    EntityOptions,
    HandlerFailed,
    Rejected,
    command,
    on,
)
from remora.local import LocalPlatform
from remora.runtime import deadlock
from remora.testing import FaultyStore, ManualClock
from tests import flows, platforms, things
from tests.clock import turns, until
from tests.flows import Listener, Relay
from tests.platforms import host_of
from tests.things import GATES, REACHED


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


def running(store: Any = None, *, hosts: int = 2) -> AbstractAsyncContextManager[tuple[LocalPlatform, Client]]:  # noqa: ANN401 - any store
    return platforms.running(flows.app, store, hosts=hosts)


async def test_an_entity_calls_another_and_gets_its_reply() -> None:
    async with running() as (_, client):
        assert [await client.ref(Relay, "r").relay("a", text) for text in ("x", "y")] == [1, 2]
        assert await client.ref(Relay, "r").overhear("a") == ["x", "y"]


async def test_a_callees_rejection_is_the_callers_unless_it_catches_it() -> None:
    async with running() as (_, client):
        with pytest.raises(Rejected, match="I do not want to hear no") as caught:
            await client.ref(Relay, "r").relay("a", "no")

        assert caught.value.entity == "relay/r"
        assert await client.ref(Relay, "r").relayed() == []


async def test_a_call_leaves_only_after_all_that_its_caller_could_have_seen_is_committed() -> None:
    store = FaultyStore()
    async with running(store, hosts=1) as (platform, client):
        relay, listener = client.ref(Relay, "r"), client.ref(Listener, "a")
        await relay.relay("a", "zero")
        store.hold()
        first = asyncio.create_task(relay.relay("b", "one"))
        await until(lambda: store.waiting)
        await turns(30)
        assert not first.done()
        assert platform.hosts["host-1"].cells["listener/a"].n == 1

        store.let_go()

        assert await first == 1
        assert await listener.heard() == ["zero"]


async def test_a_call_within_a_command_that_is_run_again_gets_the_recorded_reply() -> None:
    async with running() as (platform, client):
        relay = client.ref(Relay, "r").with_options(command_id="once")
        asked = asyncio.create_task(relay.relay_twice_and_wait("a", "x", "half"))
        await REACHED["half"].wait()
        await platform.crash(host_of(platform, "relay/r").name)
        GATES["half"].set()

        assert await asked == 1
        assert await client.ref(Listener, "a").heard() == ["x", "x!"]
        assert await client.ref(Relay, "r").relayed() == ["x"]


async def test_calls_of_two_callers_with_one_command_id_are_two_calls() -> None:
    async with running() as (_, client):
        for name in ("r", "s"):
            await client.ref(Relay, name).with_options(command_id="pay-7").relay("a", name)

        assert await client.ref(Listener, "a").heard() == ["r", "s"]


@pytest.mark.parametrize(
    ("path", "chain"),
    [
        (["r"], "relay/r → relay/r"),
        (["s", "r"], "relay/r → relay/s → relay/r"),
        (["s", "t", "s"], "relay/r → relay/s → relay/t → relay/s"),
    ],
)
async def test_a_call_cycle_is_refused_at_once_and_the_chain_is_named(path: list[str], chain: str) -> None:
    async with running() as (_, client):
        with pytest.raises(CallCycle, match=chain) as caught:
            await client.ref(Relay, "r").with_options(command_id="round").round_trip(path)

        assert caught.value.command_id == "round"
        assert await client.ref(Relay, "r").round_trip(["s", "t", "u"]) == 3


async def test_after_its_first_effect_a_command_may_only_send() -> None:
    async with running() as (platform, client):
        with pytest.raises(HandlerFailed, match="may only send: call before"):
            await client.ref(Relay, "r").send_then_relay("a")

        assert await platform.store.outbox_counts() == (0, 0)
        assert await client.ref(Listener, "a").heard() == []


async def test_a_query_may_call_queries_only() -> None:
    async with running() as (_, client):
        with pytest.raises(ContractError, match="a query may call queries only"):
            await client.ref(Relay, "r").meddle("a")

        assert await client.ref(Listener, "a").heard() == []


async def test_a_callee_that_does_not_answer_is_bounded_by_the_callers_deadline() -> None:
    async with running() as (_, client):
        relay = client.ref(Relay, "r")

        with pytest.raises(DeadlineExceeded) as caught:
            await relay.with_options(deadline_s=0.05, command_id="late").relay("a", "wait for ever")

        assert caught.value.command_id == "late"
        assert await relay.relay("b", "x") == 1


async def test_a_deadline_that_a_caller_gave_its_own_call_fails_with_the_id_of_the_command_that_was_asked() -> None:
    async with running() as (_, client):
        with pytest.raises(DeadlineExceeded) as caught:
            await client.ref(Relay, "r").with_options(command_id="mine").relay_slowly("a", "wait for ever")

        assert (caught.value.command_id, caught.value.entity) == ("mine", "relay/r")


@pytest.mark.parametrize("hosts", [1, 3])
@pytest.mark.parametrize("ring", [["r", "s"], ["r", "s", "t"], ["a", "b", "c", "d", "e"]])
async def test_entities_that_wait_for_each_other_are_found_and_the_youngest_gives_up_and_the_others_go_on(
    ring: list[str], hosts: int
) -> None:
    async with running(hosts=hosts) as (platform, client):
        loop = asyncio.get_running_loop()
        asked = []
        for n, name in enumerate(ring):
            asked.append(asyncio.ensure_future(client.ref(Relay, name).call_at(ring[(n + 1) % len(ring)], "go")))
            await until(lambda: things.RUNS.count("call_at") > n)  # noqa: B023 - awaited in this round
        began = loop.time()
        GATES["go"].set()

        results = await asyncio.gather(*asked, return_exceptions=True)

        failed = [result for result in results if isinstance(result, CallCycle)]
        assert [result for result in results if not isinstance(result, CallCycle)] == [1] * (len(ring) - 1)
        assert len(failed) == 1
        assert "would wait for ever: relay/" in str(failed[0])
        assert {f"relay/{name}" for name in ring} <= set(re.findall(r"relay/\w+", str(failed[0])))
        assert loop.time() - began < 2.0, "long before the deadline of 3 s"
        assert sum(host.deadlocks.found for host in platform.hosts.values()) == 1
        assert await client.ref(Relay, ring[0]).round_trip([ring[1]]) == 1


async def test_a_deadlock_that_forms_long_after_its_youngest_began_to_wait_is_found_as_soon_as_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # After its first look the one that waits looks no more by itself, within this test.
    monkeypatch.setattr(deadlock, "LOOK_AFTER_S", 60.0)
    async with running(hosts=2) as (platform, client):
        near, far = await _two_on_different_hosts(platform)
        older = asyncio.ensure_future(client.ref(Relay, near).call_at(far, "older"))
        await REACHED["older"].wait()
        youngest = asyncio.ensure_future(client.ref(Relay, far).call_at(near, "youngest"))
        await REACHED["youngest"].wait()
        GATES["youngest"].set()
        host = host_of(platform, f"relay/{far}")
        await until(lambda: host.deadlocks._looking)
        await turns(50)
        loop = asyncio.get_running_loop()
        began = loop.time()

        GATES["older"].set()
        with pytest.raises(CallCycle, match=f"relay/{far} would wait for ever"):
            await youngest

        assert await older == 1
        assert loop.time() - began < 1.0, "0.1 s and what it takes to ask around"


async def _two_on_different_hosts(platform: LocalPlatform) -> tuple[str, str]:
    owners = {name: host_of(platform, f"relay/{name}").name for name in "abcdefghijklmnop"}
    other = next(name for name, owner in owners.items() if owner != owners["a"])
    return "a", other


class Ledger(BaseModel):
    calls: int = 0


class Hermit(Durable[Ledger]):
    """Lives alone and calls those who live together, or another hermit."""

    options = EntityOptions(placement="dedicated", deadline_s=3.0, supervision=(on(Exception).resume(),))

    @command
    async def visit(self, who: str, name: str) -> int:
        things.RUNS.append("visit")
        if name:
            await things.gate(name)
        return 1 + await self.ref(Guest, who).visit(self.id, "")


class Guest(Durable[Ledger]):
    """Calls hermits, several at once if told to."""

    options = EntityOptions(deadline_s=3.0, supervision=(on(Exception).resume(),))

    @command
    async def visit(self, who: str, name: str) -> int:
        things.RUNS.append("visit")
        if name:
            await things.gate(name)
        return 1 + await self.ref(Hermit, who).visit(self.id, "")

    @command
    async def visit_both(self, guests: list[str], name: str) -> list[int]:
        things.RUNS.append("visit_both")
        await things.gate(name)
        return list(await asyncio.gather(*(self.ref(Guest, guest).rest(name + guest) for guest in guests)))

    @command
    async def visit_guest(self, who: str, name: str) -> int:
        things.RUNS.append("visit_guest")
        await things.gate(name)
        return await self.ref(Guest, who).rest("")

    @command
    async def rest(self, name: str) -> int:
        if name:
            await things.gate(name)
        return 1


hermits = App("hermits", entities=[Hermit, Guest], settings=flows.SETTINGS)


async def test_a_call_cycle_through_a_dedicated_entity_is_refused_at_once_and_the_chain_is_named() -> None:
    async with platforms.running(hermits, hosts=2) as (_, client):
        with pytest.raises(CallCycle, match="hermit/h → guest/g → hermit/h"):
            await client.ref(Hermit, "h").visit("g", "")
        with pytest.raises(CallCycle, match="guest/g → hermit/h → guest/g"):
            await client.ref(Guest, "g").visit("h", "")


async def test_a_dedicated_entity_and_another_that_wait_for_each_other_are_found() -> None:
    async with platforms.running(hermits, hosts=2) as (platform, client):
        asked = [asyncio.ensure_future(client.ref(Hermit, "h").visit("g", "go"))]
        await until(lambda: things.RUNS.count("visit") == 1)
        asked.append(asyncio.ensure_future(client.ref(Guest, "g").visit("h", "go")))
        await until(lambda: things.RUNS.count("visit") == 2)
        GATES["go"].set()

        results = await asyncio.gather(*asked, return_exceptions=True)

        # One gives up; the other's call then reaches an entity that calls back, which is a cycle by itself.
        assert all(isinstance(result, CallCycle) for result in results)
        assert sum(host.deadlocks.found for host in platform.hosts.values()) == 1
        assert any("would wait for ever" in str(result) for result in results)


async def test_of_several_calls_at_once_the_one_that_is_part_of_a_deadlock_is_found() -> None:
    async with platforms.running(hermits, hosts=3) as (platform, client):
        both = asyncio.ensure_future(client.ref(Guest, "a").visit_both(["idle", "b"], "go"))
        await REACHED["go"].wait()
        back = asyncio.ensure_future(client.ref(Guest, "b").visit_guest("a", "back"))
        await REACHED["back"].wait()
        GATES["go"].set()
        await REACHED["goidle"].wait()
        GATES["back"].set()

        with pytest.raises(CallCycle, match=r"guest/b → guest/a → guest/b|guest/a → guest/b → guest/a"):
            await back  # the youngest

        for gate in ("goidle", "gob"):
            GATES[gate].set()
        assert await both == [1, 1]
        assert sum(host.deadlocks.found for host in platform.hosts.values()) == 1


async def test_a_chain_of_calls_is_bounded_by_the_deadline_of_the_command_that_began_it() -> None:
    async with running(hosts=3) as (_, client):
        loop = asyncio.get_running_loop()
        began = loop.time()

        with pytest.raises(DeadlineExceeded) as caught:
            await client.ref(Relay, "r").with_options(deadline_s=0.3, command_id="all").call_at("s", "never")

        assert (caught.value.command_id, loop.time() - began < 1.0) == ("all", True)
        GATES["never"].set()
        assert await client.ref(Relay, "r").round_trip(["s", "t"]) == 2


async def test_a_slow_callee_that_waits_for_nobody_is_no_deadlock() -> None:
    async with running() as (platform, client):
        asked = asyncio.ensure_future(client.ref(Relay, "r").relay("a", "wait for it"))
        await REACHED["wait for it"].wait()
        host = host_of(platform, "relay/r")
        await until(lambda: host.deadlocks._looking)
        for _ in range(3):
            assert await host.deadlocks._way_back("relay/r") is None
        GATES["wait for it"].set()

        assert await asked == 1
        assert sum(host.deadlocks.found for host in platform.hosts.values()) == 0


async def test_a_clock_that_stands_still_does_not_stop_calls() -> None:
    async with platforms.running(flows.app, clock=ManualClock()) as (_, client):
        assert await client.ref(Relay, "r").relay("a", "x") == 1
