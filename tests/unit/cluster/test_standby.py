"""Where the registry that stands by is: on another node than the one that leads, as soon as there is one."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
from ray.exceptions import RayError

from remora.cluster import registry_actor
from remora.runtime.registry import Registry


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray says of its nodes; a test adds to it."""
    nodes: list[dict[str, Any]] = [{"NodeID": "here", "Alive": True}, {"NodeID": "dead", "Alive": False}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(registry_actor, "STANDBY_LOOK_S", 0.001)
    return nodes


def leading(*doubted: str) -> Registry:
    return cast("Registry", SimpleNamespace(detection=SimpleNamespace(doubted=frozenset(doubted))))


async def test_beside_the_one_that_leads_it_waits_for_a_node_that_was_not_tried_and_may_be_there(
    cluster: list[dict[str, Any]],
) -> None:
    standing = asyncio.get_running_loop().create_future()
    cluster += [{"NodeID": name, "Alive": True} for name in ("tried", "doubted")]
    room = asyncio.create_task(registry_actor.room_elsewhere("here", leading("doubted"), {"tried"}, standing))
    done, _ = await asyncio.wait([room], timeout=0.05)
    assert not done

    cluster.append({"NodeID": "new", "Alive": True})

    assert await room == "new"


async def test_it_waits_no_longer_than_the_standby_lives(cluster: list[dict[str, Any]]) -> None:
    del cluster
    standing = asyncio.get_running_loop().create_future()
    room = asyncio.create_task(registry_actor.room_elsewhere("here", leading(), set(), standing))
    standing.set_exception(RayError("its process has ended"))

    with pytest.raises(RayError, match="its process has ended"):
        await room
