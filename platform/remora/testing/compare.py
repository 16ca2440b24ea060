"""The first difference between two values, named by where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

_WIDTH = 80


def first_difference(one: object, other: object, where: str) -> str | None:
    """Return what differs first between two values, or None.

    Types count: a ``defaultdict`` that comes back as a ``dict`` behaves differently.

    Args:
        one: A value.
        other: What it is compared with.
        where: What to call it: ``state``, ``reply``.

    Returns:
        ``where.field: one, other``.
    """
    if type(one) is not type(other):
        return f"{where}: {_short(one)} ({type(one).__name__}), then {_short(other)} ({type(other).__name__})"
    if isinstance(one, BaseModel) and isinstance(other, BaseModel):
        return _of_mappings(_fields(one), _fields(other), where, "{}.{}")
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return _of_mappings(one, other, where, "{}[{!r}]")
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return _of_sequences(one, other, where)
    if one == other or (one != one and other != other):  # noqa: PLR0124 - NaN is the same as NaN here
        return None
    return f"{where}: {_short(one)}, then {_short(other)}"


def _fields(model: BaseModel) -> dict[str, Any]:
    return {**vars(model), **(model.__pydantic_extra__ or {}), **(model.__pydantic_private__ or {})}


def _of_mappings(one: Mapping[Any, Any], other: Mapping[Any, Any], where: str, path: str) -> str | None:
    for key in [*one, *(key for key in other if key not in one)]:
        here = path.format(where, key)
        if key not in one or key not in other:
            there, gone = ("missing", other[key]) if key not in one else (one[key], "missing")
            return f"{here}: {_short(there)}, then {_short(gone)}"
        found = first_difference(one[key], other[key], here)
        if found is not None:
            return found
    return None


def _of_sequences(one: Sequence[Any], other: Sequence[Any], where: str) -> str | None:
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        found = first_difference(mine, theirs, f"{where}[{place}]")
        if found is not None:
            return found
    if len(one) != len(other):
        return f"{where}: {len(one)} of them, then {len(other)}"
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
