"""One request to a gateway, its answer, and what its failures mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from remora.cli.exits import WrongUsage
from remora.cluster import record as records
from remora.errors import (
    BY_CODE,
    ClusterUnreachable,
    DeadlineExceeded,
    InvalidInput,
    RemoraError,
    TryAgain,
    Unavailable,
    UnknownCommand,
    UnknownEntity,
)
from remora.gateway.problems import UNEXPECTED, MethodNotAllowed, RouteNotFound, UnsupportedMediaType
from remora.ids import check_entity_id

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
"""Longest wait for a connection to the gateway, in seconds."""
ANSWER_S = 300.0
"""Longest wait for an answer where no deadline was given: the entity type's own is expected to end it before."""
GRACE_S = 5.0
"""How much longer than a given deadline the answer may take to arrive, in seconds."""
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_SERVER_ERROR = 500
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class GatewayFault(TryAgain):
    """The gateway itself failed on the request; the same command id again is safe."""

    code, status = UNEXPECTED, 500


_KINDS = {kind.code: kind for kind in (GatewayFault, MethodNotAllowed, RouteNotFound, UnsupportedMediaType)}
"""What only gateways say, beside the tree of ``remora.errors``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway answered when all went well."""

    value: Any
    durable: bool = True
    """Whether the entity's type is kept in the journal."""
    repeated: bool = False
    """Whether this is the recorded reply of a command applied before."""


class GatewayClient:
    """Asks one gateway.

    Args:
        url: Base URL, ``http://127.0.0.1:8000``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(
        self, method: str, path: str, *, params: dict[str, str] | None = None, body: str | None = None,
        command_id: str = "", deadline_s: float | None = None, entity: str = "",
    ) -> Answer:  # fmt: skip
        """Send one request and return its answer.

        Args:
            method: HTTP method.
            path: Path of the URL, quoted.
            params: Query parameters.
            body: JSON to send.
            command_id: The command's id; sent as ``Idempotency-Key``.
            deadline_s: Seconds the platform may take.
            entity: ``type/id``, for errors that the gateway had no part in.

        Raises:
            RemoraError: What the gateway answered, or why it could not be asked.
        """
        import httpx

        headers = [(b"accept", b"application/json, application/problem+json")]
        if body is not None:
            headers.append((b"content-type", b"application/json"))
        if command_id:
            headers.append((b"idempotency-key", command_id.encode()))
        if deadline_s is not None:
            headers.append((b"remora-deadline", b"%r" % deadline_s))
        wait_s = ANSWER_S if deadline_s is None else deadline_s + GRACE_S
        timeout = httpx.Timeout(wait_s, connect=CONNECT_S)
        # A proxy that the environment names knows nothing of this machine's loopback address.
        trusts_environment = urlsplit(self.url).hostname not in _LOOPBACK
        try:
            # Without TLS no certificates are needed, and reading them takes longer than the request.
            secure = self.url.startswith("https:")
            with httpx.Client(timeout=timeout, trust_env=trusts_environment, verify=secure) as client:
                response = client.request(method, self.url + path, params=params, content=body, headers=headers)
        except httpx.InvalidURL as error:
            msg = f"{self.url!r} is not a gateway's URL ({error}): write http://HOST:PORT."
            raise WrongUsage(msg) from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            msg = f"No gateway answers at {self.url} ({error}): start an app with `remora up MODULE:APP`, or name its gateway with --gateway URL."
            raise ClusterUnreachable(msg) from error
        except httpx.TimeoutException as error:
            msg = f"The gateway at {self.url} did not answer within {wait_s:g} s."
            raise DeadlineExceeded(msg, entity=entity, command_id=command_id) from error
        except httpx.RequestError as error:
            msg = f"The connection to the gateway at {self.url} was lost before it answered ({error})."
            raise Unavailable(msg, entity=entity, command_id=command_id) from error
        return self._read(response, entity, command_id)

    def _read(self, response: httpx.Response, entity: str, command_id: str) -> Answer:
        try:
            value = json.loads(response.content)
        except ValueError:
            value = None
        durability = response.headers.get("remora-durability")
        if response.is_success and durability is not None:
            return Answer(value, durability != "memory", "idempotency-replayed" in response.headers)
        if isinstance(value, dict) and isinstance(value.get("code"), str):
            raise error_of(value, command_id=command_id)
        said = f"HTTP {response.status_code} at {self.url}"
        if response.status_code in _TRY_AGAIN:
            # Not Remora's own words: the proxy in front of it, while a gateway starts or has too much to do.
            msg = f"The gateway does not take requests at the moment ({said})."
            raise Unavailable(msg, entity=entity, command_id=command_id, retry_after_s=1.0)
        msg = f"What answers there is no gateway of Remora ({said}): `remora status` shows the address of one that runs, --gateway URL names another."
        raise ClusterUnreachable(msg)


def error_of(problem: dict[str, Any], *, command_id: str = "") -> RemoraError:
    """Return the error that a gateway's problem document tells of."""
    code, status = problem["code"], problem.get("status", 500)
    kind = BY_CODE.get(code) or _KINDS.get(code)
    if kind is None:  # of a newer gateway
        kind = TryAgain if problem.get("retry") else InvalidInput if status < _SERVER_ERROR else RemoraError
    return kind(
        str(problem.get("detail") or problem.get("title") or code),
        entity=str(problem.get("entity") or ""),
        command_id=str(problem.get("command_id") or command_id),
        retry_after_s=float(problem.get("retry_after_s") or 0.0),
        details=list(problem.get("errors") or []),
    )


def gateway_url(given: str | None, app: str | None) -> str:
    """Return the gateway to ask: the one given, else the one that ``remora up`` recorded.

    Raises:
        WrongUsage: What was given is no URL.
        ClusterUnreachable: Nothing was given and nothing is recorded.
    """
    if given is None:
        return records.load(app).gateway_url
    try:
        parts = urlsplit(given)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        valid = False
    if not valid:
        msg = f"{given!r} is not a gateway's URL: write http://HOST:PORT."
        raise WrongUsage(msg)
    return given


def entity_path(entity_type: str, entity_id: str, *more: str) -> str:
    """Return the path of an entity's URL, after checking what no gateway could take.

    Raises:
        UnknownEntity: The type cannot be one.
        UnknownCommand: The method cannot be one.
        InvalidId: The id cannot be one.
    """
    if not entity_type.isidentifier():
        msg = f"{entity_type!r} is no entity type: types are class names in snake_case, such as account."
        raise UnknownEntity(msg)
    for method in more:
        if not method.isidentifier():
            msg = f"{method!r} is no command or query of {entity_type}: they are named as the methods of its class."
            raise UnknownCommand(msg)
    parts = [entity_type, check_entity_id(entity_id, entity_type), *more]
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)
