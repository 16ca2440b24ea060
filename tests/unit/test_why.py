"""``why`` says for every state an entity can be in what it waits for, within a second, whatever is dead."""

# ruff: noqa: SLF001 - hosts and registry are brought into states by hand

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

import remora
from remora import (
    App,
    Backoff,
    Client,
    Directive,
    EntityOptions,
    Failure,
    HandlerFailed,
    Quarantined,
    Settings,
    Stopped,
    Supervisor,
    Why,
    command,
    on,
)
from remora.clock import Clock
from remora.local import LocalPlatform
from remora.runtime import recovery
from remora.runtime.watchdog import Running, Watchdog
from remora.supervision.blame import Quarantine
from remora.testing import FaultyStore, ManualClock
from remora.why import ALL_S, STATES, About, Glance, decode, encode
from tests import flows, platforms, things
from tests.clock import turns, until
from tests.flows import Relay
from tests.platforms import host_of, move
from tests.things import GATES, REACHED, Boom, Fragile, Lamp, Nested, Restless, Till
from tests.unit.test_platform import Board, boards

SLACK_S = 0.1
"""What a busy machine may add to a stated bound."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


class Patient(remora.Durable[Nested]):
    """Is held back for minutes after a failure."""

    options = EntityOptions(supervision=(on(Exception).restart(Backoff(min_s=120.0, max_s=300.0, jitter=0.0)),))

    @command
    async def fail(self) -> None:
        raise Boom

    @command
    async def put(self) -> None: ...


patients = App("patients", entities=[Patient], settings=things.SETTINGS)


class Deaf(LocalPlatform):
    """A platform whose hosts, and whose registry, can stop answering clients as frozen processes do."""

    hosts_answer = True
    registry_answers = True
    seen = Glance()

    async def exchange(self, host: str, data: bytes) -> bytes:
        if not self.hosts_answer:
            await asyncio.Event().wait()
        return await super().exchange(host, data)

    async def glance(self, host: str) -> Glance:
        if not (self.hosts_answer or self.seen.entity):
            await asyncio.Event().wait()
        del host
        return self.seen

    async def about(self, shard: str) -> dict[str, object]:
        if not self.registry_answers:
            await asyncio.Event().wait()
        return await super().about(shard)


@asynccontextmanager
async def deaf(app: App = things.app, clock: Clock | None = None) -> AsyncIterator[tuple[Deaf, Client]]:
    platform = Deaf(app, FaultyStore(), clock or remora.clock.SystemClock())
    try:
        await platform.start(1)
        yield platform, await platform.client().start()
    finally:
        await platform.close()


async def in_time(question: object) -> Why:
    """Return an answer that has to come within the stated bound."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    said: Why = await question  # type: ignore[misc]  # a coroutine
    assert loop.time() - began_s < ALL_S + SLACK_S
    assert said.because.endswith(".")
    assert said.state in STATES
    return said


async def leased(platform: LocalPlatform, clock: Clock) -> None:
    """Wait until every host holds a lease at a time that was set by hand."""
    for host in platform.hosts.values():
        await until(lambda host=host: host.may_answer(clock.monotonic_s()))  # type: ignore[misc]


# -- what its host says ---------------------------------------------------------------------------------


async def test_an_entity_that_was_never_used_says_so() -> None:
    async with platforms.running(things.app) as (_, client):
        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, why.entries, why.told_by, why.host) == ("new", 0, "host", "host-1")
        assert (await client.ref(Lamp, "a").why()).state == "passive"


async def test_an_entity_that_has_left_memory_says_how_much_is_recorded_of_it() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store) as (platform, client):
        till = client.ref(Till, "a")
        await till.add()
        await till.leave()
        platform.hosts["host-1"].passivation.round()

        why = await in_time(till.why())
        assert (why.state, why.entries) == ("passive", 2)

        store.hold("load")
        away = await in_time(till.why())
        assert (away.state, away.entries, "only the store knows" in away.because) == ("passive", None, True)


async def test_an_entity_with_nothing_to_do_says_since_when() -> None:
    clock = ManualClock()
    async with platforms.running(things.app, clock=clock) as (platform, client):
        await client.ref(Till, "a").add()
        clock.advance(30.0)
        await leased(platform, clock)

        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, why.for_s, why.entries, why.mailbox) == ("idle", 30.0, 1, 0)


