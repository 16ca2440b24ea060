"""An HTTP server that does nothing, to find what the load generator itself can do: prints its port."""

from __future__ import annotations

import asyncio

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1"


class Nothing(asyncio.Protocol):
    """Answers whatever arrives; requests of the generator arrive whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's is always a Transport

    def data_received(self, data: bytes) -> None:
        del data
        self._transport.write(ANSWER)


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(Nothing, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
