"""``POST /v1/batch``: many commands in one request, one JSON object per line, in and out.

A line in: ``{"type": "account", "id": "alice", "command": "deposit", "args": {"amount": 10}}``, and
``"command_id"`` if the caller makes its own. A line out, in the order of the lines in (blank lines
do not count):

    {"index":0,"status":200,"command_id":"…","reply":10}
    {"index":1,"status":409,"command_id":"…","problem":{"type":"urn:remora:error:rejected",…}}

and ``"replayed":true`` where the reply is the recorded one of a command applied before. The status
of the whole answer is 200 whatever the lines say.

Lines are independent: each is applied, or not, by itself. Commands of one batch to one entity are
applied in the order of the lines; those to different entities, and those of different requests, have
no order. A line may name a query instead; it has no order either. ``Remora-Deadline`` counts per line.

Answers stream while lines still come. A client that sends everything before it reads anything is fine
up to ``HELD_BYTES_MAX`` of answers; beyond that it must read while it writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any

import msgspec

from remora.app import App
from remora.client import Client
from remora.errors import InvalidArgument, RemoraError
from remora.gateway import problems
from remora.gateway.problems import Headers
from remora.gateway.request import Disconnected, Receive, Send, too_large
from remora.ids import check_entity_id
from remora.messages import REPEATED

IN_FLIGHT_MAX = 1024
"""Lines of one batch under way at once."""
HELD_BYTES_MAX = 16 << 20
"""Bytes of lines under way and of answers not yet sent that one batch may hold; then it stops reading."""
STALL_S = 60.0
"""Seconds after which a client that does not read its answers is given up."""
ENVELOPE_BYTES_MAX = 4096
"""What a line may have beside its arguments: type, id, command and command id, in bytes."""
_CHUNK = 1 << 16

_START: Headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
_quote = msgspec.json.Encoder().encode
log = logging.getLogger("remora.gateway")


class Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One line in."""

    type: str
    id: str
    command: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    command_id: str | None = None


_decode = msgspec.json.Decoder(Line).decode


class _Entry:
    """A line's place among the answers."""

    __slots__ = ("index", "out")

    def __init__(self, index: int) -> None:
        self.index = index
        self.out: bytes | None = None


class Batch:
    """One batch request.

    Args:
        app: The app.
        client: Carries the commands.
        deadline_s: Seconds each line has; its type's default if None.
        receive: Gives the request's body.
        send: Takes the answer.
    """

    def __init__(self, app: App, client: Client, deadline_s: float | None, receive: Receive, send: Send) -> None:
        self._app = app
        self._client = client
        self._deadline_s = deadline_s
        self._receive = receive
        self._send = send
        self._line_max = app.settings.payload_bytes_max + ENVELOPE_BYTES_MAX
        self._entries: deque[_Entry] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self._held = 0
        self._ended = False
        self._room = asyncio.Event()
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Answer every line.

        Raises:
            Disconnected: The client went away, or does not read; the answer stays incomplete.
        """
        await self._send({"type": "http.response.start", "status": 200, "headers": _START})
        reading = asyncio.create_task(self._read())
        reading.add_done_callback(self._reading_ended)
        try:
            await self._write()
            await reading
        except TimeoutError:
            log.warning("a batch was given up: its client read nothing for %.0f s", STALL_S)
            raise Disconnected from None
        except Disconnected:
            raise
        except Exception:
            log.exception("a batch failed in the gateway")
            raise Disconnected from None  # the status is sent: an answer cut short is all that can be said
        finally:
            for task in [reading, *self._tasks]:
                task.cancel()
            await asyncio.gather(reading, *self._tasks, return_exceptions=True)
        await self._send({"type": "http.response.body", "body": b""})

    # -- in --------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Start lines as they come, as long as there is room."""
        rest = b""
        skipping = False
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            *lines, rest = (rest + message.get("body", b"")).split(b"\n")
            more = message.get("more_body", False)
            if not more:
                lines.append(rest)
            for line in lines:
                if skipping:  # what is left of a line that was refused before its end
                    skipping = False
                elif line.strip():
                    await self._begin(line)
            if more and (skipping or len(rest) > self._line_max):
                if not skipping:
                    await self._begin(rest)
                skipping, rest = True, b""
            if not more:
                return

    def _reading_ended(self, task: asyncio.Task[None]) -> None:
        del task
        self._ended = True
        self._ready.set()

    async def _begin(self, line: bytes) -> None:
        while len(self._tasks) >= IN_FLIGHT_MAX or self._held >= HELD_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        entry = _Entry(self._count)
        self._count += 1
        self._entries.append(entry)
        self._held += len(line)
        try:
            if len(line) > self._line_max:
                raise too_large(len(line), self._line_max)
            command = self._command(entry, line)
        except RemoraError as error:
            self._finish(entry, len(line), _failure(entry.index, error))
            return
        # Tasks begin in the order they are made, so commands reach their lanes in the order of the lines.
        task = asyncio.create_task(command)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.set()

    def _command(self, entry: _Entry, data: bytes) -> Coroutine[Any, Any, None]:
        try:
            line = _decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            msg = f'A line is an object such as {{"type": "account", "id": "alice", "command": "deposit", "args": {{}}}}: {error}.'
            raise InvalidArgument(msg) from error
        return self._run(entry, line, len(data))

    async def _run(self, entry: _Entry, line: Line, size: int) -> None:
        identity = line.command_id
        try:
            spec = self._app.spec(line.type)
            handler = spec.handler(line.command)
            check_entity_id(line.id, line.type)
            if handler.is_query:
                identity = None
            elif identity is None:
                identity = self._client.ids.next()
            verdict, payload = await self._client.call(
                spec, handler, line.id, bytes(line.args),
                command_id=identity, first=line.command_id is None, deadline_s=self._deadline_s,
            )  # fmt: skip
            out = _success(entry.index, identity or "", payload, replayed=verdict == REPEATED)
        except RemoraError as error:
            error.command_id = error.command_id or identity or ""
            out = _failure(entry.index, error)
        except Exception:
            log.exception("line %d of a batch failed in the gateway", entry.index)
            out = _line(entry.index, 500, identity or "", b'"problem":' + problems.encode(problems.unexpected()))
        self._finish(entry, size, out)

    def _finish(self, entry: _Entry, size: int, out: bytes) -> None:
        entry.out = out
        self._held += len(out) - size
        if self._entries[0] is entry:
            self._ready.set()

    # -- out -------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Send answers in order, as many as are ready at once, until all lines are answered."""
        while True:
            chunk = self._take()
            if chunk:
                async with asyncio.timeout(STALL_S):
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                self._held -= len(chunk)
                self._room.set()
            elif self._ended and not self._entries:
                return
            else:
                self._ready.clear()
                await self._ready.wait()

    def _take(self) -> bytes:
        entries = self._entries
        parts, size = [], 0
        while entries and size < _CHUNK:
            out = entries[0].out
            if out is None:
                break
            entries.popleft()
            parts.append(out)
            size += len(out)
        return b"".join(parts)


def _success(index: int, identity: str, payload: bytes, *, replayed: bool) -> bytes:
    return _line(index, 200, identity, (b'"replayed":true,"reply":' if replayed else b'"reply":') + payload)


def _failure(index: int, error: RemoraError) -> bytes:
    return _line(index, error.status, error.command_id, b'"problem":' + problems.encode(problems.problem(error)))


def _line(index: int, status: int, identity: str, rest: bytes) -> bytes:
    named = b'"command_id":%b,' % _quote(identity) if identity else b""
    return b'{"index":%d,"status":%d,%b%b}\n' % (index, status, named, rest)
