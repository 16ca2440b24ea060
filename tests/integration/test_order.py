"""An app whose parts wait for each other starts in order, stays open through failures, and stops in reverse."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remora import Client, RemoraError, StartError, TryAgain
from remora.app import AppSource
from remora.cluster import bootstrap
from remora.cluster.transport import RayDirectory, actors
from tests.integration import ordered
from tests.integration.ordered import Far, Held, Model, Plain, Shop
from tests.integration.running import Running, kill, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(240)]
HERE = "tests.integration.ordered"
STARTED_S = 60.0
"""Longest wait for processes to be there and to have done what they do."""


@pytest.fixture(autouse=True)
def folder(cluster: object) -> Iterator[Path]:
    del cluster  # it says where
    where = ordered.folder()
    where.mkdir()
    yield where
    shutil.rmtree(where)


def lines(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


async def waiting(app: str) -> dict[str, str]:
    """Return what the registry says is waited for."""
    try:
        status = await RayDirectory(app).ask("status", within_s=2.0)
    except RemoraError as error:
        return {"the registry": error.message}
    return {one["what"]: one["waits_for"] for one in status["waiting"]}


async def until_waiting(app: str, what: str, said: str) -> None:
    until_s = time.perf_counter() + STARTED_S
    while said not in (found := await waiting(app)).get(what, ""):
        assert time.perf_counter() < until_s, f"{what} does not wait for {said!r}: {found}"
        await asyncio.sleep(0.05)  # noqa: TID251 - a bounded wait for other processes


async def refused(client: Client, kind: type[Held], deadline_s: float = 0.5) -> str:
    """Return why a command is not served."""
    with pytest.raises(TryAgain) as error:
        await client.ref(kind, "a").with_options(deadline_s=deadline_s).add()
    return error.value.message


@pytest.mark.slow
async def test_types_and_hosts_start_in_order_stay_open_through_failures_and_stop_in_reverse(
    tmp_path: Path, folder: Path
) -> None:
    app, store = ordered.in_order, tmp_path / "order.db"
    start = asyncio.create_task(bootstrap.ensure_platform(AppSource(f"{HERE}:in_order"), f"sqlite:///{store}", 2))
    try:
        await until_waiting("in-order", "model", "check weights: not yet")
        async with await bootstrap.open_client(app) as client:
            running = Running("in-order", f"{HERE}:in_order", client, store)
            await starts_in_order(client, start, folder)
            await stays_open(running, folder)
            await stops_in_reverse(client, folder)
    finally:
        start.cancel()
        await bootstrap.stop_platform("in-order")


async def starts_in_order(client: Client, start: "asyncio.Task[None]", folder: Path) -> None:
    assert await client.ref(Plain, "a").add() == 1, "what waits for nothing is served"
    assert "model is not served yet" in (said := await refused(client, Model))
    assert "check weights: not yet" in said
    assert "waits for: model" in await refused(client, Shop)
    why = await client.ref(Model, "a").why()
    assert (why.state, why.reason) == ("not_ready", "check weights: not yet")
    assert (await client.ref(Far, "a").why()).state == "not_ready"
    assert not start.done()
    assert "licence" not in "".join(lines(folder)), "no host of the group is there to ask"

    selling = asyncio.ensure_future(client.ref(Shop, "a").add())
    (folder / "weights").touch()
    assert await selling == 1
    assert await client.ref(Model, "a").add() == 1
    await until_waiting("in-order", "host group far", "host far-1 (check licence: not yet)")
    assert not start.done()
    (folder / "licence").touch()
    await start
    assert await client.ref(Far, "a").add() == 1
    assert await waiting("in-order") == {}
    in_order = [
        "Plain served",
        "weights is there",
        "Shop served",
        "licence is not there",
        "licence is there",
        "Far served",
    ]
    assert sorted(in_order, key=lines(folder).index) == in_order


async def stays_open(app: Running, folder: Path) -> None:
    """A registry that dies closes nothing, and a host that is replaced waits for its checks while others serve."""
    (folder / "weights").unlink()
    os.kill(await app.registry_pid(), signal.SIGKILL)
    await app.registry_answers(STARTED_S)
    assert await app.client.ref(Shop, "a").add() == 2
    assert await waiting("in-order") == {}

    victim = next(row for row in app.hosts() if not row.group)
    kill(victim)
    slot = victim.slot.rpartition("/")[2]
    await until_waiting("in-order", f"host {slot}", "check weights: not yet")
    assert await app.client.ref(Model, "a").add() == 2
    assert await app.client.ref(Shop, "a").add() == 3
    (folder / "weights").touch()
    await until(lambda: victim.slot in {row.slot for row in app.hosts()}, STARTED_S, "it is replaced")
    for number in range(16):
        assert await app.client.ref(Shop, f"shop-{number}").add() == 1


async def stops_in_reverse(client: Client, folder: Path) -> None:
    held = [asyncio.ensure_future(client.ref(kind, "held").hold()) for kind in (Far, Shop, Model)]
    holding = {"Far holds", "Shop holds", "Model holds"}
    await until(lambda: holding <= set(lines(folder)), STARTED_S, "they are busy")
    stop = asyncio.create_task(bootstrap.stop_platform("in-order"))
    await stopping(client, Far)
    assert await client.ref(Shop, "a").add() == 4, "what the last ones depend on is served while they end"
    (folder / "let Far").touch()
    await stopping(client, Shop)
    assert await client.ref(Model, "a").add() == 3
    (folder / "let Shop").touch()
    await stopping(client, Model)
    (folder / "let Model").touch()
    await asyncio.gather(*held)
    await stop
    ended = [line for line in lines(folder) if line.endswith(" ended")]
    assert ended == ["Far ended", "Shop ended", "Model ended"]


async def stopping(client: Client, kind: type[Held]) -> None:
    async with asyncio.timeout(STARTED_S):
        while True:
            try:
                await client.ref(kind, "other").with_options(deadline_s=0.3).add()
            except TryAgain as error:
                if "the app is being stopped" in error.message:
                    return
            await asyncio.sleep(0.02)  # noqa: TID251 - a bounded wait for other processes


async def test_a_start_whose_checks_do_not_pass_ends_with_what_it_waited_for_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StartError) as failed:
        await bootstrap.ensure_platform(AppSource(f"{HERE}:never_ready"), f"sqlite:///{tmp_path / 'never.db'}", 1)

    assert f"never-ready is not ready after {ordered.READY_S:g} s: " in failed.value.message
    assert "model waits for check weights: not yet on " in failed.value.message
    assert await actors("remora/never-ready/") == set()
