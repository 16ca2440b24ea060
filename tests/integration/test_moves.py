"""Shards that move from one process to another under load take along what their entities know."""

from pathlib import Path
from typing import Any

import pytest

from remora.cluster.names import registry_name
from remora.cluster.transport import find_actor
from tests.integration.conftest import Figure
from tests.integration.load import Load
from tests.integration.running import Running, kill, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(240)]
REPLACED_S = 60.0


async def statuses(app: Running) -> dict[str, dict[str, Any]]:
    registry: Any = await find_actor(registry_name(app.name))
    status: dict[str, Any] = await registry.status.remote()
    return {one["name"]: one for one in status["live"]}


@pytest.mark.slow
async def test_59_a_rebalance_under_load_costs_no_error_and_the_host_that_gets_the_shards_reads_no_entity_back(
    tmp_path: Path, figure: Figure
) -> None:
    async with running("tests.integration.apps:moved", tmp_path / "moved.db") as app:
        async with Load(app) as load:
            await load.more(1_000)
            victim, survivor = app.hosts()
            kill(victim)
            await until(lambda: survivor.incarnation in app.client.table.hosts and len(app.client.table.owned_by(survivor.incarnation)) == app.client.settings.shards, REPLACED_S, "the survivor has all shards")  # fmt: skip
            at = load.at[-1][0]
            await load.more(500)

            await until(lambda: app.balanced(2), REPLACED_S, "a new host gets its share from the survivor")
            await load.more(2_000)
            moved = {name for name in load.entities if app.owner(f"witness/{name}") != survivor.incarnation}
            (new,) = [row for row in app.hosts() if row.incarnation != survivor.incarnation]
            said = await statuses(app)

        await load.verify()  # no error, nothing lost, doubled or out of order
        assert moved
        assert said[new.name]["opened_warm"] == len(moved)
        assert said[new.name]["recovered"] == 0
        assert said[survivor.name]["sent_warm"] == len(moved)
        figure("longest silence of an entity that moved", load.outage_s(at, moved))