async def test_a_running_handler_is_named_with_its_command_and_those_that_wait_behind_it() -> None:
    clock = ManualClock()
    async with platforms.running(things.app, clock=clock) as (_, client):
        till = client.ref(Till, "a").with_options(deadline_s=60)
        slow = asyncio.ensure_future(till.with_options(command_id="one").add_slowly("slow"))
        await REACHED["slow"].wait()
        clock.advance(3.0)
        behind = [asyncio.ensure_future(till.add(1)) for _ in range(2)]
        await turns(20)
        clock.advance(2.0)

        why = await in_time(till.why())

        assert (why.state, why.for_s, why.mailbox, why.oldest_s) == ("running", 5.0, 2, 2.0)
        assert why.running is not None
        assert (why.running.method, why.running.command_id, why.running.callers) == ("add_slowly", "one", ())
        assert why.because == "It has run add_slowly for 5.0 s; 2 commands and queries wait, the oldest for 2.0 s."
        GATES["slow"].set()
        await asyncio.gather(slow, *behind)


@pytest.mark.parametrize("hosts", [1, 3])
async def test_an_entity_in_a_call_names_the_whole_chain_it_waits_on_and_since_when(hosts: int) -> None:
    async with platforms.running(flows.app, hosts=hosts) as (_, client):
        waiting = asyncio.ensure_future(client.ref(Relay, "r").call_at("s", "go"))
        hearing = asyncio.ensure_future(client.ref(Relay, "s").relay("a", "wait for it"))
        await REACHED["wait for it"].wait()
        GATES["go"].set()
        while not (why := await in_time(client.ref(Relay, "r").why())).calls:  # until its call has left
            await turns(1)

        assert why.state == "calling"
        assert [(call.entity, call.method, call.waits_for) for call in why.calls] == [
            ("relay/r", "call_at", "relay/s"),
            ("relay/s", "relay", "listener/a"),
            ("listener/a", "hear", ""),
        ]
        assert "call_at has waited " in why.because
        assert "for relay/s, whose relay has waited" in why.because
        assert "which has run hear for" in why.because
        callee = await client.ref(flows.Listener, "a").why()
        assert callee.running is not None
        assert callee.running.callers == ("relay/s",)
        GATES["wait for it"].set()
        await asyncio.gather(waiting, hearing)


async def test_what_waits_for_the_store_to_confirm_a_commit_says_so() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store) as (_, client):
        till = client.ref(Till, "a")
        await till.add()
        store.hold()
        adding = asyncio.ensure_future(till.add())
        await until(lambda: store.waiting)

        why = await in_time(till.why())

        assert (why.state, why.entries) == ("committing", 2)
        assert why.for_s is not None
        store.let_go()
        await adding


async def test_an_entity_that_is_read_back_says_since_when_and_one_behind_it_that_it_waits_its_turn() -> None:
    clock, store = ManualClock(), FaultyStore()
    async with platforms.running(things.app, store, clock=clock) as (_, client):
        store.hold("load")
        first, second = (client.ref(Till, name).with_options(deadline_s=60) for name in "ab")
        asked = [asyncio.ensure_future(first.add())]
        await until(lambda: store.waiting == 1)
        # As many are read at once as there are reads; the one behind them waits.
        asked += [asyncio.ensure_future(client.ref(Till, f"other{n}").add()) for n in range(recovery.READS - 1)]
        await until(lambda: store.waiting == recovery.READS)
        asked.append(asyncio.ensure_future(second.add()))
        await turns(20)
        clock.advance(1.5)

        reading, queued = await in_time(first.why()), await in_time(second.why())

        assert (reading.state, reading.for_s, reading.mailbox) == ("recovering", 1.5, 1)
        assert "It has been read back from the store for 1.5 s" in reading.because
        assert (queued.state, queued.mailbox) == ("recovering", 1)
        assert "for its turn to be read back, 0 before it" in queued.because
        store.let_go("load")
        assert await asyncio.gather(*asked) == [1] * (recovery.READS + 1)


