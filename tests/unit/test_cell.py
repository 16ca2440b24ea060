"""One entity at work: atomic handlers, what is visible when, repeats, deadlines, bounds, its life in memory."""

# ruff: noqa: SLF001 - shards are moved and rows spoilt by hand

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import remora
from remora import (
    App,
    Client,
    DeadlineExceeded,
    HandlerFailed,
    InvalidArgument,
    InvalidId,
    Overloaded,
    PayloadTooLarge,
    Rejected,
    Stopped,
    TooOld,
    UnknownCommand,
    UnknownEntity,
)
from remora.clock import Clock, SystemClock
from remora.errors import decode_error
from remora.journal import Store
from remora.local import LocalPlatform
from remora.messages import Ask
from remora.runtime import cell as cells
from remora.sharding.allocation import Move
from remora.storage.sqlite import SqliteStore
from remora.testing import Fault, FaultyStore, ManualClock
from tests import platforms, things
from tests.clock import turns, until
from tests.platforms import host_of
from tests.things import (
    GATES,
    REACHED,
    RUNS,
    Alarmist,
    Box,
    Counter,
    Crowded,
    Diary,
    Fragile,
    Lamp,
    Meter,
    Restless,
    Till,
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


def running(
    store: Store | FaultyStore | None = None, *, hosts: int = 1, clock: Clock | None = None, app: App = things.app
) -> AbstractAsyncContextManager[tuple[LocalPlatform, Client]]:
    return platforms.running(app, store, hosts=hosts, clock=clock)


class Answers:
    """Takes what a host answers."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        del n, verdict
        self.payloads.append(payload)


# -- a handler is atomic -----------------------------------------------------------------------------


async def test_a_handler_that_emits_and_raises_leaves_nothing_flat_state() -> None:
    async with running() as (_, client):
        till = client.ref(Till, "a")
        await till.add(1)

        with pytest.raises(HandlerFailed, match=r"till/a\.add_and_raise raised Boom"):
            await till.add_and_raise(10)

        assert await till.total() == 1
        assert await till.add(1) == 2
        assert [event["data"]["amount"] for event in await till.history()] == [1, 1]


async def test_a_handler_that_emits_and_raises_leaves_nothing_nested_state() -> None:
    async with running() as (_, client):
        diary = client.ref(Diary, "a")
        await diary.write("one")

        with pytest.raises(HandlerFailed):
            await diary.write_and_raise("two")

        assert await diary.read() == ["one"]
        assert await diary.write("three") == 2
        assert [event["data"]["text"] for event in await diary.history()] == ["one", "three"]


async def test_a_handler_that_changes_state_and_raises_leaves_nothing_also_under_resume() -> None:
    async with running() as (_, client):
        box, counter = client.ref(Box, "a"), client.ref(Counter, "a")
        await box.put("x")
        await counter.add(1)

        with pytest.raises(HandlerFailed):
            await box.put_and_raise("y")
        with pytest.raises(HandlerFailed):
            await counter.add_and_raise()

        assert (await box.look(), await counter.total()) == (["x"], 1)
        assert (await box.snapshot())["counts"] == {"x": 1}
        assert await box.put("z") == 2
        assert await counter.add(1) == 2


async def test_a_handler_that_puts_something_else_in_place_of_the_state_and_raises_leaves_nothing() -> None:
    async with running() as (_, client):
        counter = client.ref(Counter, "a")
        await counter.add(5)

        with pytest.raises(HandlerFailed):
            await counter.replace_and_raise()

        assert await counter.total() == 5


async def test_a_transient_handler_that_raises_leaves_nothing() -> None:
    async with running() as (_, client):
        lamp = client.ref(Lamp, "a")
        await lamp.put("x")

        with pytest.raises(HandlerFailed):
            await lamp.put_and_raise("y")

        assert await lamp.look() in ([], ["x"]), "its rules may restart it, which is what transient means"


@pytest.mark.parametrize("cls", [Diary, Box])
async def test_a_rejection_leaves_nothing_but_itself(cls: Any) -> None:  # noqa: ANN401 - two classes of one shape
    async with running() as (platform, client):
        thing = client.ref(cls, "a")
        one, no, read = (
            (thing.write, thing.write_and_reject, thing.read)
            if cls is Diary
            else (thing.put, thing.put_and_reject, thing.look)
        )
        await one("one")

        for _ in range(7):  # past the next snapshots: none of them may hold what was rejected
            with pytest.raises(Rejected):
                await no("no")

        assert await read() == ["one"]
        await platform.crash("host-1")
        assert await read() == ["one"]
        assert await one("two") == 2


async def test_an_apply_that_raises_fails_the_handler_even_if_it_catches_that() -> None:
    async with running() as (platform, client):
        diary = client.ref(Diary, "a")
        await diary.write("one")

        with pytest.raises(HandlerFailed):
            await diary.write_and_swallow("unspeakable")

        assert RUNS == ["swallowed"]
        assert await diary.read() == ["one"]
        await platform.crash("host-1")
        assert await diary.read() == ["one"]


async def test_a_wrong_argument_never_reaches_the_handler() -> None:
    async with running() as (_, client):
        till = client.ref(Till, "a")

        with pytest.raises(InvalidArgument, match="amount: Input should be a valid integer"):
            await till.add("much")  # type: ignore[arg-type]

        assert (await till.total(), await till.history()) == (0, [])


async def test_a_state_that_could_not_be_read_back_is_never_acknowledged() -> None:
    async with running() as (platform, client):
        meter, counter = client.ref(Meter, "a"), client.ref(Counter, "a")
        await meter.double()
        await counter.replace(7)

        with pytest.raises(HandlerFailed, match="level"):
            await meter.overflow()
        for wrong in ("many", None, [1]):
            with pytest.raises(HandlerFailed):
                await counter.set_to(wrong)

        assert (await meter.level(), await counter.total()) == (1e300, 7)
        await platform.crash("host-1")
        assert (await meter.level(), await counter.total()) == (1e300, 7)


async def test_a_handler_that_leaves_the_process_fails_alone() -> None:
    async with running() as (_, client):
        neighbour = client.ref(Counter, "a")
        await neighbour.add(1)

        with pytest.raises(HandlerFailed, match="SystemExit"):
            await client.ref(Fragile, "a").leave_the_process()
        GATES["exit"].set()
        with pytest.raises(HandlerFailed, match=r"sys\.exit"):
            await client.ref(Fragile, "b").leave_the_process_later("exit")

        assert await neighbour.add(1) == 2


# -- what is visible when ----------------------------------------------------------------------------


async def test_neither_a_reply_nor_a_query_shows_what_is_not_committed() -> None:
    store = FaultyStore()
    async with running(store) as (_, client):
        till = client.ref(Till, "a")
        await till.add(1)
        store.hold()

        asked = [asyncio.create_task(call) for call in (till.add(1), till.total(), till.snapshot())]
        await until(lambda: store.waiting)
        await turns(50)
        assert not any(task.done() for task in asked)

        store.let_go()
        assert await asyncio.gather(*asked) == [2, 2, {"total": 2}]


async def test_neither_a_rejection_nor_a_failure_leaves_before_what_it_could_have_seen_is_committed() -> None:
    store = FaultyStore()
    async with running(store) as (_, client):
        till = client.ref(Till, "a")
        await till.add(1)
        store.hold()

        asked = [asyncio.create_task(call) for call in (till.add(1), till.add_and_reject(), till.add_and_raise())]
        await until(lambda: store.waiting)
        await turns(50)
        assert not any(task.done() for task in asked)

        store.let_go()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert (results[0], type(results[1]), type(results[2])) == (2, Rejected, HandlerFailed)


async def test_commands_run_on_while_the_commit_before_them_is_written_and_share_the_next() -> None:
    store = FaultyStore()
    async with running(store) as (_, client):
        till = client.ref(Till, "a")
        await till.add(0)
        store.hold()
        first = asyncio.create_task(till.add(1))
        await until(lambda: store.waiting)
        rest = [asyncio.create_task(till.add(1)) for _ in range(20)]
        await turns(50)
        written = len(store.appends)

        store.let_go()

        assert await asyncio.gather(first, *rest) == list(range(1, 22))
        assert len(store.appends) == written + 2, "one for the first, one for all that came meanwhile"


async def test_a_query_sees_every_command_acknowledged_before_it_was_sent() -> None:
    async with running(hosts=2) as (platform, client):
        other = await platform.client().start()
        for number in range(1, 30):
            await client.ref(Till, "a").add(1)
            assert await other.ref(Till, "a").total() == number


async def test_a_query_that_waits_shows_no_half_of_a_command() -> None:
    async with running() as (_, client):
        till = client.ref(Till, "a")
        half = asyncio.create_task(till.add_then_wait("half", 5))
        await REACHED["half"].wait()
        seen = asyncio.create_task(till.total())
        await turns(50)
        assert not seen.done()

        GATES["half"].set()

        assert (await half, await seen) == (5, 5)


async def test_a_failed_commit_is_acknowledged_by_nobody_and_the_same_id_applies_it_once() -> None:
    store = FaultyStore()
    async with running(store) as (_, client):
        till = client.ref(Till, "a")
        await till.add(1)
        store.faults = [Fault.BEFORE_WRITE]

        assert await asyncio.gather(*(till.add(1) for _ in range(5))) == [2, 3, 4, 5, 6]
        assert client.retries > 0
        assert await till.total() == 6
        assert len(await till.history()) == 6


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("error", [TimeoutError, ValueError, OSError])
async def test_whatever_a_commit_fails_with_nothing_is_lost_or_doubled(fault: Fault, error: type[Exception]) -> None:
    store = FaultyStore()
    store.error = error
    async with running(store) as (_, client):
        till, box = client.ref(Till, "a"), client.ref(Box, "a")
        await till.add(1)
        store.faults = [fault, fault]

        assert [*await asyncio.gather(till.add(1), box.put("x"), till.add(1))] == [2, 1, 3]

        assert (await till.total(), await box.look()) == (3, ["x"])
        assert [event["seq"] for event in await till.history()] == [1, 2, 3]


async def test_after_a_commit_of_unknown_outcome_the_host_goes_on_under_a_new_incarnation() -> None:
    store = FaultyStore()
    async with running(store) as (platform, client):
        till = client.ref(Till, "a")
        await till.add(1)
        before = platform.hosts["host-1"].incarnation
        store.faults = [Fault.AFTER_WRITE]

        assert await till.add(1) == 2

        assert platform.hosts["host-1"].incarnation > before
        assert client.repeated == 1, "the reply was the recorded one"
        await until(lambda: list(platform.registry.current.hosts) == [platform.hosts["host-1"].incarnation])


# -- repeats -----------------------------------------------------------------------------------------


async def test_the_same_command_id_gets_the_first_reply_and_is_applied_once() -> None:
    async with running() as (_, client):
        till = client.ref(Till, "a")
        paid = till.with_options(command_id="pay-7")

        assert [await one.add(n) for one, n in ((paid, 5), (till, 1), (paid, 5))] == [5, 6, 5]
        assert await till.total() == 6


async def test_the_same_id_of_a_rejected_command_is_rejected_again_without_asking_the_handler() -> None:
    async with running() as (_, client):
        once = client.ref(Till, "a").with_options(command_id="no-1")

        for _ in range(2):
            with pytest.raises(Rejected, match="Not today") as caught:
                await once.add_and_reject()
            assert (caught.value.entity, caught.value.command_id) == ("till/a", "no-1")

        assert RUNS == ["add_and_reject"]


async def test_a_failed_command_is_not_remembered_and_may_be_tried_again() -> None:
    async with running() as (_, client):
        once = client.ref(Till, "a").with_options(command_id="try-1")
        with pytest.raises(HandlerFailed) as caught:
            await once.add_and_raise()
        assert caught.value.command_id == "try-1"

        assert await once.add(3) == 3


async def test_replies_and_rejections_are_remembered_across_crashes_of_the_host() -> None:
    async with running(hosts=2) as (platform, client):
        paid = client.ref(Till, "a").with_options(command_id="pay-7")
        refused = client.ref(Till, "a").with_options(command_id="no-1")
        assert await paid.add(5) == 5
        with pytest.raises(Rejected):
            await refused.add_and_reject()

        for _ in range(2):
            await platform.crash(host_of(platform, "till/a").name)
            assert await paid.add(5) == 5
            with pytest.raises(Rejected, match="Not today"):
                await refused.add_and_reject()

        assert await client.ref(Till, "a").total() == 5
        assert RUNS == ["add_and_reject"]


async def test_replies_are_remembered_across_a_restart_of_the_platform_on_sqlite(tmp_path: Path) -> None:
    for _ in range(3):
        async with running(SqliteStore(tmp_path / "things.db"), hosts=2) as (_, client):
            assert await client.ref(Till, "a").with_options(command_id="pay-7").add(5) == 5
            assert await client.ref(Box, "b").with_options(command_id="pay-7").put("x") == 1
            with pytest.raises(Rejected):
                await client.ref(Till, "a").with_options(command_id="no-1").add_and_reject()

    assert RUNS == ["add_and_reject"]


async def test_a_repeat_during_execution_joins_it() -> None:
    async with running() as (platform, client):
        other = await platform.client().start()
        first = asyncio.create_task(client.ref(Till, "a").with_options(command_id="pay-7").add_slowly("slow", 5))
        await REACHED["slow"].wait()
        second = asyncio.create_task(other.ref(Till, "a").with_options(command_id="pay-7").add_slowly("slow", 5))
        await turns(50)
        assert not second.done()

        GATES["slow"].set()

        assert (await first, await second) == (5, 5)
        assert await client.ref(Till, "a").total() == 5


async def test_the_same_id_at_two_entities_is_two_commands() -> None:
    async with running() as (_, client):
        for name in ("a", "b"):
            assert await client.ref(Till, name).with_options(command_id="pay-7").add(5) == 5


@pytest.mark.parametrize("crash", [False, True])
async def test_a_command_made_by_remora_before_all_that_is_remembered_is_too_old_and_never_applied_again(
    crash: bool,  # noqa: FBT001 - with and without
) -> None:
    clock = ManualClock()
    async with running(clock=clock, hosts=2) as (platform, client):
        till = client.ref(Till, "a")
        old = client.ids.next()
        assert await till.with_options(command_id=old).add(1) == 1
        clock.advance(1.0)
        for _ in range(Till.options.dedup_window):
            await till.add(1)
        if crash:
            await platform.crash(host_of(platform, "till/a").name)

        with pytest.raises(TooOld, match="not known"):
            await till.with_options(command_id=old).add(1)

        assert await till.total() == Till.options.dedup_window + 1


async def test_a_repeat_within_the_window_is_known_whatever_its_age() -> None:
    clock = ManualClock()
    async with running(clock=clock) as (platform, client):
        till = client.ref(Till, "a")
        old = client.ids.next()
        assert await till.with_options(command_id=old).add(1) == 1
        for _ in range(Till.options.dedup_window - 1):
            await till.add(1)
        clock.advance(5 * 86_400.0)

        for _ in range(2):
            assert await till.with_options(command_id=old).add(1) == 1
            await platform.crash("host-1")


async def test_a_command_that_is_sent_for_the_first_time_is_never_too_old_however_long_it_waited() -> None:
    async with running(app=App("busy", entities=[Till], settings=things.SETTINGS)) as (_, client):
        till = client.ref(Till, "a")

        replies = await asyncio.gather(*(till.add(1) for _ in range(40 * Till.options.dedup_window)))

        assert replies == list(range(1, 40 * Till.options.dedup_window + 1))


@pytest.mark.parametrize("bad", ["", "a>b", "\ud800", "x" * 300, "a\nb"])
async def test_a_command_id_that_cannot_be_one_is_refused(bad: str) -> None:
    async with running() as (_, client):
        with pytest.raises(InvalidId):
            await client.ref(Till, "a").with_options(command_id=bad).add(1)


# -- order -------------------------------------------------------------------------------------------


async def test_pipelined_commands_of_one_client_are_applied_in_the_order_sent() -> None:
    async with running(hosts=2) as (_, client):
        refs = [client.ref(Box, name) for name in "abc"]

        await asyncio.gather(*(refs[n % 3].put(str(n)) for n in range(300)))

        for place, ref in enumerate(refs):
            assert await ref.look() == [str(n) for n in range(300) if n % 3 == place]


async def test_their_order_is_kept_when_the_mailbox_is_too_small_for_them() -> None:
    async with running() as (_, client):
        crowded = client.ref(Crowded, "a")
        GATES["slow"].set()

        await asyncio.gather(*(crowded.put_slowly(str(n), "slow") if n % 3 else crowded.put(str(n)) for n in range(60)))

        assert client.retries > 0
        assert await crowded.look() == [str(n) for n in range(60)]


async def test_their_order_is_kept_when_the_shard_moves_under_them() -> None:
    async with running(hosts=1) as (platform, client):
        box = client.ref(Box, "a")
        await box.put("0")
        asked = [asyncio.create_task(box.put(str(n))) for n in range(1, 100)]
        await turns(3)

        registry, source = platform.registry, platform.hosts["host-1"]
        await platform.add_host()
        target = next(n for n, row in registry.current.hosts.items() if row.name == "host-2")
        shard = source.shard_name("box/a")
        moving = asyncio.create_task(registry.move({shard: Move(source.incarnation, target)}))
        asked += [asyncio.create_task(box.put(str(n))) for n in range(100, 200)]
        await moving
        asked += [asyncio.create_task(box.put(str(n))) for n in range(200, 250)]

        await asyncio.gather(*asked)
        assert registry.current.shards[shard].owner == target
        assert await box.look() == [str(n) for n in range(250)]


@pytest.mark.parametrize("fault", list(Fault))
async def test_their_order_is_kept_when_a_commit_fails_and_later_ones_arrive_meanwhile(fault: Fault) -> None:
    store = FaultyStore()
    async with running(store) as (_, client):
        box = client.ref(Box, "a")
        await box.put("0")
        asked = []
        store.hold()
        for n in range(1, 60):
            asked.append(asyncio.create_task(box.put(str(n))))
            if n % 10 == 0:
                await turns(10)
                store.faults = [fault]
                store.let_go()
                await turns(2)
            asked[-1].add_done_callback(lambda _: None)

        await asyncio.gather(*asked)

        assert await box.look() == [str(n) for n in range(60)]


async def test_their_order_is_kept_when_a_waiting_one_is_cut_off_by_a_restart_of_the_shard() -> None:
    app = App("one", entities=[Crowded, Alarmist], settings=remora.Settings(shards=1))
    async with running(app=app) as (_, client):
        crowded = client.ref(Crowded, "a")
        await crowded.put("0")
        asked = [asyncio.create_task(crowded.put_slowly("1", "slow")), asyncio.create_task(crowded.put("2"))]
        await REACHED["slow"].wait()
        await turns(20)

        with pytest.raises(HandlerFailed):
            await client.ref(Alarmist, "x").fail()
        GATES["slow"].set()

        await asyncio.gather(*asked)
        assert await crowded.look() == ["0", "1", "2"]


async def test_their_order_is_kept_when_a_host_is_lost() -> None:
    async with running(hosts=2) as (platform, client):
        box = client.ref(Box, "a")
        asked = []
        for n in range(120):
            asked.append(asyncio.create_task(box.put(str(n))))
            if n % 40 == 20:
                await turns(4)
                await platform.crash(host_of(platform, "box/a").name)

        await asyncio.gather(*asked)

        assert await box.look() == [str(n) for n in range(120)]


async def test_a_caller_that_gives_up_does_not_hold_up_the_commands_behind_it() -> None:
    async with running() as (_, client):
        crowded = client.ref(Crowded, "a")
        first = asyncio.create_task(crowded.put_slowly("1", "slow"))
        await REACHED["slow"].wait()
        second = asyncio.create_task(crowded.put("2"))
        third = asyncio.create_task(crowded.put("3"))
        fourth = asyncio.create_task(crowded.put("4"))
        await turns(20)
        second.cancel()
        fourth.cancel()

        GATES["slow"].set()

        await first
        await third
        assert [item for item in await crowded.look() if item in "13"] == ["1", "3"]


# -- deadlines and bounds ----------------------------------------------------------------------------


async def test_a_handler_that_never_ends_is_bounded_by_the_deadline_and_leaves_no_effect() -> None:
    async with running() as (_, client):
        restless = client.ref(Restless, "a")

        with pytest.raises(DeadlineExceeded, match="restless/a") as caught:
            await restless.with_options(command_id="n-1", deadline_s=0.05).never()

        assert caught.value.command_id == "n-1"
        assert await restless.look() == []
        assert await restless.put("x") == 1


async def test_a_handler_that_ignores_its_deadline_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "GRACE_S", 0.01)
    async with running() as (_, client):
        restless = client.ref(Restless, "a")
        leftover = set(asyncio.all_tasks())

        with pytest.raises(DeadlineExceeded):
            await restless.with_options(deadline_s=0.05).stubborn()

        assert await restless.put("x") == 1
        assert await restless.look() == ["x"]
        assert "ignored" in RUNS
        for task in set(asyncio.all_tasks()) - leftover:
            if task.get_name() == "restless/a.stubborn":
                task.get_coro().close()


async def test_a_command_that_was_not_begun_before_its_deadline_is_not_applied() -> None:
    async with running() as (_, client):
        till, clock = client.ref(Till, "a"), SystemClock()
        slow = asyncio.create_task(till.add_slowly("slow"))
        await REACHED["slow"].wait()
        began_s = clock.monotonic_s()

        with pytest.raises(DeadlineExceeded) as caught:
            await till.with_options(deadline_s=0.05, command_id="late").add(100)
        await until(lambda: clock.monotonic_s() > began_s + 0.3)  # the host counts from when it took the command
        GATES["slow"].set()
        await slow

        assert caught.value.command_id == "late"
        assert await till.total() == 1
        assert await till.with_options(command_id="late").add(100) == 101, "asking again is safe"


@pytest.mark.parametrize("deadline_s", [0, -1, float("nan"), 100_000])
async def test_a_deadline_that_makes_no_sense_is_refused(deadline_s: float) -> None:
    async with running() as (_, client):
        with pytest.raises(InvalidArgument, match="deadline_s must be above 0"):
            client.ref(Till, "a").with_options(deadline_s=deadline_s)


async def test_a_full_mailbox_refuses_with_a_time_to_come_back() -> None:
    async with running() as (platform, client):
        others = [await platform.client().start() for _ in range(4)]
        slow = asyncio.create_task(client.ref(Crowded, "a").put_slowly("1", "slow"))
        await REACHED["slow"].wait()
        waiting = [asyncio.create_task(other.ref(Crowded, "a").put("2")) for other in others[:2]]
        await turns(20)

        # What the host answers, and what the caller sees when it has asked again until its deadline.
        answers = Answers()
        ask = Ask(1, "crowded", "a", "put", b'{"item":"no"}', "over", 5.0, "", 0, 0, (), 0)
        platform.hosts["host-1"].dispatch(ask, answers, float("inf"))
        refusal = decode_error(answers.payloads[0])
        assert isinstance(refusal, Overloaded)
        assert refusal.retry_after_s > 0
        with pytest.raises(
            (Overloaded, DeadlineExceeded), match="crowded/a has 2 commands waiting, its bound"
        ) as caught:
            await others[2].ref(Crowded, "a").with_options(deadline_s=0.3, command_id="over").put("no")

        assert caught.value.command_id == "over"
        GATES["slow"].set()
        await asyncio.gather(slow, *waiting)
        assert "no" not in await client.ref(Crowded, "a").look()


async def test_a_failing_command_that_is_sent_again_while_it_waits_fails_once() -> None:
    async with running() as (platform, client):
        slow = asyncio.create_task(client.ref(Till, "a").add_slowly("slow"))
        await REACHED["slow"].wait()
        host, sink = platform.hosts["host-1"], Answers()

        def ask(n: int, seq: int, method: str) -> Ask:
            return Ask(n, "till", "a", method, b"{}", f"own-{seq}", 60.0, "lane", seq, seq - 1, (), 0)

        for n in (1, 2, 3):  # the same command, its answer given up on twice
            host.dispatch(ask(n, 1, "add_and_raise"), sink, float("inf"))
        host.dispatch(ask(4, 2, "add_and_reject"), sink, float("inf"))
        assert [item[0].n for item in host.cells["till/a"].mailbox] == [3, 4], "it waits once, in its old place"
        assert [decode_error(payload).code for payload in sink.payloads] == ["out_of_order", "out_of_order"]

        GATES["slow"].set()
        await slow
        await until(lambda: len(sink.payloads) == 4)

        assert [decode_error(payload).code for payload in sink.payloads[2:]] == ["handler_failed", "rejected"]
        assert RUNS == ["add_and_raise", "add_and_reject"]


async def test_a_client_with_too_much_under_way_refuses_more() -> None:
    app = App("things", entities=[Till], settings=remora.Settings(shards=8, in_flight_max=3))
    async with running(app=app) as (_, client):
        asked = [asyncio.create_task(client.ref(Till, "a").add_slowly("slow")) for _ in range(3)]
        await REACHED["slow"].wait()

        with pytest.raises(Overloaded, match="3 commands under way, its bound"):
            await client.ref(Till, "b").add(1)

        GATES["slow"].set()
        await asyncio.gather(*asked)
        assert await client.ref(Till, "b").add(1) == 1


async def test_payloads_over_the_bound_are_refused_and_leave_nothing() -> None:
    app = App("things", entities=[Till, Diary, Box, Lamp], settings=remora.Settings(shards=8, payload_bytes_max=200))
    async with running(app=app) as (_, client):
        diary, box = client.ref(Diary, "a"), client.ref(Box, "a")

        with pytest.raises(PayloadTooLarge, match="bytes of arguments, 200 are allowed"):
            await diary.write("x" * 200)
        await box.put("x" * 80)
        with pytest.raises(PayloadTooLarge, match=r"The state of box/a has .* 200 are allowed"):
            await box.put("y" * 80)
        for _ in range(2):
            await diary.write("z" * 90)
        await diary.write("z" * 20)
        with pytest.raises(PayloadTooLarge, match="The reply has"):
            await diary.read()

        assert await box.look() == ["x" * 80]
        assert await client.ref(Till, "a").add(1) == 1


# -- unknown things ----------------------------------------------------------------------------------


class Stranger(remora.Durable[things.Flat]):
    @remora.command
    async def wave(self) -> None: ...


async def test_an_entity_type_that_the_app_does_not_have_is_unknown() -> None:
    async with running() as (_, client):
        with pytest.raises(UnknownEntity, match="'stranger'"):
            await client.ref(Stranger, "a").wave()


async def test_a_reference_has_its_commands_and_queries_and_nothing_else() -> None:
    async with running() as (_, client):
        till = client.ref(Till, "a")

        for name in ("state", "emit", "apply", "nothing", "_turn"):
            with pytest.raises(AttributeError, match="A reference to Till has add,"):
                getattr(till, name)
        assert till.id == "a"
        assert repr(till) == "<ref till/a>"


async def test_a_command_that_a_host_does_not_know_is_unknown() -> None:
    async with running() as (_, client):
        with pytest.raises(UnknownCommand):
            await client.call(Till.__remora__, Stranger.__remora__.handler("wave"), "a", b"{}")


async def test_only_event_sourced_entities_have_a_history() -> None:
    async with running() as (_, client):
        with pytest.raises(UnknownCommand, match="Box is durable"):
            await client.ref(Box, "a").history()


async def test_history_numbers_events_and_pages() -> None:
    async with running() as (_, client):
        till = client.ref(Till, "a")
        await till.with_options(command_id="one").add_twice(1)
        await till.add(2)
        await till.add_twice(3)

        history = await till.history()
        assert [(e["seq"], e["event"], e["data"]["amount"]) for e in history] == [
            (n, "Added", amount) for n, amount in enumerate([1, 1, 2, 3, 3], 1)
        ]
        assert history[0]["command_id"] == history[1]["command_id"] == "one"
        assert [e["seq"] for e in await till.history(after=1, limit=3)] == [2, 3, 4]
        for wrong in ({"after": -1}, {"limit": 0}, {"limit": 1001}):
            with pytest.raises(InvalidArgument):
                await till.history(**wrong)


@pytest.mark.parametrize("bad", ["", "a/b", "a\0", "\ud800", "x" * 513])
async def test_an_id_that_cannot_be_one_is_refused_before_anything_is_sent(bad: str) -> None:
    async with running() as (_, client):
        with pytest.raises(InvalidId):
            client.ref(Till, bad)


@pytest.mark.parametrize("name", ["日本", "😀", "a b", "a>b", "..a", "%", "'\""])
async def test_ids_of_any_alphabet_work_and_survive_a_crash(name: str, tmp_path: Path) -> None:
    async with running(SqliteStore(tmp_path / "things.db")) as (platform, client):
        assert await client.ref(Till, name).add(3) == 3
        await platform.crash("host-1")
        assert await client.ref(Till, name).total() == 3


# -- supervision -------------------------------------------------------------------------------------


async def test_a_stopped_entity_answers_that_and_why_and_its_neighbours_go_on() -> None:
    async with running() as (_, client):
        fragile = client.ref(Fragile, "a")
        await fragile.add()
        with pytest.raises(HandlerFailed):
            await fragile.fail()

        with pytest.raises(Stopped, match="Boom"):
            await fragile.add()

        assert "Boom" in (await fragile.why()).reason
        assert await client.ref(Fragile, "b").add() == 1


async def test_escalation_restarts_every_entity_of_the_shard_and_loses_nothing() -> None:
    app = App("one", entities=[Till, Lamp, Alarmist], settings=remora.Settings(shards=1))
    async with running(app=app) as (_, client):
        await client.ref(Till, "a").add(2)
        await client.ref(Lamp, "a").put("x")

        with pytest.raises(HandlerFailed):
            await client.ref(Alarmist, "a").fail()

        assert await client.ref(Till, "a").add(1) == 3
        assert await client.ref(Lamp, "a").look() == []


async def test_an_escalation_while_a_neighbour_recovers_does_not_make_it_recover_too_early() -> None:
    app = App("one", entities=[Diary, Alarmist], settings=remora.Settings(shards=1))
    store = FaultyStore()
    async with running(store, app=app) as (platform, client):
        for n in range(3):
            await client.ref(Diary, "a").write(str(n))
        await platform.crash("host-1")
        asked = [
            asyncio.create_task(call)
            for call in (
                client.ref(Alarmist, "x").fail(),
                client.ref(Diary, "a").write("3"),
                client.ref(Diary, "a").write_and_reject("no"),
                client.ref(Diary, "a").write("4"),
                client.ref(Alarmist, "x").fail(),
            )
        ]

        await asyncio.gather(*asked, return_exceptions=True)

        assert await client.ref(Diary, "a").read() == ["0", "1", "2", "3", "4"]


# -- life in memory ----------------------------------------------------------------------------------


async def test_an_idle_entity_leaves_memory_and_comes_back_as_it_was() -> None:
    clock = ManualClock()
    async with running(clock=clock) as (platform, client):
        restless, lamp = client.ref(Restless, "a"), client.ref(Lamp, "a")
        await restless.put("x")
        await lamp.put("y")
        host = platform.hosts["host-1"]
        clock.advance(59.0)
        host.passivation.round()
        assert set(host.cells) == {"restless/a", "lamp/a"}

        clock.advance(2.0)
        host.passivation.round()

        assert not host.cells
        await until(lambda: host.may_answer(clock.monotonic_s()))
        assert (await restless.why()).state == "passive"
        assert await restless.look() == ["x"]
        assert await lamp.look() == [], "transient: memory only"


async def test_an_entity_that_asks_for_it_leaves_memory_at_once_and_comes_back_as_it_was() -> None:
    async with running() as (platform, client):
        till = client.ref(Till, "a")
        await till.add(4)
        await till.leave()

        platform.hosts["host-1"].passivation.round()

        assert not platform.hosts["host-1"].cells
        assert await till.total() == 4


async def test_an_entity_does_not_leave_memory_while_it_works_or_its_commit_is_open() -> None:
    clock, store = ManualClock(), FaultyStore()
    async with running(store, clock=clock) as (platform, client):
        host = platform.hosts["host-1"]
        slow = asyncio.create_task(client.ref(Till, "a").with_options(deadline_s=500).add_slowly("slow"))
        await REACHED["slow"].wait()
        clock.advance(200.0)
        host.passivation.round()
        assert set(host.cells) == {"till/a"}

        store.hold()
        GATES["slow"].set()
        await until(lambda: store.waiting)
        clock.advance(200.0)
        host.passivation.round()
        assert set(host.cells) == {"till/a"}

        store.let_go()
        assert await slow == 1


async def test_every_kind_of_entity_gives_back_what_its_kind_promises_after_a_crash() -> None:
    async with running(hosts=2) as (platform, client):
        for n in range(12):
            await client.ref(Till, "a").add(1)
            await client.ref(Diary, "a").write(str(n))
            await client.ref(Box, "a").put(str(n))
            await client.ref(Counter, "a").add(2)
            await client.ref(Lamp, "a").put(str(n))
        for name in list(platform.hosts):
            await platform.crash(name)

        assert await client.ref(Till, "a").total() == 12
        assert await client.ref(Diary, "a").read() == [str(n) for n in range(12)]
        assert await client.ref(Box, "a").look() == [str(n) for n in range(12)]
        assert await client.ref(Counter, "a").total() == 24
        assert await client.ref(Lamp, "a").look() == []


async def test_what_cannot_be_read_stops_that_entity_alone_and_says_so() -> None:
    store = FaultyStore()
    async with running(store) as (platform, client):
        await client.ref(Till, "a").add(1)
        await client.ref(Till, "b").add(1)
        entries = store.inner._entries  # type: ignore[attr-defined]  # the memory store's
        row = entries["till/a"][1]
        entries["till/a"][1] = (*row[:3], b'[["Gone",{}]]', *row[4:])
        await platform.crash("host-1")

        with pytest.raises(remora.Corrupt, match="'Gone', which Till does not declare"):
            await client.ref(Till, "a").total()

        assert await client.ref(Till, "b").total() == 1
