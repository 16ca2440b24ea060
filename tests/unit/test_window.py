"""The dedup window: what counts as the same command, and what is said about one that is not."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from pydantic import BaseModel

from remora import App, CommandIdReused, Durable, EntityOptions, NonDeterministic, Settings, TooOld, command, query
from remora.ids import fingerprint
from remora.testing import Fault, FaultyStore, ManualClock
from tests import platforms, things
from tests.flows import Listener
from tests.platforms import host_of
from tests.things import Boom, Counter, Till


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True),
        (b"", b"{}", True),
        ('{"t":"é"}'.encode(), b'{"t":"\\u00e9"}', True),
        (b'{"a":1}', b'{"a":2}', False),
        (b'{"a":1}', b'{"a":"1"}', False),
        (b'{"a":1}', b"{}", False),
    ],
)
def test_the_same_values_have_one_fingerprint_however_they_are_spelt(one: bytes, other: bytes, same: bool) -> None:  # noqa: FBT001 - a parameter of the table
    assert (fingerprint("add", one) == fingerprint("add", other)) is same


def test_a_fingerprint_fits_64_bits_is_never_0_and_differs_by_method() -> None:
    seen = {fingerprint(method, b"%d" % n) for method in ("add", "take") for n in range(500)}

    assert len(seen) == 1_000
    assert all(-(2**63) <= one < 2**63 and one for one in seen)


@pytest.mark.parametrize("crash", [False, True])
async def test_an_id_that_was_used_with_other_arguments_is_refused_and_nothing_is_applied(crash: bool) -> None:  # noqa: FBT001 - a parameter of the table
    async with platforms.running(things.app, hosts=2) as (platform, client):
        till = client.ref(Till, "a")
        await till.with_options(command_id="pay-1").add(5)
        if crash:
            await platform.crash(host_of(platform, "till/a").name)

        with pytest.raises(CommandIdReused, match=r"pay-1 was used for another command.*Use a new id"):
            await till.with_options(command_id="pay-1").add(6)
        with pytest.raises(CommandIdReused):
            await till.with_options(command_id="pay-1").add_twice(5)

        assert await till.with_options(command_id="pay-1").add(5) == 5
        assert await till.total() == 5


async def test_the_id_of_a_rejected_command_stands_for_it_too() -> None:
    async with platforms.running(things.app) as (_, client):
        counter = client.ref(Till, "a")
        with suppress(Exception):
            await counter.with_options(command_id="no-1").add_and_reject(5)

        with pytest.raises(CommandIdReused):
            await counter.with_options(command_id="no-1").add(5)


class Asked(BaseModel):
    tries: int = 0


class Fickle(Durable[Asked]):
    """Asks for something else each time it runs."""

    @command
    async def ask(self, who: str) -> int:
        things.RUNS.append("ask")
        heard = await self.ref(Listener, who).hear(f"try {len(things.RUNS)}")
        if len(things.RUNS) == 1:
            raise Boom
        return heard


fickle = App("fickle", entities=[Fickle, Listener], settings=Settings(shards=8))


async def test_a_command_that_asks_something_else_when_it_is_run_again_is_non_deterministic() -> None:
    async with platforms.running(fickle) as (_, client):
        entity = client.ref(Fickle, "f").with_options(command_id="once")
        with suppress(Exception):
            await entity.ask("l")

        with pytest.raises(
            NonDeterministic, match=r"fickle/f ran a command again and asked listener/l.hear something else"
        ):
            await entity.ask("l")

        assert await client.ref(Listener, "l").heard() == ["try 1"]


class Aged(Durable[Asked]):
    """Remembers for an hour."""

    options = EntityOptions(dedup_window=1_000, dedup_age_s=3600.0)

    @command
    async def touch(self) -> int:
        self.state.tries += 1
        return self.state.tries

    @query
    async def touched(self) -> int:
        return self.state.tries


aged = App("aged", entities=[Aged], settings=Settings(shards=8))


async def test_what_is_older_than_the_windows_age_is_forgotten_and_an_id_from_then_is_too_old() -> None:
    clock = ManualClock()
    async with platforms.running(aged, clock=clock) as (platform, client):
        entity = client.ref(Aged, "a")
        made = client.ids.next()
        await entity.with_options(command_id=made).touch()
        assert await entity.with_options(command_id=made).touch() == 1
        clock.advance(3601)
        await entity.touch()

        with pytest.raises(TooOld, match="of the last 3600 s"):
            await entity.with_options(command_id=made).touch()

        assert await entity.touched() == 2
        assert len(host_of(platform, "aged/a").cells["aged/a"].window) == 1


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_repeat_after_a_failed_commit_with_other_arguments_is_judged_by_what_was_committed(
    fault: Fault,
) -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store) as (_, client):
        counter = client.ref(Counter, "a")
        await counter.add(1)
        store.faults = [fault]

        assert await counter.with_options(command_id="x").add(5) == 6  # the client asked again by itself
        with pytest.raises(CommandIdReused):
            await counter.with_options(command_id="x").add(7)

        assert await counter.total() == 6
