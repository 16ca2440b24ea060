"""Durable sends: they leave with their command's commit, arrive once and in order, whatever is lost on the way."""

# ruff: noqa: SLF001 - rows are spoilt by hand

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import remora
from remora import App, Client, HandlerFailed, InvalidId, Rejected
from remora.local import LocalPlatform
from remora.runtime import registry_status
from remora.storage.sqlite import SqliteStore
from remora.testing import Fault, FaultyStore
from tests import flows, platforms, things
from tests.clock import turns, until
from tests.flows import Listener, Relay, Teller
from tests.platforms import host_of, move
from tests.things import GATES, REACHED, RUNS


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


def running(
    store: Any = None,  # noqa: ANN401 - any store
    *,
    hosts: int = 1,
    app: App = flows.app,
) -> AbstractAsyncContextManager[tuple[LocalPlatform, Client]]:
    return platforms.running(app, store, hosts=hosts)


async def outbox_is_empty(platform: LocalPlatform, parked: int = 0) -> None:
    """Wait until every send is delivered, or parked."""
    async with asyncio.timeout(10):
        while await platform.store.outbox_counts() != (0, parked):
            await turns(5)


async def test_a_send_arrives_once_after_its_command_was_acknowledged() -> None:
    async with running(hosts=2) as (platform, client):
        assert await client.ref(Teller, "t").tell(["a", "b"], "hello") == 1

        await outbox_is_empty(platform)

        for name in "ab":
            assert await client.ref(Listener, name).heard() == ["hello"]


async def test_nothing_is_sent_before_the_command_is_committed() -> None:
    store = FaultyStore()
    async with running(store) as (platform, client):
        await client.ref(Listener, "a").hear("first")
        store.hold()
        told = asyncio.create_task(client.ref(Teller, "t").tell(["a"], "hello"))
        await until(lambda: store.waiting)
        await turns(50)
        assert platform.hosts["host-1"].cells["listener/a"].n == 1

        store.let_go()
        await told
        await outbox_is_empty(platform)
        assert await client.ref(Listener, "a").heard() == ["first", "hello"]


async def test_a_command_that_fails_or_is_rejected_sends_nothing() -> None:
    async with running() as (platform, client):
        teller = client.ref(Teller, "t")
        with pytest.raises(HandlerFailed):
            await teller.tell_and_raise("a", "failed")
        with pytest.raises(Rejected):
            await teller.tell_and_reject("a", "rejected")

        await teller.tell(["a"], "sent")
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == ["sent"]


async def test_a_command_whose_commit_failed_sends_once_when_it_is_applied() -> None:
    store = FaultyStore()
    async with running(store) as (platform, client):
        store.faults = [Fault.BEFORE_WRITE]
        assert await client.ref(Teller, "t").tell(["a"], "hello") == 1
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == ["hello"]


async def test_sends_of_a_commit_of_unknown_outcome_are_delivered() -> None:
    store = FaultyStore()
    async with running(store) as (platform, client):
        store.faults = [Fault.AFTER_WRITE]
        assert await client.ref(Teller, "t").tell(["a"], "one") == 1
        assert await client.ref(Teller, "t").tell(["a"], "two") == 2
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == ["one", "two"]


async def test_the_outbox_empties_also_when_the_commit_that_notes_a_delivery_fails() -> None:
    store = FaultyStore()
    failed: list[Any] = []

    def fail_first_note(append: Any) -> Fault | None:  # noqa: ANN401 - an Append
        if append.delivered and not failed:
            failed.append(append)
            return Fault.BEFORE_WRITE
        return None

    store.decide = fail_first_note
    async with running(store) as (platform, client):
        await client.ref(Teller, "t").tell(["a"], "one")
        await outbox_is_empty(platform)

        assert failed
        assert await client.ref(Listener, "a").heard() == ["one"]


async def test_sends_of_one_sender_to_one_receiver_arrive_in_order() -> None:
    async with running(hosts=3) as (platform, client):
        await asyncio.gather(*(client.ref(Teller, f"t{n % 2}").tell(["a", "b"], f"{n}") for n in range(200)))
        await outbox_is_empty(platform)

        for name in "ab":
            heard = await client.ref(Listener, name).heard()
            assert len(heard) == 200
            for sender in (0, 1):
                mine = [int(text) for text in heard if int(text) % 2 == sender]
                assert mine == sorted(mine)


