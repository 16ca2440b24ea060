"""``why`` over Ray: an answer within a second also when processes are frozen, busy or dead."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from remora import Why
from remora.sharding.table import HostRow
from tests.integration.apps import Alone, Hog, Witness
from tests.integration.conftest import Figure
from tests.integration.running import Running, kill, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(240)]
ANSWER_S = 1.0


async def timed(question: Any) -> tuple[Why, float]:  # noqa: ANN401 - a coroutine
    began = time.perf_counter()
    why = await question
    return why, time.perf_counter() - began


def name_on(app: Running, row: HostRow, kind: str) -> str:
    """Return the id of an entity that a host owns."""
    shards = app.client.table.owned_by(row.incarnation)
    return next(str(n) for n in range(10_000) if app.shard(f"{kind}/{n}") in shards)


@pytest.mark.slow
async def test_why_answers_within_a_second_whatever_its_host_and_the_registry_are_at(
    tmp_path: Path, figure: Figure
) -> None:
    async with running("tests.integration.apps:why", tmp_path / "why.db") as app:
        ref = app.client.ref
        busy, frozen = app.hosts()
        hog, other, cold = name_on(app, busy, "hog"), name_on(app, busy, "witness"), name_on(app, frozen, "witness")
        await asyncio.gather(ref(Witness, other).mark(1), ref(Witness, cold).mark(1), ref(Hog, hog).add(1))
        why, took_s = await timed(ref(Witness, cold).why())
        assert (why.state, why.told_by, why.host, why.entries) == ("idle", "host", frozen.name, 1)
        figure("a host that answers", took_s)
        never, _ = await timed(ref(Alone, "never").why())
        assert (never.state, never.told_by) == ("new", "registry")

        hogging = asyncio.ensure_future(ref(Hog, hog).with_options(deadline_s=60).hog(8.0))
        async with asyncio.timeout(5.0):
            while (await ref(Hog, hog).why()).state != "blocking":
                pass  # each question takes a while: the host is kept
        culprit, took_s = await timed(ref(Hog, hog).why())
        figure("a host that is kept by a handler", took_s)
        assert took_s < ANSWER_S
        victim, took_s = await timed(ref(Witness, other).why())
        assert took_s < ANSWER_S
        assert culprit.running is not None
        assert (culprit.state, culprit.running.method) == ("blocking", "hog")
        assert "in hog\n" in culprit.running.where
        assert (victim.state, f"hog/{hog}.hog has kept its host" in victim.because) == ("host_blocked", True)
        about = await app.client._directory.about(app.shard(f"hog/{hog}"))  # noqa: SLF001 - what the fallback asks
        assert about["renewed_s"] < 4.0, "a blocked loop does not stop the renewals of its host's lease"
        await hogging

        os.kill(frozen.pid, signal.SIGSTOP)
        why, took_s = await timed(ref(Witness, cold).why())
        figure("a host that is frozen", took_s)
        assert took_s < ANSWER_S
        assert (why.state, why.told_by, why.host) == ("host_silent", "registry", frozen.name)
        assert "its lease was last seen renewed" in why.because

        registry = await app.registry_pid()
        os.kill(registry, signal.SIGSTOP)
        why, took_s = await timed(ref(Witness, cold).why())
        figure("a frozen host and a frozen registry", took_s)
        os.kill(registry, signal.SIGCONT)
        os.kill(frozen.pid, signal.SIGCONT)
        assert took_s < ANSWER_S
        assert (why.state, why.told_by) == ("unknown", "client")

        kill(frozen)
        why, took_s = await timed(ref(Witness, cold).why())
        figure("a host that was just killed", took_s)
        assert took_s < ANSWER_S
        await until(lambda: app.balanced(2), 60.0, "the host is replaced")
        back, _ = await timed(ref(Witness, cold).why())
        assert (back.state, back.entries) == ("passive", 1)
