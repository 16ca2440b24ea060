"""Undo for handlers: what the state was before, as cheaply as its shape allows.

A state whose fields are all plain immutable values is remembered by a shallow copy of its
fields, which costs about a tenth of a microsecond. A state with nested or mutable parts is not
copied at all when a journal can bring it back.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import uuid
from typing import Any

from pydantic import BaseModel

_PLAIN = frozenset(
    {
        int, float, str, bool, bytes, type(None), complex,
        dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID,
    }
)  # fmt: skip


def take(state: BaseModel, *, deep: bool) -> Any:  # noqa: ANN401 - opaque to its users
    """Return what ``restore`` needs, or None if only the journal can bring the state back.

    Args:
        state: The live state.
        deep: Copy nested parts too (nothing else could bring them back).
    """
    if state.__pydantic_extra__ is None and state.__pydantic_private__ is None:
        values = state.__dict__
        for value in values.values():
            if type(value) not in _PLAIN:
                break
        else:
            return state, values.copy()
    return copy.deepcopy(state) if deep else None


def restore(image: Any) -> BaseModel:  # noqa: ANN401 - what take returned
    """Return the state as it was when ``image`` was taken."""
    if isinstance(image, BaseModel):
        return image
    state: BaseModel = image[0]  # not the entity's present one, which the handler may have put in its place
    values: dict[str, Any] = vars(state)
    values.clear()
    values.update(image[1])
    return state
