"""Real HTTP for the command line to talk to: ASGI apps under uvicorn, on a free loopback port."""

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn

from remora.gateway.request import Receive, Scope, Send

LONGEST_S = 20.0
"""Bound of every wait for the server's thread, in seconds; normally it takes a few milliseconds."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def serving(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Iterator[str]:
    """Serve an ASGI app from a thread while inside; gives its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=1)
    server = _Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    try:
        assert server.settled.wait(LONGEST_S)
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(LONGEST_S)
        listener.close()
        assert not thread.is_alive()


class Canned:
    """An ASGI app that answers every request alike, as it was told last, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers(200)

    def answers(self, status: int, body: bytes | dict[str, object] = b"", **headers: str) -> None:
        """Answer from now on with this; ``_`` in the name of a header stands for ``-``."""
        self._status = status
        self._headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        """method, path, headers and body of each request"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for said in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{said}.complete"})
            return
        message = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append((scope["method"], scope["raw_path"].decode(), headers, message["body"]))
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})
