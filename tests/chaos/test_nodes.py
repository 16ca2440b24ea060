"""What the other multi-node tests stand on: nodes that live, freeze and die one by one."""

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from remora.process import machine_identity
from tests.nodes import LABEL, Nodes, Shape, actor_process, cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(180)]


class Resident:
    """Lives on a node and counts."""

    def __init__(self) -> None:
        self.count = 0

    async def add(self) -> int:
        self.count += 1
        return self.count

    async def around(self) -> tuple[str, str]:
        return os.environ["REMORA_STORE"], machine_identity()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    shapes = [
        Shape(
            labels={"zone": zone},
            resources={f"only-{zone}": 1},
            environment={"REMORA_STORE": f"memory://{zone}"},
        )
        for zone in ("a", "b")
    ]
    with cluster(shapes, head={"REMORA_STORE": "memory://head"}) as started:
        yield started
    assert started.pids() == set(), "something was left running"


def resident(zone: str) -> Any:  # noqa: ANN401 - Ray's handles have no type
    return ray.remote(Resident).options(num_cpus=1, resources={f"only-{zone}": 1}, max_restarts=0).remote()


def answer(handle: Any, within_s: float = 20.0) -> int:  # noqa: ANN401 - as above
    return int(ray.get(handle.add.remote(), timeout=within_s))


def test_every_node_has_its_own_resources_labels_environment_and_machine(nodes: Nodes) -> None:
    first, second = nodes.all
    handles = [resident("a"), resident("b")]

    around = ray.get([handle.around.remote() for handle in handles], timeout=30)
    places = [actor_process(handle) for handle in handles]

    assert [store for store, _ in around] == ["memory://a", "memory://b"]
    assert len({machine for _, machine in around} | {machine_identity()}) == 3
    assert [node for _, node in places] == [first.id, second.id]
    assert [nodes.of_pid(pid) for pid, _ in places] == [first, second]
    labels = {record["NodeID"]: record["Labels"] for record in ray.nodes()}
    assert (labels[first.id]["zone"], labels[first.id][LABEL]) == ("a", first.name)
    head = next(record for record in ray.nodes() if "node:__internal_head__" in record["Resources"])
    assert "CPU" not in head["Resources"], "the head hosts nothing"


def test_a_frozen_node_does_nothing_until_it_is_resumed_and_its_neighbour_goes_on(nodes: Nodes) -> None:
    first, _ = nodes.all
    here, there = resident("a"), resident("b")
    assert (answer(here), answer(there)) == (1, 1)
    first.freeze()
    asked = here.add.remote()

    assert answer(there) == 2
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(asked, timeout=0.5)
    first.resume()

    assert ray.get(asked, timeout=20) == 2


async def test_a_killed_node_leaves_no_process_and_another_one_can_be_added(nodes: Nodes) -> None:
    victim, neighbour = nodes.all[0], nodes.all[1]
    here, there = resident("a"), resident("b")
    assert (answer(here), answer(there)) == (1, 1)
    asked = here.add.remote()
    assert await asked == 2
    at_s = victim.kill()

    assert victim.pids() == set()
    assert time.perf_counter() - at_s < 5
    with pytest.raises(ray.exceptions.RayActorError):
        answer(here)
    assert answer(there) == 2
    (added,) = await asyncio.to_thread(nodes.add, Shape(resources={"only-c": 1}, environment={"REMORA_STORE": "c"}))
    assert nodes.alive == [neighbour, added]
    assert actor_process(resident("c"))[1] == added.id
