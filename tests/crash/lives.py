"""Processes that are started, killed, frozen and started again on one store."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
POLL_S = 0.002
"""Seconds between looks at a condition of another process."""


async def until(condition: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait until something holds; return the seconds it took."""
    began_s = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began_s < within_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(POLL_S)  # noqa: TID251 - a bounded wait for a condition of other processes
    return time.perf_counter() - began_s


class Life:
    """One process: made ready when constructed, started by ``begin``."""

    def __init__(self, store_url: str, socket: Path, name: str, *options: str) -> None:
        self.socket = socket
        self.log = socket.with_suffix(".log")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.process", store_url, str(socket), name, *options],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        self.pid = self._process.pid

    def begin(self) -> None:
        self.socket.unlink(missing_ok=True)  # the next connection is to this life or refused
        assert self._process.stdin is not None
        self._process.stdin.write(b"begin\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs or is frozen."""
        return self._process.poll()

    @property
    def frozen(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    async def serving(self, within_s: float = 20.0) -> float:
        """Wait until it takes connections; return the seconds it took."""
        took_s = await until(lambda: self.status is not None or self.socket.exists(), within_s, "it serves")
        assert self.status is None, self.log.read_text()[-4000:]
        return took_s

    def kill(self) -> None:
        """End it as a crash would, and have the kernel forget it."""
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
