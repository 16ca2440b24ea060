"""A network that fails on demand: a TCP proxy between a platform and its database."""

import asyncio
from contextlib import suppress
from typing import Self
from urllib.parse import SplitResult, urlsplit

CHUNK = 1 << 16


class Proxy:
    """Passes bytes between whoever connects and a server.

    While it is held nothing passes in either direction and new connections stay silent; what was
    sent meanwhile arrives afterwards, as TCP would send it again.

    Args:
        url: Of the server; ``url`` of the proxy is the same with the proxy's address.
    """

    def __init__(self, url: str) -> None:
        self._server: SplitResult = urlsplit(url)
        self.url = ""
        self.delay_s = 0.0
        """Added to everything that passes, in each direction."""
        self.cut = 0
        """Bytes to withhold from the end of what goes to the server next; then nothing passes any more."""
        self.connections = 0
        """Made so far."""
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        user = self._server.netloc.rpartition("@")[0]
        self.url = self._server._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Let nothing pass any more: a black hole."""
        self._open.clear()

    def let_go(self) -> None:
        """Let everything pass again."""
        self._open.set()

    def reset(self) -> None:
        """Break every connection; new ones may be made."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with suppress(OSError):
            await self._open.wait()
            upper_reader, upper = await asyncio.open_connection(self._server.hostname, self._server.port)
            self._writers.add(upper)
            try:
                await asyncio.gather(self._pass(reader, upper, up=True), self._pass(upper_reader, writer))
            finally:
                self._writers -= {upper}
                upper.transport.abort()
        self._writers -= {writer}
        writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool = False) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                await self._open.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)  # noqa: TID251 - the network that it stands for
                if up and self.cut:
                    data, self.cut = data[: -self.cut], 0
                    self.hold()
                sink.write(data)
                await sink.drain()
        await self._open.wait()
        sink.close()
