"""Whether all data of one JSON schema can be read by another: what it cannot be shown of is reported.

``differences`` walks two schemas side by side, their ``$defs`` resolved. It is written from the side of
caution: it knows a number of ways in which one schema takes all that another allows, and reports
everything else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
Grade = Literal["unreadable", "dropped", "new", "note"]

_KNOWN = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "anyOf", "const", "default", "discriminator", "enum",
        "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maxProperties",
        "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "oneOf", "pattern",
        "prefixItems", "properties", "propertyNames", "required", "type", "uniqueItems",
    }
)  # fmt: skip
"""What the rules below understand. Anything else must not have changed."""
_SIZES = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_UNION_CLASSES = frozenset({"object", "array", "string"})
"""Types of which one value may fit several members of a union."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the new schema differs from the old one."""

    grade: Grade
    """``unreadable``: there may be data that is refused or read as something else. ``dropped``: a field is left
    out in silence. ``new``: a field that old data is read without, by its default. ``note``: worth knowing."""
    path: str
    """The field, as ``days[].amount``; empty for the whole."""
    what: str
    """A clause that says what has changed."""
    added: bool = False
    """Whether a field without a default is new: a default would mend it."""


def differences(old: Json, new: Json) -> list[Difference]:
    """Return what may keep data of ``old`` from being read by ``new``.

    Args:
        old: Schema that the data was written under, with its ``$defs``.
        new: Schema that it is to be read under, with its ``$defs``.
    """
    found = _Walk(old.get("$defs", {}), new.get("$defs", {})).accepts(old, new, "")
    return list(dict.fromkeys(found))


