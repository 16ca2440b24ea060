"""Whether the twins say what pandas says: exact equality, or every difference by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

FiguresOf: TypeAlias = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Entity type → entity id → field → value."""


class Difference(NamedTuple):
    """One field of one entity on which the two disagree; None where one knows nothing of it."""

    entity: str
    """`type/id`."""
    field: str
    expected: int | None
    actual: int | None

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.entity} {self.field}: the table says {_said(self.expected)}, the twin {_said(self.actual)}"


def differences(expected: FiguresOf, actual: FiguresOf) -> list[Difference]:
    """Return every difference, by type and id; what only one side knows is one too."""
    return [
        found
        for kind in _names(expected, actual)
        for entity_id in _names(expected.get(kind, {}), actual.get(kind, {}))
        for found in _of_entity(
            f"{kind}/{entity_id}",
            expected.get(kind, {}).get(entity_id, {}),
            actual.get(kind, {}).get(entity_id, {}),
        )
    ]


def describe(found: Sequence[Difference], first: int = 20) -> str:
    """Return the first differences in lines to print, and how many more there are.

    Args:
        found: What `differences` returned.
        first: How many to name.
    """
    if not found:
        return "No differences."
    lines = [str(difference) for difference in found[:first]]
    if len(found) > first:
        lines.append(f"… and {len(found) - first:,} more")
    return "\n".join(lines)


def _of_entity(entity: str, expected: Mapping[str, int], actual: Mapping[str, int]) -> list[Difference]:
    return [
        Difference(entity, field, expected.get(field), actual.get(field))
        for field in _names(expected, actual)
        if field not in expected or field not in actual or expected[field] != actual[field]
    ]


def _names(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Return the keys of both in the order first met."""
    return list(dict.fromkeys((*one, *other)))


def _said(value: int | None) -> str:
    return "nothing" if value is None else f"{value:,}"
