"""The OpenAPI 3.1 document of an app, made from its entity types alone.

Every command and query is an operation of its own, with the schemas that pydantic gives for its
arguments and its reply, so that generated clients are as typed as the Python one.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from remora.app import App
from remora.contract import EntitySpec, HandlerSpec
from remora.gateway.problems import Problem
from remora.ids import COMMAND_ID_BYTES_MAX, ENTITY_ID_BYTES_MAX
from remora.reference import HISTORY_LIMIT_MAX
from remora.why import STATES, Why

Json = dict[str, Any]
_Key = tuple[str, str]
_Mode = Literal["validation", "serialization"]

_REFERENCE = "#/components/schemas/"
_WHAT_TRANSIENT_MEANS = "Memory only: after a crash or passivation the state is the initial one."
_EVENTS: Json = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["seq", "event", "data", "command_id", "at_ms"],
        "properties": {
            "seq": {"type": "integer", "description": "Place among the entity's events, from 1."},
            "event": {"type": "string", "description": "The event's stable name."},
            "data": {"type": "object", "description": "As it was written."},
            "version": {"type": "integer", "description": "Version of the event's shape; 1 if left out.", "minimum": 2},
            "command_id": {"type": "string", "description": "The command that emitted it."},
            "at_ms": {"type": "integer", "description": "When, in milliseconds since 1970 (UTC)."},
        },
    },
}
_PARAMETERS: Json = {
    "Id": {
        "name": "id", "in": "path", "required": True,
        "description": f"Percent-encoded UTF-8 of at most {ENTITY_ID_BYTES_MAX} bytes, without '/' and control characters.",
        "schema": {"type": "string", "minLength": 1, "maxLength": ENTITY_ID_BYTES_MAX},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key", "in": "header",
        "description": "The command's id. The same id again gives the recorded reply, applied once; made by the gateway if left out.",
        "schema": {"type": "string", "minLength": 1, "maxLength": COMMAND_ID_BYTES_MAX},
    },
    "Deadline": {
        "name": "Remora-Deadline", "in": "header",
        "description": "Seconds until the caller stops waiting; the type's own default if left out.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
    },
}  # fmt: skip
_HEADERS: Json = {
    "CommandId": {"description": "The command's id, given or made.", "schema": {"type": "string"}},
    "Replayed": {
        "description": "Present if the reply is the recorded one of a command applied before.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Durability": {
        "description": "`journal`: committed before this answer. `memory`: lost in a crash.",
        "schema": {"type": "string", "enum": ["journal", "memory"]},
    },
}


def openapi(app: App, version: str) -> Json:
    """Return the document.

    Args:
        app: The app.
        version: The release that serves it.
    """
    schemas = _Schemas(app)
    paths: Json = {}
    for spec in app.specs.values():
        paths |= _entity_paths(spec, schemas)
    described = msgspec.json.schema_components([Problem, Why], ref_template=_REFERENCE + "{name}")[1]
    own_schemas: Json = msgspec.json.decode(msgspec.json.encode(described))  # defaults are values of ours, not of JSON
    own_schemas["Why"]["properties"]["state"] |= {"enum": list(STATES), "description": _states()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": app.name,
            "version": version,
            "description": "Commands and queries of the app's entities. Errors are RFC 9457 problem documents.",
        },
        "tags": [{"name": spec.type, "description": _about(spec)} for spec in app.specs.values()]
        + [{"name": "gateway", "description": "The gateway itself."}],
        "paths": paths | _gateway_paths(),
        "components": {
            "schemas": schemas.definitions | own_schemas,
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "responses": {
                "Problem": {
                    "description": "It was refused or failed; `code` says why, `retry` whether to ask again with the same id.",
                    "content": {"application/problem+json": {"schema": {"$ref": _REFERENCE + "Problem"}}},
                }
            },
        },
    }


class _Schemas:
    """The JSON schemas of all arguments, replies and states, under names that do not clash."""

    def __init__(self, app: App) -> None:
        inputs: list[tuple[_Key, _Mode, TypeAdapter[Any]]] = []
        for spec in app.specs.values():
            inputs.append(((spec.type, ""), "serialization", TypeAdapter(spec.state_type)))
            for name, handler in spec.handlers.items():
                inputs.append(((spec.type, name), "validation", TypeAdapter(handler.args_model)))
                inputs.append(((spec.type, name), "serialization", handler.reply))
        described = [entry for entry in inputs if _describable(entry[2], entry[1])]
        found, definitions = TypeAdapter.json_schemas(described, ref_template=_REFERENCE + "{model}")
        self._found = found
        self.definitions: Json = definitions.get("$defs", {})

    def get(self, spec: EntitySpec, name: str, mode: _Mode) -> Json:
        """Return one schema; ``{}`` (anything) for a type that JSON Schema cannot describe."""
        return self._found.get(((spec.type, name), mode), {})

    def arguments(self, spec: EntitySpec, handler: HandlerSpec) -> Json:
        """Return the schema of a handler's arguments, itself and not a reference to it."""
        schema = self.get(spec, handler.name, "validation")
        reference = schema.get("$ref")
        return self.definitions[reference.removeprefix(_REFERENCE)] if reference else schema


