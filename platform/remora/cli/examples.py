"""An example call that an app accepts, made from its own annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remora.app import App
from remora.contract import HandlerSpec
from remora.errors import InvalidArgument

Schema = Mapping[str, Any]

DEPTH_MAX = 8
"""Longest chain of models within models that an example follows."""
_BY_FORMAT = {
    "date": "2013-01-01",
    "date-time": "2013-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
    "email": "alice@example.com",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One call."""

    type: str
    id: str
    method: str
    body: str
    """Arguments as JSON."""


def first_command(app: App) -> Example | None:
    """Return a call of the app's first command for which acceptable arguments are found, or None."""
    for spec in app.specs.values():
        for handler in spec.handlers.values():
            if handler.is_query:
                continue
            body = json.dumps(arguments(handler))
            try:
                handler.parse(body.encode())
            except InvalidArgument:
                continue  # it asks for more than its schema tells, a pattern for example
            return Example(spec.type, "alice", handler.name, body)
    return None


def arguments(handler: HandlerSpec) -> dict[str, Any]:
    """Return values for a handler's required arguments, as their JSON Schema asks for them."""
    schema = handler.args_model.model_json_schema()
    required: list[str] = schema.get("required", [])
    return {name: _value(schema["properties"][name], schema) for name in required}


def _value(schema: Schema, root: Schema, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Return a value of a schema; ``depth`` ends at models that hold themselves."""
    if depth > DEPTH_MAX:
        return None
    if "$ref" in schema:
        return _value(root["$defs"][schema["$ref"].rpartition("/")[2]], root, depth + 1)
    for stated in ("default", "const"):
        if stated in schema:
            return schema[stated]
    for listed in ("enum", "examples"):
        if schema.get(listed):
            return schema[listed][0]
    for combined in ("anyOf", "oneOf", "allOf"):
        if schema.get(combined):
            return _value(schema[combined][0], root, depth + 1)
    make = _MAKERS.get(schema.get("type", ""))
    return make(schema, root, depth + 1) if make is not None else None


def _number(schema: Schema, root: Schema, depth: int) -> Any:  # noqa: ANN401 - JSON
    """Return a number within the bounds, 10 where they allow it."""
    del root, depth
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 11) - 1)
    return 10 if low <= 10 <= high else low  # noqa: PLR2004 - looks like an amount


def _array(schema: Schema, root: Schema, depth: int) -> list[Any]:
    return [_value(schema.get("items", {}), root, depth)] if schema.get("minItems") else []


def _object(schema: Schema, root: Schema, depth: int) -> dict[str, Any]:
    members: Schema = schema.get("properties", {})
    return {name: _value(members[name], root, depth) for name in schema.get("required", [])}


_MAKERS: dict[str, Callable[[Schema, Schema, int], Any]] = {
    "integer": _number,
    "number": _number,
    "string": lambda schema, _, __: _BY_FORMAT.get(schema.get("format", ""), "text"),
    "boolean": lambda *_: True,
    "array": _array,
    "object": _object,
}
"""How to make a value, by JSON type."""
