"""The gateway as a raw ASGI app: bytes in, bytes out.

Arguments and replies are JSON on both sides of the gateway, so commands and queries pass through
undecoded; the host validates them (``docs/decisions/0002-raw-asgi-hot-path.md`` has the figures).
What is not below ``/v1/`` goes to the FastAPI app of ``remora.gateway.control``.

    POST /v1/{type}/{id}/{command}     a command, or a query whose arguments are too much for a URL
    GET  /v1/{type}/{id}/{query}       a query; arguments in the query string
    GET  /v1/{type}/{id}               the state
    GET  /v1/{type}/{id}/events        recorded events: ?after=SEQUENCE&limit=COUNT
    GET  /v1/{type}/{id}/why           what the entity does or waits for
    POST /v1/batch                     many commands, one per line; see remora.gateway.batch

HEAD is answered as GET. Separate requests have no order among each other (G4).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from remora.app import App
from remora.client import Client
from remora.contract import EntitySpec, HandlerSpec
from remora.errors import RemoraError, Unavailable, UnknownCommand
from remora.gateway import problems
from remora.gateway.arguments import QueryString, page
from remora.gateway.batch import Batch
from remora.gateway.control import control
from remora.gateway.problems import Headers, MethodNotAllowed, RouteNotFound
from remora.gateway.request import (
    Disconnected,
    Receive,
    RequestHeaders,
    Scope,
    Send,
    check_origin,
    command_id,
    deadline_s,
    decode_segment,
    drain,
    entity_id,
    read_body,
    route_path,
)  # fmt: skip
from remora.messages import REPEATED
from remora.reference import HISTORY_LIMIT_MAX
from remora.sharding.hashing import entity_key
from remora.why import encode

Connect = Callable[[], AbstractAsyncContextManager[Client]]
"""Gives the client that the gateway uses for its whole life, and closes it."""

log = logging.getLogger("remora.gateway")

_JSON = (b"content-type", b"application/json")
# An answer from a cache could miss commands acknowledged before the query was sent (G5).
_NO_STORE = (b"cache-control", b"no-store")
_NO_BODY = b"{}"
_READS = frozenset({"GET", "HEAD"})


class TypeRoutes:
    """What is below ``/v1/{type}/``."""

    __slots__ = ("handlers", "headers", "queries", "read_headers", "spec")

    def __init__(self, spec: EntitySpec) -> None:
        self.spec = spec
        self.handlers: dict[bytes, HandlerSpec] = {name.encode(): found for name, found in spec.handlers.items()}
        self.queries = {name: QueryString(found) for name, found in spec.handlers.items() if found.is_query}
        durability = b"journal" if spec.durable else b"memory"
        self.headers: Headers = [_JSON, (b"remora-durability", durability)]
        self.read_headers: Headers = [*self.headers, _NO_STORE]

    def handler(self, segment: bytes) -> HandlerSpec:
        """Return the command or query that a segment of a path names.

        Raises:
            UnknownCommand: There is none.
        """
        return self.handlers.get(segment) or self.spec.handler(decode_segment(segment))

    def allowed(self, segment: bytes) -> list[str]:
        """Return the HTTP methods of ``/v1/{type}/{id}/{segment}``."""
        if segment in _BUILT_IN:
            return ["GET"]
        return ["GET", "POST"] if self.handler(segment).is_query else ["POST"]


class Gateway:
    """The ASGI app. The server's lifespan opens and closes it.

    Args:
        app: The app whose entities it serves.
        connect: Gives the client.
    """

    def __init__(self, app: App, connect: Connect) -> None:
        self.app = app
        self._connect = connect
        self._client: Client | None = None
        self._exit = AsyncExitStack()
        self._types = {name.encode(): TypeRoutes(spec) for name, spec in app.specs.items()}
        self._payload_max = app.settings.payload_bytes_max
        self._control = control(app, self.unowned)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of ASGI 3: lifespan or HTTP."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "HTTP only"})
            return
        path = route_path(scope)
        if not path.startswith(b"/v1/"):
            await self._control(scope, receive, send)  # answers its own failures, and raises them for the server's log
            return
        try:
            if path == b"/v1/batch":
                await self._batch(scope, receive, send)
                return
            headers, body = await self._answer(path, scope, receive)
            status = 200
        except RemoraError as error:
            status = error.status
            headers = [(b"content-type", problems.MEDIA_TYPE), *problems.headers(error)]
            body = problems.encode(problems.problem(error))
            if status == 413:  # noqa: PLR2004 - the rest of the body stays unread: the connection cannot be used again
                headers.append((b"connection", b"close"))
        except Disconnected:
            return
        except Exception:
            log.exception("%s %s failed in the gateway", scope["method"], scope["path"])
            status, headers = 500, [(b"content-type", problems.MEDIA_TYPE)]
            body = problems.encode(problems.unexpected())
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if status == 413:  # noqa: PLR2004 - as above
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await drain(receive)
            body = b""
        await send({"type": "http.response.body", "body": body})

    # -- life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect; requests before that are told to come back."""
        if self._client is None:
            self._client = await self._exit.enter_async_context(self._connect())

    async def close(self) -> None:
        """Disconnect; commands under way end with an error that carries their id."""
        self._client = None
        await self._exit.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.open()
        except Exception as error:
            log.exception("the gateway cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    def unowned(self) -> int:
        """Return how many shards have no host at the moment; all of them while not connected."""
        shards = self.app.settings.shards
        if self._client is None:
            return shards
        table = self._client.table
        rows = (table.shards.get(str(n)) for n in range(shards))
        return sum(row is None or row.owner not in table.hosts for row in rows)

    # -- routes ------------------------------------------------------------------------------------

    async def _answer(self, path: bytes, scope: Scope, receive: Receive) -> tuple[Headers, bytes]:
        client = self._client or self._not_open()
        parts = path.split(b"/", 5)  # '', 'v1', type, id, method; a sixth if the id was written with '/' in it
        if len(parts) < 4:  # noqa: PLR2004 - without an id
            msg = "No such path: write /v1/{type}/{id} for a state, /v1/{type}/{id}/{command} for a command or query."
            raise RouteNotFound(msg)
        routes = self._types.get(parts[2]) or self._unknown(parts[2])
        raw_id = parts[3] if len(parts) <= 5 else b"/".join(parts[3:])  # noqa: PLR2004 - refused for its '/'
        target = entity_id(raw_id, routes.spec.type)
        try:
            if len(parts) == 5:  # noqa: PLR2004 - with a method
                return await self._method(client, routes, target, parts[4], scope, receive)
            if scope["method"] not in _READS:
                raise not_allowed(scope, "GET")
            return await self._read(client, routes, "$state", target, dict(scope["headers"]), _NO_BODY)
        except RemoraError as error:
            error.entity = error.entity or entity_key(routes.spec.type, target)
            raise

    async def _method(
        self, client: Client, routes: TypeRoutes, target: str, name: bytes, scope: Scope, receive: Receive
    ) -> tuple[Headers, bytes]:
        method = scope["method"]
        if method == "POST":
            handler = routes.handlers.get(name)
            if handler is None and name in _BUILT_IN:
                raise not_allowed(scope, "GET")
            if handler is None and name == b"release_sends":
                headers = dict(scope["headers"])
                check_origin(headers)
                return await self._read(client, routes, "$release", target, headers, _NO_BODY)
            return await self._post(client, routes, target, handler or routes.handler(name), scope, receive)
        if method not in _READS:
            raise not_allowed(scope, *routes.allowed(name))
        headers = dict(scope["headers"])
        built_in = _BUILT_IN.get(name)
        if built_in is not None:
            return await built_in(self, client, routes, target, headers, scope.get("query_string", b""))
        handler = routes.handler(name)
        if not handler.is_query:
            msg = f"{routes.spec.type}.{handler.name} is a command, which changes the entity: use POST."
            raise MethodNotAllowed(msg, details=[{"allow": "POST"}])
        arguments = routes.queries[handler.name].arguments(scope.get("query_string", b""))
        _, payload = await client.call(routes.spec, handler, target, arguments, deadline_s=deadline_s(headers))
        return [*routes.read_headers], payload

    async def _post(
        self, client: Client, routes: TypeRoutes, target: str, handler: HandlerSpec, scope: Scope, receive: Receive
    ) -> tuple[Headers, bytes]:
        headers = dict(scope["headers"])
        check_origin(headers)
        if handler.is_query:
            body = await read_body(receive, headers, self._payload_max)
            _, payload = await client.call(
                routes.spec, handler, target, body or _NO_BODY, deadline_s=deadline_s(headers)
            )
            return [*routes.read_headers], payload
        given = command_id(headers)
        identity = given or client.ids.next()
        try:
            body = await read_body(receive, headers, self._payload_max)
            verdict, payload = await client.call(
                routes.spec, handler, target, body or _NO_BODY,
                command_id=identity, first=given is None, deadline_s=deadline_s(headers), lane=False,
            )  # fmt: skip
        except RemoraError as error:
            # With its id a command can be sent again safely, also one that the caller gave none.
            error.command_id = error.command_id or identity
            raise
        answered = [*routes.headers, (b"remora-command-id", identity.encode())]
        if verdict == REPEATED:
            answered.append(problems.REPLAYED)
        return answered, payload

    async def _events(
        self, client: Client, routes: TypeRoutes, target: str, headers: RequestHeaders, query_string: bytes
    ) -> tuple[Headers, bytes]:
        spec = routes.spec
        if spec.kind != "event_sourced":
            msg = f"{spec.type} is {spec.kind}: only an EventSourced entity has events."
            raise UnknownCommand(msg)
        arguments = page(query_string, f"{spec.type} events", HISTORY_LIMIT_MAX)
        return await self._read(client, routes, "$events", target, headers, arguments)

    async def _why(
        self, client: Client, routes: TypeRoutes, target: str, headers: RequestHeaders, query_string: bytes
    ) -> tuple[Headers, bytes]:
        del headers, query_string
        return [*routes.read_headers], encode(await client.why(routes.spec, target))

    async def _read(
        self, client: Client, routes: TypeRoutes, name: str, target: str, headers: RequestHeaders, arguments: bytes
    ) -> tuple[Headers, bytes]:
        _, payload = await client.call(routes.spec, name, target, arguments, deadline_s=deadline_s(headers))
        return [*routes.read_headers], payload

    async def _batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._client or self._not_open()
        if scope["method"] != "POST":
            raise not_allowed(scope, "POST")
        headers = dict(scope["headers"])
        check_origin(headers)
        await Batch(self.app, client, deadline_s(headers), receive, send).run()

    def _unknown(self, segment: bytes) -> TypeRoutes:
        """Return the type behind an unusual spelling (``acc%6Funt``).

        Raises:
            UnknownEntity: There is none.
        """
        return self._types[self.app.spec(decode_segment(segment)).type.encode()]

    def _not_open(self) -> Client:
        msg = "The gateway is not connected to the app's hosts yet."
        raise Unavailable(msg, retry_after_s=1.0)


_BUILT_IN = {b"events": Gateway._events, b"why": Gateway._why}  # noqa: SLF001 - its own routes


def not_allowed(scope: Scope, *allowed: str) -> MethodNotAllowed:
    """Return the error about a method that the path does not take."""
    msg = f"{scope['method']} is not for this path: use {' or '.join(allowed)}."
    return MethodNotAllowed(msg, details=[{"allow": method} for method in allowed])
