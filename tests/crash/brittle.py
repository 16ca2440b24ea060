"""A process with a black box that runs many things at once and then goes down: ``python -m tests.crash.brittle WAY``.

It prints its start time first, so that whoever waits for its end can read what it left.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from remora.process import started_s
from remora.runtime.blackbox import BlackBox, stepped
from remora.runtime.watchdog import Running, Watchdog
from remora.settings import Settings

NEIGHBOURS = 50
BLOCK_BYTES = 1 << 32
"""What a hoarder takes at one go: four gigabytes, which take seconds to come."""
THREADS = 4
SETTINGS = Settings(blocked_s=0.05, hung_s=0.2, memory_end_share=0.02, threads_max=THREADS + 1)


def segfault() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(7)


def abort() -> None:
    os.abort()


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after_a_child_crashed() -> None:
    """What a handler isolates in a process of its own, by fork, is not this process's end."""
    for end in (segfault, leave):
        child = os.fork()
        if not child:
            end()
        os.waitpid(child, 0)
    killed()


def spin() -> None:
    while True:
        pass


def hoard() -> None:
    kept = []
    while True:
        kept.append(mmap.mmap(-1, BLOCK_BYTES))
        # Without the interpreter's lock: beside busy threads it would come slowly, and then it is nobody's (docs/supervision.md).
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(kept[-1])), 1, BLOCK_BYTES)


WAYS: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (segfault, leave, abort, killed, killed_after_a_child_crashed, spin, hoard)
}  # fmt: skip


async def neighbour(box: BlackBox, number: int) -> None:
    """An entity whose handlers await, over and over."""

    async def handler() -> None:
        for _ in range(5):
            await asyncio.sleep(0)  # noqa: TID251 - the loop's turn

    while True:
        await stepped(handler(), box.loop, f"good/{number}", "wait")


def in_thread(box: BlackBox, number: int, stop: threading.Event) -> None:
    """An entity whose handlers run in a thread."""
    while not stop.is_set():
        with box.within(f"good/thread-{number}", "work"):
            sum(range(1000))


async def main(way: str, where: str) -> None:
    box = BlackBox(SETTINGS.threads_max)
    box.listen()
    running = Running(box)
    watchdog = Watchdog(running, SETTINGS)
    watchdog.start()
    sys.stdout.write(f"{started_s(os.getpid())}\n")
    sys.stdout.flush()
    others = [asyncio.create_task(neighbour(box, number)) for number in range(NEIGHBOURS)]
    pool = ThreadPoolExecutor(SETTINGS.threads_max)
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    others += [loop.run_in_executor(pool, in_thread, box, number, stop) for number in range(THREADS)]  # type: ignore[misc]  # futures as well
    for _ in range(20):
        await asyncio.sleep(0)  # noqa: TID251 - all of them have had their turn
    await bad(box, running, pool, WAYS[way], where)


async def bad(box: BlackBox, running: Running, pool: ThreadPoolExecutor, way: Callable[[], None], where: str) -> None:
    def threaded() -> None:
        with box.within("bad/one", "crash"):
            way()

    async def awaiting() -> None:
        await asyncio.sleep(0)  # noqa: TID251 - others run in between
        way()

    if where == "loop":
        with running.within("bad/one", "crash"):
            way()
    elif where == "thread":
        await asyncio.get_running_loop().run_in_executor(pool, threaded)
    else:
        task = asyncio.create_task(stepped(awaiting(), box.loop, "bad/one", "crash"), name="bad/one.crash")
        with contextlib.suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
