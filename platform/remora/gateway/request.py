"""What a request says: its path, its headers, its body. Strict, and pure but for reading the body."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from remora.errors import InvalidId, InvalidInput, PayloadTooLarge
from remora.gateway.problems import UnsupportedMediaType
from remora.ids import check_command_id, check_entity_id

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RequestHeaders = Mapping[bytes, bytes]

DEADLINE_S_MAX = 86_400.0
"""Longest deadline a request may ask for, in seconds: a day, as ``with_options`` allows."""
SERVE_RESERVE_S = 0.1
"""Seconds by which our answer comes before the end of Serve's own request timeout. Serve answers
without a command id, and asking again with that is what makes a lost reply safe."""

DRAIN_BYTES_MAX = 8 * 2**20
"""Bytes of a refused body that are still read: eight times what is allowed where nothing is set."""
DRAIN_S = 2.0
"""Longest time for that, in seconds: 32 Mbit/s."""

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Disconnected(Exception):  # noqa: N818 - not an error: the client has gone, and nobody is there to be told
    """The client has gone before its request was complete."""


def route_path(scope: Scope) -> bytes:
    """Return the path as sent, percent-encoded, relative to where the app is mounted.

    ``scope["path"]`` is decoded already, so that ``%2F`` and ``/`` are the same in it.
    """
    path: bytes | None = scope.get("raw_path")
    if path is None:  # the server does not give it: ids with an encoded slash then look like longer paths
        path = quote(scope["path"]).encode()
    root: str = scope.get("root_path", "")
    return path.removeprefix(root.rstrip("/").encode()) if root else path


def decode_segment(raw: bytes) -> str:
    """Return one segment of a path, percent-decoded.

    Raises:
        InvalidId: It is no percent-encoded UTF-8.
    """
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            msg = "The path holds '%' without two hexadecimal digits behind it: write a percent sign as %25."
            raise InvalidId(msg)
        raw = unquote_to_bytes(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        msg = "The path is not UTF-8 when percent-decoded: encode the id as UTF-8 first."
        raise InvalidId(msg) from error


def entity_id(raw: bytes, entity_type: str) -> str:
    """Return the id that a segment of a path holds.

    Raises:
        InvalidId: It cannot be one.
    """
    return check_entity_id(decode_segment(raw), entity_type)


def command_id(headers: RequestHeaders) -> str | None:
    """Return the ``Idempotency-Key``, exactly as written, or None without one.

    Raises:
        InvalidId: It cannot be a command id.
    """
    given = headers.get(b"idempotency-key")
    if given is None:
        return None
    try:
        return check_command_id(given.decode())
    except UnicodeDecodeError as error:
        msg = "Idempotency-Key is not UTF-8: use a UUID, for example."
        raise InvalidId(msg) from error


def deadline_s(headers: RequestHeaders) -> float | None:
    """Return the seconds a request gives itself, or None for the type's default.

    ``Remora-Deadline`` counts before Serve's ``x-request-timeout-seconds``, which ends the request at
    Serve's edge too: of that a little is kept back for the way.

    Raises:
        InvalidInput: Not a number of seconds above 0 and at most a day.
    """
    given = headers.get(b"remora-deadline")
    if given is not None:
        return _seconds(given, "Remora-Deadline")
    given = headers.get(b"x-request-timeout-seconds")
    if given is None or given.startswith(b"-") or not given.strip(b"0."):
        return None  # to Serve, 0 and below say that there is none
    seconds = _seconds(given, "x-request-timeout-seconds")
    return max(seconds - SERVE_RESERVE_S, seconds / 2)


def _seconds(given: bytes, name: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= DEADLINE_S_MAX:
        msg = f"{name} must be a number of seconds above 0 and at most {DEADLINE_S_MAX:.0f}, such as 2.5."
        raise InvalidInput(msg)
    return seconds


def check_origin(headers: RequestHeaders) -> None:
    """Refuse what a page of another site makes a browser send without asking us.

    Browsers send forms and plain text anywhere, and ask first (we never agree) before they send
    JSON. A gateway on somebody's own machine would otherwise obey every page they open.

    Raises:
        UnsupportedMediaType: Another site's page, and not JSON.
    """
    origin = headers.get(b"origin")
    if origin is None or origin.partition(b"://")[2] == headers.get(b"host"):
        return
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        msg = "A request from another site must be JSON: send Content-Type: application/json."
        raise UnsupportedMediaType(msg)


async def read_body(receive: Receive, headers: RequestHeaders, bytes_max: int) -> bytes:
    """Return the request's body.

    Raises:
        PayloadTooLarge: Over ``bytes_max``; known from Content-Length or as soon as it has come.
        Disconnected: The client went away before its end.
    """
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length) > bytes_max:
        raise too_large(int(length), bytes_max)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > bytes_max:
            raise too_large(len(body), bytes_max)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        if size > bytes_max:
            raise too_large(size, bytes_max)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
    if size > bytes_max:
        raise too_large(size, bytes_max)
    return b"".join(parts)


async def drain(receive: Receive) -> None:
    """Read what still comes of a body that was refused, and forget it, in bounded time and number.

    Who closes a connection on a client that sends takes the answer with it, which the client has not read yet.
    """
    drained, more = 0, True
    try:
        async with asyncio.timeout(DRAIN_S):
            while more and drained < DRAIN_BYTES_MAX:
                message = await receive()
                drained += len(message.get("body", b""))
                more = message.get("more_body", False)  # a client that went away sends no more
    except TimeoutError:
        pass  # it was answered, and is not waited for any longer


def too_large(size: int, bytes_max: int) -> PayloadTooLarge:
    """Return the error about a body of at least ``size`` bytes."""
    msg = f"The arguments have {size} bytes or more, {bytes_max} are allowed: keep large data elsewhere and pass its address."
    return PayloadTooLarge(msg)
