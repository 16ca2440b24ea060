"""Who is recovered next, and how many at once: permits, commands before everything else, turns for what runs."""

# ruff: noqa: SLF001 - rows are spoilt by hand

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import remora
from remora import App, Client, Settings
from remora.errors import StoreUnavailable
from remora.journal import Recovered, Want
from remora.local import LocalPlatform
from remora.messages import REMINDER, Ask
from remora.runtime import recovery
from remora.runtime.host import Host
from remora.runtime.recovery import pause_s, share
from remora.sharding.table import HostRow, Table
from remora.storage.memory import MemoryStore
from remora.testing import FaultyStore
from tests import platforms, things
from tests.clock import turns, until
from tests.platforms import host_of
from tests.things import Till


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


class Reads(FaultyStore):
    """Notes who was read together."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.reads: list[list[str]] = []

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        self.reads.append([want.entity for want in wants])
        found = await super().load(wants)
        await turns(5)  # as any store that is somewhere else
        return found


@pytest.fixture
def store() -> Reads:
    return Reads()


def limited(recoveries_max: int, **settings: Any) -> App:  # noqa: ANN401 - of Settings
    return App("things", entities=things.THINGS, settings=Settings(shards=8, recoveries_max=recoveries_max, **settings))


def activate(host: Host, *names: str) -> None:
    """Activate entities as nobody's command does."""
    for name in names:
        key = f"till/{name}"
        host.recovery.activate(host.app.spec("till"), host.shards[host.shard_name(key)], name, key)


async def blocked(store: FaultyStore, client: Client, *names: str) -> list[asyncio.Task[Any]]:
    """Have recoveries under way, one entity each, that do not end before the store lets them."""
    store.hold("load")
    begun = []
    for name in names:
        begun.append(asyncio.create_task(client.ref(Till, name).total()))
        await until(lambda: store.waiting == len(begun))
    return begun


# -- how many ------------------------------------------------------------------------------------------


def rows(shared: int, dedicated: int = 0) -> Table:
    hosts = [HostRow(n, f"h{n}", "n", "m", n, 0.0) for n in range(shared)]
    hosts += [HostRow(100 + n, f"entity/gpu/{n}", "n", "m", n, 0.0, f"gpu/{n}") for n in range(dedicated)]
    return Table(1, {host.incarnation: host for host in hosts}, {})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (rows(1), 256),
        (rows(8), 256),
        (rows(9), 227),
        (rows(100), 20),
        (rows(8, dedicated=48), 250),
        (rows(5_000), 1),
        (rows(0), 256),
        (rows(0, dedicated=1), 256),
    ],
)
def test_a_hosts_permits_are_its_part_of_the_clusters_by_the_hosts_in_the_table(table: Table, expected: int) -> None:
    assert share(table, 256, 2048) == expected


async def test_no_more_entities_are_read_at_once_than_there_are_permits(store: Reads) -> None:
    async with platforms.running(limited(8), store) as (platform, client):
        await asyncio.gather(*(client.ref(Till, str(n)).add(n) for n in range(50)))
        await platform.crash("host-1")
        store.reads.clear()
        assert await asyncio.gather(*(client.ref(Till, str(n)).total() for n in range(50))) == list(range(50))

        assert max(len(read) for read in store.reads) == 4, "two reads are under way at once"
        host = platform.hosts["host-1"]
        assert (host.status()["recovering_most"], host.status()["recovering"], host.status()["recovered"]) == (8, 0, 50)


async def test_all_hosts_together_recover_no_more_at_once_than_the_clusters_permits(store: Reads) -> None:
    app = limited(8, recoveries_cluster_max=12)
    async with platforms.running(app, store, hosts=3) as (platform, client):
        await asyncio.gather(*(client.ref(Till, str(n)).add(n) for n in range(100)))

        assert [host.status()["recovering_most"] for host in platform.hosts.values()] == [4, 4, 4]


# -- who first -----------------------------------------------------------------------------------------


