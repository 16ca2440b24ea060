"""Which machine and which process this is, as far as stores and registry need to know."""

from __future__ import annotations

import os
from pathlib import Path

MACHINE = "REMORA_MACHINE"
"""Environment variable that names a machine: processes of one kernel that have different ones are taken to be on
different machines. For tests of several machines on one."""


def machine_identity() -> str:
    """Return what tells this machine from others for as long as it runs.

    It is the kernel's boot id and the number of this process's pid namespace: containers of one node share the
    kernel, and a pid of one means nothing, or another process, in the other.
    """
    named = os.environ.get(MACHINE)
    if named:
        return named
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def started_s(pid: int) -> float:
    """Return when a process started, in seconds since boot; 0 if there is none of that pid.

    With the pid it names one process for ever: pids are used again, not with the same start.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def resident_bytes() -> int:
    """Return how much memory this process has resident."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_limit_bytes() -> int:
    """Return how much memory there is for this process and all others beside it: its container's, or the machine's."""
    machine = _machine_bytes()
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(int(Path(limit).read_text(encoding="ascii")), machine)
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
    return machine


def memory_used_bytes() -> int:
    """Return how much of that memory is in use, what could be freed at once (caches of files) not counted."""
    for folder, names in (
        ("", ("memory.current", "memory.max")),
        ("memory/", ("memory.usage_in_bytes", "memory.limit_in_bytes")),
    ):
        group = Path("/sys/fs/cgroup") / folder
        try:
            if int((group / names[1]).read_text(encoding="ascii")) < _machine_bytes():
                kept = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
                used = int((group / names[0]).read_text(encoding="ascii"))
                return used - int(kept.get("inactive_file", 0)) - int(kept.get("active_file", 0))
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return found["MemTotal"] - found["MemAvailable"]


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
