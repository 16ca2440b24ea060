"""A slice of the main job on Ray: real departures, a host killed half way, compared with pandas."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from entities.flights.compare import describe, differences
from entities.flights.expected import expected
from entities.flights.replay import fly_all, read_back, report
from entities.flights.table import Departure, departures
from remora.cluster import bootstrap
from tests.integration.conftest import Figure
from tests.integration.running import POLL_S, Running, kill, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(240)]
FIRST = 6_000
"""Departures of the slice: a week, in seconds."""
SETTLED_S = 90.0


async def settled(app: Running) -> None:
    """Wait until every durable send has arrived."""
    async with asyncio.timeout(SETTLED_S):
        while (await bootstrap.outbox_counts(app.name))[0]:  # noqa: ASYNC110 - a bounded wait for other processes
            await asyncio.sleep(POLL_S)  # noqa: TID251 - as above
    assert await bootstrap.outbox_counts(app.name) == (0, 0)


@pytest.mark.slow
async def test_a_week_of_flights_with_a_host_killed_half_way_is_exactly_what_pandas_computes(
    tmp_path: Path, figure: Figure
) -> None:
    figures = expected(FIRST)
    killed: list[float] = []
    async with running("entities.flights:app", tmp_path / "flights.db") as app:

        def rows() -> Iterator[Departure]:
            for n, row in enumerate(departures(FIRST)):
                if n == FIRST // 2:
                    killed.append(kill(app.hosts()[0]))
                yield row

        began = asyncio.get_running_loop().time()
        left = await fly_all(app.client, rows())
        figure(f"{FIRST} departures flown in", asyncio.get_running_loop().time() - began)
        await settled(app)
        await report(app.client, figures["airport"])
        await settled(app)
        figure("and all sends delivered after", asyncio.get_running_loop().time() - began)

        assert len(killed) == 1
        assert app.client.retries > 0
        assert describe(differences(figures, await read_back(app.client, figures))) == "No differences."
        assert left == sum(of["flights"] for of in figures["aircraft"].values())

        await until(lambda: app.balanced(2), 60, "the killed host is replaced")
        assert await fly_all(app.client, departures(FIRST)) == left
        await settled(app)
        assert app.client.repeated >= FIRST  # recognised, every one: a second replay changes nothing
        assert describe(differences(figures, await read_back(app.client, figures))) == "No differences."
