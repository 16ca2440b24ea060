"""Supervisors of an app's own: asked about failures in bounded time, told later of what they missed, watching entities."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import BaseModel, SecretStr, field_validator

from remora import (
    App,
    Backoff,
    Client,
    ContractError,
    Corrupt,
    Directive,
    Durable,
    Entity,
    EntityOptions,
    Failure,
    HandlerFailed,
    InvalidId,
    Overloaded,
    Settings,
    StartError,
    Stopped,
    Supervisor,
    Terminated,
    Unavailable,
    command,
    on,
    query,
)
from remora.journal import Store
from remora.local import LocalPlatform
from remora.runtime import advice
from remora.runtime import supervisor as runs
from remora.supervision.blame import Quarantine
from remora.testing import FaultyStore
from tests import platforms
from tests.clock import turns, until
from tests.platforms import host_of, move

NO_PASSWORD = SecretStr("")
Types = Sequence[type[Entity[Any]] | str]


class BoomError(Exception):
    """What the entities here fail with."""


class Count(BaseModel):
    n: int = 0


class Job(Durable[Count]):
    options = EntityOptions(supervision=(on(BoomError).restart(Backoff(min_s=0)),))

    @command
    async def add(self) -> int:
        self.state.n += 1
        return self.state.n

    @command
    async def fail(self, password: SecretStr = NO_PASSWORD) -> None:
        del password
        self.state.n += 100
        raise BoomError

    @query
    async def total(self) -> int:
        return self.state.n


class Other(Durable[Count]):
    """Has no supervisor."""

    options = EntityOptions(supervision=(on(BoomError).resume(),))

    @command
    async def add(self) -> int:
        self.state.n += 1
        return self.state.n

    @command
    async def fail(self) -> None:
        raise BoomError


class Foreman(Supervisor):
    """Does what the test says."""

    entities: ClassVar[Types] = (Job,)
    says: Callable[[Failure], Directive | None]
    seen: list[Failure]
    over: list[Terminated]
    gate: asyncio.Event | None
    begins: Callable[["Foreman"], None]

    async def started(self) -> None:
        type(self).begins(self)

    async def on_failure(self, failure: Failure) -> Directive | None:
        self.seen.append(failure)
        if self.gate is not None:
            await self.gate.wait()
        return type(self).says(failure)

    async def on_terminated(self, terminated: Terminated) -> None:
        self.over.append(terminated)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(runs, "TELL_S", 0.01)
    monkeypatch.setattr(runs, "WATCH_S", 0.01)
    Foreman.says = lambda _: None
    Foreman.begins = lambda _: None
    Foreman.seen, Foreman.over, Foreman.gate = [], [], None
    yield
    if Foreman.gate is not None:
        Foreman.gate.set()


def _app(ask_s: float = 5.0) -> App:
    settings = Settings(shards=1, supervisor_ask_s=ask_s)
    return App("works", entities=[Job, Other], settings=settings, supervisors=[Foreman])


@asynccontextmanager
async def working(
    *, ask_s: float = 5.0, hosts: int = 1, store: Store | FaultyStore | None = None
) -> AsyncIterator[tuple[LocalPlatform, Client]]:
    async with platforms.running(_app(ask_s), store, hosts=hosts) as running:
        yield running


async def fail(client: Client, name: str = "a") -> None:
    with pytest.raises(HandlerFailed):
        await client.ref(Job, name).fail()


def told(entity: str = "job/a") -> int:
    """Return how many failures of an entity the supervisor has heard of."""
    return sum(failure.times for failure in Foreman.seen if failure.entity == entity)


# -- asked -----------------------------------------------------------------------------------------


async def test_a_supervisor_that_says_resume_keeps_the_activation() -> None:
    Foreman.says = lambda _: Directive.RESUME
    async with working() as (platform, client):
        assert await client.ref(Job, "a").add() == 1
        before = platform.hosts["host-1"].cells["job/a"].entity

        await fail(client)

        assert await client.ref(Job, "a").add() == 2
        assert platform.hosts["host-1"].cells["job/a"].entity is before


async def test_a_supervisor_that_says_stop_stops_the_entity_and_nobody_else() -> None:
    Foreman.says = lambda _: Directive.STOP
    async with working() as (_, client):
        await fail(client)

        with pytest.raises(Stopped, match="BoomError"):
            await client.ref(Job, "a").add()
        assert await client.ref(Job, "b").add() == 1


async def test_a_supervisor_that_says_restart_gives_the_entity_a_new_activation_after_a_growing_pause() -> None:
    Foreman.says = lambda _: Directive.RESTART
    app = App("works", entities=[Other], settings=Settings(shards=1, supervisor_ask_s=5.0), supervisors=[All])
    async with platforms.running(app) as (platform, client):
        other = client.ref(Other, "a")
        for n in range(3):
            with pytest.raises(HandlerFailed):
                await other.fail()
            assert await other.add() == n + 1
        (uses,) = (platform.hosts["host-1"].cells["other/a"].history or {}).values()
        assert uses.streak == 3


async def test_a_supervisor_that_escalates_leaves_it_to_the_shard() -> None:
    Foreman.says = lambda _: Directive.ESCALATE
    async with working() as (platform, client):
        await client.ref(Other, "z").add()
        neighbour = platform.hosts["host-1"].cells["other/z"].entity

        await fail(client)

        assert await client.ref(Other, "z").add() == 2
        assert platform.hosts["host-1"].cells["other/z"].entity is not neighbour


async def test_where_a_supervisor_says_nothing_the_declared_rules_decide() -> None:
    async with working() as (platform, client):
        await client.ref(Job, "a").add()
        before = platform.hosts["host-1"].cells["job/a"].entity

        await fail(client)

        assert await client.ref(Job, "a").add() == 2
        assert platform.hosts["host-1"].cells["job/a"].entity is not before
        assert [failure.directive for failure in Foreman.seen] == [""]


async def test_a_failure_says_what_failed_where_with_what_and_hides_what_is_secret() -> None:
    async with working() as (platform, client):
        with pytest.raises(HandlerFailed):
            await client.ref(Job, "a").with_options(command_id="mine").fail(SecretStr("hunter2"))
        (failure,) = Foreman.seen

        host = platform.hosts["host-1"]
        assert (failure.entity, failure.command, failure.command_id) == ("job/a", "fail", "mine")
        assert failure.kind.endswith("BoomError")
        assert "raise BoomError" in failure.traceback
        assert (failure.host, failure.incarnation, failure.shard) == ("host-1", host.incarnation, "0")
        assert failure.path == "host-1/0/job/a"
        assert "hunter2" not in repr(failure)


async def test_while_its_supervisor_is_asked_an_entity_waits_and_its_neighbours_do_not() -> None:
    Foreman.gate = asyncio.Event()
    async with working() as (platform, client):
        await fail(client)
        waiting = asyncio.create_task(client.ref(Job, "a").add())
        assert await client.ref(Job, "b").add() == 1
        await turns()

        cell = platform.hosts["host-1"].cells["job/a"]
        assert not waiting.done()
        assert len(cell.mailbox) == 1

        Foreman.gate.set()
        assert await waiting == 1


async def test_failures_without_a_supervisor_ask_nobody() -> None:
    async with working() as (_, client):
        with pytest.raises(HandlerFailed):
            await client.ref(Other, "a").fail()
        assert await client.ref(Other, "a").add() == 1
        assert Foreman.seen == []


async def test_a_supervisor_that_fails_itself_leaves_it_to_the_declared_rules_and_goes_on() -> None:
    def fails(failure: Failure) -> Directive | None:
        raise BoomError(failure.entity)

    Foreman.says = fails
    async with working() as (_, client):
        await fail(client)
        assert await client.ref(Job, "a").add() == 1
        Foreman.says = lambda _: Directive.STOP
        await fail(client)
        with pytest.raises(Stopped):
            await client.ref(Job, "a").add()


async def test_a_supervisor_whose_own_work_was_cancelled_has_failed_and_goes_on() -> None:
    class Cancelled(Foreman):
        async def on_failure(self, failure: Failure) -> Directive | None:
            self.seen.append(failure)
            mine = asyncio.ensure_future(asyncio.Event().wait())
            mine.cancel()
            await mine
            return Directive.STOP

    app = App("works", entities=[Job], settings=Settings(shards=1), supervisors=[Cancelled])
    async with platforms.running(app) as (platform, client):
        await fail(client)
        assert await client.ref(Job, "a").add() == 1
        process = platform.supervisors.pop("cancelled")
        await fail(client)
        await fail(client, "b")
        platform.supervisors["cancelled"] = process
        await until(lambda: told("job/a") == 2 and told("job/b") == 1)


async def test_what_a_supervisor_returns_beside_directives_leaves_it_to_the_declared_rules() -> None:
    Foreman.says = lambda _: "stop"  # type: ignore[assignment, return-value]  # a mistake that users make
    async with working() as (_, client):
        await fail(client)
        assert await client.ref(Job, "a").add() == 1


# -- away, slow, too many -----------------------------------------------------------------------------


async def test_a_supervisor_that_is_slow_is_waited_for_in_bounded_time_and_told_later() -> None:
    Foreman.gate = asyncio.Event()
    Foreman.says = lambda _: Directive.STOP
    async with working(ask_s=0.05) as (_, client):
        await fail(client)
        assert await client.ref(Job, "a").add() == 1, "the declared rules have decided"
        Foreman.gate.set()
        await until(lambda: any(failure.directive for failure in Foreman.seen))

        assert [failure.directive for failure in Foreman.seen] == ["", "restart"]
        assert await client.ref(Job, "a").add() == 2, "what it says of what was decided has no effect"


async def test_a_supervisor_that_is_cut_short_says_so_and_is_not_taken_for_told() -> None:
    Foreman.gate = asyncio.Event()
    async with working(ask_s=0.05) as (platform, client):
        await fail(client)
        await until(lambda: Foreman.seen)
        with pytest.raises(Unavailable, match=r"foreman did not answer within 0\.05 s"):
            await platform.supervisors["foreman"].answer(msgspec.json.encode(Foreman.seen[0]))
        Foreman.gate.set()
        await until(lambda: any(failure.directive for failure in Foreman.seen))


async def test_a_supervisor_that_is_away_is_told_of_every_failure_when_it_is_back() -> None:
    async with working() as (platform, client):
        process = platform.supervisors.pop("foreman")
        await process.close()
        for _ in range(3):
            await fail(client)
        for name in ("b", "c"):
            await fail(client, name)
        await until(lambda: platform.hosts["host-1"].failures.noted)
        assert Foreman.seen == []

        await platform.start_supervisor(Foreman)
        await until(lambda: len(Foreman.seen) == 3)

        assert {failure.entity: failure.times for failure in Foreman.seen} == {"job/a": 3, "job/b": 1, "job/c": 1}
        assert {failure.directive for failure in Foreman.seen} == {"restart"}
        await turns()
        assert await platform.store.untold_failures(["job"], 10) == [], "each of them once"


async def test_one_that_did_not_answer_is_left_alone_for_a_while() -> None:
    async with working() as (platform, client):
        process = platform.supervisors.pop("foreman")
        for _ in range(5):
            await fail(client)
        assert platform.hosts["host-1"].failures.advice.unanswered == 1, "the others did not wait for it"
        platform.supervisors["foreman"] = process
        await until(lambda: told() == 5)


async def test_of_a_storm_a_supervisor_is_asked_about_a_bounded_number_and_told_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(advice, "ASKS_MAX", 3)
    Foreman.gate = asyncio.Event()
    async with working() as (platform, client):
        await asyncio.gather(*(fail(client, f"e{n}") for n in range(10)))
        assert len(platform.hosts["host-1"].failures.judging) == 3
        Foreman.gate.set()
        await until(lambda: len(Foreman.seen) == 10)
        assert sorted(failure.directive for failure in Foreman.seen) == [""] * 3 + ["restart"] * 7


async def test_what_it_is_told_while_the_store_is_away_is_told_when_the_store_is_back() -> None:
    store = FaultyStore()
    async with working(store=store) as (platform, client):
        store.fail_next("told")
        process = platform.supervisors.pop("foreman")
        await fail(client)
        platform.supervisors["foreman"] = process

        await until(lambda: len(Foreman.seen) == 2)

        assert [failure.times for failure in Foreman.seen] == [1, 1], "told again: that it was told was not noted"
        await until(lambda: process.told == 2)


async def test_an_entity_that_moves_while_its_supervisor_is_asked_goes_on_elsewhere() -> None:
    Foreman.gate = asyncio.Event()
    Foreman.says = lambda _: Directive.STOP
    async with working(hosts=2) as (platform, client):
        await client.ref(Job, "a").add()
        await fail(client)
        source = host_of(platform, "job/a")
        assert source.cells["job/a"].task is not None
        moving = asyncio.create_task(move(platform, "job/a"))
        await turns()
        Foreman.gate.set()
        await moving

        assert await client.ref(Job, "a").add() == 2
        assert told() == 1


# -- reading back ------------------------------------------------------------------------------------


class Pages(BaseModel):
    """Cannot be read back while one is missing."""

    missing: ClassVar[bool] = False
    n: int = 0

    @field_validator("n")
    @classmethod
    def _whole(cls, n: int) -> int:
        if cls.missing:
            msg = "a page is missing"
            raise ValueError(msg)
        return n


class Torn(Durable[Pages]):
    @command
    async def add(self) -> int:
        self.state.n += 1
        return self.state.n


class Reader(Foreman):
    entities: ClassVar[Types] = ()


@asynccontextmanager
async def tearing(
    *, ask_s: float = 30.0, hand_off_s: float = 5.0, hosts: int = 1
) -> AsyncIterator[tuple[LocalPlatform, Client, FaultyStore]]:
    """A platform with an entity that will not be read back while a page is missing."""
    settings, store = Settings(shards=1, supervisor_ask_s=ask_s, hand_off_s=hand_off_s), FaultyStore()
    app = App("torn", entities=[Torn], settings=settings, supervisors=[Reader])
    async with platforms.running(app, store, hosts=hosts) as (platform, client):
        assert await client.ref(Torn, "a").add() == 1
        yield platform, client, store
        Pages.missing = False


@asynccontextmanager
async def unreadable(
    *, ask_s: float = 30.0, hand_off_s: float = 5.0, hosts: int = 1
) -> AsyncIterator[tuple[LocalPlatform, Client, "asyncio.Task[int]"]]:
    """A platform with an entity that could not be read back, and somebody who asks it something."""
    async with tearing(ask_s=ask_s, hand_off_s=hand_off_s, hosts=hosts) as (platform, client, _):
        Pages.missing = True
        host_of(platform, "torn/a").cells["torn/a"].restart()
        asking = asyncio.create_task(client.ref(Torn, "a").add())
        await until(lambda: Foreman.seen)
        Pages.missing = False
        yield platform, client, asking
        asking.cancel()


async def test_while_it_is_asked_about_what_cannot_be_read_back_that_waits_and_says_so() -> None:
    Foreman.gate = asyncio.Event()
    Foreman.says = lambda _: Directive.RESTART
    async with unreadable() as (_, client, asking):
        why = await client.ref(Torn, "a").why()
        assert (why.state, why.because[:37]) == ("judged", "recovery failed, and its supervisor r")
        assert not asking.done()

        Foreman.gate.set()

        assert await asking == 2, "it is read back again"
        assert [(failure.command, failure.directive) for failure in Foreman.seen] == [("recovery", "")]


async def test_a_supervisor_too_slow_to_say_what_becomes_of_what_cannot_be_read_back_is_told_what_did() -> None:
    Foreman.gate = asyncio.Event()
    Foreman.says = lambda _: Directive.RESTART
    async with unreadable(ask_s=0.05) as (_, _, asking):
        with pytest.raises(Corrupt, match="a page is missing"):
            await asking
        Foreman.gate.set()
        await until(lambda: any(failure.directive for failure in Foreman.seen))
        assert [(failure.command, failure.directive) for failure in Foreman.seen] == [
            ("recovery", ""),
            ("recovery", "stop"),
        ]


@pytest.mark.parametrize("answer", ["in time", "too late"])
async def test_what_cannot_be_read_back_and_moves_while_its_supervisor_is_asked_is_read_elsewhere(answer: str) -> None:
    Foreman.gate = asyncio.Event()
    Foreman.says = lambda _: Directive.RESTART
    async with unreadable(hosts=2, hand_off_s=5.0 if answer == "in time" else 0.05) as (platform, _, asking):
        source = host_of(platform, "torn/a")
        moving = asyncio.create_task(move(platform, "torn/a"))
        if answer == "in time":
            await turns()
            Foreman.gate.set()
        await moving

        assert await asking == 2
        assert host_of(platform, "torn/a") is not source
        Foreman.gate.set()
        await until(lambda: source.failures.noted and source.failures.count == 1)
        assert told("torn/a") == 1


async def test_one_that_starts_over_while_it_is_read_is_not_read_again_before_its_supervisor_has_said_what_becomes_of_it() -> (
    None
):
    Foreman.gate = asyncio.Event()
    Foreman.says = lambda _: Directive.RESTART
    async with tearing() as (platform, client, store):
        cell = platform.hosts["host-1"].cells["torn/a"]
        store.hold("load")
        cell.restart()
        await until(lambda: store.waiting)
        cell.restart()  # as all of its shard do when another one escalates
        Pages.missing = True
        store.let_go("load")
        await until(lambda: Foreman.seen)
        Pages.missing = False
        await turns(50)

        assert (await client.ref(Torn, "a").why()).state == "judged"
        assert told("torn/a") == 1
        Foreman.gate.set()
        assert await client.ref(Torn, "a").add() == 2


async def test_of_one_that_was_held_back_while_it_was_read_nobody_is_asked() -> None:
    async with tearing() as (platform, client, store):
        cell = platform.hosts["host-1"].cells["torn/a"]
        store.hold("load")
        cell.restart()
        await until(lambda: store.waiting)
        cell.restart(0.05, "it is held back")
        store.error = lambda: Corrupt("its row is no row")
        store.fail_next("load")
        store.let_go("load")
        await until(lambda: not store.failing)

        assert await client.ref(Torn, "a").add() == 2, "it is read back after its pause"
        assert Foreman.seen == []


async def test_what_a_supervisor_is_being_asked_when_its_host_closes_is_told_later() -> None:
    Foreman.gate = asyncio.Event()
    async with unreadable() as (platform, _, asking):
        await platform.supervisors.pop("reader").close()
        await platform.hosts["host-1"].failures.close()

        (row,) = await platform.store.untold_failures(["torn"], 10)
        assert (row.entity, row.command, row.untold) == ("torn/a", "recovery", 1)
        asking.cancel()


async def test_a_failure_in_the_moment_in_which_its_host_closes_is_told_later() -> None:
    Foreman.gate = asyncio.Event()
    async with working(ask_s=30.0) as (platform, client):
        await client.ref(Job, "a").add()
        host = platform.hosts["host-1"]
        await platform.supervisors.pop("foreman").close()
        host.failures.judge_snapshot(host.cells["job/a"], BoomError("begun to be asked about, and no more"))
        await host.failures.close()

        (row,) = await platform.store.untold_failures(["job"], 10)
        assert (row.entity, row.command, row.untold) == ("job/a", "snapshot", 1)


# -- watching ------------------------------------------------------------------------------------------


async def test_who_watches_an_entity_is_told_once_that_it_was_stopped() -> None:
    Foreman.says = lambda failure: Directive.STOP if failure.entity == "job/a" else None

    def watch_both(foreman: Foreman) -> None:
        foreman.watch(Job, "a")
        foreman.watch(Job, "b")

    Foreman.begins = watch_both
    async with working() as (_, client):
        await fail(client, "b")
        await client.ref(Job, "a").add()
        await turns(50)
        assert Foreman.over == [], "neither is one that lives, nor one that restarts"

        await fail(client, "a")
        await until(lambda: Foreman.over)
        await turns(50)

        (over,) = Foreman.over
        assert (over.entity, over.quarantined) == ("job/a", False)
        assert "BoomError" in over.reason


async def test_79_who_watches_is_not_ended_by_the_end_of_the_watched_even_where_it_cannot_handle_that() -> None:
    class Frail(Foreman):
        async def on_terminated(self, terminated: Terminated) -> None:
            await super().on_terminated(terminated)
            raise BoomError

    Foreman.says = lambda _: Directive.STOP
    app = App("works", entities=[Job], settings=Settings(shards=1), supervisors=[Frail])
    async with platforms.running(app) as (platform, client):
        for count, name in enumerate("ab", 1):
            platform.supervisors["frail"].watch(Job.__remora__, name)
            await fail(client, name)
            await until(lambda count=count: len(Foreman.over) == count)  # type: ignore[misc]  # a default freezes the loop variable


async def test_watching_one_that_has_terminated_already_is_answered_at_once() -> None:
    Foreman.says = lambda _: Directive.STOP
    async with working() as (platform, client):
        await fail(client)
        foreman = platform.supervisors["foreman"]
        foreman.watch(Job.__remora__, "a")
        await until(lambda: Foreman.over)


async def test_one_in_quarantine_has_terminated_also_where_it_is_not_in_memory() -> None:
    async with working() as (platform, _):
        held = Quarantine("job/q", "", "it took its host down", 3, 0)
        platform.hosts["host-1"].quarantine.entities["job/q"] = held
        platform.supervisors["foreman"].watch(Job.__remora__, "q")

        await until(lambda: Foreman.over)

        assert Foreman.over[0].quarantined
        assert "job/q" not in platform.hosts["host-1"].cells, "looking does not activate it"


async def test_watching_survives_moves_and_ends_with_unwatch() -> None:
    Foreman.says = lambda _: Directive.STOP
    async with working(hosts=2) as (platform, client):
        foreman = platform.supervisors["foreman"]
        foreman.watch(Job.__remora__, "a")
        foreman.watch(Job.__remora__, "b")
        await client.ref(Job, "a").add()
        await move(platform, "job/a")
        foreman.unwatch(Job.__remora__, "b")
        foreman.unwatch(Job.__remora__, "never")

        await fail(client, "b")
        await fail(client, "a")
        await until(lambda: Foreman.over)
        await turns(50)

        assert [over.entity for over in Foreman.over] == ["job/a"]


async def test_watches_are_bounded_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "WATCHES_MAX", 2)
    async with working() as (platform, _):
        foreman = platform.supervisors["foreman"]
        for name in ("a", "b", "b"):
            foreman.watch(Job.__remora__, name)
        with pytest.raises(Overloaded, match="watches 2 entities, its bound"):
            foreman.watch(Job.__remora__, "c")
        with pytest.raises(InvalidId):
            foreman.watch(Job.__remora__, "")


async def test_a_supervisor_reaches_the_apps_entities() -> None:
    class Careful(Foreman):
        async def on_failure(self, failure: Failure) -> Directive | None:
            assert failure.entity == "job/a"
            await self.client.ref(Other, "audit").add()
            return Directive.STOP

    app = App("works", entities=[Job, Other], settings=Settings(shards=1), supervisors=[Careful])
    async with platforms.running(app) as (_, client):
        await fail(client)
        with pytest.raises(Stopped):
            await client.ref(Job, "a").add()
        assert await client.ref(Other, "audit").add() == 2


async def test_a_supervisor_that_cannot_start_says_why() -> None:
    def fails(foreman: Foreman) -> None:
        raise BoomError(foreman.name)

    Foreman.begins = fails
    with pytest.raises(StartError, match="Supervisor foreman did not start: BoomError: foreman"):
        async with working():
            pass


# -- definition ----------------------------------------------------------------------------------------


class All(Foreman):
    entities: ClassVar[Types] = ()


class Second(Foreman):
    entities: ClassVar[Types] = ("job",)


class Stranger(Supervisor):
    entities: ClassVar[Types] = ("nobody",)


def test_one_without_entities_is_for_those_that_no_other_names() -> None:
    app = App("works", entities=[Job, Other], supervisors=[All, Second])
    assert app.supervisors == {"job": Second, "other": All}


@pytest.mark.parametrize(
    ("supervisors", "said"),
    [
        ([Foreman, Second], "Foreman and Second are both for 'job'"),
        ([All, type("More", (Foreman,), {"entities": ()})], "All and More are both for all entities"),
        ([Stranger], "Stranger is for 'nobody'; the app has job, other"),
        ([Second, Second], "two supervisors are named 'second'"),
        ([Supervisor], "is not a supervisor class"),
        ([Job], "is not a supervisor class"),
    ],
)
def test_supervisors_that_do_not_fit_are_refused_when_the_app_is_defined(
    supervisors: list[type[Supervisor]], said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        App("works", entities=[Job, Other], supervisors=supervisors)
