"""A Ray cluster of several nodes on this machine, whose nodes can be killed and frozen as machines are.

The head hosts nothing. Every other node is a `ray start` of its own, as on a machine of its own: its
own folder, environment and process tree. (`ray.cluster_utils.Cluster` shares one environment among
its nodes, starts them as children of the test, and writes where any `ray.init("auto")` finds them.)
Processes are a node's by a mark in their environment, which every child inherits, so that none is
missed whatever Ray starts beside its raylet.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from remora.cluster import bootstrap
from remora.cluster.ray_process import RayProcess, environment, free_ports, start_ray, stop_ray
from remora.process import MACHINE
from remora.sharding.table import HostRow

MARK = "REMORA_TEST_NODE"
"""Environment variable that says which node a process belongs to."""
LABEL = "remora-test/node"
"""Ray label by which a node's id is found."""
START_S = 120.0
"""Longest wait for a node to join, in seconds; measured on two cores: 4 for one, 13 for three at once, 30 under load."""
POLL_S = 0.01
ROOT = Path(__file__).parents[1]
OBJECT_STORE_BYTES = 100 << 20
"""Nothing here puts objects into it."""
START_NICE = -10
"""Niceness of a node until it has joined, where that is allowed: on a machine of its own nobody would be in its way."""
STARTS_MAX = 5
"""A raylet gives its agent 15 s to start and ends itself if that takes longer, which it may under load: as a
machine's that failed to boot, its start is tried again."""

# Kills all that bears the mark when its input ends: with this process, however that ends.
_GUARD = """
read _
for round in 1 2 3; do
    for file in /proc/[0-9]*/environ; do
        if grep -qsa "$1" "$file"; then pid=${file#/proc/}; kill -9 "${pid%/environ}" 2>/dev/null; fi
    done
done
rm -rf "$FOLDER"
"""


@dataclass(frozen=True)
class Shape:
    """What a node offers."""

    cpus: int = 2
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of all its processes, in addition."""


def pids_marked(mark: str) -> set[int]:
    """Return the processes that bear a mark; none that has ended and waits to be reaped."""
    found = set()
    text = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if text in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _is_raylet(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"
    except OSError:
        return False


class Node:
    """One node: a machine, as far as anybody on it can tell.

    Args:
        name: Within its cluster.
        mark: What its processes bear.
        leader: The `ray start` that it was started with.
        folder: Ray's folder on it.
    """

    def __init__(self, name: str, mark: str, leader: subprocess.Popen[bytes], folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.id = ""
        """Ray's id of it, as in ``HostRow.node``."""
        self.started_s = time.perf_counter()
        self.dead = False
        self.frozen = False
        self._mark = mark
        self._leader = leader

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.id[:8]}>"

    def pids(self) -> set[int]:
        """Return all of its processes."""
        return pids_marked(self._mark)

    def has(self, host: HostRow) -> bool:
        """Return whether a host lives here."""
        return host.node == self.id

    def kill(self) -> float:
        """End every process at once, as a power cut does; return when (`time.perf_counter`)."""
        at_s = time.perf_counter()
        # The raylet first: what it sees of its workers' end it would report.
        while pids := self.pids():
            for pid in sorted(pids, key=lambda one: not _is_raylet(one)):
                _signal(pid, signal.SIGKILL)
        self._leader.wait()
        self.dead = True
        return at_s

    def freeze(self) -> float:
        """Stop every process; return when."""
        at_s = time.perf_counter()
        stopped: set[int] = set()
        while more := self.pids() - stopped:  # what one of them was just starting
            for pid in sorted(more, key=lambda one: not _is_raylet(one)):
                _signal(pid, signal.SIGSTOP)
            stopped |= more
        while any(_state(pid) not in {"T", "t", "Z", ""} for pid in stopped):
            time.sleep(POLL_S / 10)  # noqa: TID251 - until the kernel has stopped them
        self.frozen = True
        return at_s

    def resume(self) -> float:
        """Let every process go on; return when."""
        at_s = time.perf_counter()
        for pid in self.pids():
            _signal(pid, signal.SIGCONT)
        self.frozen = False
        return at_s

    def terminate(self) -> None:
        """Ask its `ray start` to end, as an operator or Kubernetes does: Ray drains it first."""
        _signal(self._leader.pid, signal.SIGTERM)

    def set_niceness(self, niceness: int) -> None:
        """Give every thread of every process a niceness; nothing where that is not allowed."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)

    @property
    def ended(self) -> bool:
        """Whether what it was started with runs no more, by itself."""
        return self._leader.poll() is not None

    def log(self) -> str:
        """Return the end of what its start printed."""
        return (self.folder / "ray-start.log").read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """End it, in whatever state it is, and forget its folder."""
        if not self.dead:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Nodes:
    """A running cluster; made by ``cluster``.

    Args:
        head: The head's Ray.
        token: What the marks of all its processes begin with.
        own_machines: Whether each node passes for a machine of its own.
    """

    def __init__(self, head: RayProcess, token: str, *, own_machines: bool) -> None:
        self.head = head
        self.all: list[Node] = []
        """In the order they were added, those that are dead too."""
        self._token = token
        self._own_machines = own_machines

    @property
    def address(self) -> str:
        """Where to join."""
        return self.head.address

    @property
    def alive(self) -> list[Node]:
        """Nodes that were not killed; frozen ones are among them."""
        return [node for node in self.all if not node.dead]

    def add(self, *shapes: Shape) -> list[Node]:
        """Start nodes, those given together at the same time; return when Ray can use them."""
        waiting = [(self._start(shape), shape, 1) for shape in shapes]
        started: list[Node] = []
        while waiting:
            ids = {record["Labels"].get(LABEL): record["NodeID"] for record in ray.nodes() if record["Alive"]}
            still = []
            for node, shape, tries in waiting:
                node.id = ids.get(node.name, "")
                if node.id:
                    node.set_niceness(0)
                    started.append(node)
                elif node.ended:
                    assert tries < STARTS_MAX, f"{node.name} did not start:\n{node.log()}"
                    node.end()
                    still.append((self._start(shape), shape, tries + 1))
                else:
                    late = time.perf_counter() - node.started_s > START_S
                    assert not late, f"{node.name} did not join in {START_S:g} s:\n{node.log()}"
                    still.append((node, shape, tries))
            waiting = still
            time.sleep(POLL_S)  # noqa: TID251 - a bounded wait for other processes
        return started

    def of(self, host: HostRow) -> Node | None:
        """Return the node on which a host lives, if it is one of these."""
        return next((node for node in self.all if node.has(host)), None)

    def of_pid(self, pid: int) -> Node | None:
        """Return the node to which a process belongs; None for the head's."""
        return next((node for node in self.all if pid in node.pids()), None)

    def known_alive(self, node: Node) -> bool:
        """Return whether Ray takes a node for alive."""
        return any(record["NodeID"] == node.id and record["Alive"] for record in ray.nodes())

    def pids(self) -> set[int]:
        """Return every process of the cluster."""
        return pids_marked(f"{self._token}/")

    def _start(self, shape: Shape) -> Node:
        name = f"node-{len(self.all) + 1}-{secrets.token_hex(2)}"
        # A folder for each: nodes that start at once in one folder take each other's socket names.
        folder = Path(self.head.temp_dir) / name
        folder.mkdir()
        mark = f"{self._token}/{name}"
        found = {**environment(), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "30", **shape.environment, MARK: mark}
        if self._own_machines:
            found[MACHINE] = name
        metrics, agent, agent_grpc, runtime_env = free_ports(4)
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
            f"--address={self.address}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}",
            f"--num-cpus={shape.cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--resources={json.dumps(dict(shape.resources))}",
            "--labels=" + ",".join(f"{key}={value}" for key, value in {LABEL: name, **shape.labels}.items()),
            "--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false",
            f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={agent}",
            f"--dashboard-agent-grpc-port={agent_grpc}", f"--runtime-env-agent-port={runtime_env}",
        ]  # fmt: skip
        with (folder / "ray-start.log").open("wb") as out:
            leader = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=found, start_new_session=True
            )
        node = Node(name, mark, leader, folder)
        node.set_niceness(START_NICE)
        self.all.append(node)
        return node


