"""Releases of one app for ``remora schema`` to compare; tests import them by name."""

from tests.unit.schema.ledgers import first, second

one = first()
two = second()
broken = second(upcasting=False)
