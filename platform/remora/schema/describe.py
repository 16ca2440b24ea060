"""An app's shapes as plain JSON: what it writes into a store, and what it takes.

The schemas are pydantic's for reading, without titles and descriptions. A model reads what it
writes, so what the next release must read is at most what this schema allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from remora.app import App
from remora.contract import EntitySpec, HandlerSpec
from remora.errors import StoreMismatch
from remora.schema.reading import overrides

Json = dict[str, Any]

FORMAT = 1
"""Version of the description itself."""
_ANNOTATIONS = frozenset({"title", "description", "examples", "deprecated", "readOnly", "writeOnly"})
_MAPS = frozenset({"properties", "patternProperties", "$defs"})
_VALUES = frozenset({"default", "const", "enum", "discriminator"})
_described: WeakKeyDictionary[App, Json] = WeakKeyDictionary()


def describe(app: App) -> Json:
    """Return the description of an app: the same for the same code, in every process.

    Args:
        app: The app.

    Returns:
        ``format``, ``app``, ``shards`` and ``entities``: per type its kind, placement, state, events and commands.
    """
    found = _described.get(app)
    if found is None:
        entities = {name: _entity(spec) for name, spec in sorted(app.specs.items())}
        found = {"format": FORMAT, "app": app.name, "shards": app.settings.shards, "entities": entities}
        _described[app] = found
    return found


def to_text(description: Json, *, indent: int | None = None) -> str:
    """Return a description as JSON text: compact for a store, indented for a file that people compare."""
    return json.dumps(
        description,
        sort_keys=True,
        ensure_ascii=False,
        indent=indent,
        separators=(",", ":" if indent is None else ": "),
    )


def from_text(text: str, where: str) -> Json:
    """Return the description that ``to_text`` made a text from.

    Args:
        text: The text.
        where: What holds it, for the message.

    Raises:
        StoreMismatch: It is none, or one of a newer release.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        msg = f"{where} holds no description of an app ({error}): write it with `remora schema write`."
        raise StoreMismatch(msg) from error
    if not isinstance(found, dict) or not isinstance(found.get("entities"), dict):
        msg = f"{where} holds no description of an app: write it with `remora schema write`."
        raise StoreMismatch(msg)
    if found.get("format") != FORMAT:
        msg = f"{where} describes its app in form {found.get('format')!r}, this release knows {FORMAT}: upgrade Remora."
        raise StoreMismatch(msg)
    return found


def _entity(spec: EntitySpec) -> Json:
    found: Json = {
        "kind": spec.kind,
        "placement": spec.options.placement,
        "commands": {
            name: {"arguments": model_schema(handler.args_model), "reply": _reply_schema(handler)}
            for name, handler in sorted(spec.handlers.items())
            if not handler.is_query
        },
    }
    if not spec.durable:
        return found
    found["reminders"] = overrides(spec.cls, "on_reminder")
    found["state"] = {
        "version": spec.state_version,
        "upcasts": overrides(spec.cls, "upcast_state"),
        "schema": model_schema(spec.state_type),
    }
    if spec.kind == "event_sourced":
        found["events_deleted"] = bool(getattr(spec.options, "delete_events", False))
        found["events"] = {name: _event(event) for name, event in sorted(spec.events.items())}
    return found


def _event(event: Any) -> Json:  # noqa: ANN401 - an event class
    return {
        "version": event.__remora_version__,
        "formerly": sorted(event.__remora_formerly__),
        "upcasts": overrides(event, "upcast"),
        "schema": model_schema(event),
    }


class _Shapes(GenerateJsonSchema):
    """As pydantic's own, but what JSON Schema cannot say is named instead of refused."""

    # Quiet: what these warn of is described as far as it can be.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default", "skipped-discriminator"}  # noqa: RUF012 - as pydantic has it

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:  # noqa: ANN401 - pydantic's own
        """Name what has no schema. Never by ``error_info``, which may hold addresses in memory."""
        del error_info
        named = getattr(schema.get("cls"), "__qualname__", "")
        return {"x-opaque": f"{schema['type']} {named}".strip()}


def model_schema(model: type[BaseModel]) -> Json:
    """Return a model's schema as descriptions hold it."""
    try:
        return _plain(model.model_json_schema(schema_generator=_Shapes))
    except Exception as error:  # noqa: BLE001 - a type's own hooks may raise anything; what has no schema is compared by name
        return {"x-opaque": f"{model.__qualname__}: {type(error).__name__}"}


def _reply_schema(handler: HandlerSpec) -> Json:
    adapter: TypeAdapter[Any] = handler.reply
    try:
        return _plain(adapter.json_schema(schema_generator=_Shapes))
    except Exception as error:  # noqa: BLE001 - as above
        return {"x-opaque": f"{handler.label}: {type(error).__name__}"}


def _plain(schema: Mapping[str, Any]) -> Json:
    """Return a schema without what is there for people, in one order."""
    found: Json = {}
    for key, value in schema.items():
        if key in _ANNOTATIONS:
            continue
        if key in _MAPS:
            found[key] = {name: _plain(one) for name, one in value.items()}
        elif key == "required":
            found[key] = sorted(value)
        elif key == "default" and schema.get("uniqueItems") and isinstance(value, list):
            found[key] = sorted(value, key=repr)  # a set has no order, and another one in every process
        elif key in _VALUES:
            found[key] = value
        elif isinstance(value, Mapping):
            found[key] = _plain(value)
        elif isinstance(value, list):
            found[key] = [_plain(one) if isinstance(one, Mapping) else one for one in value]
        else:
            found[key] = value
    return found


def release_of(app: App) -> str:
    """Return a short name of what the app's code writes: two releases that differ in it are told apart."""
    return f"{crc32(to_text(describe(app)).encode()):08x}"