async def test_an_entity_that_starts_over_waits_for_its_last_commit_first() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store) as (platform, client):
        till = client.ref(Till, "a")
        await till.add()
        store.hold()
        adding = asyncio.ensure_future(till.add())
        await until(lambda: store.waiting)
        host_of(platform, "till/a").cells["till/a"].restart()

        why = await in_time(till.why())

        assert (why.state, "for its last commit to be written" in why.because) == ("restarting", True)
        store.let_go()
        await adding


async def test_an_entity_that_is_held_back_says_after_which_failure_and_until_when() -> None:
    clock = ManualClock()
    async with platforms.running(patients, clock=clock) as (_, client):
        patient = client.ref(Patient, "a")
        with pytest.raises(HandlerFailed):
            await patient.fail()
        clock.advance(20.0)

        why = await in_time(patient.why())

        assert (why.state, why.for_s, why.retry_in_s, why.reason) == ("backoff", 20.0, 100.0, "Boom")
        assert why.because == "It failed with Boom and is restarted in 100 s."


async def test_a_stopped_entity_says_since_when_and_why() -> None:
    async with platforms.running(things.app) as (_, client):
        fragile = client.ref(Fragile, "a")
        with pytest.raises(HandlerFailed):
            await fragile.fail()
        with pytest.raises(Stopped):
            await fragile.add()

        why = await in_time(fragile.why())

        assert (why.state, "Boom" in why.reason, "Boom" in why.because) == ("stopped", True, True)


async def test_an_entity_whose_supervisor_is_asked_says_after_which_failure_and_since_when() -> None:
    class Slow(Supervisor):
        async def on_failure(self, failure: Failure) -> Directive | None:
            REACHED["judge"].set()
            await GATES["judge"].wait()
            return Directive.RESUME if failure.entity == "fragile/a" else None

    app = App("guarded", entities=[Fragile], settings=Settings(shards=1, supervisor_ask_s=30.0), supervisors=[Slow])
    async with platforms.running(app) as (_, client):
        with pytest.raises(HandlerFailed):
            await client.ref(Fragile, "a").fail()
        await REACHED["judge"].wait()

        why = await client.ref(Fragile, "a").why()
        GATES["judge"].set()

        assert why.state == "judged"
        assert why.because.startswith("fail failed, and its supervisor slow has been asked for 0")
        assert await client.ref(Fragile, "a").add() == 1


async def test_an_entity_in_quarantine_says_with_what_it_took_its_host_down() -> None:
    async with platforms.running(things.app) as (platform, client):
        till = client.ref(Till, "a")
        held = Quarantine("till/a", "", "till/a.add took its host down once with: os._exit(3)", 1, 0)
        host_of(platform, "till/a").quarantine.entities["till/a"] = held
        with pytest.raises(Quarantined):
            await till.add()

        why = await in_time(till.why())

        assert (why.state, "os._exit(3)" in why.reason, "os._exit(3)" in why.because) == ("quarantined", True, True)


async def test_an_entity_that_asked_to_leave_memory_says_so() -> None:
    async with platforms.running(things.app) as (platform, client):
        platform.hosts["host-1"].passivation.round = lambda: None  # type: ignore[method-assign]  # no round comes in between
        till = client.ref(Till, "a")
        await till.leave()

        assert (await in_time(till.why())).state == "passivating"


async def test_a_new_command_that_waits_for_durable_sends_to_be_delivered_says_so() -> None:
    settings = Settings(shards=8, outbox_rows_max=2)
    app = App("full", entities=[flows.Teller, flows.Listener], settings=settings)
    async with platforms.running(app) as (platform, client):
        teller = client.ref(flows.Teller, "t")
        for n in range(2):
            await teller.tell(["a"], f"wait {n}")
        held = asyncio.ensure_future(teller.tell(["a"], "late"))
        host = platform.hosts["host-1"]
        await until(lambda: host.held)

        why = await in_time(teller.why())

        assert (why.state, why.mailbox) == ("held", 1)
        assert "2 durable sends to deliver" in why.because
        for n in range(2):
            GATES[f"wait {n}"].set()
        await held


