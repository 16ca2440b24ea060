"""Rules carried out on a host: what a failure does to its entity, to the entities of its shard, and to nobody else."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import AfterValidator, BaseModel, SecretStr

from remora import (
    App,
    Backoff,
    Client,
    Directive,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    HandlerFailed,
    InvalidArgument,
    Rejected,
    Settings,
    Stopped,
    Supervision,
    Transient,
    UnknownEntity,
    command,
    on,
    query,
)
from remora.journal import FailureRow
from remora.local import LocalPlatform
from remora.runtime import failures, registry_status
from remora.supervision.failure import MESSAGE_MAX, TRACEBACK_MAX, Failure
from remora.testing import FaultyStore, ManualClock
from tests import platforms
from tests.clock import until


class BoomError(Exception):
    """What the entities here fail with."""


NO = "no"


class Count(BaseModel):
    n: int = 0


class Added(Event):
    """One more."""


class Booked(EventSourced[Count, Added]):
    @command
    async def add(self, n: int = 1) -> int:
        for _ in range(n):
            self.emit(Added())
        return self.state.n

    @command
    async def fail(self) -> None:
        self.emit(Added())
        raise BoomError

    @command
    async def reject(self) -> None:
        raise Rejected(NO)

    @query
    async def fail_asked(self) -> None:
        raise BoomError

    @query
    async def total(self) -> int:
        return self.state.n

    def apply(self, event: Added) -> None:
        del event
        self.state.n += 1


class Kept(Durable[Count]):
    @command
    async def add(self, n: int = 1) -> int:
        self.state.n += n
        return self.state.n

    @command
    async def fail(self) -> None:
        self.state.n += 1
        raise BoomError

    @command
    async def reject(self) -> None:
        raise Rejected(NO)

    @query
    async def fail_asked(self) -> None:
        raise BoomError

    @query
    async def total(self) -> int:
        return self.state.n


class Fleeting(Transient[Count]):
    """In memory only."""

    @command
    async def add(self, n: int = 1) -> int:
        self.state.n += n
        return self.state.n

    @command
    async def fail(self) -> None:
        self.state.n += 1
        raise BoomError

    @command
    async def reject(self) -> None:
        raise Rejected(NO)

    @query
    async def fail_asked(self) -> None:
        raise BoomError

    @query
    async def total(self) -> int:
        return self.state.n


class Strict(Durable[Count]):
    """Its class says stop."""

    options = EntityOptions(supervision=(on(BoomError).stop(),))

    @command
    async def add(self, n: int = 1) -> int:
        self.state.n += n
        return self.state.n

    @command
    async def fail(self) -> None:
        raise BoomError


Kind = Any
"""A class with the methods that each of them has."""
KINDS: list[Kind] = [Booked, Kept, Fleeting]


@asynccontextmanager
async def running(
    clock: ManualClock | None = None, **supervision: Any,  # noqa: ANN401 - the fields of Supervision
) -> AsyncIterator[tuple[LocalPlatform, Client]]:  # fmt: skip
    """Run an app of one shard with these rules."""
    app = App("failing", entities=[*KINDS, Strict], settings=Settings(shards=1), supervision=Supervision(**supervision))
    async with platforms.running(app, clock=clock) as running:
        yield running


def everywhere(rule: Any) -> dict[str, Any]:  # noqa: ANN401 - a rule
    return {"booked": (rule,), "kept": (rule,), "fleeting": (rule,)}


AT_ONCE = Backoff(min_s=0)


@pytest.mark.parametrize("place", ["fail", "fail_asked"])
@pytest.mark.parametrize("kind", KINDS)
async def test_resume_keeps_the_state_and_the_activation(kind: Kind, place: str) -> None:
    async with running(entities=everywhere(on(BoomError).resume())) as (platform, client):
        entity = client.ref(kind, "a")
        await entity.add()
        before = platform.hosts["host-1"].cells[f"{kind.__name__.lower()}/a"]

        with pytest.raises(HandlerFailed, match="BoomError"):
            await getattr(entity, place)()

        assert await entity.total() == 1
        assert platform.hosts["host-1"].recovery.count == (1 if kind is not Fleeting else 0)
        assert platform.hosts["host-1"].cells[f"{kind.__name__.lower()}/a"] is before


@pytest.mark.parametrize("place", ["fail", "fail_asked"])
@pytest.mark.parametrize("kind", KINDS)
async def test_restart_gives_back_what_the_journal_has_of_the_kind(kind: Kind, place: str) -> None:
    async with running(entities=everywhere(on(BoomError).restart(AT_ONCE))) as (platform, client):
        entity = client.ref(kind, "a")
        await entity.add()

        with pytest.raises(HandlerFailed, match="BoomError"):
            await getattr(entity, place)()

        assert await entity.total() == (0 if kind is Fleeting else 1)
        assert platform.hosts["host-1"].recovery.count == (0 if kind is Fleeting else 2)


@pytest.mark.parametrize("place", ["fail", "fail_asked"])
@pytest.mark.parametrize("kind", KINDS)
async def test_stop_answers_everything_with_why_and_its_neighbours_go_on(kind: Kind, place: str) -> None:
    async with running(entities=everywhere(on(BoomError).stop())) as (_, client):
        entity = client.ref(kind, "a")
        await entity.add()

        with pytest.raises(HandlerFailed, match="BoomError"):
            await getattr(entity, place)()

        for call in (entity.add, entity.total, entity.reject):
            with pytest.raises(Stopped, match="BoomError"):
                await call()
        assert await client.ref(kind, "b").add() == 1


@pytest.mark.parametrize("place", ["fail", "fail_asked"])
@pytest.mark.parametrize("kind", KINDS)
async def test_escalate_has_the_rules_of_the_shard_decide(kind: Kind, place: str) -> None:
    shard = (on(BoomError).restart(AT_ONCE),)
    async with running(entities=everywhere(on(BoomError).escalate()), shard=shard) as (_, client):
        for neighbour in KINDS:
            await client.ref(neighbour, "b").add()

        with pytest.raises(HandlerFailed, match="BoomError"):
            await getattr(client.ref(kind, "a"), place)()

        assert await client.ref(Booked, "b").total() == 1
        assert await client.ref(Kept, "b").total() == 1
        assert await client.ref(Fleeting, "b").total() == 0, "all entities of the shard restarted"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rejection_and_an_argument_that_is_none_are_answers_and_never_failures(kind: Kind) -> None:
    async with running(entities=everywhere(on(BaseException).stop())) as (_, client):
        entity = client.ref(kind, "a")

        with pytest.raises(Rejected):
            await entity.reject()
        with pytest.raises(InvalidArgument, match="valid integer"):
            await entity.add("one")

        assert await entity.add() == 1


# -- the shard -----------------------------------------------------------------------------------------


async def test_a_shard_that_is_stopped_answers_that_for_entities_that_were_not_active_too() -> None:
    async with running(entities={"kept": (on(BoomError).escalate(),)}, shard=(on(BoomError).stop(),)) as (
        platform,
        client,
    ):
        await client.ref(Booked, "b").add()
        with pytest.raises(HandlerFailed):
            await client.ref(Kept, "a").fail()

        for entity in (client.ref(Booked, "b"), client.ref(Booked, "new"), client.ref(Fleeting, "new")):
            with pytest.raises(Stopped, match="kept/a raised"):
                await entity.add()
        assert platform.hosts["host-1"].cells.keys() == {"booked/b", "kept/a"}, (
            "whoever is asked for in vain takes no room"
        )


async def test_a_shard_that_goes_on_leaves_its_others_alone_and_the_entity_to_the_defaults_of_its_kind() -> None:
    async with running(entities={"kept": (on(BoomError).escalate(),)}, shard=(on(BoomError).resume(),)) as (
        platform,
        client,
    ):
        await client.ref(Fleeting, "b").add()
        await client.ref(Kept, "a").add()

        with pytest.raises(HandlerFailed):
            await client.ref(Kept, "a").fail()

        assert await client.ref(Kept, "a").total() == 1
        assert platform.hosts["host-1"].recovery.count == 2, "it restarted"
        assert await client.ref(Fleeting, "b").total() == 1, "and no one else did"


async def test_by_default_an_entity_that_escalates_and_escalates_soon_disturbs_no_one_any_more() -> None:
    clock = ManualClock()
    async with running(clock, entities={"kept": (on(BoomError).escalate(),)}) as (platform, client):
        for n in range(4):
            await client.ref(Fleeting, "b").add()
            with pytest.raises(HandlerFailed):
                await client.ref(Kept, "a").fail()
            assert await client.ref(Fleeting, "b").total() == (0 if n < 3 else 1)
        cell = platform.hosts["host-1"].cells["kept/a"]
        assert cell.phase.value == "backoff", "by the defaults of its kind"


async def test_a_shard_that_restarts_after_a_pause_holds_its_entities_back_for_so_long() -> None:
    shard = (on(BoomError).restart(Backoff(min_s=60.0, max_s=60.0, jitter=0.0)),)
    async with running(entities={"kept": (on(BoomError).escalate(),)}, shard=shard) as (_, client):
        await client.ref(Booked, "b").add()
        with pytest.raises(HandlerFailed):
            await client.ref(Kept, "a").fail()

        why = await client.ref(Booked, "b").why()

        assert why.state == "backoff"
        assert "BoomError" in why.reason
        assert why.retry_in_s is not None
        assert math.isclose(why.retry_in_s, 60.0, abs_tol=5.0)


async def test_a_shard_that_restarts_finds_entities_that_are_held_back_already_and_no_mutation_stays() -> None:
    shard = (on(BoomError).restart(Backoff(min_s=60.0, max_s=60.0, jitter=0.0)),)
    rules = {
        "booked": (on(BoomError).restart(Backoff(min_s=30.0, max_s=30.0, jitter=0.0)),),
        "kept": (on(BoomError).escalate(),),
    }
    async with running(entities=rules, shard=shard) as (platform, client):
        for held_back in ("b", "c"):
            with pytest.raises(HandlerFailed):
                await client.ref(Booked, held_back).fail()
        with pytest.raises(HandlerFailed):
            await client.ref(Kept, "a").fail()

        cells = platform.hosts["host-1"].cells
        assert {cell.phase.value for cell in cells.values()} == {"backoff"}
        assert [cells[f"booked/{name}"].reason.retry_after_s for name in "bc"] == [30.0, 30.0]  # type: ignore[union-attr]  # it is held back


async def test_a_failure_that_cannot_be_judged_leaves_nothing_of_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(entities={"kept": (on(BoomError).resume(),)}) as (platform, client):
        await client.ref(Kept, "a").add()
        monkeypatch.setattr(failures, "decide", lambda *_, **__: 1 / 0)
        with pytest.raises(HandlerFailed, match="BoomError"):
            await client.ref(Kept, "a").fail()

        assert await client.ref(Kept, "a").total() == 1
        assert platform.hosts["host-1"].recovery.count == 2, "it restarted"


# -- where rules stand -----------------------------------------------------------------------------------


async def test_rules_of_the_app_stand_in_the_place_of_those_on_the_class() -> None:
    async with running() as (_, client):
        with pytest.raises(HandlerFailed):
            await client.ref(Strict, "a").fail()
        with pytest.raises(Stopped):
            await client.ref(Strict, "a").add()

    async with running(entities={"strict": (on(BoomError).resume(),)}) as (_, client):
        with pytest.raises(HandlerFailed):
            await client.ref(Strict, "a").fail()
        assert await client.ref(Strict, "a").add() == 1


async def test_beyond_its_limit_an_entity_is_stopped_and_the_count_travels_with_it_to_its_next_host() -> None:
    rule = on(BoomError).resume(at_most=2, within_s=600, then=Directive.STOP)
    app = App(
        "failing", entities=KINDS, settings=Settings(shards=1), supervision=Supervision(entities={"kept": (rule,)})
    )
    async with platforms.running(app, hosts=2) as (platform, client):
        entity = client.ref(Kept, "a")
        for _ in range(2):
            with pytest.raises(HandlerFailed):
                await entity.fail()
        assert await entity.add() == 1

        await platforms.move(platform, "kept/a")
        with pytest.raises(HandlerFailed):
            await entity.fail()

        with pytest.raises(Stopped, match="BoomError"):
            await entity.add()


# -- what is noted of them -------------------------------------------------------------------------------


CHECKED: list[int] = []


def once(code: int) -> int:
    """Be a validator that does not take the same twice."""
    if code in CHECKED:
        raise KeyError(code)
    CHECKED.append(code)
    return code


class Vault(Durable[Count]):
    """Fails with secrets in its arguments, and with exceptions that are hard to write down."""

    options = EntityOptions(supervision=(on(Exception).resume(),))

    @command
    async def open(self, code: SecretStr, door: str = "front") -> None:
        if code.get_secret_value() != "sesame":
            raise BoomError(door)

    @command
    async def check(self, code: Annotated[int, AfterValidator(once)]) -> None:
        raise BoomError(str(code))

    @command
    async def fail_long(self) -> None:
        raise BoomError("x" * 10_000 + "\0\ud800")

    @command
    async def fail_speechless(self) -> None:
        raise SpeechlessError

    @command
    async def add(self, n: int = 1) -> int:
        self.state.n += n
        return self.state.n


class SpeechlessError(Exception):
    """Fails also when it is asked why."""

    def __str__(self) -> str:
        raise BoomError

    __repr__ = __str__


vault = App("failing", entities=[Vault, Kept], settings=Settings(shards=1))


async def noted(platform: LocalPlatform) -> list[tuple[FailureRow, Failure]]:
    """Return failures as soon as they are in the store."""
    await until(lambda: platform.hosts["host-1"].failures.noted)
    rows = await platform.store.failures(100)
    return [(row, msgspec.json.decode(row.latest, type=Failure)) for row in rows]


async def test_a_failure_is_noted_with_where_what_and_what_was_decided_and_without_secrets() -> None:
    async with platforms.running(vault) as (platform, client):
        with pytest.raises(HandlerFailed):
            await client.ref(Vault, "v").with_options(command_id="c-1").open(SecretStr("swordfish"), "back")

        ((row, failure),) = await noted(platform)

        host = platform.hosts["host-1"]
        name = f"{__name__}.BoomError"
        assert (row.entity, row.command, row.kind, row.times) == ("vault/v", "open", name, 1)
        assert (failure.message, failure.command_id, failure.directive) == ("back", "c-1", "resume")
        assert failure.kinds == (name, "Exception", "BaseException")
        assert (failure.host, failure.incarnation, failure.shard, failure.epoch) == ("host-1", host.incarnation, "0", 1)
        assert "raise BoomError(door)" in failure.traceback
        assert failure.arguments == '{"code":"**********","door":"back"}'
        assert "swordfish" not in row.latest


async def test_a_secret_reaches_the_entity_and_nobody_else() -> None:
    async with platforms.running(vault) as (_, client):
        await client.ref(Vault, "v").open(SecretStr("sesame"))


async def test_a_validator_that_fails_when_arguments_are_shown_costs_only_what_is_shown() -> None:
    CHECKED.clear()
    async with platforms.running(vault) as (platform, client):
        with pytest.raises(HandlerFailed, match="7"):
            await client.ref(Vault, "v").check(7)

        ((_, failure),) = await noted(platform)

        assert (failure.message, failure.arguments) == ("7", "")


async def test_a_storm_of_failures_is_a_number_and_no_failure_is_lost() -> None:
    async with platforms.running(vault) as (platform, client):
        calls = [client.ref(Vault, str(n % 3)).open(SecretStr("x"), str(n)) for n in range(300)]
        await asyncio.gather(*calls, return_exceptions=True)

    rows = await platform.store.failures(100)
    assert {row.entity: row.times for row in rows} == {"vault/0": 100, "vault/1": 100, "vault/2": 100}
    assert platform.hosts["host-1"].failures.count == 300


async def test_failures_of_very_many_entities_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "ROWS_MAX", 5)
    async with platforms.running(vault) as (platform, client):
        calls = [client.ref(Vault, str(n)).fail_speechless() for n in range(20)]
        await asyncio.gather(*calls, return_exceptions=True)

    rows = await platform.store.failures(100)
    assert sum(row.times for row in rows) == 20
    assert max(rows, key=lambda row: row.times).entity == f"vault/{failures.OTHERS}"


async def test_what_is_noted_is_bounded_and_text_that_every_store_takes() -> None:
    async with platforms.running(vault) as (platform, client):
        for call in (client.ref(Vault, "v").fail_long, client.ref(Vault, "v").fail_speechless):
            with pytest.raises(HandlerFailed):
                await call()
        assert await client.ref(Vault, "v").add() == 1

        found = {row.command: failure for row, failure in await noted(platform)}

        assert found["fail_long"].message == "x" * MESSAGE_MAX + " …"
        assert len(found["fail_long"].traceback) <= TRACEBACK_MAX + 2
        assert found["fail_long"].traceback.rstrip().endswith("\\0\\ud800")
        assert "cannot be had" in found["fail_speechless"].message


async def test_failures_wait_for_a_store_that_is_away() -> None:
    store = FaultyStore()
    async with platforms.running(vault, store) as (platform, client):
        store.fail_next("add_failures", times=3)
        for _ in range(2):
            with pytest.raises(HandlerFailed):
                await client.ref(Vault, "v").open(SecretStr("x"))

        ((row, _),) = await noted(platform)

        assert row.times == 2


async def test_what_failed_is_there_when_the_platform_has_stopped_and_is_shown_by_type_and_entity() -> None:
    async with platforms.running(vault) as (platform, client):
        for entity in (client.ref(Vault, "a"), client.ref(Vault, "b")):
            with pytest.raises(HandlerFailed):
                await entity.open(SecretStr("x"))

    assert [row["entity"] for row in await registry_status.failures(platform.registry, 9, "vault/a")] == ["vault/a"]
    shown = await registry_status.failures(platform.registry, 9, "vault")
    assert [row["latest"]["message"] for row in shown] == ["front", "front"]
    assert await registry_status.failures(platform.registry, 9, "kept") == []
    with pytest.raises(UnknownEntity, match="it has kept, vault"):
        await registry_status.failures(platform.registry, 9, "volt")
