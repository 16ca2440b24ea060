"""Values that are declared secret, pydantic's ``SecretStr`` and ``SecretBytes``: their JSON is stars."""

from __future__ import annotations

import typing

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.types import Secret

_SECRET = (SecretStr, SecretBytes, Secret)


def is_secret(annotation: object) -> bool:
    """Return whether an annotation is that of a secret itself, perhaps an optional one."""
    of = [one for one in typing.get_args(annotation) if one is not type(None)] or [annotation]
    return len(of) == 1 and of[0] in {SecretStr, SecretBytes}


def holds_secret(annotation: object, seen: frozenset[object] = frozenset()) -> bool:
    """Return whether values of an annotation may hold a secret anywhere.

    Args:
        annotation: A type, or what stands for several.
        seen: Models that are looked into already: they may hold each other.
    """
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type):
        if issubclass(origin, _SECRET):
            return True
        if issubclass(origin, BaseModel) and origin not in seen:
            return any(holds_secret(info.annotation, seen | {origin}) for info in origin.model_fields.values())
    return any(holds_secret(one, seen) for one in typing.get_args(annotation))


def revealed(value: object) -> object:
    """Return the secret that a value is, or the value."""
    return value.get_secret_value() if isinstance(value, SecretStr | SecretBytes) else value
