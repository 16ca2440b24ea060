"""Entities that take their process down, really: found, held apart, and nobody else with them."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from remora import Quarantined, UnknownEntity
from remora.cluster.transport import RayDirectory
from tests.integration.brittle import RULE, Brittle, Lone, Mine
from tests.integration.conftest import Figure
from tests.integration.load import Load
from tests.integration.running import Running, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(300)]
WAYS = {
    "segfault": "Segmentation fault",
    "segfault_after_a_wait": "Segmentation fault",
    "leave": "os._exit(3)",
    "leave_in_a_thread": "os._exit(3)",
    "spin": "kept its host from everything else",
    "hoard": "of memory",
}
FEW = 8
"""Commands under way: a load that leaves the machine time to start processes."""
AGAIN_S = 60.0
"""Longest wait for both hosts to stand again."""


@asynccontextmanager
async def brittle(folder: Path) -> AsyncIterator[Running]:
    async with running("tests.integration.brittle:brittle", folder / "brittle.db") as app:
        yield app


async def quarantined(app: Running) -> dict[str, int]:
    """Return what is held apart until it is released: entity → crashes."""
    found = await RayDirectory(app.name).ask("quarantine")
    return {row["entity"]: row["crashes"] for row in found if not row["until_ms"]}


@pytest.mark.slow
async def test_whatever_takes_its_process_down_is_quarantined_within_the_limit_and_no_neighbour_ever_is(
    tmp_path: Path, figure: Figure
) -> None:
    async with brittle(tmp_path) as app:
        async with Load(app, FEW) as load:
            lost = set()
            for way, cause in WAYS.items():
                await until(lambda: app.balanced(2), AGAIN_S, "both hosts stand")
                bad = app.client.ref(Brittle, way)
                assert await bad.add() == 1
                before = {row.incarnation for row in app.hosts()}

                with pytest.raises(Quarantined, match="took its host down 2 times") as caught:
                    await getattr(bad, way)()

                assert cause in caught.value.message
                lost |= before - {row.incarnation for row in app.hosts()}
                with pytest.raises(Quarantined):
                    await bad.add()
                why = await bad.why()
                assert (why.state, cause in why.reason) == ("quarantined", True)

            assert await quarantined(app) == dict.fromkeys((f"brittle/{way}" for way in WAYS), RULE.at_most + 1)
            # Neighbours have lost nothing, and the hosts that went down are not more than the rule allows.
            await until(lambda: app.balanced(2), AGAIN_S, "both hosts stand")
            await load.more(500)
        await load.verify()
    assert len(lost) <= len(WAYS) * (RULE.at_most + 1)
    figure("hosts taken down", len(lost))


async def test_an_entity_that_ends_whatever_reads_it_back_is_quarantined_and_runs_again_once_it_is_mended_and_released(
    tmp_path: Path,
) -> None:
    async with brittle(tmp_path) as app:
        mine = app.client.ref(Mine, "one")
        fuse = tmp_path / "fuse"
        assert [await mine.step_on(str(fuse)), await mine.step_on(str(fuse))] == [1, 2]
        fuse.write_text("")
        for row in app.hosts():  # a restart, after which it is read back
            os.kill(row.pid, 9)

        with pytest.raises(Quarantined, match=r"mine/one\.recovery took its host down 2 times .* os\._exit\(4\)"):
            await mine.with_options(deadline_s=120.0).step_on(str(fuse))
        fuse.rename(tmp_path / "spent")
        released = await RayDirectory(app.name).ask("release_from_quarantine", "mine/one", "")

        assert released["crashes"] == 2
        assert await mine.step_on(str(fuse)) == 3
        with pytest.raises(UnknownEntity, match="in quarantine: nothing"):
            await RayDirectory(app.name).ask("release_from_quarantine", "mine/one", "")


@pytest.mark.slow
async def test_a_dedicated_entity_that_keeps_ending_its_actor_is_quarantined(tmp_path: Path) -> None:
    async with brittle(tmp_path) as app:
        lone, other = app.client.ref(Lone, "bad"), app.client.ref(Lone, "good")
        assert [await lone.add(), await other.add()] == [1, 1]

        with pytest.raises(Quarantined, match=r"lone/bad\.leave took its host down 2 times"):
            await lone.with_options(deadline_s=120.0).leave()

        assert await other.add() == 2
        assert await quarantined(app) == {"lone/bad": 2}


async def test_a_host_that_is_killed_while_an_entity_runs_quarantines_nobody(tmp_path: Path) -> None:
    async with brittle(tmp_path) as app:
        async with Load(app, FEW) as load:
            for _ in range(RULE.at_most + 2):
                await until(lambda: app.balanced(2), AGAIN_S, "both hosts stand")
                await load.more(200)
                os.kill(app.hosts()[0].pid, 9)
            await load.more(200)

            assert await quarantined(app) == {}
        await load.verify()
