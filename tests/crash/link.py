"""The test's side of the socket: what a client needs to reach a process that may be gone at any moment."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec

from remora.errors import HostGone, decode_error
from remora.sharding.table import Table, decode_table
from remora.why import Glance
from tests.crash.lives import POLL_S

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class Link:
    """One connection, made again whenever it broke; directory and transport of clients."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._connecting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def table(self, after: int) -> Table:
        """Return the table; while nobody serves, wait: the next life is at hand."""
        while True:
            try:
                return decode_table(await self.ask("table", after))
            except HostGone:
                await asyncio.sleep(POLL_S)  # noqa: TID251 - until another process serves; the test's timeout bounds it

    async def place(self, key: str) -> None:
        msg = f"{key}: no entity here is dedicated."
        raise HostGone(msg)

    async def suspect(self, host: str) -> None:
        """Nobody here is told: the end of a lease has to be enough."""

    async def leave(self) -> None:
        """Nothing is waited for."""

    async def about(self, shard: str) -> dict[str, Any]:
        msg = f"{shard}: nobody here tells of shards."
        raise HostGone(msg)

    async def glance(self, host: str) -> Glance:
        msg = f"{host}: nobody here looks beside its loop."
        raise HostGone(msg)

    async def exchange(self, host: str, data: bytes) -> bytes:
        return await self.ask("exchange", host, data)

    async def ask(self, what: str, *arguments: object) -> bytes:
        writer = await self._connected()
        number = next(self._numbers)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        data = _encode([number, what, *arguments])
        writer.write(len(data).to_bytes(4, "big") + data)
        return await answer

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                try:
                    reader, writer = await asyncio.open_unix_connection(self._socket)
                except OSError as error:
                    msg = f"Nobody serves: {error}"
                    raise HostGone(msg) from error
                self._writer = writer
                self._reading = asyncio.create_task(self._read(reader, writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                number, error, result = _decode(await reader.readexactly(size))
                answer = self._waiting.pop(number)
                if answer.done():
                    continue
                if error is None:
                    answer.set_result(result)
                else:
                    answer.set_exception(decode_error(error))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writer = None
            writer.close()
            broken, self._waiting = self._waiting, {}
            for answer in broken.values():
                if not answer.done():
                    answer.set_exception(HostGone("The process is gone; what became of this is not known."))
