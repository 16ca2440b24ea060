from entities.flights.compare import Difference, describe, differences
from entities.flights.ranking import worst


def test_equal_figures_have_no_differences() -> None:
    figures = {"aircraft": {"N1": {"flights": 3, "delay": -4}}}

    assert differences(figures, figures) == []


def test_a_difference_names_entity_field_and_both_values() -> None:
    expected = {"aircraft": {"N1": {"flights": 3, "delay": -4}}}
    actual = {"aircraft": {"N1": {"flights": 2, "delay": -4}}}

    assert differences(expected, actual) == [Difference("aircraft/N1", "flights", 3, 2)]


def test_a_twin_that_one_side_lacks_differs_in_every_field() -> None:
    expected = {"route": {"EWR-IAH": {"flights": 1}}}
    actual = {"airport": {"IAH": {"arrivals": 0}}}

    assert differences(expected, actual) == [
        Difference("route/EWR-IAH", "flights", 1, None),
        Difference("airport/IAH", "arrivals", None, 0),
    ]


def test_a_field_that_is_missing_is_not_taken_for_zero() -> None:
    expected = {"aircraft": {"N1": {"flights": 0}}}

    assert differences(expected, {"aircraft": {"N1": {}}}) == [Difference("aircraft/N1", "flights", 0, None)]


def test_the_first_differences_are_described_and_the_rest_counted() -> None:
    found = [Difference(f"aircraft/N{n}", "distance", 344_477, None) for n in range(1_005)]

    assert describe(found, first=2).splitlines() == [
        "aircraft/N0 distance: the table says 344,477, the twin nothing",
        "aircraft/N1 distance: the table says 344,477, the twin nothing",
        "… and 1,003 more",
    ]
    assert describe([]) == "No differences."


def test_the_worst_come_first_and_equals_by_name() -> None:
    figures = {"b": {"delay": 5}, "a": {"delay": 5}, "c": {"delay": -1}, "d": {"delay": 9}}

    assert worst(figures, "delay", 3) == [("d", 9), ("a", 5), ("b", 5)]
