"""Fly rows of the table through a running platform, and read back what the twins say.

Fly, wait, report, wait, compare:

    await fly_all(client, departures())
    …                                       # wait until every outbox is empty
    await report(client, figures["airport"])
    …                                       # and once more
    differences(figures, await read_back(client, figures))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from entities.flights.aircraft import Aircraft
from entities.flights.airport import Airport
from entities.flights.board import Board
from entities.flights.expected import Figures
from entities.flights.route import Route
from entities.flights.table import Departure

if TYPE_CHECKING:
    from remora import Client

_T = TypeVar("_T")

IN_FLIGHT = 1024
"""Commands under way at once: enough that hosts commit many together."""
DEADLINE_S = 120.0
"""Seconds one row may take. At full speed rows come faster than their sends are delivered, so hosts
refuse new ones for a while (`Overloaded`) and the client asks again: long, not an error."""

_ASK: dict[str, Callable[[Client, str], Coroutine[Any, Any, BaseModel]]] = {
    "aircraft": lambda client, entity_id: client.ref(Aircraft, entity_id).figures(),
    "airport": lambda client, entity_id: client.ref(Airport, entity_id).figures(),
    "route": lambda client, entity_id: client.ref(Route, entity_id).figures(),
    "board": lambda client, entity_id: client.ref(Board, entity_id).summary(),
}


def fly(client: Client, row: Departure, *, deadline_s: float = DEADLINE_S) -> Coroutine[Any, Any, bool]:
    """Return the call that gives one row to its aircraft: awaited, whether the flight left.

    Args:
        client: Of the app `flights`.
        row: Its command id is the row's own, so that a repeat is recognised.
        deadline_s: Seconds to wait for the answer.
    """
    aircraft = client.ref(Aircraft, row.tail).with_options(command_id=row.command_id, deadline_s=deadline_s)
    return aircraft.fly(row.day, row.origin, row.dest, row.distance, row.dep_delay, row.arr_delay)


async def fly_all(client: Client, rows: Iterable[Departure], *, in_flight: int = IN_FLIGHT) -> int:
    """Give all rows to their aircraft, started in the order given, and return how many flights left.

    Args:
        client: Of the app `flights`.
        rows: From `table.departures`.
        in_flight: Commands under way at once.
    """
    left = 0

    async def one(row: Departure) -> None:
        nonlocal left
        if await fly(client, row):
            left += 1

    await _each(rows, one, in_flight)
    return left


async def report(client: Client, airports: Iterable[str]) -> None:
    """Have airports tell the board what they have not told it: the last day has no next one.

    Call it when every outbox is empty, or departures still under way are left out. An airport
    that has nothing to tell is left alone, so that a second replay leaves no trace.
    """

    async def one(name: str) -> None:
        airport = client.ref(Airport, name)
        if (await airport.figures()).unreported:
            await airport.report()

    await _each(airports, one, IN_FLIGHT)


async def read_back(client: Client, figures: Figures, *, in_flight: int = 256) -> Figures:
    """Return what the twins say for every entity and field in `figures`.

    Args:
        client: Of the app `flights`.
        figures: From `expected`; its values are not looked at.
        in_flight: Queries under way at once.
    """
    said: Figures = {kind: {} for kind in figures}

    async def one(of: tuple[str, str]) -> None:
        kind, entity_id = of
        twin = await _ASK[kind](client, entity_id)
        said[kind][entity_id] = {field: getattr(twin, field) for field in figures[kind][entity_id]}

    await _each(((kind, entity_id) for kind, entities in figures.items() for entity_id in entities), one, in_flight)
    return said


async def _each(items: Iterable[_T], do: Callable[[_T], Awaitable[None]], at_once: int) -> None:
    """Await `do` for every item, `at_once` of them at a time, started in order; the first failure ends it."""

    async def work(shared: Iterator[_T]) -> None:
        for item in shared:
            await do(item)

    shared = iter(items)
    async with asyncio.TaskGroup() as workers:
        for _ in range(at_once):
            workers.create_task(work(shared))