def _describable(adapter: TypeAdapter[Any], mode: _Mode) -> bool:
    try:
        adapter.json_schema(mode=mode)
    except PydanticInvalidForJsonSchema:
        return False
    return True


def _entity_paths(spec: EntitySpec, schemas: _Schemas) -> Json:
    base = f"/v1/{spec.type}/{{id}}"
    paths: Json = {
        base: {"get": _read(spec, "state", "The state", schemas.get(spec, "", "serialization"))},
        f"{base}/release_sends": {
            "post": _read(spec, "release_sends", "Send parked durable sends again", {"type": "integer"})
        },
        f"{base}/why": {
            "get": _read(spec, "why", "What the entity does or waits for", {"$ref": f"{_REFERENCE}Why"}),
        },
    }
    if spec.kind == "event_sourced":
        events = _read(spec, "events", "Recorded events, in order", _EVENTS)
        events["parameters"] += [
            _query("after", {"type": "integer", "minimum": 0, "default": 0}, "Sequence number to start behind."),
            _query(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": HISTORY_LIMIT_MAX, "default": 100},
                "How many at most.",
            ),
        ]
        paths[f"{base}/events"] = {"get": events}
    for name, handler in spec.handlers.items():
        path = paths.setdefault(f"{base}/{name}", {})
        path["post"] = _post(spec, handler, schemas)
        if handler.is_query:
            path["get"] = _get(spec, handler, schemas)
    return paths


def _post(spec: EntitySpec, handler: HandlerSpec, schemas: _Schemas) -> Json:
    arguments = schemas.get(spec, handler.name, "validation")
    operation = _operation(spec, handler, schemas)
    needed = bool(schemas.arguments(spec, handler).get("required"))
    operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": arguments}}}
    if handler.is_query:
        operation["operationId"] = f"{spec.type}._post_{handler.name}"
        return operation
    operation["parameters"].insert(1, {"$ref": "#/components/parameters/IdempotencyKey"})
    operation["responses"]["200"]["headers"] |= {
        "Remora-Command-Id": {"$ref": "#/components/headers/CommandId"},
        "Idempotency-Replayed": {"$ref": "#/components/headers/Replayed"},
    }
    return operation


def _get(spec: EntitySpec, handler: HandlerSpec, schemas: _Schemas) -> Json:
    operation = _operation(spec, handler, schemas)
    arguments = schemas.arguments(spec, handler)
    required = arguments.get("required", [])
    operation["parameters"] += [
        _query(name, schema, schema.get("description", ""), required=name in required)
        for name, schema in arguments.get("properties", {}).items()
    ]
    return operation


def _operation(spec: EntitySpec, handler: HandlerSpec, schemas: _Schemas) -> Json:
    reply = schemas.get(spec, handler.name, "serialization")
    summary = handler.doc.partition("\n")[0] or handler.name.replace("_", " ").capitalize()
    return _described(spec, handler.name, summary, handler.doc, reply)


def _read(spec: EntitySpec, name: str, summary: str, schema: Json) -> Json:
    # No handler's name begins with an underscore, so this is nobody else's operation id.
    return _described(spec, f"_{name}", summary, "", schema)


def _described(spec: EntitySpec, name: str, summary: str, description: str, schema: Json) -> Json:
    operation: Json = {
        "tags": [spec.type],
        "operationId": f"{spec.type}.{name}",
        "summary": summary,
        "parameters": [{"$ref": "#/components/parameters/Id"}, {"$ref": "#/components/parameters/Deadline"}],
        "responses": {
            "200": {
                "description": "The reply.",
                "headers": {"Remora-Durability": {"$ref": "#/components/headers/Durability"}},
                "content": {"application/json": {"schema": schema}},
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if description:
        operation["description"] = description
    return operation


def _query(name: str, schema: Json, description: str, *, required: bool = False) -> Json:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _states() -> str:
    return "\n".join(f"- `{state}`: {meaning}" for state, meaning in STATES.items())


def _about(spec: EntitySpec) -> str:
    return spec.doc if spec.durable else f"{spec.doc}\n\n{_WHAT_TRANSIENT_MEANS}".strip()


def _gateway_paths() -> Json:
    problem = {"$ref": "#/components/responses/Problem"}
    lines = {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}

    def probe(name: str, summary: str) -> Json:
        operation = {"tags": ["gateway"], "operationId": name, "summary": summary}
        return {"get": operation | {"responses": {"200": {"description": "Yes."}, "default": problem}}}

    return {
        "/v1/batch": {
            "post": {
                "tags": ["gateway"],
                "operationId": "batch",
                "summary": "Many commands in one request",
                "description": (
                    'One JSON object per line: `{"type", "id", "command", "args", "command_id"}`, the last two optional. '
                    "Answers come one per line, in the order of the lines, each with `index`, `status` and `reply` or `problem`. "
                    "Commands to one entity are applied in the order of the lines."
                ),
                "parameters": [{"$ref": "#/components/parameters/Deadline"}],
                "requestBody": {"required": True, **lines},
                "responses": {"200": {"description": "One line per line.", **lines}, "default": problem},
            }
        },
        "/healthz": probe("healthz", "Whether the process is alive"),
        "/readyz": probe("readyz", "Whether every shard has a host"),
    }
