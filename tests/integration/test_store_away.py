"""The store away under load: nothing acknowledged is lost, nothing is applied twice, everybody gets an answer in time."""

import asyncio
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from pydantic import BaseModel

from remora import App, Client, EntityOptions, Event, EventSourced, RemoraError, Settings, command
from remora.journal import Tail
from remora.local import LocalPlatform
from remora.storage.postgres import PostgresStore
from tests import platforms, postgres
from tests.clock import until
from tests.proxy import Proxy

ENTITIES = 60
WORKERS = 120
DEADLINE_S = 4.0
LATE_S = 1.0
"""How much later than its deadline an answer may come: the machine may be busy."""


class Marks(BaseModel):
    count: int = 0


class Marked(Event):
    number: int


class Witness(EventSourced[Marks, Marked]):
    """Notes numbers; each is given once."""

    options = EntityOptions(snapshot_every=20, deadline_s=DEADLINE_S)

    @command
    async def mark(self, number: int) -> int:
        self.emit(Marked(number=number))
        return number

    def apply(self, event: Marked) -> None:
        del event
        self.state.count += 1


app = App("away", entities=[Witness], settings=Settings(shards=16))


class Load:
    """Marks witnesses with 1, 2, 3 … and keeps its own record of what was acknowledged."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.acknowledged: defaultdict[str, list[int]] = defaultdict(list)
        self.at_s: list[float] = []
        self.errors: list[Exception] = []
        self.slowest_s = 0.0
        self.sent = 0
        self.stopping = False

    async def run(self) -> None:
        """Go on until told to stop."""
        names = itertools.cycle(f"w{number}" for number in range(ENTITIES))
        await asyncio.gather(*(self._work(names) for _ in range(WORKERS)))

    async def _work(self, names: "itertools.cycle[str]") -> None:
        while not self.stopping:
            name = next(names)
            self.sent += 1
            number, began_s = self.sent, time.perf_counter()
            try:
                await self._client.ref(Witness, name).mark(number)
            except Exception as error:  # noqa: BLE001 - which kind it is, is looked at
                self.errors.append(error)
            else:
                self.acknowledged[name].append(number)
                self.at_s.append(time.perf_counter())
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began_s)


async def journal(url: str) -> dict[str, list[int]]:
    """Return the numbers that each witness holds, read from the database itself."""
    store = PostgresStore(url)
    await store.open(app.name, app.settings.shards)
    found = {}
    for name in (f"w{number}" for number in range(ENTITIES)):
        tail: list[Tail] = []
        while page := await store.entries(f"witness/{name}", len(tail), 5_000):
            tail += page
        assert [entry.n for entry in tail] == list(range(1, len(tail) + 1))
        events = [event for entry in tail for event in msgspec.json.decode(entry.events or "[]")]
        found[name] = [event[1]["number"] for event in events]
    await store.close()
    return found


@pytest.fixture
async def url() -> AsyncIterator[str]:
    made = await postgres.fresh_database()
    yield made
    await postgres.drop_database(made)


async def under_load(
    url: str, proxy: Proxy, trouble: Callable[[], Awaitable[None]]
) -> tuple[Load, LocalPlatform, float]:
    """Run two hosts under load through the proxy; return the load, the platform, and when the trouble was over."""
    async with platforms.running(app, PostgresStore(proxy.url), hosts=2) as (platform, client):
        hosts = dict(platform.hosts)
        shards = {name: sorted(host.shards) for name, host in hosts.items()}
        load = Load(client)
        running = asyncio.create_task(load.run())
        await until(lambda: len(load.at_s) > 500, 20)

        await trouble()

        over_s = time.perf_counter()
        before = len(load.at_s)
        await until(lambda: len(load.at_s) > before + 2_000, 20)
        load.stopping = True
        await running
        assert platform.hosts == hosts, "a host was given up"
        assert {name: sorted(host.shards) for name, host in hosts.items()} == shards
    held = await journal(url)
    for name, numbers in load.acknowledged.items():
        assert len(held[name]) == len(set(held[name])), f"{name}: applied twice"
        assert set(numbers) <= set(held[name]), f"{name}: acknowledged and lost"
    assert {type(error) for error in load.errors if not isinstance(error, RemoraError)} == set()
    assert load.slowest_s < DEADLINE_S + LATE_S
    return load, platform, over_s


@pytest.mark.parametrize(
    "forgets",
    [
        pytest.param(False, id="and_nothing_else"),
        pytest.param(True, id="and_its_connections", marks=pytest.mark.slow),
    ],
)
async def test_ten_seconds_without_the_store_lose_and_double_nothing_and_cost_no_host(
    url: str, caplog: pytest.LogCaptureFixture, *, forgets: bool
) -> None:
    caplog.set_level(logging.CRITICAL, "remora")
    async with Proxy(url) as proxy:

        async def black_hole() -> None:
            proxy.hold()
            await asyncio.sleep(10)  # noqa: TID251 - as long as the store is away
            if forgets:
                proxy.reset()
            proxy.let_go()

        load, _, over_s = await under_load(url, proxy, black_hole)

    assert load.errors, "callers whose deadline passed were told so"
    assert min(at_s for at_s in load.at_s if at_s > over_s) - over_s < 1


async def test_connections_that_break_under_load_lose_and_double_nothing_and_cost_no_host(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "remora")
    async with Proxy(url) as proxy:

        async def breaks() -> None:
            for _ in range(5):
                proxy.reset()
                await asyncio.sleep(0.2)  # noqa: TID251 - between one failure and the next

        load, _, over_s = await under_load(url, proxy, breaks)

    assert min(at_s for at_s in load.at_s if at_s > over_s) - over_s < 1


async def test_a_database_that_crashes_under_load_loses_and_doubles_nothing_and_costs_no_host(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "remora")
    server = await asyncio.to_thread(postgres.new_server)
    async with Proxy(server.url()) as proxy:

        async def crash() -> None:
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.sleep(1)  # noqa: TID251 - as long as it takes to notice
            await asyncio.to_thread(server.start)

        load, _, over_s = await under_load(server.url(), proxy, crash)

    assert min(at_s for at_s in load.at_s if at_s > over_s) - over_s < 1
    await asyncio.to_thread(server.delete)


async def test_a_slow_network_only_slows_down(url: str) -> None:
    async with Proxy(url) as proxy:

        async def slow() -> None:
            proxy.delay_s = 0.05
            await asyncio.sleep(1)  # noqa: TID251 - as long as it is slow
            proxy.delay_s = 0.0

        load, _, _ = await under_load(url, proxy, slow)

    assert load.errors == []
