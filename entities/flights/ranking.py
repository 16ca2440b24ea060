"""Who was worst: the rankings that the demo prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def worst(figures: Mapping[str, Mapping[str, int]], field: str, count: int = 10) -> list[tuple[str, int]]:
    """Return ids and values with the largest `field`, ties by id.

    Args:
        figures: Entity id → field → value, of one entity type.
        field: For example `delay`, or `arrival_delay` for airports.
        count: How many.
    """
    ranked = sorted((-values[field], entity_id) for entity_id, values in figures.items())
    return [(entity_id, -value) for value, entity_id in ranked[:count]]
