"""What of an app's old data its new code cannot read, from two descriptions alone.

What is in a store and must stay readable: events of every version ever written, states of
``Durable`` entities, reminders. Commands and replies are another matter: an undelivered send that
the new code does not take is parked with its reason, a waiting client is told by a typed error,
and a recorded reply is given back as it was written. None of that loses what was acknowledged, so
changes of commands are notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from remora.schema.shapes import Difference, differences

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that has changed."""

    severity: Literal["incompatible", "note"]
    entity: str
    """Snake-case name of the entity type; empty for the app as a whole."""
    part: str
    """``event Deposited``, ``state``, ``command deposit`` or empty."""
    field: str
    """Path of the field, as ``days[].amount``; empty for the whole."""
    what: str
    """What has changed, as a sentence."""
    fix: str
    """What to do about it, as a sentence."""

    @property
    def where(self) -> str:
        """Where it is, in one line."""
        return ", ".join(part for part in (self.entity, self.part, self.field) if part)

    def __str__(self) -> str:
        """Return all of it as text."""
        return f"{self.where}: {self.what} {self.fix}".strip()


def compare(old: Json, new: Json) -> list[Finding]:
    """Return what has changed, what is incompatible first.

    Args:
        old: The description that what is in the store was written under, with its ``history`` if it has one.
        new: The description of the code that is to read it.
    """
    found = list(_whole(old, new))
    for name, was in sorted(old["entities"].items()):
        now = new["entities"].get(name)
        if now is None:
            found += _removed(name, was, new)
        elif was["kind"] != now["kind"] and was["kind"] != "transient":
            what = f"It was {was['kind']} and is {now['kind']} now, which reads nothing of what is kept."
            found.append(
                Finding(
                    "incompatible", name, "", "", what, "Give the new kind a new class name, and keep the old class."
                )
            )
        elif was["kind"] == now["kind"]:
            found += _entity(name, was, now)
    for name, kept in sorted(old.get("history", {}).items()):
        if name in new["entities"] and new["entities"][name]["kind"] == old["entities"].get(name, {}).get("kind"):
            found += _history(name, kept, new["entities"][name])
    return sorted(dict.fromkeys(found), key=lambda one: one.severity)  # incompatible sorts before note


def incompatible(findings: list[Finding]) -> list[Finding]:
    """Return the findings that keep the new code from reading old data."""
    return [one for one in findings if one.severity == "incompatible"]


def merge(old: Json | None, new: Json) -> Json:
    """Return ``new`` with a ``history`` of all that may still be in the store and looks different by now.

    Args:
        old: The description kept so far, with its history; None if there is none.
        new: The description of the code that is about to write.
    """
    if old is None:
        return new
    history: Json = {}
    for entity, part, name, version, schema in _written(old):
        present = new["entities"].get(entity, {})
        now = present.get("events", {}).get(name) if part == "events" else present.get("state")
        if now is not None and now["version"] == version and now["schema"] == schema:
            continue
        schemas = history.setdefault(entity, {}).setdefault(part, {}).setdefault(name, {}).setdefault(str(version), [])
        if schema not in schemas:
            schemas.append(schema)
    entities = {name: _still_deleted(old["entities"].get(name, {}), about) for name, about in new["entities"].items()}
    return {**new, "entities": entities, **({"history": history} if history else {})}


def _still_deleted(was: Json, now: Json) -> Json:
    """Return ``now``, remembering that events have been deleted: its snapshots cannot be made again from them."""
    return {**now, "events_deleted": True} if was.get("events_deleted") and "events" in now else now


def _written(description: Json) -> Iterator[tuple[str, str, str, int, Json]]:
    """Give all shapes that data may have: (entity, "events" or "states", name, version, schema)."""
    for entity, kept in description.get("history", {}).items():
        for part, names in kept.items():
            for name, versions in names.items():
                for version, schemas in versions.items():
                    for schema in schemas:
                        yield entity, part, name, int(version), schema
    for entity, about in description["entities"].items():
        for name, event in about.get("events", {}).items():
            yield entity, "events", name, event["version"], event["schema"]
        if _keeps_state(about):
            yield entity, "states", "", about["state"]["version"], about["state"]["schema"]