class _Walk:
    def __init__(self, old_defs: Json, new_defs: Json) -> None:
        self._old_defs = old_defs
        self._new_defs = new_defs
        self._under_way: set[tuple[int, int]] = set()
        """Pairs of recursive schemas that are taken for compatible while they are compared."""

    def accepts(self, old: Json, new: Json, path: str) -> list[Difference]:
        if _same(old, self._old_defs, new, self._new_defs):
            return []
        olds, news = _members(old, self._old_defs), _members(new, self._new_defs)
        if len(olds) == len(news) == 1:
            return self._pair(olds[0], news[0], path)
        return self._union(olds, news, path)

    def _pair(self, old: Json, new: Json, path: str) -> list[Difference]:
        pair = (id(old), id(new))
        if pair in self._under_way:
            return []
        self._under_way.add(pair)
        try:
            return self._member(old, new, path)
        finally:
            self._under_way.discard(pair)

    # -- unions --------------------------------------------------------------------------------------

    def _union(self, olds: list[Json], news: list[Json], path: str) -> list[Difference]:
        found: list[Difference] = []
        order: dict[str, int] = {}
        for old in olds:
            place, problems = self._best(old, news, path)
            found += problems
            if place is None:
                continue
            for other, new in enumerate(news):
                if other == place or any(_same(one, self._old_defs, new, self._new_defs) for one in olds):
                    continue
                if self._may_take(old, new):
                    found.append(
                        Difference(
                            "unreadable", path, f"{_told(old)} may be read as {_told(new)} now, which is new beside it"
                        )
                    )
            (kind, *_) = (*(types_of(old) or {"any"}),)
            if kind in _UNION_CLASSES:
                if place < order.get(kind, -1):
                    found.append(Difference("unreadable", path, "the order of the union's members has changed"))
                order[kind] = max(place, order.get(kind, -1))
        return found

    def _best(self, old: Json, news: list[Json], path: str) -> tuple[int | None, list[Difference]]:
        """Return the member that takes all of ``old``, or what is wrong with the one that comes nearest."""
        for place, new in enumerate(news):
            if _same(old, self._old_defs, new, self._new_defs):
                return place, []
        tried = [(self._pair(old, new, path), place) for place, new in enumerate(news)]
        for problems, place in sorted(tried, key=lambda one: len(one[0])):
            if all(problem.grade in {"new", "note"} for problem in problems):
                return place, problems
        near = [problems for problems, place in tried if (types_of(old) or set()) & (types_of(news[place]) or set())]
        if len(near) == 1:
            return None, near[0]
        told = " or ".join(_told(new) for new in news)
        return None, [Difference("unreadable", path, f"it could be {_told(old)}, and is {told} now")]

    def _may_take(self, old: Json, new: Json) -> bool:
        """Return whether a value of ``old`` may be read by ``new`` too, so that it is not certain which member reads it."""
        ours, theirs = types_of(old), types_of(new)
        if ours is None or theirs is None:
            return True
        for kind in ours & theirs & _UNION_CLASSES:
            if kind != "object":
                return not _apart(_values(old), _values(new))
            if "oneOf" in old or "oneOf" in new:
                return True
            return not self._objects_apart(old, new)
        return False

    def _objects_apart(self, old: Json, new: Json) -> bool:
        ours, theirs = old.get("properties", {}), new.get("properties", {})
        closed = "properties" in old and not old.get("additionalProperties")
        if closed and set(new.get("required", ())) - ours.keys():
            return True
        if new.get("additionalProperties") is False and set(old.get("required", ())) - theirs.keys():
            return True
        for name in set(old.get("required", ())) & ours.keys() & theirs.keys():
            mine = _members(ours[name], self._old_defs)
            other = _members(theirs[name], self._new_defs)
            if all(_apart(_values(a), _values(b)) or _types_apart(a, b) for a in mine for b in other):
                return True
        return False

    # -- one schema against one ------------------------------------------------------------------------

    def _member(self, old: Json, new: Json, path: str) -> list[Difference]:
        if not (new.keys() - {"$defs", "default"}) or _same(old, self._old_defs, new, self._new_defs):
            return []
        if "oneOf" in new or "oneOf" in old:
            return self._tagged(old, new, path)
        ours, theirs = types_of(old), types_of(new)
        if ours is None or theirs is None:
            return [Difference("unreadable", path, f"it was {_told(old)} and is {_told(new)} now")]
        found: list[Difference] = []
        for kind in sorted(ours - theirs):
            if kind == "integer" and "number" in theirs:
                found.append(Difference("note", path, "whole numbers are read as floats now, beyond 2**53 not exactly"))
            else:
                return [Difference("unreadable", path, f"it was {_told(old)} and is {_told(new)} now")]
        found += self._changed_values(old, new, path)
        if "object" in ours:
            found += self._object(old, new, path)
        if "array" in ours:
            found += self._array(old, new, path)
        for key in new.keys() - _KNOWN:
            if old.get(key) != new[key]:
                found.append(Difference("unreadable", path, f"its {key} has changed, and what that means is not known"))
        return found

    def _changed_values(self, old: Json, new: Json, path: str) -> list[Difference]:
        mine, other = _values(old), _values(new)
        if other is not None:
            if mine is None:
                return [Difference("unreadable", path, f"it was {_told(old)} and is only {_told(new)} now")]
            gone = [value for value in mine if value not in other]
            told = ", ".join(repr(value) for _, value in gone)
            return [Difference("unreadable", path, f"it cannot be {told} any more")] if gone else []
        if mine is not None:
            found = [one for _, value in mine for one in _limits(_as_schema(value), new, path)]
            return list(dict.fromkeys(found))
        return _limits(old, new, path)

    def _tagged(self, old: Json, new: Json, path: str) -> list[Difference]:
        """Compare unions whose members are told apart by a field."""
        tag = new.get("discriminator", {}).get("propertyName")
        theirs = new.get("discriminator", {}).get("mapping", {})
        ours: dict[str, Any] | None = old.get("discriminator", {}).get("mapping")
        if ours is None and "oneOf" not in old:
            values = _values(_resolve(old.get("properties", {}).get(tag, {}), self._old_defs))
            ours = {str(value): old for _, value in values} if values else None
        if tag is None or not ours or old.get("discriminator", {}).get("propertyName", tag) != tag:
            return [Difference("unreadable", path, "how the members of its union are told apart has changed")]
        found: list[Difference] = []
        for value, member in ours.items():
            if value not in theirs:
                found.append(Difference("unreadable", path, f"the member with {tag} = {value!r} is gone"))
                continue
            mine = member if isinstance(member, dict) else {"$ref": member}
            found += self.accepts(mine, {"$ref": theirs[value]}, path)
        return found

    # -- objects and arrays ----------------------------------------------------------------------------

    def _object(self, old: Json, new: Json, path: str) -> list[Difference]:
        found: list[Difference] = []
        ours, theirs = old.get("properties", {}), new.get("properties", {})
        rest = new.get("additionalProperties", "ignored" if "properties" in new else True)
        for name, schema in ours.items():
            where = f"{path}.{name}" if path else name
            if name in theirs:
                found += self._field(old, new, name, where)
            elif rest is False:
                found.append(Difference("unreadable", where, "the field is gone, and unknown fields are refused"))
            elif rest == "ignored":
                found.append(Difference("dropped", where, "the field is gone, and its values are left out in silence"))
            elif rest is not True:
                found += self.accepts(schema, rest, where)
        for name in theirs.keys() - ours.keys():
            where = f"{path}.{name}" if path else name
            if name in new.get("required", ()):
                found.append(Difference("unreadable", where, "the field is new and has no default", added=True))
            elif "additionalProperties" not in old or not old["additionalProperties"]:
                found.append(Difference("new", where, "the field is new"))
        return found + self._others(old, new, rest, path)

    def _field(self, old: Json, new: Json, name: str, where: str) -> list[Difference]:
        mine, other = old["properties"][name], new["properties"][name]
        found = self.accepts(mine, other, where)
        if name in new.get("required", ()) and name not in old.get("required", ()):
            found.append(Difference("unreadable", where, "the field has lost its default", added=True))
        elif "default" in mine and "default" in other and mine["default"] != other["default"]:
            what = f"the default was {mine['default']!r} and is {other['default']!r} now: data from before the field is read with that"
            found.append(Difference("note", where, what))
        return found

    def _others(self, old: Json, new: Json, rest: Any, path: str) -> list[Difference]:  # noqa: ANN401 - JSON
        """Compare what is held beside named fields: the values of a dict."""
        mine = old.get("additionalProperties", "properties" not in old)
        if mine is False:
            return []
        values = {} if mine is True else mine
        where = f"{path}[]"
        if rest is False or rest == "ignored":
            return [Difference("unreadable", path, "it had keys of any name, and has named fields now")]
        found = self.accepts(values, {} if rest is True else rest, where)
        for name in new.get("properties", {}).keys() - old.get("properties", {}).keys():
            found += self.accepts(values, new["properties"][name], f"{path}.{name}" if path else name)
        if "propertyNames" in new:
            keys = {"type": "string"} | _resolve(old.get("propertyNames", {}), self._old_defs)
            found += self.accepts(
                keys, {"type": "string"} | _resolve(new["propertyNames"], self._new_defs), f"{path}{{}}"
            )
        return found

    def _array(self, old: Json, new: Json, path: str) -> list[Difference]:
        found: list[Difference] = []
        where = f"{path}[]"
        if new.get("uniqueItems") and not old.get("uniqueItems"):
            found.append(
                Difference("unreadable", path, "it was a list and is a set now, which keeps no order and no repeats")
            )
        mine, other = old.get("prefixItems", []), new.get("prefixItems", [])
        longest = old.get("maxItems", math.inf)
        for place in range(max(len(mine), len(other))):
            if place >= longest:
                break
            one = mine[place] if place < len(mine) else old.get("items", {})
            found += self.accepts(one, other[place] if place < len(other) else new.get("items", {}), f"{path}[{place}]")
        if longest > max(len(mine), len(other)):
            if other and "items" not in new:
                found.append(Difference("unreadable", path, "it could be longer"))
            else:
                found += self.accepts(_items(old), _items(new), where)
        return found


