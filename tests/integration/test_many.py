"""Many entities of both kinds in one app."""

import asyncio
import time
from pathlib import Path

import pytest

from remora.cluster.names import entity_name
from tests.integration.apps import Lasting, Witness
from tests.integration.conftest import Figure
from tests.integration.running import kill, listed, running, until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(900)]
DEDICATED, SHARED = 50, 100_000
IN_FLIGHT = 500
STARTED_S = 420.0
"""More than a second of CPU for each actor, on two cores; those that have started leave the next ones less and less, since Ray's
processes take 1.1 to 2.7 % of a core each while they do nothing. It took 42 to 233 s, once more than 240."""


async def test_fifty_dedicated_entities_and_a_hundred_thousand_shared_ones_live_in_one_app(
    tmp_path: Path, figure: Figure
) -> None:
    async with running("tests.integration.apps:many", tmp_path / "many.db") as app:
        # The many first: fifty processes more, idle as they are, leave the other hosts less than half of two cores.
        began, numbers = time.perf_counter(), iter(range(SHARED))

        async def work() -> int:
            count = 0
            for number in numbers:
                assert await app.client.ref(Witness, f"w{number}").with_options(deadline_s=60.0).mark(number) == 1
                count += 1
            return count

        assert sum(await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))) == SHARED
        figure("a hundred thousand shared ones answered after", time.perf_counter() - began)

        began = time.perf_counter()
        boards = [app.client.ref(Lasting, f"b{n}").with_options(deadline_s=STARTED_S) for n in range(DEDICATED)]
        assert await asyncio.gather(*(board.add(n) for n, board in enumerate(boards))) == list(range(DEDICATED))
        figure("fifty dedicated ones answered after", time.perf_counter() - began)

        def hosts() -> set[str]:
            return {row.name for row in app.client.table.hosts.values()}

        names = {entity_name(app.name, f"lasting/b{n}") for n in range(DEDICATED)}
        # One that was given up while fifty processes started beside it is being started again.
        await until(
            lambda: names <= set(listed(app.name)), STARTED_S, "each is an actor of its own, of its documented name"
        )
        await until(lambda: names <= hosts(), STARTED_S, "each is in the table")
        lost = next(row for row in app.client.table.hosts.values() if row.name == entity_name(app.name, "lasting/b7"))
        kill(lost)
        assert await boards[7].add(1) == 8
        await until(lambda: lost.incarnation not in app.client.table.hosts, 10.0, "its former self is gone")
        assert [await board.value() for board in boards] == [n + (n == 7) for n in range(DEDICATED)]
        asked = range(0, SHARED, 100)
        found = await asyncio.gather(
            *(app.client.ref(Witness, f"w{n}").with_options(deadline_s=60.0).marks() for n in asked)
        )
        assert found == [[n] for n in asked]
