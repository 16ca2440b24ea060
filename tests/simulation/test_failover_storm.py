"""A host with a hundred thousand live entities is lost, and all of them are asked for at once."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel

from remora import App, Durable, Settings, command, query
from remora.clock import SystemClock
from remora.journal import Append, Recovered, Want
from remora.local import LocalPlatform
from remora.messages import ERROR, STALE, Ask
from remora.runtime.host import Host
from remora.sharding.hashing import shard_of
from remora.sharding.table import HostRow
from remora.storage.memory import MemoryStore
from tests.clock import turns

LIVE = 100_000
HOSTS = 4
READ_TURNS = 5
"""Turns of the loop that the store takes for a read: the more it computes, the longer that is, on any machine."""
SETTINGS = Settings(recoveries_max=256, recoveries_cluster_max=512, rebalance_s=10**6)


class Sum(BaseModel):
    amount: int = 0


class Meter(Durable[Sum]):
    """Counts."""

    @command
    async def add(self) -> int:
        self.state.amount += 1
        return self.state.amount

    @query
    async def amount(self) -> int:
        return self.state.amount


app = App("meters", entities=[Meter], settings=SETTINGS)


class Slow(MemoryStore):
    """Takes its time to read, and counts how many entities are read at once, over all hosts and for each."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = self.most = 0
        self.reads: Counter[int] = Counter()

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        self.at_once += len(wants)
        self.most = max(self.most, self.at_once)
        self.reads[len(wants)] += 1
        await turns(READ_TURNS)
        self.at_once -= len(wants)
        return await super().load(wants)


class Answered:
    """Takes answers, and notes how many recoveries of a host each had to wait for."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: list[bytes] = []
        self.all = asyncio.get_running_loop().create_future()

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        self.count += 1
        if verdict == ERROR or payload != b"7":
            self.wrong.append(b"%d: " % n + payload)
        if self.count == LIVE:
            self.all.set_result(None)


def owned_by(platform: LocalPlatform, name: str, count: int) -> list[str]:
    """Return ids of entities in the shards of a host."""
    shards, found, n = platform.hosts[name].shards, list[str](), 0
    while len(found) < count:
        if shard_of(f"meter/{n}", SETTINGS.shards) in shards:
            found.append(str(n))
        n += 1
    return found


async def write(store: MemoryStore, ids: list[str]) -> None:
    writer = await store.join(HostRow(0, "writer", "n", "m", 1, 0.0))
    append = Append()
    for one in ids:
        key = f"meter/{one}"
        append.entries.append((key, 1, 0, None, "before", 0, b"7", 1, 0))
        append.states[key] = (key, 1, 0, b'{"amount":7}', 1)
    await store.append(writer, append)


def ask_all(platform: LocalPlatform, ids: list[str], sink: Answered) -> None:
    """Ask for all of them at the same instant, at whoever owns them."""
    owner = {shard: host for host in platform.hosts.values() for shard in host.shards}
    until_s = platform.clock.monotonic_s() + 1_000
    for n, one in enumerate(ids):
        host: Host = owner[shard_of(f"meter/{one}", SETTINGS.shards)]
        host.dispatch(Ask(n, "meter", one, "amount", b"{}", "", 1_000.0, "", 0, 0, (), STALE), sink, until_s)


async def test_a_failover_of_a_hundred_thousand_entities_recovers_no_more_at_once_than_stated_and_starves_nobody() -> (
    None
):
    store = Slow()
    platform = LocalPlatform(app, store, SystemClock())
    await platform.start(HOSTS)
    client = await platform.client().start()
    lost, live = owned_by(platform, "host-1", LIVE), owned_by(platform, "host-2", 20)
    await write(store, lost)
    before = Answered()
    ask_all(platform, lost, before)
    await before.all
    assert len(platform.hosts["host-1"].cells) == LIVE
    for one in live:
        await client.ref(Meter, one).add()
    alive = [host for name, host in platform.hosts.items() if name != "host-1"]
    store.most = 0

    await platform.crash("host-1")
    after, survivor, waited, commands = Answered(), platform.hosts["host-2"], list[int](), 1
    ask_all(platform, lost, after)
    assert sum(host.recovery.waiting for host in platform.hosts.values()) == LIVE
    while after.count < LIVE:
        commands += 1
        recovered = survivor.recovery.count
        for one in live:
            assert await client.ref(Meter, one).add() == commands
        waited.append(survivor.recovery.count - recovered)

    assert after.wrong == before.wrong == []
    # The lost host is replaced: four share the permits again. None had more, and together they had no more.
    assert store.most <= SETTINGS.recoveries_cluster_max
    assert max(host.status()["recovering_most"] for host in alive) <= SETTINGS.recoveries_cluster_max // (HOSTS - 1)
    assert max(store.reads) <= SETTINGS.recoveries_max
    # Twenty commands of entities that were live, one after the other, were answered while a few hundred came back.
    assert len(waited) > 20
    assert max(waited) < LIVE / HOSTS / 20
    await platform.close()
