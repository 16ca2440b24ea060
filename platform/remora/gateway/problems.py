"""RFC 9457 problem documents: every error of the tree, as HTTP says it.

The gateway adds three leaves to the tree of ``remora.errors``, for what only HTTP can get wrong:

    InvalidInput
    ├── RouteNotFound         no such path
    ├── MethodNotAllowed      the path takes another method, named in ``Allow``
    └── UnsupportedMediaType  a browser on another site sends something other than JSON

The ``type`` of a problem is ``urn:remora:error:<code>``. Codes never change their meaning; ``title``
is the code in words and ``detail`` the error's own sentence.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from remora.errors import InvalidInput, RemoraError, Verdict

Headers = list[tuple[bytes, bytes]]

TYPE_PREFIX = "urn:remora:error:"
MEDIA_TYPE = b"application/problem+json"
UNEXPECTED = "internal_error"
"""Code of the problem for a fault of the gateway itself."""
_RETRY_AFTER = frozenset({429, 503})


class RouteNotFound(InvalidInput):
    """No route has this path."""

    code, status = "route_not_found", 404


class MethodNotAllowed(InvalidInput):
    """The path takes another method; ``details`` holds one ``{"allow": METHOD}`` each."""

    code, status = "method_not_allowed", 405


class UnsupportedMediaType(InvalidInput):
    """A page of another site sends something other than JSON, which browsers let it do unasked."""

    code, status = "unsupported_media_type", 415


class Problem(msgspec.Struct, omit_defaults=True):
    """An RFC 9457 problem document and the members that Remora adds."""

    type: str
    """``urn:remora:error:<code>``"""
    title: str
    """The code in words."""
    status: int
    detail: str
    """What went wrong and how to mend it."""
    code: str
    """Stable name of the error."""
    retry: bool = False
    """Whether the same request with the same command id is worth sending again."""
    entity: str = ""
    """``type/id`` of the entity concerned."""
    command_id: str = ""
    """Id of the command concerned: send it as ``Idempotency-Key`` when asking again."""
    retry_after_s: float | None = None
    """Seconds to wait before asking again, exact; ``Retry-After`` is this rounded up."""
    errors: list[dict[str, Any]] = []
    """One entry per finding, for errors that hold several."""


def problem(error: RemoraError) -> Problem:
    """Return an error as a problem document."""
    return Problem(
        type=TYPE_PREFIX + error.code,
        title=_title(error.code),
        status=error.status,
        detail=error.message,
        code=error.code,
        retry=_retry(error),
        entity=error.entity,
        command_id=error.command_id,
        retry_after_s=error.retry_after_s if error.status in _RETRY_AFTER and _retry(error) else None,
        errors=error.details,
    )


def unexpected() -> Problem:
    """Return the problem for a fault of the gateway itself; what it was is in the log only."""
    return Problem(
        type=TYPE_PREFIX + UNEXPECTED,
        title=_title(UNEXPECTED),
        status=500,
        detail="The gateway failed on this request; its log says why. Asking again with the same Idempotency-Key is safe.",
        code=UNEXPECTED,
        retry=True,
    )


REPLAYED = (b"idempotency-replayed", b"true")
"""Header of an answer that was recorded when the command was first decided."""


def headers(error: RemoraError) -> Headers:
    """Return the headers an error's answer has beside those of every answer."""
    found: Headers = []
    if error.command_id:
        found.append((b"remora-command-id", error.command_id.encode()))
    if error.repeated:
        found.append(REPLAYED)
    if error.status in _RETRY_AFTER and _retry(error):
        # At least 1: a client that reads whole seconds must not come back at once.
        found.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if isinstance(error, MethodNotAllowed):
        found.append((b"allow", ", ".join(detail["allow"] for detail in error.details).encode()))
    return found


def _title(code: str) -> str:
    return code.replace("_", " ").capitalize()


def _retry(error: RemoraError) -> bool:
    return error.verdict is not Verdict.REJECT


encode = msgspec.json.Encoder().encode
"""Writes a problem document as JSON."""
