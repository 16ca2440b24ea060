"""What the tests look at from outside: processes, ports, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND_S = 120.0
"""Longest wait for a command of the command line, in seconds; `up` takes about 15."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """Return the one document on standard output."""
        return json.loads(self.out)


def remora(*words: str, home: Path, **environment: str | None) -> Ended:
    """Run ``remora`` as a user would, with records in a folder of the test's own.

    Args:
        words: What stands behind ``remora``.
        home: ``REMORA_HOME``: every process that the command starts has it in its environment.
        environment: Further variables; None takes one away.
    """
    wanted = {**os.environ, "REMORA_HOME": str(home), "PYTHONPATH": source_path(), **environment}
    done = subprocess.run(
        [sys.executable, "-m", "remora.cli", *words],
        env={name: value for name, value in wanted.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def source_path() -> str:
    """Return ``PYTHONPATH`` for processes that start in another folder."""
    return os.pathsep.join((str(Path("platform").absolute()), str(Path.cwd())))


def processes(mark: str) -> dict[int, str]:
    """Return the processes that hold ``mark`` in their command line or their environment: pid → name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def listener(port: int, among: dict[int, str]) -> str:
    """Return the name of the process, one of ``among``, that listens on a port; empty if none does."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    sockets = {
        f"socket:[{fields[9]}]"
        for fields in lines
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    for pid, name in among.items():
        with suppress(OSError):
            if any(str(handle.readlink()) in sockets for handle in Path(f"/proc/{pid}/fd").iterdir()):
                return name
    return ""


def until(condition: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait until something holds; return the seconds it took."""
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began < within_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)  # noqa: TID251 - a bounded wait for a condition of other processes
    return time.perf_counter() - began