async def test_sends_survive_the_loss_of_the_senders_host_and_of_the_receivers() -> None:
    async with running(hosts=3) as (platform, client):
        asked = []
        for n in range(120):
            asked.append(asyncio.create_task(client.ref(Teller, "t").tell(["a", "b"], f"{n:03d}")))
            if n % 30 == 15:
                await turns(6)
                await platform.crash(host_of(platform, ["teller/t", "listener/a"][n // 30 % 2]).name)
        await asyncio.gather(*asked)
        await outbox_is_empty(platform)

        for name in "ab":
            assert await client.ref(Listener, name).heard() == [f"{n:03d}" for n in range(120)]


async def test_sends_are_delivered_in_order_when_shards_of_sender_and_receiver_move_to_and_fro() -> None:
    async with running(hosts=3) as (platform, client):
        asked = []
        for n in range(150):
            asked.append(asyncio.create_task(client.ref(Teller, "t").tell(["a"], f"{n:03d}")))
            if n % 15 == 7:
                await turns(3)
                await move(platform, ["teller/t", "listener/a"][n // 15 % 2])
        await asyncio.gather(*asked)
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == [f"{n:03d}" for n in range(150)]


async def test_sends_left_behind_are_delivered_by_the_next_platform_on_the_same_store(tmp_path: Path) -> None:
    async with running(SqliteStore(tmp_path / "flows.db")) as (_, client):
        await client.ref(Listener, "a").hear("first")
        slow = asyncio.create_task(client.ref(Listener, "a").hear("wait"))
        await REACHED["wait"].wait()
        for text in ("one", "two"):
            await client.ref(Teller, "t").tell(["a"], text)
        slow.cancel()

    async with running(SqliteStore(tmp_path / "flows.db"), hosts=2) as (platform, client):
        await outbox_is_empty(platform)
        assert await client.ref(Listener, "a").heard() == ["first", "one", "two"]


async def test_a_receivers_business_no_is_an_answer() -> None:
    async with running() as (platform, client):
        for text in ("one", "no, never", "two"):
            await client.ref(Teller, "t").tell(["a"], text)
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == ["one", "two"]


async def test_a_receiver_that_fails_for_a_while_gets_the_send_again_and_those_behind_it_wait() -> None:
    async with running() as (platform, client):
        for text in ("bad one", "two"):
            await client.ref(Teller, "t").tell(["a"], text)
        await until(lambda: len(RUNS) >= 2)
        assert await client.ref(Listener, "a").heard() == []
        GATES["mend"].set()
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == ["bad one", "two"]


async def test_a_send_that_keeps_failing_is_parked_after_ten_tries_and_those_behind_it_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("remora.client.RESEND_MAX_S", 0.005)
    async with running() as (platform, client):
        for text in ("bad one", "two"):
            await client.ref(Teller, "t").tell(["a"], text)
        await outbox_is_empty(platform, parked=1)

        assert len(RUNS) == 10
        assert await client.ref(Listener, "a").heard() == ["two"]


async def test_parked_sends_are_listed_with_what_was_to_be_sent_and_delivered_once_when_they_are_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("remora.client.RESEND_MAX_S", 0.005)
    async with running(hosts=2) as (platform, client):
        teller = client.ref(Teller, "t")
        await teller.tell(["a", "b", "c"], "bad one")
        await teller.tell(["a"], "two")
        await outbox_is_empty(platform, parked=1)
        status = await registry_status.status(platform.registry)
        assert [(row["entity"], [send[1] for send in row["sends"]]) for row in status["parked"]] == [
            ("teller/t", ["a", "b", "c"])
        ]
        assert "listener/" in status["parked"][0]["reason"]

        GATES["mend"].set()
        await platform.crash(host_of(platform, "teller/t").name)
        first, second = await asyncio.gather(teller.release_sends(), teller.release_sends())
        await outbox_is_empty(platform)

        assert sorted((first, second)) == [0, 3]
        assert await client.ref(Listener, "a").heard() == ["two", "bad one"]
        assert await client.ref(Listener, "b").heard() == ["bad one"]
        assert await teller.release_sends() == 0


async def test_sends_that_cannot_be_read_are_parked_and_hold_up_nobody() -> None:
    async with running(hosts=2) as (platform, client):
        store: Any = platform.store
        store.hold()
        telling = [asyncio.ensure_future(client.ref(Teller, name).tell(["a"], name)) for name in ("s", "t")]
        await until(lambda: store.waiting)
        for host in platform.hosts.values():
            host.outbox._begin = lambda *_: None  # type: ignore[method-assign]  # they stay in the store
        store.let_go()
        await asyncio.gather(*telling)
        (kept,) = [key for key in store.inner._outbox if key[0] == "teller/s"]
        row = store.inner._outbox[kept]
        store.inner._outbox[kept] = (*row[:3], b'[["listener"')
        for name in list(platform.hosts):
            await platform.crash(name)

        await outbox_is_empty(platform, parked=1)

        assert await client.ref(Listener, "a").heard() == ["t"]
        assert "cannot be read" in (await registry_status.status(platform.registry))["parked"][0]["reason"]
        assert await client.ref(Teller, "s").release_sends() == 0


async def test_only_the_sends_of_a_command_that_failed_are_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remora.client.RESEND_MAX_S", 0.005)
    async with running() as (platform, client):
        await client.ref(Teller, "t").pass_on("a", "r", "fine")
        await client.ref(Teller, "t").tell(["a"], "bad")
        await client.ref(Teller, "t").tell_some(["fine too", "bad as well", "and fine"])
        await outbox_is_empty(platform, parked=2)
        rows = await platform.store.parked(10, "teller/t")
        assert [row.n for row in rows] == [2, 3]
        assert "bad as well" in rows[1].sends
        assert "fine" not in rows[1].sends
        assert await platform.store.parked(10, "teller/other") == []

        GATES["mend"].set()
        assert await client.ref(Teller, "t").release_sends() == 2
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == ["fine", "fine too", "and fine", "bad", "bad as well"]


async def test_a_send_with_wrong_arguments_is_parked_at_once_with_its_reason(tmp_path: Path) -> None:
    class Teller(remora.Durable[flows.Said]):
        @remora.command
        async def tell(self) -> None:
            self.send(Listener.hear, "a", 5)  # type: ignore[arg-type]  # on purpose

    app = App("flows", entities=[Teller, Listener], settings=flows.SETTINGS)
    async with running(SqliteStore(tmp_path / "flows.db"), app=app) as (platform, client):
        await client.ref(Teller, "t").tell()
        await outbox_is_empty(platform, parked=1)

    with sqlite3.connect(tmp_path / "flows.db") as connection:
        (reason,) = connection.execute("SELECT parked FROM outbox").fetchone()
    connection.close()
    assert "listener/a.hear" in reason
    assert "valid string" in reason


async def test_a_send_to_a_type_that_the_app_does_not_have_is_parked_and_others_arrive() -> None:
    async with running() as (platform, client):
        await client.ref(Teller, "t").tell_somebody_unknown("hello")
        await client.ref(Teller, "t").tell(["a"], "two")
        await outbox_is_empty(platform, parked=1)

        assert await client.ref(Listener, "a").heard() == ["two"]


async def test_a_command_sends_255_messages_at_most() -> None:
    async with running() as (platform, client):
        with pytest.raises(HandlerFailed, match="at most 255 messages"):
            await client.ref(Teller, "t").tell_many(256)
        await client.ref(Teller, "t").tell_many(255)
        await outbox_is_empty(platform)

        assert await client.ref(Listener, "a").heard() == [str(n) for n in range(255)]


async def test_what_cannot_be_sent_fails_the_command() -> None:
    async with running() as (_, client):
        with pytest.raises(HandlerFailed, match=r"listener\.heard is a query"):
            await client.ref(Teller, "t").ask_a_query()
        with pytest.raises(HandlerFailed, match=InvalidId.__name__):
            await client.ref(Teller, "t").tell_badly("a/b")


async def test_a_call_within_a_command_that_was_sent_is_made_once_per_send() -> None:
    async with running(hosts=2) as (platform, client):
        for text in ("one", "two", "three"):
            await client.ref(Teller, "t").pass_on("a", "r", text)
        await client.ref(Teller, "u").pass_on("a", "r", "four")
        await outbox_is_empty(platform)
        for name in list(platform.hosts):
            await platform.crash(name)

        assert sorted(await client.ref(Listener, "a").heard()) == ["four", "one", "three", "two"]
        assert len(await client.ref(Relay, "r").relayed()) == 4


async def test_a_handler_of_a_send_that_never_ends_is_bounded_and_those_behind_it_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("remora.client.RESEND_MAX_S", 0.005)
    monkeypatch.setattr("remora.runtime.outbox.TRIES_MAX", 2)

    class Listener(remora.Durable[flows.Heard]):
        options = remora.EntityOptions(deadline_s=0.05)

        @remora.command
        async def hear(self, text: str) -> None:
            if text == "endless":
                await asyncio.Event().wait()
            self.state.items.append(text)

        @remora.query
        async def heard(self) -> list[str]:
            return self.state.items

    class Teller(remora.Durable[flows.Said]):
        @remora.command
        async def tell(self, text: str) -> None:
            self.send(Listener.hear, "a", text)

    app = App("flows", entities=[Teller, Listener], settings=flows.SETTINGS)
    async with running(app=app) as (platform, client):
        await client.ref(Teller, "t").tell("endless")
        await client.ref(Teller, "t").tell("two")
        await outbox_is_empty(platform, parked=1)

        assert await client.ref(Listener, "a").with_options(deadline_s=5).heard() == ["two"]


async def test_received_sends_take_places_in_the_window_and_what_they_pushed_out_is_too_old_after_a_crash() -> None:
    async with running(hosts=2) as (platform, client):
        listener = client.ref(Listener, "a")
        old, known = client.ids.next(), client.ids.next()
        assert await listener.with_options(command_id=old).hear("old") == 1
        assert await listener.with_options(command_id=known).hear("known") == 2
        for n in range(Listener.options.dedup_window - 1):
            await client.ref(Teller, "t").tell(["a"], str(n))
        await outbox_is_empty(platform)
        await platform.crash(host_of(platform, "listener/a").name)

        assert await listener.with_options(command_id=known).hear("known") == 2
        with pytest.raises(remora.TooOld):
            await listener.with_options(command_id=old).hear("old")
        assert len(await listener.heard()) == 2 + Listener.options.dedup_window - 1


async def test_a_sender_whose_id_looks_like_a_send_is_told_apart() -> None:
    async with running(hosts=2) as (platform, client):
        await client.ref(Teller, "x>5").tell(["a>7"], "one")
        await client.ref(Teller, "x").pass_on("a>7", "r>1", "two")
        await outbox_is_empty(platform)
        for name in list(platform.hosts):
            await platform.crash(name)

        assert await client.ref(Listener, "a>7").heard() == ["one", "two"]
        assert await client.ref(Relay, "r>1").relayed() == ["two"]


async def test_new_commands_wait_in_order_while_too_many_sends_are_undelivered_and_beyond_a_bound_are_refused() -> None:
    settings = remora.Settings(shards=8, outbox_rows_max=3, held_max=2)
    async with running(app=App("flows", entities=[Listener, Teller], settings=settings)) as (platform, client):
        slow = asyncio.create_task(client.ref(Listener, "a").hear("wait"))
        await REACHED["wait"].wait()
        for n in range(3):
            await client.ref(Teller, "t").tell(["a"], str(n))
        waiting = [asyncio.create_task(client.ref(Teller, "t").tell(["a"], str(n))) for n in (3, 4)]
        await turns(50)
        assert not any(task.done() for task in waiting)

        with pytest.raises((remora.Overloaded, remora.DeadlineExceeded), match="3 durable sends to deliver first"):
            await client.ref(Teller, "u").with_options(deadline_s=0.3).tell(["a"], "5")

        GATES["wait"].set()
        await slow
        assert await asyncio.gather(*waiting) == [4, 5]
        await outbox_is_empty(platform)
        assert await client.ref(Teller, "u").tell(["a"], "6") == 1
        assert (await client.ref(Listener, "a").heard())[:6] == ["wait", "0", "1", "2", "3", "4"]


async def test_a_full_outbox_does_not_hold_up_the_calls_that_its_receivers_wait_for() -> None:
    settings = remora.Settings(shards=8, outbox_rows_max=2)
    async with running(app=App("flows", entities=[Listener, Teller, Relay], settings=settings)) as (platform, client):
        await asyncio.gather(*(client.ref(Teller, f"t{n}").pass_on("a", "r", str(n)) for n in range(20)))
        await outbox_is_empty(platform)

        assert sorted(map(int, await client.ref(Listener, "a").heard())) == list(range(20))