def _items(schema: Json) -> Json:
    items = schema.get("items", {})
    return items if isinstance(items, dict) else {}


def _limits(old: Json, new: Json, path: str) -> list[Difference]:
    """Compare bounds, lengths, patterns and formats."""
    found: list[Difference] = []
    for low, high in _SIZES:
        if old.get(low, 0) < new.get(low, 0) or old.get(high, math.inf) > new.get(high, math.inf):
            found.append(
                Difference(
                    "unreadable",
                    path,
                    f"its size may be {_range(old, low, high)}, and must be {_range(new, low, high)} now",
                )
            )
    odd = [key for key in _BOUNDS if not isinstance(new.get(key, 0), int | float) and old.get(key) != new[key]]
    if odd:
        found.append(Difference("unreadable", path, f"its {odd[0]} has changed, and what that means is not known"))
    elif {"number", "integer"} & (types_of(old) or set()):
        (least, most), (new_least, new_most) = _bounds(old), _bounds(new)
        if least < new_least or most > new_most:
            found.append(Difference("unreadable", path, "the range of its numbers is narrower now"))
        step = new.get("multipleOf")
        if step is not None and (not old.get("multipleOf") or old["multipleOf"] % step):
            found.append(Difference("unreadable", path, f"it must be a multiple of {step} now"))
    if "pattern" in new and old.get("pattern") != new["pattern"]:
        found.append(Difference("unreadable", path, f"it must match {new['pattern']!r} now"))
    if "format" in new and old.get("format") != new["format"]:
        found.append(Difference("unreadable", path, f"it was {_told(old)} and is {_told(new)} now"))
    return found


def _range(schema: Json, low: str, high: str) -> str:
    return f"{schema.get(low, 0)} to {schema.get(high, 'any')}"