async def test_entities_for_which_commands_wait_are_recovered_before_all_others(store: Reads) -> None:
    async with platforms.running(limited(4), store) as (platform, client):
        host = platform.hosts["host-1"]
        begun = await blocked(store, client, "first", "second")
        activate(host, *(f"nobody's {n}" for n in range(12)))
        asked = [asyncio.create_task(client.ref(Till, name).total()) for name in ("a", "b", "nobody's 9")]
        await until(lambda: host.cells["till/nobody's 9"].mailbox)
        store.let_go("load")
        await asyncio.gather(*begun, *asked)
        await until(lambda: not host.recovery.waiting and not host.recovery.at_once)

        assert [*store.reads[2], *store.reads[3]] == ["till/a", "till/b", "till/nobody's 9", "till/nobody's 0"]
        assert {len(read) for read in store.reads[2:]} == {2}


async def test_an_entity_is_not_read_again_while_it_is_being_read(store: Reads) -> None:
    async with platforms.running(limited(4), store) as (platform, client):
        begun = await blocked(store, client, "first")
        host = platform.hosts["host-1"]
        host.cells["till/first"].restart()  # as an escalation of its shard has it
        await turns(20)
        assert store.reads == [["till/first"]]

        other = asyncio.create_task(client.ref(Till, "other").add(1))
        await until(lambda: store.waiting == 2)
        store.let_go("load")

        assert await asyncio.gather(*begun, other) == [0, 1]
        await until(lambda: not host.recovery.waiting and not host.recovery.at_once)
        assert store.reads == [["till/first"], ["till/other"]], "what was read meanwhile is what there is"


async def test_a_reminder_or_a_durable_send_does_not_make_an_entity_go_first(store: Reads) -> None:
    class Sink:
        def answer(self, *_: object) -> None: ...

    async with platforms.running(limited(1), store) as (platform, client):
        host = platform.hosts["host-1"]
        begun = await blocked(store, client, "first")
        ring = Ask(1, "till", "rings", "on_reminder", b'{"name":"x"}', "reminder:x:1", 60.0, "", 0, 0, (), REMINDER)
        host.dispatch(ring, Sink(), host.clock.monotonic_s() + 60)
        asked = asyncio.create_task(client.ref(Till, "asked").total())
        await until(lambda: "till/asked" in host.cells)
        store.let_go("load")
        await asyncio.gather(*begun, asked)
        await until(lambda: not host.recovery.waiting)

        assert store.reads == [["till/first"], ["till/asked"], ["till/rings"]]


@pytest.mark.parametrize("permits", [1, 16])
async def test_others_are_not_kept_waiting_for_ever_by_entities_for_which_commands_wait(
    store: Reads, permits: int
) -> None:
    async with platforms.running(limited(permits), store) as (platform, client):
        host = platform.hosts["host-1"]
        begun = await blocked(store, client, *["first", "second"][:permits])
        activate(host, "nobody's")
        asked = [asyncio.create_task(client.ref(Till, str(n)).total()) for n in range(200)]
        await until(lambda: len(host.cells) == 201 + len(begun))
        store.let_go("load")
        await asyncio.gather(*begun, *asked)

        place = next(n for n, read in enumerate(store.reads) if "till/nobody's" in read)
        assert place <= recovery.OTHERS
        assert len(store.reads) > place + 2, "Commands waited for others still."


# -- permits come back ---------------------------------------------------------------------------------


async def test_75_a_permit_comes_back_when_its_entity_leaves_while_it_is_read(store: Reads) -> None:
    async with platforms.running(limited(2), store, hosts=2) as (platform, client):
        host = host_of(platform, "till/first")
        await client.ref(Till, "first").add(1)
        await platform.crash(host.name)
        (first,) = await blocked(store, client, "first")
        host = host_of(platform, "till/first")
        assert host.recovery.at_once == 1
        moved = asyncio.create_task(platforms.move(platform, "till/first"))
        await until(lambda: "till/first" not in host.cells)
        store.let_go("load")
        await moved

        assert await first == 1
        await until(lambda: not any(one.recovery.at_once for one in platform.hosts.values()))


