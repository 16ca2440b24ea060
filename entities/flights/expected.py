"""What pandas computes straight from the table: what the twins must say, to the last minute.

Nothing here comes from the twins' path: the rows are grouped and summed as columns, and missing
values are judged in the table's own terms (`dep_time` decides whether a flight left).
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TypeAlias

from entities.flights.aircraft import UNTRACKED
from entities.flights.board import BOARD_ID, WINDOW_DAYS
from entities.flights.table import Frame, frame

Figures: TypeAlias = dict[str, dict[str, dict[str, int]]]
"""Entity type → entity id → field → value. Types: `aircraft`, `airport`, `route`, `board`."""

_Grouped: TypeAlias = dict[str, dict[str, int]]


def expected(first: int | None = None) -> Figures:
    """Return the figures of every aircraft, airport and route, and of the board.

    Args:
        first: Of how many rows, counted from the first in time; None: of all.
    """
    rows = frame(first)
    left, came = rows["dep_time"].notna(), rows["arr_delay"].notna()
    marked = rows.assign(
        tail=rows["tailnum"].fillna(UNTRACKED),
        route=rows["origin"] + "-" + rows["dest"],
        flights=left,
        cancellations=~left,
        no_arrival=left & ~came,
        arrivals=left & came,
        distance=rows["distance"].where(left, 0),
    )
    flown = {
        "flights": "flights",
        "cancellations": "cancellations",
        "no_arrival": "no_arrival",
        "distance": "distance",
        "delay": "arr_delay",
    }
    return {
        "aircraft": _sums(marked, "tail", flown),
        "airport": _airports(marked),
        "route": _sums(marked, "route", flown),
        "board": {BOARD_ID: _board(marked)},
    }


def _sums(rows: Frame, key: str, columns: dict[str, str]) -> _Grouped:
    """Return sums by `key`: field → sum of its column, missing values left out."""
    sums = rows.groupby(key)[sorted(set(columns.values()))].sum()
    # Sums of whole minutes stay far below 2**53, so the float columns are exact.
    values = {field: sums[column].astype("int64").tolist() for field, column in columns.items()}
    return {name: {field: values[field][n] for field in columns} for n, name in enumerate(sums.index.tolist())}


def _airports(rows: Frame) -> _Grouped:
    out = {"departures": "flights", "cancellations": "cancellations", "departure_delay": "dep_delay"}
    back = {"arrivals": "arrivals", "arrival_delay": "arr_delay"}
    leaving, coming = _sums(rows, "origin", out), _sums(rows, "dest", back)
    none = dict.fromkeys((*out, *back), 0)
    names = sorted(leaving.keys() | coming.keys())
    return {name: none | leaving.get(name, {}) | coming.get(name, {}) for name in names}


def _board(rows: Frame) -> dict[str, int]:
    days = [date(*parts) for parts in zip(*(rows[name].tolist() for name in ("year", "month", "day")), strict=True)]
    first = max(days, default=date.min + timedelta(days=WINDOW_DAYS)) - timedelta(days=WINDOW_DAYS - 1)
    in_window = rows.loc[[day >= first for day in days]]
    figures = {}
    for prefix, part in (("", in_window), ("total_", rows)):
        figures[f"{prefix}departures"] = int(part["flights"].sum())
        figures[f"{prefix}cancellations"] = int(part["cancellations"].sum())
        figures[f"{prefix}delay"] = int(part["dep_delay"].sum())
    return figures
