"""A supervisor in a process of its own: it decides about failures elsewhere, and misses none when it is killed."""

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from remora import Client, HandlerFailed, Stopped
from remora.cluster.names import supervisor_name
from remora.cluster.transport import RayDirectory
from tests.integration.conftest import Figure
from tests.integration.guarded import Guarded
from tests.integration.running import listed, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(180)]
FAILURES = 240
KILLS = (40, 110, 180)
"""Failures after which the supervisor is killed, while the next ones arrive."""
AT_ONCE = 4
BACK_S = 60.0
"""Longest wait for a supervisor's process to be there, and to be told of everything."""


def heard(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def upkeep(app: str = "guarded") -> dict[str, Any]:
    """Return what the registry says of the supervisor."""
    (one,) = (await RayDirectory(app).ask("status"))["supervisors"]
    return dict(one)


async def up(app: str = "guarded", *, not_pid: int = 0) -> int:
    """Wait until it runs, in another process than that; return its pid."""
    async with asyncio.timeout(BACK_S):
        while True:
            said = await upkeep(app)
            if said["state"] == "up" and said["pid"] != not_pid:
                return int(said["pid"])
            await asyncio.sleep(0.02)  # noqa: TID251 - a bounded wait for another process


async def fail(client: Client, name: str, file: Path) -> None:
    with pytest.raises(HandlerFailed):
        await client.ref(Guarded, name).fail(str(file))


async def test_a_supervisor_decides_about_an_entity_in_another_process_and_is_told_when_it_has_terminated(
    tmp_path: Path,
) -> None:
    file = tmp_path / "heard"
    async with running("tests.integration.guarded:patient", tmp_path / "guarded.db") as app:
        pid = await up(app.name)
        await fail(app.client, "doomed", file)
        await fail(app.client, "lucky", file)

        with pytest.raises(Stopped, match="BoomError"):
            await app.client.ref(Guarded, "doomed").add()
        assert await app.client.ref(Guarded, "lucky").add() == 1
        await until(lambda: any("over" in line for line in heard(file)), 10, "it is told of the end")

        asked = sorted((line["entity"], line["decided"], line["pid"]) for line in heard(file) if "pid" in line)
        assert asked == [("guarded/doomed", "", pid), ("guarded/lucky", "", pid)]
        assert pid not in {row.pid for row in app.hosts()} | {await app.registry_pid()}
        (over,) = [line for line in heard(file) if "over" in line]
        assert over["entity"] == "guarded/doomed"


async def test_a_supervisor_that_is_killed_while_failures_arrive_misses_none(tmp_path: Path, figure: Figure) -> None:
    file = tmp_path / "heard"
    async with running("tests.integration.guarded:app", tmp_path / "guarded.db") as app:
        pid, made, killed = await up(), 0, 0
        loop = asyncio.get_running_loop()
        slowest_s = 0.0

        async def one(number: int) -> None:
            nonlocal slowest_s
            began_s = loop.time()
            await fail(app.client, f"e{number % 60}", file)
            slowest_s = max(slowest_s, loop.time() - began_s)

        while made < FAILURES:
            if killed < len(KILLS) and made >= KILLS[killed]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
                await asyncio.gather(*(one(made + n) for n in range(AT_ONCE)))  # these arrive while nobody is there
                made += AT_ONCE
                pid = await up(not_pid=pid)
            await asyncio.gather(*(one(made + n) for n in range(AT_ONCE)))
            made += AT_ONCE

        wanted = Counter(f"guarded/e{number % 60}" for number in range(made))
        await until(lambda: not missed(wanted, file), BACK_S, "it is told of everything")

        said, actor = await upkeep(), listed("guarded")[supervisor_name("guarded", "watchman")]
        assert (said["state"], said["restarts"]) == ("up", len(KILLS)), said
        assert (said["pid"], said["node"]) == (int(actor.pid), actor.node_id), "Ray's view and ours agree"
        later = sum(line["times"] for line in heard(file) if line["decided"])
        assert later, "some were told later"
        figure("slowest failure's answer to its caller", slowest_s)
        assert await app.client.ref(Guarded, "e1").add() == 1


def missed(wanted: Counter[str], file: Path) -> dict[str, int]:
    """Return of which entity it has heard of fewer failures than there were."""
    counts: Counter[str] = Counter()
    for line in heard(file):
        counts[line["entity"]] += line["times"]
    return {entity: count for entity, count in (wanted - counts).items() if count > 0}
