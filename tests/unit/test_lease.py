"""The lease: what lets a host answer from memory, and what makes the registry give it up."""

# ruff: noqa: SLF001 - renewals are made by hand, without the thread

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import remora
from remora.errors import StoreUnavailable
from remora.runtime.lease import Lease
from remora.testing import FaultyStore, ManualClock
from tests import platforms, things
from tests.clock import until
from tests.things import Till

TTL_S, MARGIN_S = 2.0, 0.25


class Renewals:
    """Notes renewals; may refuse them."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.at_s: list[float] = []
        self.refuse = False
        self.takes_s = 0.0
        self.renewed = threading.Event()

    def __call__(self, at_s: float) -> None:
        if self.refuse:
            msg = "away"
            raise StoreUnavailable(msg)
        self.clock.advance(self.takes_s)
        self.at_s.append(at_s)
        self.renewed.set()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def renewals(clock: ManualClock) -> Renewals:
    return Renewals(clock)


@pytest.fixture
def lease(clock: ManualClock, renewals: Renewals) -> Iterator[Lease]:
    made = Lease(renewals, clock, TTL_S, MARGIN_S)
    yield made
    if made._thread.ident is not None:
        made.stop()


def test_a_lease_that_was_never_renewed_is_not_live(lease: Lease, clock: ManualClock) -> None:
    assert not lease.live(clock.monotonic_s())


def test_a_lease_is_live_until_a_margin_before_its_end(lease: Lease, clock: ManualClock) -> None:
    lease._once()
    began_s = clock.monotonic_s()

    assert lease.live(began_s + TTL_S - MARGIN_S - 0.01)
    assert not lease.live(began_s + TTL_S - MARGIN_S)


def test_a_lease_counts_from_before_the_renewal_was_sent(lease: Lease, clock: ManualClock, renewals: Renewals) -> None:
    renewals.takes_s = 1.0
    began_s = clock.monotonic_s()
    lease._once()

    assert renewals.at_s == [began_s]
    assert not lease.live(began_s + TTL_S - MARGIN_S)


def test_a_lease_that_cannot_be_renewed_ends(lease: Lease, clock: ManualClock, renewals: Renewals) -> None:
    lease._once()
    renewals.refuse = True
    clock.advance(TTL_S)
    lease._once()

    assert not lease.live(clock.monotonic_s())


def test_a_thread_renews_as_soon_as_somebody_misses_the_lease(
    lease: Lease, clock: ManualClock, renewals: Renewals
) -> None:
    lease.start()
    clock.advance(60.0)
    renewals.renewed.clear()

    assert not lease.live(clock.monotonic_s())

    assert renewals.renewed.wait(5.0)


def test_a_stopped_lease_is_not_live(lease: Lease, clock: ManualClock) -> None:
    lease.start()
    assert lease.live(clock.monotonic_s())

    lease.stop()

    assert not lease.live(clock.monotonic_s())


# -- queries need it ---------------------------------------------------------------------------------


async def test_without_a_live_lease_a_query_waits_for_the_next_renewal_and_stale_ones_do_not() -> None:
    store = FaultyStore()
    async with platforms.running(things.app, store) as (platform, client):
        till = client.ref(Till, "a")
        await till.add(5)
        lease = platform.hosts["host-1"].lease
        live, lease.live = lease.live, lambda now_s: now_s < 0  # type: ignore[method-assign]

        waited = (remora.Unavailable, remora.DeadlineExceeded)
        with pytest.raises(waited, match="renews its lease"):
            await till.with_options(deadline_s=0.2).total()
        with pytest.raises(waited, match="renews its lease"):
            await till.with_options(deadline_s=0.2).snapshot()
        assert await till.with_options(stale=True).total() == 5
        assert await till.add(1) == 6, "commands are fenced by their commit"

        lease.live = live  # type: ignore[method-assign]
        assert await till.total() == 6


# -- the registry ends who does not renew -----------------------------------------------------------


async def test_a_host_that_stops_renewing_is_replaced_and_its_entities_answer_again() -> None:
    settings = remora.Settings(shards=8, lease_ttl_s=0.2, lease_margin_s=0.05)
    app = remora.App("things", entities=[Till], settings=settings)
    async with platforms.running(app, hosts=2) as (platform, client):
        till = client.ref(Till, "a")
        await till.add(5)
        frozen = platforms.host_of(platform, "till/a")
        before = frozen.incarnation
        frozen.lease.stop()

        await until(lambda: before not in platform.registry.current.hosts, within_s=10)

        assert await till.add(1) == 6
        await until(lambda: len(platform.hosts) == 2, within_s=10)


def test_any_settings_leave_a_lease_some_time_to_live() -> None:
    wrong: dict[str, Any] = {"lease_ttl_s": 1.0, "lease_margin_s": 0.5}
    with pytest.raises(ValueError, match="under half of lease_ttl_s"):
        remora.Settings(**wrong)
    with pytest.raises(ValueError, match=r"Settings\.shards must be above 0"):
        remora.Settings(shards=0)
