"""Asks an ASGI app without a server in between, byte by byte where that matters."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from remora import Client
from remora.gateway.asgi import Gateway
from remora.gateway.request import Message, Receive


@dataclass
class Answer:
    """What was sent back so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.body)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)


async def ask(
    gateway: Gateway,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] = b"",
    headers: dict[str, str] | None = None,
    *,
    root_path: str = "",
) -> Answer:
    """Send a request; ``path`` goes out as it is written."""
    path, _, query = path.partition("?")
    answer = Answer()
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    await gateway(scope, sending([body] if isinstance(body, bytes) else list(body)), answer.take)
    return answer


def sending(parts: list[bytes]) -> Receive:
    """Return a ``receive`` that gives a body in these parts, and then says that the client has gone."""
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    todo = iter(messages)

    async def receive() -> Message:
        return next(todo, {"type": "http.disconnect"})

    return receive


@asynccontextmanager
async def lent(client: Client) -> AsyncIterator[Client]:
    """Lend a client to a gateway: closing the gateway leaves it open."""
    yield client