def _keeps_state(about: Json) -> bool:
    """Return whether states of the past cannot be had from events again."""
    return about["kind"] == "durable" or bool(about.get("events_deleted"))


# -- the whole ---------------------------------------------------------------------------------------------


def _whole(old: Json, new: Json) -> Iterator[Finding]:
    if old["app"] != new["app"]:
        what = f"The app was named {old['app']!r} and is {new['app']!r} now; its store belongs to the former."
        yield Finding("incompatible", "", "", "", what, "Name it as before, or give it a store of its own.")
    if old["shards"] != new["shards"]:
        what = f"The app had {old['shards']} shards and has {new['shards']} now; a store keeps the number it was created with."
        yield Finding("incompatible", "", "", "", what, f"Write Settings(shards={old['shards']}).")


def _removed(name: str, was: Json, new: Json) -> Iterator[Finding]:
    if was["kind"] == "transient":
        yield Finding("note", name, "", "", "The entity type is gone; it kept nothing.", "")
        return
    like = [other for other, now in new["entities"].items() if now.get("state") == was.get("state")]
    what = "The entity type is gone from the app, and nothing reads what its entities have kept."
    renamed = (
        f" If it is {like[0]!r} now: the class name is part of every key, so name the class as before." if like else ""
    )
    yield Finding("incompatible", name, "", "", what, f"Keep the class in the app, if only for its data.{renamed}")


# -- one entity type ---------------------------------------------------------------------------------------


def _entity(name: str, was: Json, now: Json) -> Iterator[Finding]:
    if was["placement"] != now["placement"]:
        what = f"The placement was {was['placement']!r} and is {now['placement']!r} now: reminders and sends that are waiting stay with the shard they were set in."
        yield Finding("note", name, "", "", what, "Let what waits run out before, where its time matters.")
    if was.get("reminders") and not now.get("reminders"):
        what = "on_reminder is gone, and reminders that are set will come due."
        yield Finding("incompatible", name, "", "", what, "Keep an on_reminder that takes them, or ignores them.")
    if "state" in was:
        yield from _state(name, was["state"], now, kept=_keeps_state(was) or _keeps_state(now))
    for event, shape in sorted(was.get("events", {}).items()):
        yield from _event(name, event, shape["version"], shape["schema"], now)
    for command, shape in sorted(was["commands"].items()):
        yield from _command(name, command, shape, now["commands"].get(command))


def _history(name: str, kept: Json, now: Json) -> Iterator[Finding]:
    for event, versions in sorted(kept.get("events", {}).items()):
        for version, schemas in versions.items():
            for schema in schemas:
                yield from _event(name, event, int(version), schema, now)
    for versions in kept.get("states", {}).values():
        for version, schemas in versions.items():
            for schema in schemas:
                yield from _state(name, {"version": int(version), "schema": schema}, now, kept=True)


def _event(entity: str, name: str, version: int, schema: Json, now: Json) -> Iterator[Finding]:
    part = f"event {name}"
    present = _event_of(name, now)
    if present is None:
        what = "The event is not declared any more, and the journal may hold it."
        fix = (
            f"Keep the class in the entity's union, or name it in the event that took its place: formerly=({name!r},)."
        )
        yield Finding("incompatible", entity, part, "", what, fix)
        return
    known = present["version"]
    raise_it = f"raise the event's version (class …(Event, version={known + 1})) and define upcast"
    if version > known:
        what = f"The event was written in version {version}, and the code knows version {known}."
        yield Finding("incompatible", entity, part, "", what, f"Write version={version} or higher.")
    elif version == known:
        for one in _told(differences(schema, present["schema"])):
            kind: Literal["incompatible", "note"] = "incompatible" if one.grade == "unreadable" else "note"
            yield Finding(
                kind, entity, part, one.path, _sentence(one), _mend(one, raise_it) if kind == "incompatible" else ""
            )
    elif not present["upcasts"]:
        what = f"The event was written in version {version}, the code has version {known} and no upcast."
        yield Finding("incompatible", entity, part, "", what, "Define upcast(cls, data, version) on the event.")