async def test_an_entity_whose_shard_is_handed_over_says_since_when() -> None:
    clock = ManualClock()
    async with platforms.running(things.app, hosts=2, clock=clock) as (platform, client):
        till = client.ref(Till, "a").with_options(deadline_s=60)
        slow = asyncio.ensure_future(till.add_slowly("slow"))
        await REACHED["slow"].wait()
        source = host_of(platform, "till/a")
        moving = asyncio.ensure_future(move(platform, "till/a"))
        await until(lambda: not source.shards[source.shard_name("till/a")].accepting)
        clock.advance(1.0)

        why = await in_time(till.why())

        assert (why.state, why.for_s, why.told_by, why.host) == ("moving", 1.0, "host", source.name)
        GATES["slow"].set()
        await asyncio.gather(moving, slow)


async def test_a_host_without_a_lease_says_so() -> None:
    clock, store = ManualClock(), FaultyStore()
    async with platforms.running(things.app, store, clock=clock) as (platform, client):
        await client.ref(Till, "a").add()
        host = platform.hosts["host-1"]
        host.lease._renew = lambda _: (_ for _ in ()).throw(remora.StoreUnavailable("away"))
        clock.advance(5.0)

        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, why.for_s) == ("no_lease", 3.25)


async def test_while_the_store_takes_nothing_every_entity_of_the_host_says_so() -> None:
    clock, store = ManualClock(), FaultyStore()
    async with platforms.running(things.app, store, clock=clock) as (platform, client):
        await client.ref(Till, "a").add()
        store.fail_next("append", times=1)
        store.fail_next("reincarnate", times=10_000)
        adding = asyncio.ensure_future(client.ref(Till, "b").with_options(deadline_s=60).add())
        host = platform.hosts["host-1"]
        await until(lambda: host.outage_since_s is not None)
        clock.advance(4.0)

        told = [await in_time(client.ref(Till, name).why()) for name in "abc"]

        assert [(why.state, why.for_s) for why in told] == [("store_away", 4.0)] * 3
        assert "has not reached the store for 4.0 s" in told[0].because
        store.mend()
        await adding


async def test_an_entity_that_cannot_be_read_back_while_the_store_is_away_says_so() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store) as (platform, client):
        store.fail_next("load", times=10_000)
        adding = asyncio.ensure_future(client.ref(Till, "a").add())
        await until(lambda: platform.hosts["host-1"].recovery.trouble)

        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, why.reason) == ("store_away", "The disk is full.")
        store.mend()
        await adding


# -- what is said when its host says nothing ----------------------------------------------------------


async def test_a_host_that_does_not_answer_is_described_by_the_registry() -> None:
    async with deaf() as (platform, client):
        await until(lambda: platform.registry.detection.watch.sights)
        platform.hosts_answer = False

        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, why.told_by, why.host) == ("host_silent", "registry", "host-1")
        assert "host-1 has not answered for 0." in why.because
        assert "its lease was last seen renewed" in why.because


async def test_a_host_and_a_registry_that_do_not_answer_are_said_not_to() -> None:
    async with deaf() as (platform, client):
        platform.hosts_answer = platform.registry_answers = False

        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, why.told_by, why.host) == ("unknown", "client", "host-1")


async def test_a_handler_that_keeps_its_host_is_named_to_whoever_asks_about_any_entity_of_that_host() -> None:
    async with deaf() as (platform, client):
        await until(lambda: platform.registry.detection.watch.sights)
        platform.hosts_answer = False
        platform.seen = Glance(entity="till/a", method="add", for_s=12.0, where="line 7")

        culprit, victim = await in_time(client.ref(Till, "a").why()), await in_time(client.ref(Till, "b").why())

        assert (culprit.state, culprit.told_by) == ("blocking", "host")
        assert culprit.running is not None
        assert (culprit.running.method, culprit.running.where) == ("add", "line 7")
        assert victim.state == "host_blocked"
        assert "till/a.add has kept its host host-1 from everything else for 12 s" in victim.because


