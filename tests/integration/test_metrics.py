"""What Prometheus finds at the node's metrics port."""

import asyncio
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from remora.runtime.measures import OF_HOST, OF_REGISTRY
from tests.integration.apps import Hog, Witness
from tests.integration.running import POLL_S, running

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(240)]
EXPORTED_S = 60.0
"""Ray's agents report every ten seconds."""
HOGGED_S = 30.0
SAMPLE = re.compile(r"^ray_(remora_\w+?)(_total|_count|_bucket|_sum)?\{([^}]*)\} (\S+)$", re.MULTILINE)


def scrape() -> dict[str, float]:
    """Return the sums over this test's app of what the node exports, by name."""
    (node,) = (node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, suffix, tags, value in SAMPLE.findall(text):
        if 'app="metrics"' in tags and suffix in {"", "_total", "_count"}:
            found[name] = found.get(name, 0.0) + float(value)
    return found


async def exported(condition: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Return what is exported as soon as it is as wanted."""
    began = time.perf_counter()
    while not condition(found := await asyncio.to_thread(scrape)):
        assert time.perf_counter() - began < EXPORTED_S, f"exported are {found}"
        await asyncio.sleep(100 * POLL_S)  # noqa: TID251 - a bounded wait for Ray's agent
    return found


async def test_hosts_and_registry_export_what_the_operators_page_lists_with_plausible_values(tmp_path: Path) -> None:
    async with running("tests.integration.apps:metrics", tmp_path / "metrics.db") as app:
        names = [str(n) for n in range(40)]
        for n in range(5):
            await asyncio.gather(*(app.client.ref(Witness, name).mark(n) for name in names))
        hogging = asyncio.ensure_future(app.client.ref(Hog, "h").with_options(deadline_s=90).hog(HOGGED_S))
        await exported(lambda found: found.get("remora_loop_kept_seconds", 0.0) > 1.0)
        assert not hogging.done(), "a handler that keeps the loop is seen while it does"
        await hogging
        expected = {measure.name for measure in OF_HOST} | {measure.name for measure in OF_REGISTRY}
        counted = expected - {
            "remora_crashes",
            "remora_overloaded",
            "remora_failures",
            "remora_deadlocks",
            "remora_moves",
            "remora_fences",
        }

        found = await exported(
            lambda found: (
                counted <= found.keys() and found["remora_commit_entries"] == 201 and not found["remora_queue"]
            )
        )

        assert found.keys() <= expected
        assert found["remora_live_entities"] == 41
        assert found["remora_activations"] == found["remora_recoveries"] == 41
        assert found["remora_commit_entries"] == 201
        assert 1 <= found["remora_commits"] <= 201
        assert 1 <= found["remora_latency_seconds"] <= 201
        assert found["remora_blocked_handlers"] == 1
        assert 0 <= found["remora_lease_age_seconds"] < 2 * app.client.settings.lease_ttl_s
        assert (found["remora_queue"], found["remora_hosts"], found["remora_shards_without_host"]) == (0, 2, 0)
