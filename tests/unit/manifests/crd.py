"""Validates a custom resource against its CustomResourceDefinition, more strictly than the API server.

The API server drops fields that a schema does not know, in silence: a misspelt ``readinessProb`` would be
accepted and do nothing. Here it is an error.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend


def open_api_schema(crd: Path, version: str) -> dict[str, Any]:
    """Return the schema of one version of the custom resource that the file defines."""
    # The C parser: these files have some 20,000 lines.
    definition = yaml.load(crd.read_text(), Loader=yaml.CSafeLoader)
    [found] = [v for v in definition["spec"]["versions"] if v["name"] == version]
    schema: dict[str, Any] = found["schema"]["openAPIV3Schema"]
    # Checked against ObjectMeta by the API server, so CRDs leave it open.
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    return schema


def violations(schema: dict[str, Any], resource: object) -> list[str]:
    """Return what the schema refuses in the resource, each as ``path: message``."""
    validator = _Validator(_closed(schema))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(resource)]


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with every object closed, and OpenAPI's ``nullable`` in JSON Schema's words."""
    closed: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":  # the names below are the resource's, not keywords: a field may be called "type"
            closed[key] = {name: _closed(field) for name, field in value.items()}
        elif isinstance(value, dict):
            closed[key] = _closed(value)
        elif isinstance(value, list):
            closed[key] = [_closed(item) if isinstance(item, dict) else item for item in value]
        else:
            closed[key] = value
    if closed.get("type") == "object" and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if closed.get("nullable") and isinstance(closed.get("type"), str):
        closed["type"] = [closed["type"], "null"]
    return closed


def _int_or_string(_validator: object, declared: object, value: object, _schema: object) -> Iterator[ValidationError]:
    # Schemas may leave out the `anyOf` that says the same.
    if declared and (isinstance(value, bool) or not isinstance(value, int | str)):
        yield ValidationError(f"{value!r} is neither an integer nor a string")


def _unique_keys(_validator: object, keys: list[str], items: object, _schema: object) -> Iterator[ValidationError]:
    # An `env` with one name twice: the API server refuses it.
    if not isinstance(items, list):
        return
    seen: list[dict[str, Any]] = []
    for item in items:
        key = {name: item.get(name) for name in keys} if isinstance(item, dict) else {}
        if key and key in seen:
            yield ValidationError(f"two items have the key {key}")
        seen.append(key)


_Validator = extend(  # type: ignore[no-untyped-call] # its stubs have no types
    Draft202012Validator,
    {"x-kubernetes-int-or-string": _int_or_string, "x-kubernetes-list-map-keys": _unique_keys},
)