async def test_a_shard_without_an_owner_says_since_when_and_why() -> None:
    clock = ManualClock()
    async with deaf(clock=clock) as (platform, client):
        await platform.registry.gone([platform.hosts["host-1"].incarnation], replace=False)
        await until(lambda: not client.table.hosts)
        clock.advance(7.0)

        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, why.for_s, why.told_by) == ("no_owner", 7.0, "registry")
        assert "no host is up" in why.because
        platform.registry_answers = False
        assert (await in_time(client.ref(Till, "a").why())).state == "unknown"


async def test_a_dedicated_entity_that_was_never_used_is_not_started_by_asking_about_it() -> None:
    async with platforms.running(boards) as (platform, client):
        why = await in_time(client.ref(Board, "b").why())

        assert (why.state, why.told_by) == ("new", "registry")
        assert set(platform.hosts) == {"host-1"}


async def test_a_dedicated_entity_whose_actor_is_being_started_says_so() -> None:
    async with platforms.running(boards) as (platform, client):
        started = asyncio.Event()
        real = platform._dedicate

        async def slowly(key: str) -> None:
            await started.wait()
            await real(key)

        platform._dedicate = slowly  # type: ignore[method-assign]  # an actor takes seconds to start
        adding = asyncio.ensure_future(client.ref(Board, "b").add(1))
        await until(lambda: "board/b" in client.table.shards)

        why = await in_time(client.ref(Board, "b").why())

        assert (why.state, "the actor of this dedicated entity is being started" in why.because) == ("starting", True)
        started.set()
        assert await adding == 1
        assert (await in_time(client.ref(Board, "b").why())).state == "idle"


async def test_a_host_that_died_a_moment_ago_does_not_hold_up_the_answer() -> None:
    async with deaf() as (platform, client):
        platform.registry.detection.acting = False  # it leads no more, and the next one does not lead yet
        platform.hosts.pop("host-1").abandon()

        why = await in_time(client.ref(Till, "a").why())

        assert (why.state, "is gone" in why.reason) == ("host_silent", True)


async def test_a_handler_may_ask_why_of_others_and_of_itself_also_after_its_first_effect() -> None:
    async with platforms.running(curious) as (_, client):
        assert await client.ref(Curious, "c").look() == ["running", "new"]


class Curious(remora.Durable[Nested]):
    """Looks around while it works."""

    @command
    async def look(self) -> list[str]:
        self.passivate()
        return [(await self.ref(Curious, name).why()).state for name in (self.id, "other")]


curious = App("curious", entities=[Curious], settings=things.SETTINGS)


# -- the rest ------------------------------------------------------------------------------------------


async def test_a_client_with_too_much_under_way_may_still_ask_why() -> None:
    app = App("few", entities=[Till], settings=Settings(shards=8, in_flight_max=1))
    async with platforms.running(app) as (_, client):
        slow = asyncio.ensure_future(client.ref(Till, "a").add_slowly("slow"))
        await REACHED["slow"].wait()
        with pytest.raises(remora.Overloaded):
            await client.ref(Till, "a").add()

        assert (await in_time(client.ref(Till, "a").why())).state == "running"
        assert client.in_flight == 1
        GATES["slow"].set()
        await slow


async def test_an_entity_of_which_nobody_asked_is_not_activated_by_asking_why() -> None:
    async with platforms.running(things.app) as (platform, client):
        await client.ref(Restless, "a").why()

        assert platform.hosts["host-1"].cells == {}


async def test_what_keeps_a_loop_is_seen_from_another_thread() -> None:
    running = Running()
    watchdog = Watchdog(running, Settings(blocked_s=0.04))
    watchdog.start()
    seen: list[Glance] = []
    done = threading.Event()

    def look() -> None:
        while not (seen and seen[-1].entity) and not done.wait(0.01):
            seen.append(watchdog.glance())
        done.set()

    await turns(5)
    assert watchdog.glance().entity == ""
    running.entity, running.method = "till/a", "add"
    thread = threading.Thread(target=look)
    thread.start()
    assert done.wait(5.0)  # the loop stands still here
    thread.join()
    watchdog.stop()

    assert (seen[-1].entity, seen[-1].method) == ("till/a", "add")
    assert seen[-1].for_s > 0.1
    assert "assert done.wait(5.0)" in seen[-1].where


