"""Values that are declared secret, pydantic's ``SecretStr`` and ``SecretBytes``: their JSON is stars."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any, Union

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.types import Secret

_SECRET = (SecretStr, SecretBytes, Secret)


def _plain(annotation: Any) -> Any:  # noqa: ANN401 - whatever stands as an annotation
    """Return what an annotation stands for: without ``Annotated``, ``NewType`` and ``type`` aliases."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def is_secret(annotation: object) -> bool:
    """Return whether an annotation is that of a secret itself, perhaps an optional one."""
    plain = _plain(annotation)
    if typing.get_origin(plain) in {Union, types.UnionType}:
        others = [one for one in typing.get_args(plain) if one is not type(None)]
        return len(others) == 1 and is_secret(others[0])
    return plain is SecretStr or plain is SecretBytes


def holds_secret(annotation: object, seen: frozenset[object] = frozenset()) -> bool:
    """Return whether values of an annotation may hold a secret anywhere.

    Args:
        annotation: A type, or what stands for several.
        seen: Models that are looked into already: they may hold each other.
    """
    plain = _plain(annotation)
    origin = typing.get_origin(plain) or plain
    if isinstance(origin, type) and origin not in seen:
        if issubclass(origin, _SECRET):
            return True
        if any(holds_secret(one, seen | {origin}) for one in _fields(origin)):
            return True
    return any(holds_secret(one, seen) for one in typing.get_args(plain))


def _fields(kind: type) -> list[object]:
    """Return the annotations of what a class holds, as pydantic sees it."""
    if issubclass(kind, BaseModel):
        return [info.annotation for info in kind.model_fields.values()]
    if dataclasses.is_dataclass(kind) or hasattr(kind, "__total__") or hasattr(kind, "_fields"):
        try:
            return list(typing.get_type_hints(kind, include_extras=True).values())
        except NameError:  # a name that is not there yet: pydantic refuses the class by itself
            return []
    return []


def revealed(value: object) -> object:
    """Return the secret that a value is, or the value."""
    return value.get_secret_value() if isinstance(value, SecretStr | SecretBytes) else value
