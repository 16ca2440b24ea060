"""A Ray cluster of our own on this machine: started beside whatever else runs, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remora.cluster.names import AUTH_MODE
from remora.errors import ClusterUnreachable, PortTaken

START_S = 90.0
"""Longest wait for Ray to start, in seconds; measured 10 to 12 on two cores."""
STOP_S = 20.0
"""Longest wait for Ray to stop before it is killed, in seconds."""
PORTS = range(20_000, 32_000)
"""Ports to draw from: above those Ray gives its workers (10,002 to 19,999), below those that Linux gives to outgoing
connections (32,768 to 60,999)."""

SERVE_ENVIRONMENT: Mapping[str, str] = {
    # HAProxy in front of Serve: measured two to five times the default proxy's requests per second.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray gives workers a niceness of 15, meant for batch work beside a user's own: hosts are the service.
    "RAY_worker_niceness": "0",
}

_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this process started and has not stopped: Python warns of a handle dropped while its process runs."""


@dataclass(frozen=True, slots=True)
class RayProcess:
    """A Ray cluster that this machine's user started."""

    pid: int
    address: str
    dashboard_url: str
    temp_dir: str


def free_ports(count: int) -> list[int]:
    """Return ports that were free on all addresses a moment ago, all different.

    They are drawn from ``PORTS``: one that the kernel gives away by itself may be somebody's end of a connection before
    the process that it was chosen for listens there.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):  # taken: the next one
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    msg = f"There are no {count} free ports from {PORTS.start} to {PORTS.stop - 1}."
    raise PortTaken(msg)


def check_port(port: int) -> None:
    """Refuse a port that is in use.

    Raises:
        PortTaken: Another process listens there.
    """
    if not 0 < port < 65_536:  # noqa: PLR2004 - 16 bits
        msg = f"Port {port} is none: use 1 to 65535."
        raise PortTaken(msg)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            msg = f"Port {port} is in use ({error.strerror}): stop what listens there, or choose another with --port."
            raise PortTaken(msg) from error


def environment() -> dict[str, str]:
    """Return the environment Ray's processes get: HAProxy on, authentication explicit, this folder importable."""
    found = dict(os.environ)
    for name, value in SERVE_ENVIRONMENT.items():
        found.setdefault(name, value)
    found.setdefault("RAY_AUTH_MODE", AUTH_MODE)
    found.pop("RAY_ADDRESS", None)  # a stray cluster is never joined by accident
    paths = [str(Path.cwd()), *filter(None, found.get("PYTHONPATH", "").split(os.pathsep))]
    found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    ports = iter(free_ports(4))
    for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
        found.setdefault(name, str(next(ports)))
    for name in ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT"):
        found.setdefault(name, str(next(ports)))
    # A drain waits for nodes to become idle, which a node with hosts never is; hosts need no drain.
    found.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
    return found


def _haproxy_files(folder: str) -> dict[str, str]:
    """Keep HAProxy's files in the cluster's own folder, which goes with it, and not in one for the whole machine.

    Ray puts a folder named by the node's id (56 characters) between, and socket paths end at 108.
    """
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }


def start_ray(cpus: int) -> RayProcess:
    """Start a one-node Ray cluster on loopback ports of its own.

    Args:
        cpus: Logical CPUs Ray may hand out.

    Raises:
        ClusterUnreachable: Ray did not start; the message holds the end of its log.
    """
    temp_dir = tempfile.mkdtemp(prefix="remora-", dir="/tmp")
    gcs, dashboard, agent, metrics, client, agent_grpc = free_ports(6)
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
        "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--num-cpus={cpus}", f"--temp-dir={temp_dir}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
        f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}",
    ]  # fmt: skip
    log = Path(temp_dir) / "ray-start.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, fixed arguments
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**environment(), **_haproxy_files(temp_dir)},
            start_new_session=True,
        )
    _children[process.pid] = process
    started = RayProcess(process.pid, f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", temp_dir)
    try:
        _wait_started(process, log)
    except BaseException:
        stop_ray(started.pid, temp_dir)
        raise
    return started


def _wait_started(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while b"Ray runtime started" not in (text := log.read_bytes()):
        if process.poll() is not None or time.monotonic() > until:
            tail = "\n".join(text.decode(errors="replace").splitlines()[-15:])
            msg = f"Ray did not start within {START_S:.0f} s. The end of its log:\n{tail}"
            raise ClusterUnreachable(msg)
        time.sleep(0.05)


def runs(pid: int, temp_dir: str) -> bool:
    """Return whether a cluster that ``start_ray`` started still runs, and its pid is not somebody else's by now.

    Args:
        pid: Its first process.
        temp_dir: Its folder.
    """
    return _alive(pid) and f"--temp-dir={temp_dir}".encode() in _command(pid).split(b"\0")


def stop_ray(pid: int, temp_dir: str) -> None:
    """Stop a Ray cluster that ``start_ray`` started, and only that one.

    Args:
        pid: Its first process, which leads a session of its own.
        temp_dir: Its folder: processes that name it are the cluster's.
    """
    if runs(pid, temp_dir):
        _signal(pid, signal.SIGTERM)
        until = time.monotonic() + STOP_S
        while _alive(pid) and time.monotonic() < until:
            time.sleep(0.05)
    # The number of a session is not given anew while anybody is in it; once it is, it is not the cluster's.
    session = _session(pid) if not _alive(pid) or runs(pid, temp_dir) else []
    for left in {*session, *_naming(temp_dir)} - {os.getpid()}:
        _signal(left, signal.SIGKILL)
    child = _children.pop(pid, None)
    if child is not None:
        child.wait()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _alive(pid: int) -> bool:
    child = _children.get(pid)
    if child is not None:
        return child.poll() is None
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session(leader: int) -> list[int]:
    found = []
    for pid in _processes():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def _naming(temp_dir: str) -> list[int]:
    return [pid for pid in _processes() if temp_dir.encode() in _command(pid)] if temp_dir else []


def _command(pid: int) -> bytes:
    """Return a process's command line, arguments ended by NUL; empty if there is none of that pid."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