def test_as_json_an_answer_has_all_its_keys_always() -> None:
    bare = Why(entity="a/b", state="idle", because="It rests.")

    assert set(msgspec.json.decode(encode(bare))) == {field.name for field in msgspec.structs.fields(Why)}
    assert decode(encode(bare)) == bare


def test_an_answer_of_a_newer_registry_is_read_as_far_as_it_is_known() -> None:
    assert remora.why.read({"shard": "7", "owner": 3, "later": True}) == About(shard="7", owner=3)


class Late(remora.Durable[Nested]):
    """Is never ready."""

    options = EntityOptions(ready_when=(remora.Readiness(lambda: False, "weights", every_s=0.01),))

    @command
    async def put(self) -> None: ...


async def test_an_entity_whose_type_is_not_ready_says_what_is_waited_for() -> None:
    clock = ManualClock()
    platform = Deaf(App("late", entities=[Late, Till], settings=things.SETTINGS), FaultyStore(), clock)
    start = asyncio.create_task(platform.start(1))
    try:
        await until(lambda: any("weights: not yet" in one["waits_for"] for one in platform.registry.startup.shown()))
        client = await platform.client().start()
        clock.advance(5.0)
        why = await in_time(client.ref(Late, "a").why())

        assert (why.state, why.told_by, why.for_s, why.reason) == ("not_ready", "host", 5.0, "check weights: not yet")
        assert why.because == "late has not been served by host-1 for 5.0 s, which waits for: check weights: not yet."
        assert (await in_time(client.ref(Till, "a").why())).state in {"new", "no_lease"}
    finally:
        start.cancel()
        await asyncio.wait([start])
        await platform.close()


PROVED = {
    "idle": test_an_entity_with_nothing_to_do_says_since_when,
    "running": test_a_running_handler_is_named_with_its_command_and_those_that_wait_behind_it,
    "blocking": test_a_handler_that_keeps_its_host_is_named_to_whoever_asks_about_any_entity_of_that_host,
    "calling": test_an_entity_in_a_call_names_the_whole_chain_it_waits_on_and_since_when,
    "committing": test_what_waits_for_the_store_to_confirm_a_commit_says_so,
    "recovering": test_an_entity_that_is_read_back_says_since_when_and_one_behind_it_that_it_waits_its_turn,
    "restarting": test_an_entity_that_starts_over_waits_for_its_last_commit_first,
    "backoff": test_an_entity_that_is_held_back_says_after_which_failure_and_until_when,
    "stopped": test_a_stopped_entity_says_since_when_and_why,
    "judged": test_an_entity_whose_supervisor_is_asked_says_after_which_failure_and_since_when,
    "quarantined": test_an_entity_in_quarantine_says_with_what_it_took_its_host_down,
    "passivating": test_an_entity_that_asked_to_leave_memory_says_so,
    "passive": test_an_entity_that_has_left_memory_says_how_much_is_recorded_of_it,
    "new": test_an_entity_that_was_never_used_says_so,
    "not_ready": test_an_entity_whose_type_is_not_ready_says_what_is_waited_for,
    "held": test_a_new_command_that_waits_for_durable_sends_to_be_delivered_says_so,
    "moving": test_an_entity_whose_shard_is_handed_over_says_since_when,
    "no_lease": test_a_host_without_a_lease_says_so,
    "store_away": test_while_the_store_takes_nothing_every_entity_of_the_host_says_so,
    "host_blocked": test_a_handler_that_keeps_its_host_is_named_to_whoever_asks_about_any_entity_of_that_host,
    "host_silent": test_a_host_that_does_not_answer_is_described_by_the_registry,
    "no_owner": test_a_shard_without_an_owner_says_since_when_and_why,
    "starting": test_a_dedicated_entity_whose_actor_is_being_started_says_so,
    "unknown": test_a_host_and_a_registry_that_do_not_answer_are_said_not_to,
}


def test_every_state_has_a_test() -> None:
    assert PROVED.keys() == STATES.keys()


def test_the_operators_page_says_what_each_state_means() -> None:
    page = Path("docs/operations.md").read_text(encoding="utf-8")

    assert [state for state, meaning in STATES.items() if f"| `{state}` | {meaning} |" not in page] == []
