"""HTTP load from a process of its own: `python -m tests.bench.load '{"port": …}'`.

In the bench's process it would share an event loop with a client, and in one with a general HTTP
client most of the time measured would be that client's. Requests are bytes made beforehand, one
is under way per connection, and of an answer only status, length and (in batches) the status of
each line are read. ``http.generator`` in the results is what it reaches against a server that
does nothing (tests/bench/nothing.py): far above every other row, so it is not what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

import uvloop

from tests.bench.drive import Measured

REACH_S = 10.0
"""Longest wait for answers that are owed when the time is over, in seconds."""


@dataclass(frozen=True)
class Spec:
    """What to send."""

    port: int
    path: str
    """``{id}`` in it stands for an entity's id."""
    ids: str
    """What the ids begin with."""
    entities: int
    connections: int
    warm_up_s: float
    seconds: float
    lines: int = 0
    """Commands per request as NDJSON; 0: one command as a plain body."""

    def requests(self) -> list[bytes]:
        """Return the requests, ready to write."""
        if self.lines:
            lines = (
                json.dumps(
                    {
                        "type": "account",
                        "id": f"{self.ids}{n % self.entities}",
                        "command": "deposit",
                        "args": {"amount": 1},
                    }
                )
                for n in range(self.lines)
            )
            return [self._request(self.path, "application/x-ndjson", "\n".join(lines).encode())]
        body = b'{"amount":1}'
        return [
            self._request(self.path.replace("{id}", f"{self.ids}{n}"), "application/json", body)
            for n in range(self.entities)
        ]

    def _request(self, path: str, media_type: str, body: bytes) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass
class Report:
    """What came back."""

    latencies_s: list[float]
    """Seconds of each request that was answered within the time measured."""
    acknowledged: int = 0
    """Commands answered with 200, before and after that time included."""
    failed: int = 0
    """Commands answered otherwise, or lost with their connection."""
    first_failure: str = ""


class Run:
    """One measurement."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.requests = spec.requests()
        self.report = Report([])
        self.begin_s = time.perf_counter() + spec.warm_up_s
        self.end_s = self.begin_s + spec.seconds
        self.open = spec.connections
        self.ended = asyncio.Event()

    async def run(self) -> Report:
        """Open the connections, wait for the end and for what is owed."""
        loop = asyncio.get_running_loop()
        step = max(1, len(self.requests) // self.spec.connections)
        for number in range(self.spec.connections):
            await loop.create_connection(lambda n=number: Connection(self, n * step), "127.0.0.1", self.spec.port)  # type: ignore[misc]  # a default freezes the loop variable
        async with asyncio.timeout(self.spec.warm_up_s + self.spec.seconds + REACH_S):
            await self.ended.wait()
        return self.report

    def closed(self) -> None:
        """Count connections down."""
        self.open -= 1
        if self.open == 0:
            self.ended.set()

    def lost(self, why: str) -> None:
        """Count a request without a usable answer."""
        self.report.failed += self.spec.lines or 1
        self.report.first_failure = self.report.first_failure or why


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self, run: Run, place: int) -> None:
        self._run = run
        self._place = place
        self._data = b""
        self._sent_s = 0.0
        self._owed = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's is always a Transport
        self._next()

    def _next(self) -> None:
        self._sent_s = time.perf_counter()
        if self._sent_s >= self._run.end_s:
            self._transport.close()
            return
        requests = self._run.requests
        self._owed = True
        self._transport.write(requests[self._place % len(requests)])
        self._place += 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        body = body_of(self._data)
        if body is None:
            return
        self._owed = False
        run, report = self._run, self._run.report
        answered_s = time.perf_counter()
        if self._data[9:12] != b"200":
            run.lost(self._data[:600].decode(errors="replace"))
        elif run.spec.lines:
            done = body.count(b'"status":200')
            report.acknowledged += done
            if done != run.spec.lines:
                report.failed += run.spec.lines - done
                report.first_failure = report.first_failure or body[:600].decode(errors="replace")
        else:
            report.acknowledged += 1
        if run.begin_s <= answered_s < run.end_s:
            report.latencies_s.append(answered_s - self._sent_s)
        self._data = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._owed:
            self._run.lost(f"the connection was closed before the answer: {exc!r}")
        self._run.closed()


def body_of(data: bytes) -> bytes | None:
    """Return the body of an answer, or None while it is not complete."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head, start = data[:head_end].lower(), head_end + 4
    at = head.find(b"content-length:")
    if at >= 0:
        length = int(head[at + 15 :].split(b"\r", 1)[0])
        return data[start : start + length] if len(data) >= start + length else None
    # Chunked. Nothing follows the answer, and no line of a batch's answer ends in "0".
    return _joined(data, start) if data.endswith(b"\r\n0\r\n\r\n") else None


def _joined(data: bytes, start: int) -> bytes:
    parts: list[bytes] = []
    while True:
        line_end = data.index(b"\r\n", start)
        size = int(data[start:line_end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(data[line_end + 2 : line_end + 2 + size])
        start = line_end + 2 + size + 2


def _main(spec: Spec) -> Measured:
    report = uvloop.run(Run(spec).run())
    if report.failed:
        sys.exit(
            f"{report.failed} of {report.failed + report.acknowledged} commands to {spec.path} failed, "
            f"the first with:\n{report.first_failure}"
        )
    # Few long requests, one after the other: their own time is exact where a count per window is not.
    seconds = sum(report.latencies_s) if spec.lines else spec.seconds
    return Measured.of(report.latencies_s, seconds, report.acknowledged, spec.lines or 1)


if __name__ == "__main__":
    print(json.dumps(asdict(_main(Spec(**json.loads(sys.argv[1]))))))
