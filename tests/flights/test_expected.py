from collections import Counter, defaultdict
from datetime import timedelta

import pytest

from entities.flights.aircraft import UNTRACKED
from entities.flights.board import BOARD_ID
from entities.flights.expected import Figures, expected
from entities.flights.table import Departure, departures

TRAVELLED = ("flights", "cancellations", "no_arrival", "distance", "delay")
HANDLED = ("departures", "cancellations", "departure_delay", "arrivals", "arrival_delay")


@pytest.fixture(scope="module")
def year() -> Figures:
    return expected()


def total(figures: Figures, kind: str, field: str) -> int:
    return sum(of[field] for of in figures[kind].values())


def counted(rows: list[Departure]) -> Figures:
    """Count row by row what `expected` sums by columns."""
    sums: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        origin, dest = sums["airport", row.origin], sums["airport", row.dest]
        for traveller in (sums["aircraft", row.tail], sums["route", f"{row.origin}-{row.dest}"]):
            if row.dep_delay is None:
                traveller["cancellations"] += 1
            else:
                traveller["flights"] += 1
                traveller["distance"] += row.distance
                traveller["no_arrival"] += row.arr_delay is None
                traveller["delay"] += row.arr_delay or 0
        origin["departures"] += row.dep_delay is not None
        origin["cancellations"] += row.dep_delay is None
        origin["departure_delay"] += row.dep_delay or 0
        dest["arrivals"] += row.arr_delay is not None
        dest["arrival_delay"] += row.arr_delay or 0
    figures: Figures = {"aircraft": {}, "airport": {}, "route": {}, "board": {BOARD_ID: board(rows)}}
    for (kind, entity_id), counts in sums.items():
        figures[kind][entity_id] = {field: counts[field] for field in (HANDLED if kind == "airport" else TRAVELLED)}
    return figures


def board(rows: list[Departure]) -> dict[str, int]:
    first = max(row.day for row in rows) - timedelta(days=29)
    return {
        f"{prefix}{field}": value
        for prefix, part in (("", [row for row in rows if row.day >= first]), ("total_", rows))
        for field, value in (
            ("departures", sum(row.dep_delay is not None for row in part)),
            ("cancellations", sum(row.dep_delay is None for row in part)),
            ("delay", sum(row.dep_delay or 0 for row in part)),
        )
    }


@pytest.mark.parametrize("first", [1, 2_000, 50_000])
def test_a_slice_counts_what_its_rows_counted_one_by_one_do(first: int) -> None:
    assert expected(first) == counted(list(departures(first)))


def test_no_rows_give_no_twins_and_an_empty_board() -> None:
    figures = expected(0)

    assert (figures["aircraft"], figures["airport"], figures["route"]) == ({}, {}, {})
    assert set(figures["board"][BOARD_ID].values()) == {0}


def test_the_years_twins_are_as_many_as_the_documentation_says(year: Figures) -> None:
    assert {kind: len(of) for kind, of in year.items()} == {"aircraft": 4_044, "airport": 107, "route": 224, "board": 1}


def test_the_years_totals_are_those_the_documentation_gives(year: Figures) -> None:
    assert total(year, "aircraft", "flights") == 328_521
    assert total(year, "aircraft", "cancellations") == 8_255
    assert total(year, "aircraft", "no_arrival") == 1_175
    assert total(year, "aircraft", "distance") == 344_477_462
    assert total(year, "aircraft", "delay") == 2_257_174
    assert total(year, "airport", "arrivals") == 327_346
    assert total(year, "airport", "departure_delay") == 4_152_200


def test_aircraft_routes_and_airports_agree_on_every_total(year: Figures) -> None:
    flown = {field: total(year, "aircraft", field) for field in TRAVELLED}
    handled = {field: total(year, "airport", field) for field in HANDLED}

    assert flown == {field: total(year, "route", field) for field in TRAVELLED}
    assert handled["departures"] == flown["flights"]
    assert handled["cancellations"] == flown["cancellations"]
    assert handled["arrivals"] == flown["flights"] - flown["no_arrival"]
    assert handled["arrival_delay"] == flown["delay"]


def test_the_aircraft_without_a_tail_number_never_flew(year: Figures) -> None:
    assert year["aircraft"][UNTRACKED] == {
        "flights": 0, "cancellations": 2_512, "no_arrival": 0, "distance": 0, "delay": 0,
    }  # fmt: skip
