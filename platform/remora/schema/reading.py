"""From what the journal holds to events and states of the present version.

What was written by the present version is read at once, by the validator that ``EntitySpec.readers``
has for it; everything else is looked up, brought up by the class's ``upcast`` and then validated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from remora.contract import EntitySpec

Upcast = Callable[[dict[str, Any], int], Any]

INITIAL = 0
"""Version of the state that an erased entity starts over with: every release reads it as its own initial state."""

_decode_events = msgspec.json.Decoder(list[tuple[str, msgspec.Raw]]).decode


class UnreadableEvent(ValueError):  # noqa: N818 - says what it is
    """An event in the journal that the present code cannot read."""


class UnreadableState(ValueError):  # noqa: N818 - says what it is
    """A state or snapshot that the present code cannot read."""


def split_name(written: str) -> tuple[str, int]:
    """Return name and version of an event as it stands in the journal: ``Deposited@2`` is ("Deposited", 2)."""
    name, mark, number = written.rpartition("@")
    return (name, int(number)) if mark and number.isdecimal() else (written, 1)


def overrides(cls: Any, method: str) -> bool:  # noqa: ANN401 - an event or an entity class
    """Return whether a class defines a method that events or entities have from Remora."""
    defined = next((klass for klass in cls.__mro__ if method in vars(klass)), None)
    return defined is not None and defined.__module__ != "remora.entity"


def read_events(spec: EntitySpec, text: str) -> list[BaseModel]:
    """Return the events of one entry.

    Args:
        spec: The entity type.
        text: JSON array of [name, data], as the journal holds it.

    Raises:
        UnreadableEvent: The type does not declare one of them, or cannot read it; the message says why.
    """
    readers = spec.readers
    events = []
    for written, data in _decode_events(text):
        read = readers.get(written)
        try:
            events.append(read(bytes(data)) if read is not None else _older_event(spec, written, bytes(data)))
        except ValidationError as error:
            msg = f"the event {written!r} cannot be read by {spec.cls.__name__}: {findings(error)}"
            raise UnreadableEvent(msg) from error
    return events


def _older_event(spec: EntitySpec, written: str, data: bytes) -> BaseModel:
    name, version = split_name(written)
    event: Any = spec.named.get(name)
    if event is None:
        msg = f"the journal holds the event {name!r}, which {spec.cls.__name__} does not declare: declare it, or name it in formerly=(…) of the event that took its place"
        raise UnreadableEvent(msg)
    present: int = event.__remora_version__
    if version > present:
        msg = f"the event {name!r} has version {version} and was written by a newer release: this one knows version {present}"
        raise UnreadableEvent(msg)
    if not overrides(event, "upcast"):
        msg = f"the event {name!r} was written in version {version}, and {event.__name__} of version {present} has no upcast: define it"
        raise UnreadableEvent(msg)
    try:
        brought = _brought_up(event.upcast, data, version)
    except _Failed as failed:
        msg = f"{event.__name__}.upcast failed on data of version {version}: {failed}"
        raise UnreadableEvent(msg) from failed.__cause__
    read: BaseModel = event.__pydantic_validator__.validate_json(brought)
    return read


def read_state(spec: EntitySpec, text: str | bytes, version: int) -> BaseModel:
    """Return a state or snapshot.

    Args:
        spec: The entity type.
        text: The state as JSON.
        version: The version that it was written with.

    Raises:
        UnreadableState: It is of a newer version, of an older one without ``upcast_state``, or does not validate.
    """
    cls, present = spec.cls, spec.state_version
    data: str | bytes = text
    if version == INITIAL:
        initial: BaseModel = spec.state_type()
        return initial
    if version != present:
        data = _older_state(spec, text, version)
    try:
        state: BaseModel = spec.state_type.__pydantic_validator__.validate_json(data)
    except ValidationError as error:
        msg = f"the state of version {version} cannot be read by {cls.__name__}: {findings(error)}"
        raise UnreadableState(msg) from error
    return state


def _older_state(spec: EntitySpec, text: str | bytes, version: int) -> bytes:
    cls, present = spec.cls, spec.state_version
    if version > present:
        msg = f"the state has version {version} and was written by a newer release: {cls.__name__} of this one knows version {present}"
        raise UnreadableState(msg)
    if not overrides(cls, "upcast_state"):
        msg = f"the state was written in version {version}, and {cls.__name__} of version {present} has no upcast_state: define it"
        raise UnreadableState(msg)
    try:
        return _brought_up(cls.upcast_state, text, version)
    except _Failed as failed:
        msg = f"{cls.__name__}.upcast_state failed on data of version {version}: {failed}"
        raise UnreadableState(msg) from failed.__cause__


class _Failed(Exception):  # noqa: N818 - says what happened
    """An upcaster raised, or returned what is no data."""


def _brought_up(upcast: Upcast, data: str | bytes, version: int) -> bytes:
    """Return what an upcaster makes of old data, as JSON: dates, bytes and models in it are read as ever."""
    try:
        brought = upcast(from_json(data), version)
    except Exception as error:
        msg = f"{type(error).__name__}: {error}"
        raise _Failed(msg) from error
    if not isinstance(brought, Mapping):
        msg = f"it returned {type(brought).__name__}, not a dict"
        raise _Failed(msg)
    try:
        return to_json(brought, inf_nan_mode="constants", bytes_mode="base64")
    except PydanticSerializationError as error:
        msg = f"what it returned cannot be written as JSON ({error})"
        raise _Failed(msg) from error


def findings(error: ValidationError) -> str:
    """Return the first findings of a validation as ``field: problem``."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in found[:3]]
    return "; ".join(told) + ("; …" if len(found) > len(told) else "")