def _bounds(schema: Json) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return the lowest and the highest number allowed; an excluded one lies a step further in."""
    whole = schema.get("type") == "integer"
    low, high = (schema.get("minimum", -math.inf), 0), (schema.get("maximum", math.inf), 0)
    if (least := schema.get("exclusiveMinimum")) is not None:
        low = max(low, (math.floor(least) + 1, 0) if whole else (least, 1))
    if (most := schema.get("exclusiveMaximum")) is not None:
        high = min(high, (math.ceil(most) - 1, 0) if whole else (most, -1))
    return low, high


def types_of(schema: Json) -> set[str] | None:
    """Return the JSON types that a schema allows; None if it does not say."""
    values = _values(schema)
    if values is not None:
        return {kind for kind, _ in values}
    named = schema.get("type")
    if named is None:
        return {"object"} if "properties" in schema or _is_of_objects(schema) else None
    return set(named) if isinstance(named, list) else {named}


def _is_of_objects(schema: Json) -> bool:
    return "discriminator" in schema  # its tag is a field


def _values(schema: Json) -> list[tuple[str, Any]] | None:
    """Return the values that an enum or a constant allows, each with its type: True is not 1."""
    if "const" in schema:
        return [(_type_name(schema["const"]), schema["const"])]
    return [(_type_name(value), value) for value in schema["enum"]] if "enum" in schema else None


def _type_name(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array"}
    return names.get(type(value), "object")


def _as_schema(value: object) -> Json:
    """Return the schema of one value as far as bounds go."""
    kind = _type_name(value)
    if isinstance(value, int | float) and kind != "boolean":
        return {"type": kind, "minimum": value, "maximum": value, "multipleOf": abs(value) or 1}
    if isinstance(value, str):
        return {"type": kind, "minLength": len(value), "maxLength": len(value)}
    return {"type": kind}


def _apart(ours: list[tuple[str, Any]] | None, theirs: list[tuple[str, Any]] | None) -> bool:
    return ours is not None and theirs is not None and not any(value in theirs for value in ours)


def _types_apart(old: Json, new: Json) -> bool:
    ours, theirs = types_of(old), types_of(new)
    if ours is None or theirs is None or ours & theirs:
        return False
    # Numbers are read from texts and from each other, dates from numbers: only what never mixes is apart.
    structured = {"object", "array"}
    return bool(ours <= structured or theirs <= structured)


def _resolve(schema: Json, defs: Json) -> Json:
    while "$ref" in schema:
        schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    return schema


def _members(schema: Json, defs: Json) -> list[Json]:
    """Return the members of a union, nested ones flattened; a schema that is none stands for itself."""
    schema = _resolve(schema, defs)
    if "anyOf" not in schema:
        return [schema]
    return [one for member in schema["anyOf"] for one in _members(member, defs)]


def _same(old: Any, old_defs: Json, new: Any, new_defs: Json) -> bool:  # noqa: ANN401 - JSON
    """Return whether two schemas are alike to the letter, names of definitions aside."""
    return _alike(old, old_defs, new, new_defs, set())


def _alike(old: Any, old_defs: Json, new: Any, new_defs: Json, assumed: set[tuple[int, int]]) -> bool:  # noqa: ANN401 - JSON
    if isinstance(old, dict) and isinstance(new, dict):
        if "$ref" in old and "$ref" in new:
            (mine, other) = (_resolve(old, old_defs), _resolve(new, new_defs))
            if old.get("default") != new.get("default"):
                return False
            if (id(mine), id(other)) in assumed:
                return True
            return _alike(mine, old_defs, other, new_defs, assumed | {(id(mine), id(other))})
        keys = old.keys() - {"$defs"}
        return keys == new.keys() - {"$defs"} and all(
            _alike(old[key], old_defs, new[key], new_defs, assumed) for key in keys
        )
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            _alike(mine, old_defs, other, new_defs, assumed) for mine, other in zip(old, new, strict=True)
        )
    return type(old) is type(new) and bool(old == new)


def _told(schema: Json) -> str:
    """Return in a word or two what a schema allows."""
    values = _values(schema)
    if values is not None:
        return "one of " + ", ".join(repr(value) for _, value in values) if len(values) > 1 else repr(values[0][1])
    if "oneOf" in schema:
        return "one of several objects"
    kinds = types_of(schema)
    if kinds is None:
        return schema.get("x-opaque", "anything") if len(schema) < 2 else "something"  # noqa: PLR2004 - nothing but that key
    kind = " or ".join(sorted(kinds))
    if "format" in schema:
        return f"{kind} ({schema['format']})"
    if kind == "object" and "properties" in schema:
        return "an object with " + _listed(schema["properties"])
    return kind


def _listed(names: Iterable[str]) -> str:
    def some() -> Iterator[str]:
        for place, name in enumerate(names):
            if place == 4:  # noqa: PLR2004 - enough to know it by
                yield "…"
                return
            yield name

    return ", ".join(some()) or "no fields"
