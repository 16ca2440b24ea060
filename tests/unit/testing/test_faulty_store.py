"""The store that fails on demand does so where, when and as often as it is told."""

import asyncio

import pytest

import remora
from entities.account import Account, app
from remora.errors import Fenced, StoreUnavailable
from remora.journal import Append, Want
from remora.sharding.table import HostRow
from remora.testing import FaultyStore
from tests.clock import until


async def opened() -> tuple[FaultyStore, int]:
    store = FaultyStore()
    await store.open("bank", 8)
    return store, await store.join(HostRow(0, "host-1"))


def entry(n: int) -> Append:
    return Append(entries=[("a/1", n, n, None, f"c{n}", 0, b"1", 1_000, 0)])


async def last(store: FaultyStore) -> int:
    return (await store.load([Want("a/1", 9)]))[0].last


async def test_an_append_can_fail_before_it_is_written_and_after() -> None:
    store, host = await opened()
    store.fail_next()
    store.fail_next(after=True)

    with pytest.raises(StoreUnavailable):
        await store.append(host, entry(1))
    assert await last(store) == 0
    with pytest.raises(StoreUnavailable):
        await store.append(host, entry(1))
    assert await last(store) == 1

    await store.append(host, entry(2))
    assert [append.entries[0][1] for _, append in store.appends] == [1, 2]


async def test_any_method_can_be_failed_as_often_as_told() -> None:
    store, host = await opened()
    store.fail_next("load", times=2)
    store.fail_next("renew")
    store.error = lambda: OSError("unplugged")
    assert store.failing == ["load", "renew"]

    for _ in range(2):
        with pytest.raises(OSError, match="unplugged"):
            await last(store)
    with pytest.raises(OSError, match="unplugged"):
        store.renew(host, 1.0)

    assert await last(store) == 0
    assert store.failing == []


async def test_a_fenced_incarnation_writes_nothing_any_more_and_another_one_does() -> None:
    store, host = await opened()
    store.fence_next()

    for _ in range(2):
        with pytest.raises(Fenced, match="has ended"):
            await store.append(host, entry(1))
    with pytest.raises(Fenced):
        await store.reincarnate(host)
    with pytest.raises(Fenced):
        await store.release(host, ["0"])
    with pytest.raises(Fenced):
        store.renew(host, 1.0)

    await store.append(await store.join(HostRow(0, "host-1")), entry(1))
    assert await last(store) == 1


async def test_calls_are_held_until_they_are_let_go() -> None:
    store, host = await opened()
    store.hold()
    store.hold("load")
    writing = asyncio.create_task(store.append(host, entry(1)))
    reading = asyncio.create_task(last(store))
    await until(lambda: store.waiting == 2)

    store.let_go()
    await writing
    assert not reading.done()
    store.let_go("load")

    assert await reading == 1
    assert store.waiting == 0


async def test_calls_are_delayed_until_the_delay_is_taken_back() -> None:
    store, _ = await opened()
    store.delay("load", 3600)
    waiting = asyncio.create_task(last(store))
    _, pending = await asyncio.wait([waiting], timeout=0.01)
    assert pending
    waiting.cancel()

    store.delay("load", 0.001)
    assert await last(store) == 0
    store.mend()
    assert await last(store) == 0


async def test_a_mended_store_fails_nothing() -> None:
    store, host = await opened()
    store.fail_next(times=3)
    store.fail_next("load")
    store.fence_next()
    store.hold()

    store.mend()

    await store.append(host, entry(1))
    assert await last(store) == 1


async def test_a_platform_on_a_store_that_fails_loses_nothing() -> None:
    store = FaultyStore()
    async with remora.local(app, store=store) as client:
        alice = client.ref(Account, "alice")
        assert await alice.deposit(1) == 1
        store.fail_next(after=True)
        store.fail_next("load")

        assert await alice.deposit(10) == 11

        assert await alice.balance() == 11
