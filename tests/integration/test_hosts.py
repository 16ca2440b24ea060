"""Hosts that Ray would not start again, or for ever: the rules decide."""

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

import pytest

from remora.cluster.transport import RayDirectory
from tests.integration.conftest import Figure
from tests.integration.load import Load
from tests.integration.running import alive, kill, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(180)]
FEW = 8
STARTED_S = 30.0
"""Longest wait for a host's process to be there."""
PAUSES_S = (1.0, 2.0)
"""Between its second and its fourth start, as its rule says."""


def host_processes() -> set[int]:
    """Return the processes of hosts, also of those that are only being started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::HostActor") and alive(int(path.parent.name)):
                found.add(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.slow
async def test_a_host_that_ends_as_it_starts_is_tried_less_and_less_often_then_not_at_all_and_the_other_serves(
    tmp_path: Path, figure: Figure
) -> None:
    async with running("tests.integration.brittle:unlucky", tmp_path / "unlucky.db") as app:
        async with Load(app, FEW) as load:
            await load.more(200)
            known, victim = host_processes(), app.hosts()[0]
            killed_s = [kill(victim)]
            for _ in range(3):  # as many as are tried: each is killed as soon as there is a process
                await until(lambda: bool(host_processes() - known), STARTED_S, "a host is being started")
                (pid,) = host_processes() - known
                known.add(pid)
                os.kill(pid, signal.SIGKILL)
                killed_s.append(time.perf_counter())
                await until(lambda pid=pid: not alive(pid), STARTED_S, "it is gone")  # type: ignore[misc]  # a default freezes the loop variable

            status = await shown(victim.slot)
            await load.more(200)
        await load.verify()

        assert status["refused"][victim.slot].startswith("its supervision rules say stop")
        assert victim.slot not in {row.slot for row in app.hosts()}
        between_s = [late - early for early, late in itertools.pairwise(killed_s[1:])]
        for took_s, least_s in zip(between_s, PAUSES_S, strict=True):
            figure(f"next try, {least_s:g} s at least", took_s)
            assert took_s >= least_s
        assert host_processes() - known == set(), "and it stays so"


async def shown(slot: str) -> dict[str, dict[str, str]]:
    """Return the registry's status once a slot is given up in it."""
    async with asyncio.timeout(STARTED_S):
        while True:
            status: dict[str, dict[str, str]] = await RayDirectory("unlucky").ask("status")
            if slot in status["refused"] and "stop" in status["refused"][slot]:
                return status
            await asyncio.sleep(0.05)  # noqa: TID251 - a bounded wait for another process
