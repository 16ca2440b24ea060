"""The gateway's control routes, on FastAPI: index, probes, OpenAPI and its page.

``/docs`` is FastAPI's Swagger page, whose script comes from a CDN. Where that cannot be reached the
page shows what it holds itself: every command and query with its arguments and reply. Nothing is
fetched by the server.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from remora.app import App
from remora.contract import EntitySpec
from remora.errors import InvalidInput, RemoraError, Unavailable
from remora.gateway import problems
from remora.gateway.openapi import openapi
from remora.gateway.problems import MethodNotAllowed, RouteNotFound

_SWAGGER_ROOT = '<div id="swagger-ui">'


def control(app: App, unowned: Callable[[], int]) -> FastAPI:
    """Return the control routes of an app.

    Args:
        app: The app.
        unowned: Returns how many shards have no host at the moment.
    """
    document = openapi(app, _release())
    api = FastAPI(title=app.name, docs_url=None, redoc_url=None, redirect_slashes=False)
    api.openapi = lambda: document  # type: ignore[method-assign]  # the way FastAPI documents for one's own document

    @api.get("/")
    async def index(request: Request) -> dict[str, Any]:
        root = request.scope.get("root_path", "").rstrip("/")
        links = {name: f"{root}/{name}" for name in ("docs", "openapi.json", "healthz", "readyz")}
        return {"app": app.name, "types": {name: _listed(spec) for name, spec in app.specs.items()}, **links}

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @api.get("/readyz")
    async def readyz() -> dict[str, Any]:
        missing = unowned()
        if missing:
            msg = f"{missing} of {app.settings.shards} shards have no host at the moment."
            raise Unavailable(msg, retry_after_s=1.0)
        return {"status": "ready", "shards": app.settings.shards}

    @api.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(openapi_url=f"{root}/openapi.json", title=app.name)
        # What stands inside the element is replaced when Swagger's script runs, and stays if it cannot be loaded.
        text = bytes(page.body).decode().replace(_SWAGGER_ROOT, _SWAGGER_ROOT + _plain(document), 1)
        return HTMLResponse(text)

    @api.exception_handler(RemoraError)
    async def refused(_: Request, error: RemoraError) -> Response:
        return _problem(error)

    @api.exception_handler(HTTPException)
    async def refused_by_router(request: Request, error: HTTPException) -> Response:
        return _problem(_from_http(request, error))

    @api.exception_handler(Exception)
    async def failed(*_: object) -> Response:
        body = problems.encode(problems.unexpected())
        return Response(body, HTTPStatus.INTERNAL_SERVER_ERROR, media_type=problems.MEDIA_TYPE.decode())

    return api


def _problem(error: RemoraError) -> Response:
    body = problems.encode(problems.problem(error))
    response = Response(body, error.status, media_type=problems.MEDIA_TYPE.decode())
    response.raw_headers.extend(problems.headers(error))
    return response


def _from_http(request: Request, error: HTTPException) -> RemoraError:
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "GET").split(", ")
        msg = f"{request.method} is not for this path: use {' or '.join(allowed)}."
        return MethodNotAllowed(msg, details=[{"allow": method} for method in allowed])
    if error.status_code == HTTPStatus.NOT_FOUND:
        return RouteNotFound(f"There is no path {request.scope['path']}: see /docs for those there are.")
    return InvalidInput(str(error.detail))


def _listed(spec: EntitySpec) -> dict[str, Any]:
    handlers = spec.handlers.items()
    return {
        "kind": spec.kind,
        "doc": spec.doc.partition("\n")[0],
        "commands": [name for name, handler in handlers if not handler.is_query],
        "queries": [name for name, handler in handlers if handler.is_query],
    }


def _plain(document: dict[str, Any]) -> str:
    """Return the document's operations as plain HTML."""
    rows = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            arguments = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            replies = operation["responses"]["200"].get("content", {}).get("application/json", {}).get("schema")
            shapes = "".join(
                f"<p>{label}: <code>{html.escape(json.dumps(_resolved(schema, document)))}</code></p>"
                for label, schema in (("arguments", arguments), ("reply", replies))
                if schema is not None
            )
            about = html.escape(operation.get("description") or operation["summary"])
            rows.append(f"<h4><code>{method.upper()} {html.escape(path)}</code></h4><p>{about}</p>{shapes}")
    return f"<h2>{html.escape(document['info']['title'])}</h2>{''.join(rows)}"


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with a reference at its top followed."""
    reference = schema.get("$ref", "")
    found: dict[str, Any] = document["components"]["schemas"].get(reference.rpartition("/")[2], schema)
    return found


def _release() -> str:
    try:
        return version("remora")
    except PackageNotFoundError:  # run from the sources, not installed
        return "0"
