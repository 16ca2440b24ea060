"""The dedup window: what counts as the same command, and what is said about one that is not."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress

import pytest
from pydantic import BaseModel

from remora import (
    App,
    Client,
    CommandIdReused,
    DeadlineExceeded,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    NonDeterministic,
    Rejected,
    Settings,
    TooOld,
    command,
    query,
)
from remora.ids import fingerprint
from remora.journal import Append, Known, Span
from remora.local import LocalPlatform
from remora.runtime import window
from remora.runtime.window import Unread
from remora.testing import Fault, FaultyStore, ManualClock
from tests import platforms, things
from tests.clock import turns, until
from tests.flows import Listener
from tests.platforms import host_of, move
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


# -- answers that are read only when they are asked for --------------------------------------------------


class Sum(BaseModel):
    total: int = 0


class Slate(Durable[Sum]):
    """A snapshot every five commands: what was decided before is read back without its answers."""

    options = EntityOptions(snapshot_every=5, dedup_window=50)

    @command
    async def add(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    @command
    async def reject(self) -> None:
        raise Rejected(str(self.state.total))

    @query
    async def total(self) -> int:
        return self.state.total


slates = App("slates", entities=[Slate], settings=Settings(shards=4))


async def written(client: Client, count: int) -> Slate:
    """Have so many commands decided, every seventh of them with a no."""
    for n in range(1, count + 1):
        slate = client.ref(Slate, "s").with_options(command_id=f"c-{n}")
        with suppress(Rejected):
            await (slate.reject() if n % 7 == 0 else slate.add(n))
    return client.ref(Slate, "s")


@asynccontextmanager
async def crashed(
    count: int = 10, *, hosts: int = 2
) -> AsyncIterator[tuple[LocalPlatform, Client, Slate, FaultyStore]]:
    """Have so many commands decided, and their host crash; yield the platform, a client, the entity and the store."""
    store = FaultyStore()
    async with platforms.running(slates, store, hosts=hosts) as (platform, client):
        slate = await written(client, count)
        await platform.crash(host_of(platform, "slate/s").name)
        yield platform, client, slate, store


async def test_after_a_crash_every_command_of_the_window_gets_its_first_answer_and_is_not_applied_again() -> None:
    async with platforms.running(slates, hosts=2) as (platform, client):
        slate = await written(client, 23)
        total = await slate.total()
        await platform.crash(host_of(platform, "slate/s").name)
        expected = 0
        for n in range(1, 24):
            repeated = client.ref(Slate, "s").with_options(command_id=f"c-{n}")
            if n % 7 == 0:
                with pytest.raises(Rejected, match=f"^{expected}$"):
                    await repeated.reject()
                continue
            expected += n
            assert await repeated.add(n) == expected
            with pytest.raises(CommandIdReused):
                await repeated.add(n + 1)
        assert await slate.total() == total == expected
        assert await slate.with_options(command_id="c-24").add(1) == total + 1


async def test_an_answer_is_read_once_and_nobody_waits_for_it_but_who_asked() -> None:
    async with crashed() as (_, client, slate, store):
        total = await slate.total()
        store.hold("entries")
        again = client.ref(Slate, "s").with_options(command_id="c-3")
        repeated = asyncio.create_task(again.add(3))
        await until(lambda: store.waiting)

        assert await slate.with_options(command_id="c-11").add(1) == total + 1
        assert not repeated.done()
        store.let_go("entries")

        assert await repeated == 6
        store.hold("entries")
        assert await again.add(3) == 6, "from memory"


async def test_answers_that_were_not_read_yet_are_still_to_be_had_after_a_move() -> None:
    async with crashed(hosts=3) as (platform, client, slate, _):
        await slate.total()
        await move(platform, "slate/s")

        assert await client.ref(Slate, "s").with_options(command_id="c-2").add(2) == 3
        assert host_of(platform, "slate/s").recovery.count == 0, "it travelled"


async def test_a_repeat_waits_for_a_store_that_is_away_no_longer_than_its_deadline() -> None:
    async with crashed() as (_, client, slate, store):
        await slate.total()
        store.fail_next("entries", times=2)
        assert await client.ref(Slate, "s").with_options(command_id="c-2").add(2) == 3
        store.hold("entries")

        with pytest.raises(DeadlineExceeded):
            await client.ref(Slate, "s").with_options(command_id="c-4", deadline_s=0.2).add(4)


# -- windows that are read only when they are asked for --------------------------------------------------


async def test_commands_that_are_sent_for_the_first_time_have_nothing_of_the_window_read() -> None:
    async with crashed(23) as (platform, _, slate, store):
        store.hold("known")
        total = await slate.total()

        for n in range(1, 4):
            assert await slate.add(1) == total + n
        cell = host_of(platform, "slate/s").cells["slate/s"]
        assert (len(cell.window), cell.n) == (3, 26)


async def test_a_repeat_that_waits_for_recovery_is_looked_up_in_the_same_read() -> None:
    async with crashed(23) as (_, client, _, store):
        store.hold("known")
        store.hold("entries")

        repeated, new = (client.ref(Slate, "s").with_options(command_id=one) for one in ("c-3", "new"))
        assert list(await asyncio.gather(repeated.add(3), new.add(1), repeated.add(3))) == [6, 235, 6]


async def test_a_later_repeat_has_the_window_read_once_and_what_is_behind_it_waits_in_order() -> None:
    async with crashed() as (_, _, slate, store):
        total = await slate.total()
        store.hold("known")
        maybe = asyncio.create_task(slate.with_options(command_id="new").add(1))
        await until(lambda: store.waiting)
        behind = asyncio.create_task(slate.add(1))
        why = await slate.why()
        assert why.state == "recovering"
        assert "which commands it has answered" in why.because
        assert not behind.done()
        store.let_go("known")

        assert (await maybe, await behind) == (total + 1, total + 2)
        store.hold("known")
        assert await slate.with_options(command_id="c-3").add(3) == 6
        assert await slate.with_options(command_id="new").add(1) == total + 1
        assert await slate.with_options(command_id="newer").add(1) == total + 3


async def test_an_entity_whose_window_cannot_be_read_begins_anew_and_looks_for_the_one_command() -> None:
    async with crashed() as (_, _, slate, store):
        total = await slate.total()
        store.error = lambda: ValueError("a row that cannot be read")
        store.fail_next("known")

        assert await slate.with_options(command_id="c-3").add(3) == 6
        assert await slate.total() == total


async def test_what_waits_for_a_window_that_the_store_does_not_give_waits_no_longer_than_its_deadline() -> None:
    async with crashed() as (_, _, slate, store):
        total = await slate.total()
        store.hold("known")
        asked = (slate.with_options(command_id=one, deadline_s=0.2) for one in ("c-3", "new"))
        for error in await asyncio.gather(*(one.add(3) for one in asked), return_exceptions=True):
            assert isinstance(error, DeadlineExceeded)
        store.let_go("known")

        assert await slate.total() == total, "neither was begun afterwards"
        assert await slate.with_options(command_id="c-3").add(3) == 6


async def test_a_hand_off_does_not_wait_for_a_window_and_what_waits_for_it_travels_in_order() -> None:
    async with crashed(hosts=3) as (platform, _, slate, store):
        total = await slate.total()
        store.hold("known")
        repeated, new = (asyncio.create_task(slate.with_options(command_id=one).add(3)) for one in ("c-3", "new"))
        await until(lambda: store.waiting)

        await move(platform, "slate/s")

        host = host_of(platform, "slate/s")
        assert (host.handoff.opened, host.recovery.count) == (1, 0)
        assert [ask.command_id for ask, _, _ in host.cells["slate/s"].mailbox] == ["c-3", "new"]
        store.let_go("known")
        assert (await repeated, await new) == (6, total + 3)


class Trips(FaultyStore):
    """Counts trips for windows and what was asked for in each; of one entity nothing can be read."""

    def __init__(self, unreadable: str = "") -> None:
        super().__init__()
        self.trips: list[list[str]] = []
        self._unreadable = unreadable

    async def known(self, spans: Sequence[Span]) -> list[list[Known]]:
        self.trips.append([span.entity for span in spans])
        found = await super().known(spans)
        if self._unreadable in self.trips[-1]:
            msg = "a row that cannot be read"
            raise ValueError(msg)
        return found


@asynccontextmanager
async def asked_again(store: Trips, counts: Sequence[int], *, hosts: int) -> AsyncIterator[list[asyncio.Task[int]]]:
    """Have slates s0, s1, … read back and the first of their so many commands sent again, while the store holds their windows."""
    async with platforms.running(slates, store, hosts=hosts) as (platform, client):
        for n, count in enumerate(counts):
            for number in range(count):
                await client.ref(Slate, f"s{n}").with_options(command_id=f"c-{number}").add(n)
        for name in sorted(platform.hosts):
            await platform.crash(name)
        for n in range(len(counts)):
            await client.ref(Slate, f"s{n}").total()
        store.hold("known")
        first = [client.ref(Slate, f"s{n}").with_options(command_id="c-0") for n in range(len(counts))]
        repeated = [asyncio.create_task(slate.add(n)) for n, slate in enumerate(first)]
        await until(lambda: store.waiting)
        await turns(50)
        yield repeated


async def test_windows_that_are_asked_for_together_are_read_together_one_trip_of_a_host_after_the_other() -> None:
    store = Trips()
    async with asked_again(store, [1] * 20, hosts=2) as repeated:
        assert 1 <= store.waiting <= 2
        store.let_go("known")
        assert await asyncio.gather(*repeated) == list(range(20))
        assert sorted(entity for trip in store.trips for entity in trip) == sorted(f"slate/s{n}" for n in range(20))
        assert len(store.trips) <= 2 * 2, "what came during the first went with the second"


async def test_a_window_that_cannot_be_read_holds_up_none_of_those_asked_for_with_it() -> None:
    store = Trips(unreadable="slate/s3")
    async with asked_again(store, [1] * 8, hosts=1) as repeated:
        store.let_go("known")

        assert await asyncio.gather(*repeated) == list(range(8)), (
            "s3 was begun anew, and its command looked for by its id"
        )
        alone = [trip for trip in store.trips if trip == ["slate/s3"]]
        together = [trip for trip in store.trips if len(trip) > 1 and "slate/s3" in trip]
        assert alone
        assert together


async def test_a_trip_brings_no_more_entries_than_a_page_but_one_window_in_any_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "PAGE_ENTRIES", 5)
    store = Trips()
    async with asked_again(store, [12, 2, 2, 2, 2, 2], hosts=1) as repeated:
        store.let_go("known")

        assert await asyncio.gather(*repeated) == list(range(6))
        assert max(map(len, store.trips)) == 2, "two and two are no more than five, and two more would be"


async def test_of_many_commands_that_wait_for_one_entity_few_are_looked_up_and_all_are_recognised() -> None:
    store = FaultyStore()
    async with platforms.running(slates, store, hosts=2) as (platform, client):
        slate = await written(client, 40)
        total = await slate.total()
        await platform.crash(host_of(platform, "slate/s").name)

        again = [n for n in range(1, 41) if n % 7]
        sums = [sum(one for one in again if one <= n) for n in again]
        store.hold("known")
        repeated = [asyncio.ensure_future(slate.with_options(command_id=f"c-{n}").add(n)) for n in again]
        await until(lambda: store.waiting and all(one.done() for one in repeated[:16]))
        await turns(50)
        assert [one.done() for one in repeated] == [True] * 16 + [False] * (len(again) - 16)
        store.let_go("known")
        assert await asyncio.gather(*repeated) == sums
        assert await slate.total() == total


async def test_a_window_of_which_nothing_is_left_holds_nobody_up() -> None:
    async with crashed() as (platform, _, slate, store):
        total = await slate.total()
        # As if sends had pushed all of it out, and the next release remembered more commands.
        incarnation = host_of(platform, "slate/s").incarnation
        await store.inner.append(incarnation, Append(trims={"slate/s": ("slate/s", 10)}))
        host_of(platform, "slate/s").cells["slate/s"].unread = Unread(9)

        assert await slate.with_options(command_id="new").add(1) == total + 1
        assert await slate.add(1) == total + 2
        assert host_of(platform, "slate/s").recovery.count == 1, "it did not have to begin anew"


class Blocked(Durable[Sum]):
    @command
    async def take(self) -> None:
        await things.gate("outbox")


class Sender(Durable[Sum]):
    @command
    async def send_on(self) -> None:
        self.send(Blocked.take, "r")


full = App("full", entities=[Slate, Blocked, Sender], settings=Settings(shards=8, outbox_rows_max=1))


async def test_a_command_that_was_held_back_is_not_applied_once_more_if_it_was_sent_again_meanwhile() -> None:
    async with platforms.running(full, hosts=2) as (platform, client):
        holder = host_of(platform, "blocked/r")
        other = next(host for host in platform.hosts.values() if host is not holder)
        sender = next(name for name in map(str, range(99)) if host_of(platform, f"sender/{name}") is holder)
        busy = {holder.shard_name("blocked/r"), holder.shard_name(f"sender/{sender}")}
        name = next(
            name for name in map(str, range(99))
            if holder.shard_name(f"slate/{name}") not in busy and host_of(platform, f"slate/{name}") is holder
        )  # fmt: skip
        slate = client.ref(Slate, name)
        assert await slate.add(10) == 10
        await client.ref(Sender, sender).send_on()
        await until(lambda: holder.outbox.full)
        adding = asyncio.create_task(slate.add(1))
        await until(lambda: holder.held)
        await move(platform, f"slate/{name}")
        assert await adding == 11, "it was sent again, to the next host"
        await platform.crash(other.name)
        await until(lambda: holder.shard_name(f"slate/{name}") in holder.shards)
        things.GATES["outbox"].set()
        await until(lambda: not holder.held)

        assert await slate.total() == 11


class Short(Slate):
    """Remembers six commands."""

    options = EntityOptions(snapshot_every=4, dedup_window=6)


class Added(Event):
    amount: int


class Tally(EventSourced[Sum, Added]):
    """The same, made of events."""

    options = EntityOptions(snapshot_every=4, dedup_window=6)

    @command
    async def add(self, amount: int) -> int:
        self.emit(Added(amount=amount))
        return self.state.total

    @query
    async def total(self) -> int:
        return self.state.total

    def apply(self, event: Added) -> None:
        self.state.total += event.amount


class Giver(Durable[Sum]):
    """Adds by durable sends."""

    @command
    async def give(self, times: int) -> None:
        for _ in range(times):
            self.send(Short.add, "s", amount=1)
            self.send(Tally.add, "s", amount=1)


forgetful = App("forgetful", entities=[Short, Tally, Giver], settings=Settings(shards=1))


@pytest.mark.parametrize("kind", [Short, Tally])
async def test_whatever_is_sent_again_after_restarts_and_moves_is_applied_once_and_gets_its_first_answer(
    rng: random.Random, kind: type[Short | Tally]
) -> None:
    clock = ManualClock()
    decided: list[tuple[str, int]] = []
    """Ids, empty where only the client knows them, with the answers."""
    async with platforms.running(forgetful, hosts=2, clock=clock) as (platform, client):
        key, entity = f"{kind.__name__.lower()}/s", client.ref(kind, "s")
        for _ in range(300):
            clock.advance(0.3)  # by more than clocks may differ
            drawn = rng.random()
            if drawn < 0.1:
                await move(platform, key)
            elif drawn < 0.2:
                if (cell := host_of(platform, key).cells.get(key)) is not None:
                    cell.restart()
            elif drawn < 0.4:
                decided.append(("", await entity.add(1)))
            elif drawn < 0.6 or not decided:
                made = client.ids.next()
                decided.append((made, await entity.with_options(command_id=made).add(1)))
            else:
                age = rng.randrange(min(len(decided), 12)) + 1
                made, first = decided[-age]
                # Of what is older than the window there may be an answer still, or a clear no.
                with suppress(TooOld) if age > 6 else nullcontext():
                    assert not made or await entity.with_options(command_id=made).add(1) == first, age
        assert [answer for _, answer in decided] == list(range(1, len(decided) + 1))
        assert await entity.total() == len(decided)


@pytest.mark.parametrize("since", [0, 4])
@pytest.mark.parametrize("kind", [Short, Tally])
async def test_what_was_forgotten_before_or_since_an_entity_was_read_back_is_too_old(
    kind: type[Short | Tally], since: int
) -> None:
    clock = ManualClock()
    async with platforms.running(forgetful, hosts=2, clock=clock) as (platform, client):
        entity, made = client.ref(kind, "s"), list[str]()
        for _ in range(8):
            clock.advance(1.0)
            made.append(client.ids.next())
            await entity.with_options(command_id=made[-1]).add(1)
        await platform.crash(host_of(platform, f"{kind.__name__.lower()}/s").name)
        for _ in range(since):  # sent for the first time: nothing is read for them
            clock.advance(1.0)
            await entity.add(1)

        oldest = 2 + since  # six are remembered
        with pytest.raises(TooOld):
            await entity.with_options(command_id=made[oldest - 1]).add(1)
        if oldest < 8:
            assert await entity.with_options(command_id=made[oldest]).add(1) == oldest + 1
        assert await entity.total() == 8 + since


@pytest.mark.parametrize("times", [3, 5, 6, 9])
@pytest.mark.parametrize("kind", [Short, Tally])
async def test_what_durable_sends_have_pushed_out_of_the_window_since_is_too_old_too(
    kind: type[Short | Tally], times: int
) -> None:
    clock = ManualClock()
    async with platforms.running(forgetful, hosts=2, clock=clock) as (platform, client):
        entity, made = client.ref(kind, "s"), client.ids.next()
        clock.advance(1.0)
        assert await entity.with_options(command_id=made).add(1) == 1
        await platform.crash(host_of(platform, f"{kind.__name__.lower()}/s").name)
        clock.advance(1.0)
        await client.ref(Giver, "g").give(times)
        await until(lambda: host_of(platform, "giver/g").outbox.pending == 0)
        assert await entity.total() == 1 + times

        # An activation made of its events has the answer in memory.
        with pytest.raises(TooOld) if times > 5 and kind is Short else nullcontext():
            assert await entity.with_options(command_id=made).add(1) == 1
        assert await entity.total() == 1 + times, "it is not applied again"
        clock.advance(1.0)
        assert await entity.with_options(command_id=client.ids.next()).add(1) == 2 + times, "a new one is"
