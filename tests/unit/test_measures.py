"""What hosts and registry measure of themselves."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from remora import StoreUnavailable
from remora.local import LocalPlatform
from remora.runtime.measures import OF_HOST, OF_REGISTRY
from remora.testing import FaultyStore, ManualClock
from tests import platforms, things
from tests.clock import until
from tests.platforms import move
from tests.things import GATES, REACHED, Till


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    yield
    things.forget()


def of_host(platform: LocalPlatform, name: str = "host-1") -> dict[str, float]:
    host = platform.hosts[name]
    return {measure.name.removeprefix("remora_"): measure.read(host) for measure in OF_HOST}


def of_registry(platform: LocalPlatform) -> dict[str, float]:
    return {measure.name.removeprefix("remora_"): measure.read(platform.registry) for measure in OF_REGISTRY}


async def test_a_host_counts_what_it_does_and_what_waits() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store) as (platform, client):
        for name in "abc":
            await client.ref(Till, name).add()
        await client.ref(Till, "a").total()
        slow = asyncio.ensure_future(client.ref(Till, "a").add_slowly("slow"))
        await REACHED["slow"].wait()
        behind = asyncio.ensure_future(client.ref(Till, "a").add())
        await until(lambda: of_host(platform)["queue"] == 2)

        found = of_host(platform)

        assert (found["commands"], found["live_entities"], found["activations"], found["recoveries"]) == (6, 3, 3, 3)
        assert (found["commit_entries"], found["overloaded"], found["blocked_handlers"]) == (3, 0, 0)
        assert 1 <= found["commits"] <= 3
        assert 0 <= found["lease_age_seconds"] < 2
        assert 1 <= len(platform.hosts["host-1"].latencies_s) <= 4
        GATES["slow"].set()
        await asyncio.gather(slow, behind)
        assert of_host(platform)["queue"] == 0


async def test_the_queue_counts_commands_that_came_with_a_moved_shard() -> None:
    async with platforms.running(things.app, hosts=2) as (platform, client):
        till = client.ref(Till, "a").with_options(deadline_s=20)
        slow = asyncio.ensure_future(till.add_slowly("slow"))
        await REACHED["slow"].wait()
        behind = [asyncio.ensure_future(till.add()) for _ in range(3)]
        source = platforms.host_of(platform, "till/a")
        moving = asyncio.ensure_future(move(platform, "till/a"))
        await until(lambda: not source.shards[source.shard_name("till/a")].accepting)
        GATES["slow"].set()
        target = await moving
        await asyncio.gather(slow, *behind)

        assert [of_host(platform, name)["queue"] for name in sorted(platform.hosts)] == [0, 0]
        assert (target in platform.hosts, of_registry(platform)["moves"]) == (True, 1)


async def test_a_lease_that_is_not_renewed_ages() -> None:
    clock = ManualClock()
    async with platforms.running(things.app, clock=clock) as (platform, _):
        platform.hosts["host-1"].lease._renew = _refuse  # noqa: SLF001 - the store's part
        await until(lambda: platform.registry.detection.watch.sights)
        clock.advance(1.0)

        assert of_host(platform)["lease_age_seconds"] == pytest.approx(1.0)


def _refuse(_: float) -> None:
    msg = "away"
    raise StoreUnavailable(msg)


async def test_the_registry_counts_hosts_that_it_gave_up_and_shards_without_one() -> None:
    async with platforms.running(things.app, hosts=2) as (platform, _):
        assert of_registry(platform)["hosts"] == 2
        await platform.registry.gone([platform.hosts["host-1"].incarnation], replace=False)
        await platform.registry.gone([platform.hosts["host-2"].incarnation], replace=False)

        found = of_registry(platform)

        assert (found["fences"], found["hosts"], found["shards_without_host"]) == (2, 0, 8)
        assert found["term"] == platform.registry.term


def test_the_operators_page_lists_every_measure_with_its_kind_and_meaning() -> None:
    page = Path("docs/operations.md").read_text(encoding="utf-8")
    listed = [f"| `{one.name}` | {one.kind} | {one.meaning} |" for one in OF_HOST]
    listed += [f"| `{one.name}` | {one.kind} | {one.meaning} |" for one in OF_REGISTRY]

    assert [line for line in listed if line not in page] == []
    assert len(set(listed)) == len(OF_HOST) + len(OF_REGISTRY)
