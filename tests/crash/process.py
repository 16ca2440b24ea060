"""A platform as a process of its own, served on a Unix socket: what the crash tests kill and freeze.

    python -m tests.crash.process STORE_URL SOCKET NAME [--cluster]

It starts when a line comes on standard input, so that a test can have the next life ready, and
ends when its standard input does, so that none outlives the test that started it.

A frame is four bytes of length and a msgpack array: [number, what, *arguments] one way,
[number, error as JSON or nil, result] the other.
"""

# ruff: noqa: SLF001 - reaches into the store to stop at a chosen point of a commit

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from remora.clock import SystemClock
from remora.errors import RemoraError
from remora.journal import Store
from remora.local import LocalPlatform
from remora.process import started_s
from remora.sharding.table import HostRow, encode_table
from remora.storage.open import open_store
from remora.storage.sqlite import SqliteStore
from tests.crash.app import app

HOSTS = 2
STEPS = 40
"""Steps of SQLite's virtual machine into a statement at which it is frozen: the write lock is taken by then."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class Platform(LocalPlatform):
    """A local platform whose hosts have names of their own, so that two processes can share a store."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(app, store, SystemClock())
        self.name = name

    async def _new_host(self, name: str, dedicated: str = "", *, node: str = "local", group: str = "") -> HostRow:
        return await super()._new_host(f"{self.name}-{name}", dedicated, node=node, group=group)


class ClusterPlatform(Platform):
    """Takes over as a cluster's registry does: who does not renew its lease is killed, then given up."""

    async def start(self, hosts: int) -> None:
        await self.store.open(self.app.name, self.app.settings.shards)
        former = await self.registry.start()
        ended = [number for number, row in former.hosts.items() if started_s(row.pid) != row.started]
        await self.registry.gone(ended, replace=False)
        await self.registry.joined([await self._new_host(f"host-{number}") for number in range(hosts)])

    async def kill(self, host: HostRow) -> bool:
        if host.pid == os.getpid():
            return await super().kill(host)
        if started_s(host.pid) == host.started:
            os.kill(host.pid, signal.SIGKILL)
        return True

    async def replace(self, host: HostRow) -> None:
        """A host of another process is not replaced: this one has its own."""


class Server:
    """Answers frames."""

    def __init__(self, platform: LocalPlatform) -> None:
        self._platform = platform
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                task = asyncio.create_task(self._answer(writer, _decode(await reader.readexactly(size))))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, frame: list[Any]) -> None:
        number, what, *arguments = frame
        error, result = None, b""
        try:
            result = await self._do(what, arguments)
        except RemoraError as refusal:
            error = refusal.encode()
        data = _encode([number, error, result])
        writer.write(len(data).to_bytes(4, "big") + data)

    async def _do(self, what: str, arguments: list[Any]) -> bytes:
        match what:
            case "exchange":
                return await self._platform.exchange(*arguments)
            case "table":
                return encode_table(await self._platform.table(*arguments))
            case "freeze":
                await freeze(self._platform.store, *arguments)
                return b""
            case _:
                msg = f"There is no {what!r}."
                raise ValueError(msg)


def stop_here() -> None:
    # To this thread: sent to the process, another thread may take the signal, and this one goes on a little.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


async def freeze(store: Store, where: str) -> None:
    """Have this process stop itself at a point of its next commit."""
    assert isinstance(store, SqliteStore)
    journal = store

    def stop_with_a_commit_ready() -> None:
        real = journal._turn_taken

        @contextmanager
        def stopping() -> Iterator[None]:
            del journal._turn_taken  # the instance's, set below
            stop_here()
            with real():
                yield

        journal._turn_taken = stopping  # type: ignore[method-assign]  # stops once

    def stop_within_a_statement() -> None:
        calls = iter(range(1, STEPS + 1))

        def stop() -> None:
            if next(calls) == STEPS:
                journal._write.set_progress_handler(None, 0)
                stop_here()

        journal._write.set_progress_handler(stop, 1)

    # On the thread that writes: between two commits.
    await journal._on(journal._writer, stop_within_a_statement if where == "writing" else stop_with_a_commit_ready)


def end_with_standard_input() -> None:
    sys.stdin.buffer.read()
    os._exit(3)


async def serve(store: str, socket: str, name: str, *, cluster: bool) -> None:
    platform = (ClusterPlatform if cluster else Platform)(open_store(store), name)
    await platform.start(HOSTS)
    await asyncio.start_unix_server(Server(platform).connected, socket)
    await asyncio.get_running_loop().create_future()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("socket")
    parser.add_argument("name")
    parser.add_argument("--cluster", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    sys.stdin.buffer.readline()
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    asyncio.run(serve(arguments.store, arguments.socket, arguments.name, cluster=arguments.cluster))


if __name__ == "__main__":
    main()
