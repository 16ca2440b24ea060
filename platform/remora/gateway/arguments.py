"""From a query string to a query's arguments.

A query string holds texts. What a text stands for is decided by the parameter's annotation, read from
its JSON schema: numbers and booleans become JSON ones, repeated keys a list where the parameter takes
one, objects are written as JSON. Whatever does not fit stays a text, so that validation names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from remora.contract import HandlerSpec
from remora.errors import InvalidArgument

Schema = Mapping[str, Any]

_encode = msgspec.json.Encoder().encode
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_COMBINED = ("anyOf", "oneOf", "allOf")


class QueryString:
    """Reads the arguments of one query from query strings.

    Args:
        handler: The query.
    """

    __slots__ = ("_kinds", "_where")

    def __init__(self, handler: HandlerSpec) -> None:
        self._where = f"{handler.owner}.{handler.name}"
        schema = handler.args_model.model_json_schema()
        definitions = schema.get("$defs", {})
        properties: dict[str, Schema] = schema.get("properties", {})
        self._kinds = {name: _Kind(part, definitions) for name, part in properties.items()}

    def arguments(self, query_string: bytes) -> bytes:
        """Return the arguments as JSON.

        Raises:
            InvalidArgument: The query string is not UTF-8, or gives a single value twice.
        """
        if not query_string:
            return b"{}"
        given: dict[str, list[str]] = {}
        for name, text in pairs(query_string, self._where):
            given.setdefault(name, []).append(text)
        return _encode({name: self._value(name, texts) for name, texts in given.items()})

    def _value(self, name: str, texts: list[str]) -> object:
        kind = self._kinds.get(name)
        if kind is not None and kind.items is not None:
            items = kind.items
            return [items.value(text) for text in texts]
        if len(texts) > 1:
            msg = f"{self._where}: the argument {name!r} is given {len(texts)} times and takes one value."
            raise InvalidArgument(msg, details=[{"argument": name, "problem": "given more than once"}])
        # An unknown name is passed on: validation lists it with what else is wrong.
        return texts[0] if kind is None else kind.value(texts[0])


class _Kind:
    """What texts a parameter takes."""

    __slots__ = ("_types", "items")

    def __init__(self, schema: Schema, definitions: Mapping[str, Schema], depth: int = 0) -> None:
        branches = list(_branches(schema, definitions))
        self._types = {kind for branch in branches for kind in _types(branch)}
        arrays = [branch for branch in branches if "array" in _types(branch)]
        self.items: _Kind | None = None
        if arrays and depth == 0 and "string" not in self._types:
            first = arrays[0].get("items") or {}
            self.items = _Kind(first if isinstance(first, dict) else {}, definitions, depth + 1)

    def value(self, text: str) -> object:
        """Return what one text stands for."""
        if not self._types or "string" in self._types:
            return text
        if "boolean" in self._types and text in {"true", "false"}:
            return text == "true"
        if self._types & {"integer", "number"} and _NUMBER.fullmatch(text):
            return msgspec.Raw(text.encode())
        if self._types & {"object", "array"} and text[:1] in {"{", "["}:
            try:
                return msgspec.json.decode(text, type=msgspec.Raw)
            except (msgspec.DecodeError, RecursionError):
                return text
        return text


def _branches(schema: Schema, definitions: Mapping[str, Schema], depth: int = 0) -> list[Schema]:
    """Return the alternatives a schema allows, references followed."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and depth < 16:  # noqa: PLR2004 - deeper is a type that holds only itself
        return _branches(definitions.get(reference.rpartition("/")[2], {}), definitions, depth + 1)
    for combined in _COMBINED:
        if combined in schema:
            return [found for part in schema[combined] for found in _branches(part, definitions, depth + 1)]
    return [schema]


def _types(schema: Schema) -> list[str]:
    found = schema.get("type")
    if found is not None:
        return [found] if isinstance(found, str) else list(found)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return ["string" if isinstance(value, str) else "number" for value in values]


def pairs(query_string: bytes, where: str) -> list[tuple[str, str]]:
    """Return the names and values of a query string.

    Raises:
        InvalidArgument: It is not UTF-8.
    """
    try:
        return parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        msg = f"{where}: the query string is not percent-encoded UTF-8: encode names and values."
        raise InvalidArgument(msg) from error


def page(query_string: bytes, where: str, limit_max: int) -> bytes:
    """Return the arguments of ``$events`` as JSON.

    Args:
        query_string: ``after`` (a sequence number, 0 by default) and ``limit`` (100 by default).
        where: What is asked, for messages.
        limit_max: Largest ``limit``.

    Raises:
        InvalidArgument: An unknown name, or a number out of range.
    """
    values = {"after": 0, "limit": 100}
    for name, text in pairs(query_string, where):
        lowest, highest = (0, 2**63 - 1) if name == "after" else (1, limit_max)
        if name not in values:
            msg = f"{where}: {name!r} is unknown; it takes after and limit."
            raise InvalidArgument(msg, details=[{"argument": name, "problem": "unknown"}])
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and lowest <= int(text) <= highest):  # noqa: PLR2004 - digits of 2**63
            msg = f"{where}: {name} must be a whole number from {lowest} to {highest}."
            raise InvalidArgument(
                msg, details=[{"argument": name, "problem": f"not a whole number from {lowest} to {highest}"}]
            )
        values[name] = int(text)
    return _encode(values)