def _event_of(name: str, now: Json) -> Json | None:
    """Return the event that a name in the journal is read as."""
    events: Mapping[str, Json] = now.get("events", {})
    found = events.get(name)
    if found is None:
        found = next((event for event in events.values() if name in event["formerly"]), None)
    return found


def _state(entity: str, was: Json, now: Json, *, kept: bool) -> Iterator[Finding]:
    version, known = was["version"], now["state"]["version"]
    if not kept:
        yield from _snapshot(entity, was, now["state"])
        return
    raise_it = f"write state_version = {known + 1} and define upcast_state"
    if version > known:
        what = f"The state was written in version {version}, and the code knows version {known}."
        yield Finding("incompatible", entity, "state", "", what, f"Write state_version = {version} or higher.")
    elif version == known:
        for one in _told(differences(was["schema"], now["state"]["schema"])):
            kind: Literal["incompatible", "note"] = "note" if one.grade == "note" else "incompatible"
            yield Finding(
                kind, entity, "state", one.path, _sentence(one), _mend(one, raise_it) if kind != "note" else ""
            )
    elif not now["state"]["upcasts"]:
        what = f"The state was written in version {version}, the code has version {known} and no upcast_state."
        yield Finding(
            "incompatible", entity, "state", "", what, "Define upcast_state(cls, data, version) on the entity."
        )


def _snapshot(entity: str, was: Json, present: Json) -> Iterator[Finding]:
    """Compare the state of an ``EventSourced`` entity: a snapshot that is refused does no harm, one that is misread does.

    A snapshot of before would give a new field its default, and not what ``apply`` makes of the events.
    """
    version, known = was["version"], present["version"]
    if version > known:
        what = f"Snapshots were written in version {version}, and the code knows version {known}, which may stand for another form already."
        yield Finding("incompatible", entity, "state", "", what, f"Write state_version = {version} or higher.")
        return
    if version < known:
        if not present["upcasts"]:
            what = f"Snapshots of version {version} are not read; they are made again from the events."
            yield Finding("note", entity, "state", "", what, "")
        return
    for one in differences(was["schema"], present["schema"]):
        if one.grade == "note":
            yield Finding("note", entity, "state", one.path, _sentence(one), "")
            continue
        what = f"{_sentence(one)[:-1]}, and snapshots of before know nothing of that."
        fix = f"Write state_version = {known + 1}: snapshots are then made again from the events."
        yield Finding("incompatible", entity, "state", one.path, what, fix)


def _command(entity: str, name: str, was: Json, now: Json | None) -> Iterator[Finding]:
    part = f"command {name}"
    parked = "Keep it until nothing is undelivered and no old client asks."
    if now is None:
        what = (
            "The command is gone: durable sends of it that are not delivered yet will be parked, and clients refused."
        )
        yield Finding("note", entity, part, "", what, parked)
        return
    for one in _told(differences(was["arguments"], now["arguments"])):
        what = f"{_sentence(one)[:-1]}: durable sends and clients of before may be refused."
        fix = "Give the argument a default." if one.added else "Take both forms for a while."
        yield Finding("note", entity, part, one.path, what, fix)
    for one in _told(differences(was["reply"], now["reply"])):
        path = f"reply.{one.path}" if one.path else "reply"
        what = f"{_sentence(one)[:-1]}: a repeated command gets the reply recorded before."
        yield Finding("note", entity, part, path, what, "")


def _told(found: list[Difference]) -> list[Difference]:
    """Return the differences that matter where every value stands in the data itself: new fields have a default."""
    return [one for one in found if one.grade != "new"]


def _sentence(one: Difference) -> str:
    return one.what[:1].upper() + one.what[1:] + "."


def _mend(one: Difference, raise_it: str) -> str:
    if one.added:
        return f"Give it a default, or {raise_it}."
    return f"Keep it as it was, or {raise_it}."
