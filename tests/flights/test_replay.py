import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date, timedelta

import pytest

import remora
from entities.flights import Aircraft, Airport, Board, Route, app
from entities.flights.aircraft import UNTRACKED
from entities.flights.board import BOARD_ID, DayTally, Summary
from entities.flights.compare import describe, differences
from entities.flights.expected import Figures, expected
from entities.flights.replay import fly_all, read_back, report
from entities.flights.table import Departure, departures
from remora.clock import SystemClock
from remora.local import LocalPlatform
from remora.storage.memory import MemoryStore

FIRST = 2_000
"""Departures of the slice: two days and a bit, with cancelled, diverted and untracked ones."""
NEW_YEAR = date(2013, 1, 1)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def settled(client: remora.Client, store: MemoryStore) -> None:
    """Wait until every durable send has arrived."""
    async with asyncio.timeout(30):
        while (await store.outbox_counts())[0]:
            await client.ref(Airport, "EWR").figures()  # a round trip: the hosts get their turn
    assert await store.outbox_counts() == (0, 0)


async def landed(client: remora.Client, store: MemoryStore, figures: Figures) -> Figures:
    """Wait for all sends, let the airports report, and return what the twins say."""
    await settled(client, store)
    await report(client, figures["airport"])
    await settled(client, store)
    return await read_back(client, figures)


@asynccontextmanager
async def platform(store: MemoryStore) -> AsyncIterator[LocalPlatform]:
    running = LocalPlatform(app, store, SystemClock())
    try:
        await running.start(hosts=2)
        yield running
    finally:
        await running.close()


async def entries(client: remora.Client, figures: Figures) -> dict[str, int]:
    """Return how many entries each twin has made."""
    kinds: dict[str, type[Aircraft | Airport | Route]] = {"aircraft": Aircraft, "airport": Airport, "route": Route}
    return {
        f"{kind}/{name}": (await client.ref(cls, name).why()).entries or 0
        for kind, cls in kinds.items()
        for name in figures[kind]
    }


async def test_the_twins_say_exactly_what_pandas_computes(store: MemoryStore) -> None:
    figures = expected(FIRST)
    async with remora.local(app, hosts=2, store=store) as client:
        left = await fly_all(client, departures(FIRST))

        assert describe(differences(figures, await landed(client, store, figures))) == "No differences."
        assert left == sum(of["flights"] for of in figures["aircraft"].values())


async def test_the_slice_holds_every_kind_of_row() -> None:
    rows = list(departures(FIRST))

    assert any(row.tail == UNTRACKED for row in rows)
    assert any(row.dep_delay is None and row.tail != UNTRACKED for row in rows)
    assert any(row.dep_delay is not None and row.arr_delay is None for row in rows)
    assert len({row.day for row in rows}) == 3


async def test_a_second_replay_is_recognised_and_changes_nothing(store: MemoryStore) -> None:
    figures = expected(FIRST)
    async with remora.local(app, hosts=2, store=store) as client:
        await fly_all(client, departures(FIRST))
        first = await landed(client, store, figures)
        before = await entries(client, figures)

        await fly_all(client, departures(FIRST))

        assert client.repeated == FIRST
        assert await landed(client, store, figures) == first
        assert await entries(client, figures) == before


async def test_a_second_replay_after_a_restart_changes_nothing_either(store: MemoryStore) -> None:
    figures = expected(FIRST)
    async with remora.local(app, hosts=2, store=store) as client:
        await fly_all(client, departures(FIRST))
        await settled(client, store)

    async with remora.local(app, hosts=2, store=store) as client:
        await fly_all(client, departures(FIRST))

        assert client.repeated == FIRST
        assert describe(differences(figures, await landed(client, store, figures))) == "No differences."


async def test_a_host_lost_half_way_costs_no_flight_and_counts_none_twice(store: MemoryStore) -> None:
    figures = expected(FIRST)
    losing: list[asyncio.Task[None]] = []
    async with platform(store) as running, running.client() as client:

        def rows() -> Iterator[Departure]:
            for n, row in enumerate(departures(FIRST)):
                if n == FIRST // 2:
                    losing.append(asyncio.create_task(running.crash("host-1")))
                yield row

        await fly_all(client, rows(), in_flight=64)
        await asyncio.gather(*losing)

        assert len(losing) == 1
        assert client.retries > 0
        assert describe(differences(figures, await landed(client, store, figures))) == "No differences."