async def test_75_a_permit_comes_back_when_its_entity_cannot_be_read(store: Reads) -> None:
    async with platforms.running(limited(1), store) as (platform, client):
        await asyncio.gather(*(client.ref(Till, name).add(1) for name in "abc"))
        entries = store.inner._entries  # type: ignore[attr-defined]  # the memory store's
        for name in "ab":
            row = entries[f"till/{name}"][1]
            entries[f"till/{name}"][1] = (*row[:3], b'[["Gone",{}]]', *row[4:])
        await platform.crash("host-1")
        outcomes = await asyncio.gather(*(client.ref(Till, name).total() for name in "abc"), return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [remora.Corrupt, remora.Corrupt, int]
        assert platform.hosts["host-1"].recovery.at_once == 0


@pytest.mark.parametrize("end", ["leaves", "cannot be read", "is read"])
async def test_75_a_permit_is_held_until_the_last_page_is_read_and_comes_back_however_that_ends(
    store: Reads, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("remora.storage.memory.PAGE_ENTRIES", 5)
    async with platforms.running(limited(1), store, hosts=2) as (platform, client):
        till = client.ref(Till, "long")
        for _ in range(30):
            await till.add(1)
        store.inner._snapshots.clear()  # type: ignore[attr-defined]  # the memory store's
        await platform.crash(host_of(platform, "till/long").name)
        host = host_of(platform, "till/long")
        store.hold("entries")
        total = asyncio.ensure_future(till.total())
        await until(lambda: store.waiting)
        neighbour = next(name for name in map(str, range(100)) if host_of(platform, f"till/{name}") is host)
        other = asyncio.ensure_future(client.ref(Till, neighbour).total())
        await turns(50)
        assert host.recovery.at_once == 1
        assert not other.done(), "There is one permit."
        if end == "leaves":
            await host.release({host.shard_name("till/long"): ""})
        elif end == "cannot be read":
            entries = store.inner._entries["till/long"]  # type: ignore[attr-defined]  # the memory store's
            entries[20] = (*entries[20][:3], b'[["Gone",{}]]', *entries[20][4:])
        store.let_go("entries")

        assert await other == 0
        await platform.registry.refresh()
        assert (await asyncio.gather(total, return_exceptions=True))[0] == 30 or end == "cannot be read"
        await until(lambda: not any(one.recovery.at_once for one in platform.hosts.values()))


async def test_75_permits_come_back_when_the_store_does_not_answer_and_all_is_read_later(store: Reads) -> None:
    async with platforms.running(limited(2), store) as (platform, client):
        await asyncio.gather(*(client.ref(Till, str(n)).add(n) for n in range(10)))
        await platform.crash("host-1")
        store.error = lambda: StoreUnavailable("gone for lunch")
        store.fail_next("load", times=2)
        assert await asyncio.gather(*(client.ref(Till, str(n)).total() for n in range(10))) == list(range(10))

        assert platform.hosts["host-1"].recovery.at_once == 0
        assert platform.hosts["host-1"].recovery.most <= 2


async def test_hosts_that_lost_the_store_together_do_not_ask_it_again_together() -> None:
    async with platforms.running(limited(4), hosts=2) as (platform, _):
        one, other = (host.rng for host in platform.hosts.values())
        pauses = [(pause_s(n, one), pause_s(n, other)) for n in range(1, 9)]

    assert all(abs(mine - yours) > 1e-6 for mine, yours in pauses)
    assert all(recovery.RETRY_MIN_S / 2 <= pause <= recovery.RETRY_MAX_S for pair in pauses for pause in pair)
    assert min(pauses[-1]) > recovery.RETRY_MIN_S, "They grow."


# -- what runs goes on ---------------------------------------------------------------------------------


async def test_a_long_journal_is_applied_in_slices_between_which_the_loop_turns(store: Reads) -> None:
    async with platforms.running(limited(4), store) as (platform, client):
        await _write(platform, "till/long", 4_500)
        await _write(platform, "till/short", 1)
        loop, took = asyncio.get_running_loop(), {"short": 0, "long": 0}

        def turn(name: str) -> None:
            took[name] += 1
            timers[name] = loop.call_soon(turn, name)

        timers: dict[str, asyncio.Handle] = {}
        for name, total in (("short", 1), ("long", 4_500)):
            turn(name)
            assert await client.ref(Till, name).total() == total
            timers[name].cancel()

        assert took["long"] - took["short"] >= 4_500 // recovery.SLICE_ENTRIES - 1


async def _write(platform: LocalPlatform, key: str, count: int) -> None:
    """Write a long journal of one entity."""
    (host,) = platform.hosts.values()
    append = host.committer.open().append
    append.entries += [(key, n, n, b'[["Added",{"amount":1}]]', f"c{n}", 0, b"1", 0, 0) for n in range(1, count + 1)]
    await host.committer.flush()