@contextlib.contextmanager
def cluster(
    shapes: Sequence[Shape], *, head: Mapping[str, str] | None = None, own_machines: bool = True
) -> Iterator[Nodes]:
    """Start a head that hosts nothing and nodes, join this process to them, and leave nothing of it running.

    A process that is joined to another cluster leaves that for as long.

    Args:
        shapes: Of the nodes to start with.
        head: Environment of the head's processes, in addition.
        own_machines: Whether each node passes for a machine of its own; hosts on SQLite share one.
    """
    token = secrets.token_hex(8)
    patch = {"PYTHONPATH": os.pathsep.join((str(ROOT / "platform"), str(ROOT))), **(head or {}), MARK: f"{token}/head"}
    with _environment(patch):
        started = start_ray(0)
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", f"{MARK}={token}/"], stdin=subprocess.PIPE, cwd="/",
        env={**os.environ, "FOLDER": started.temp_dir},  # not an argument: whoever names the folder is ended with Ray
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    nodes = Nodes(started, token, own_machines=own_machines)
    elsewhere = _leave()
    try:
        bootstrap.join_ray(started.address)
        with _environment({"RAY_API_SERVER_ADDRESS": started.dashboard_url, "PYTHONPATH": patch["PYTHONPATH"]}):
            nodes.add(*shapes)
            yield nodes
    finally:
        ray.shutdown()
        for node in nodes.all:
            node.end()
        stop_ray(started.pid, started.temp_dir)
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(30)
        if elsewhere:
            bootstrap.join_ray(elsewhere)


def _leave() -> str:
    """Leave the cluster that this process is joined to; return its address, or nothing."""
    if not ray.is_initialized():
        return ""
    address = bootstrap._joined[ray.get_runtime_context().get_job_id()]  # noqa: SLF001 - Ray knows it under other names
    ray.shutdown()
    return address


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Change this process's environment for a while."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def actor_process(handle: Any) -> tuple[int, str]:  # noqa: ANN401 - Ray's handles have no type
    """Return the pid and the node id of an actor, which has to answer."""
    ask: Callable[[object], tuple[int, str]] = where
    found: tuple[int, str] = ray.get(handle.__ray_call__.remote(ask), timeout=60.0)
    return found


def where(_: object) -> tuple[int, str]:
    """Return the pid and the node id of the actor that runs it (`__ray_call__`)."""
    return os.getpid(), ray.get_runtime_context().get_node_id()
