"""Ray's table of nodes, and which hosts are to be where: facts read in one place, decisions as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ray
from ray._private import state as ray_state

from remora.sharding.table import HostRow

NODE_LABEL = "ray.io/node-id"
"""The label by which Ray itself names each node."""
HOST_LABEL = "remora/entity-host"
"""Ray node label of nodes meant for hosts; where no node has it, any node with a CPU will do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the Ray cluster."""

    id: str
    resources: Mapping[str, float] = field(default_factory=dict)
    """What it has in all."""
    free: Mapping[str, float] = field(default_factory=dict)
    """What nobody has taken."""
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False
    """Whether Ray is about to take it away."""


def read_nodes() -> list[Node]:
    """Return the nodes that Ray takes for alive. Blocking: asks Ray's GCS."""
    free = ray_state.available_resources_per_node()
    draining = ray_state.state.get_draining_nodes()
    return [
        Node(
            one["NodeID"], one.get("Resources", {}), free.get(one["NodeID"], {}), one.get("Labels", {}),
            one["NodeID"] in draining,
        )
        for one in ray.nodes()
        if one["Alive"]
    ]  # fmt: skip


def usable(
    nodes: Sequence[Node], avoid: frozenset[str] = frozenset(), doubted: frozenset[str] = frozenset()
) -> list[Node]:
    """Return the nodes that may have new hosts.

    Args:
        nodes: All that are alive.
        avoid: Nodes that were asked to be emptied.
        doubted: Nodes that may be gone without Ray knowing: taken only if there is no other.
    """
    found = _usable(nodes, avoid)
    return [node for node in found if node.id not in doubted] or found


def _usable(nodes: Sequence[Node], avoid: frozenset[str]) -> list[Node]:
    labelled = [node for node in nodes if node.labels.get(HOST_LABEL) == "true"]
    return [
        node
        for node in labelled or nodes
        if node.resources.get("CPU", 0.0) >= 1 and not node.draining and node.id not in avoid
    ]


def choose(
    nodes: Sequence[Node], homes: Sequence[str], needs: Mapping[str, float], starting: Sequence[str] = (), *,
    avoid: str = "",
) -> str:  # fmt: skip
    """Return the node for a new host: of those with room the one with fewest of its kind; empty if none has room now.

    Args:
        nodes: Those that may have it.
        homes: Node of each host of its kind that there is.
        needs: Ray resources that it takes.
        starting: Nodes of hosts that are being started, which Ray may not count yet.
        avoid: A node that is taken only if no other has room.
    """
    counts = [*homes, *starting]
    fitting = [
        node for node in nodes
        if all(node.free.get(name, 0.0) - starting.count(node.id) * amount >= amount for name, amount in needs.items())
    ]  # fmt: skip
    best = min(fitting, key=lambda node: (node.id == avoid, counts.count(node.id), node.id), default=None)
    return "" if best is None else best.id


def slots_of_nodes(nodes: Sequence[Node]) -> dict[str, str]:
    """Return slot → node where hosts follow the nodes: one per CPU, of several one is left to gateways.

    Args:
        nodes: Those that may have hosts.
    """
    return {
        f"{node.id[:12]}-{number + 1}": node.id
        for node in nodes
        for number in range(max(1, int(node.resources.get("CPU", 1.0)) - 1))
    }


def crowded(nodes: Sequence[Node], hosts: Sequence[HostRow]) -> HostRow | None:
    """Return the host to start anew elsewhere, where a node has room and fewer hosts by two or more; else None.

    Args:
        nodes: Those that may have hosts.
        hosts: The shared hosts of the default group.
    """
    counts = {node.id: 0 for node in nodes}
    for host in hosts:
        if host.node in counts:
            counts[host.node] += 1
    roomy = [node.id for node in nodes if node.free.get("CPU", 0.0) >= 1]
    if not roomy:
        return None
    most, least = max(counts, key=lambda one: (counts[one], one)), min(roomy, key=lambda one: (counts[one], one))
    if counts[most] - counts[least] < 2:  # noqa: PLR2004 - a difference of one cannot be improved
        return None
    return max((host for host in hosts if host.node == most), key=lambda host: host.incarnation)