async def test_a_cancelled_flight_counts_at_the_aircraft_the_origin_and_the_route_only(store: MemoryStore) -> None:
    async with remora.local(app, store=store) as client:
        assert await client.ref(Aircraft, "N1").fly(NEW_YEAR, "EWR", "IAH", 1400) is False
        await settled(client, store)

        aircraft = await client.ref(Aircraft, "N1").figures()
        route = await client.ref(Route, "EWR-IAH").figures()
        assert (aircraft.cancellations, aircraft.flights, aircraft.distance) == (1, 0, 0)
        assert (route.cancellations, route.flights, route.distance) == (1, 0, 0)
        assert (await client.ref(Airport, "EWR").figures()).cancellations == 1
        assert await client.ref(Airport, "IAH").history() == []


async def test_a_flight_without_an_arrival_on_record_adds_distance_but_no_delay(store: MemoryStore) -> None:
    async with remora.local(app, store=store) as client:
        assert await client.ref(Aircraft, "N1").fly(NEW_YEAR, "EWR", "IAH", 1400, 29) is True
        await settled(client, store)

        aircraft = await client.ref(Aircraft, "N1").figures()
        route = await client.ref(Route, "EWR-IAH").figures()
        origin = await client.ref(Airport, "EWR").figures()
        assert (aircraft.flights, aircraft.no_arrival, aircraft.distance, aircraft.delay) == (1, 1, 1400, 0)
        assert (route.flights, route.no_arrival, route.distance, route.delay) == (1, 1, 1400, 0)
        assert (origin.departures, origin.departure_delay) == (1, 29)
        assert await client.ref(Airport, "IAH").history() == []


async def test_a_flight_that_arrived_without_leaving_is_rejected_and_told_nobody(store: MemoryStore) -> None:
    async with remora.local(app, store=store) as client:
        with pytest.raises(remora.Rejected, match="never left"):
            await client.ref(Aircraft, "N1").fly(NEW_YEAR, "EWR", "IAH", 1400, None, 11)

        assert await client.ref(Aircraft, "N1").history() == []
        assert await store.outbox_counts() == (0, 0)


async def test_an_airport_reports_when_a_day_begins_and_stragglers_with_the_next(store: MemoryStore) -> None:
    async with remora.local(app, store=store) as client:
        newark = client.ref(Airport, "EWR")

        async def shown() -> tuple[int, int, int]:
            await settled(client, store)
            said = await client.ref(Board, BOARD_ID).summary()
            return said.departures, said.cancellations, said.delay

        await newark.departed(NEW_YEAR, 5)
        await newark.cancelled(NEW_YEAR)
        assert await shown() == (0, 0, 0)
        await newark.departed(NEW_YEAR + timedelta(days=1), 7)
        assert await shown() == (1, 1, 5)
        await newark.departed(NEW_YEAR, -2)  # behind the times: no new day begins
        assert await shown() == (1, 1, 5)
        await newark.report()
        assert await shown() == (3, 1, 10)
        await newark.report()
        assert await shown() == (3, 1, 10)


async def test_the_board_shows_thirty_days_and_keeps_the_totals() -> None:
    async with remora.local(app) as client:
        board = client.ref(Board, BOARD_ID)
        for n in range(40):
            await board.add([DayTally(day=NEW_YEAR + timedelta(days=n), departures=4, cancellations=1, delay=10)])
        await board.add([DayTally(day=NEW_YEAR, departures=1, delay=3)])  # long out of the window

        assert await board.summary() == Summary(
            since=NEW_YEAR + timedelta(days=10),
            until=NEW_YEAR + timedelta(days=39),
            departures=120,
            cancellations=30,
            delay=300,
            mean_delay=2.5,
            cancelled_share=0.2,
            total_departures=161,
            total_cancellations=40,
            total_delay=403,
        )


async def test_an_empty_board_has_no_days_and_divides_by_nothing() -> None:
    async with remora.local(app) as client:
        said = await client.ref(Board, BOARD_ID).summary()

        assert (said.since, said.until, said.mean_delay, said.cancelled_share) == (None, None, 0.0, 0.0)


def test_the_windows_of_aircraft_hold_the_busiest_and_the_untracked_one() -> None:
    most = max(of["flights"] + of["cancellations"] for of in expected()["aircraft"].values())

    assert most == 2_512
    assert Aircraft.options.dedup_window >= most
