"""Names and ids: what can be one, and what is refused with the fix in the message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remora.errors import InvalidId
from remora.ids import (
    COMMAND_ID_BYTES_MAX,
    ENTITY_ID_BYTES_MAX,
    CommandIds,
    check_command_id,
    check_entity_id,
    made_at_ms,
    snake_case,
)


@pytest.mark.parametrize(
    "good", ["a", "alice", "N123AA", "a b", "ä", "日本", "😀", "a.b", "...", "~", "%2F", "a>b", "x" * 512]
)
def test_any_readable_text_can_be_an_entity_id(good: str) -> None:
    assert check_entity_id(good, "account") == good


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("", "is empty: give the entity a name"),
        ("a/b", "holds '/', which separates type and id: use another separator"),
        ("/", "holds '/'"),
        ("a\0b", "holds a control character"),
        ("a\nb", "holds a control character"),
        ("\x7f", "holds a control character"),
        (".", "choose another"),
        ("..", "choose another"),
        ("\ud800", "unpaired surrogate"),
        ("a\udfffb", "unpaired surrogate"),
        ("x" * 513, "has 513 bytes in UTF-8, 512 are allowed"),
        ("é" * 257, "has 514 bytes"),
        ("😀" * 129, "has 516 bytes"),
        (7, "must be a str, not int: convert it"),
        (None, "must be a str, not NoneType"),
        (b"alice", "must be a str, not bytes"),
    ],
)
def test_what_cannot_be_an_entity_id_is_refused_with_the_fix(bad: object, problem: str) -> None:
    with pytest.raises(InvalidId, match=problem) as caught:
        check_entity_id(bad, "account")

    assert "of account" in caught.value.message


@given(st.text(st.characters()))
def test_every_text_is_either_an_id_that_utf_8_holds_or_refused(text: str) -> None:
    try:
        accepted = check_entity_id(text)
    except InvalidId:
        return
    assert accepted == text
    assert 0 < len(text.encode()) <= ENTITY_ID_BYTES_MAX
    assert not {"/", "\0", "\n"} & set(text)


@pytest.mark.parametrize("good", ["a", "pay-7", "0189-uuid", "Zahlung ü", "x" * 256, "a/1"])
def test_any_printable_text_can_be_a_command_id(good: str) -> None:
    assert check_command_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", None, 7, "a>b", "a\nb", "a\0", "\ud800", "x" * 257, "é" * 129, "account/alice>513"]
)
def test_what_cannot_be_a_command_id_is_refused(bad: object) -> None:
    with pytest.raises(InvalidId):
        check_command_id(bad)


@given(st.text(st.characters()))
def test_every_text_is_either_a_command_id_that_utf_8_holds_or_refused(text: str) -> None:
    try:
        check_command_id(text)
    except InvalidId:
        return
    assert 0 < len(text.encode()) <= COMMAND_ID_BYTES_MAX
    assert ">" not in text


def test_made_ids_are_valid_differ_and_sort_by_the_time_they_were_made() -> None:
    times = iter(range(1_700_000_000_000, 1_700_000_100_000))
    ids = CommandIds(lambda: next(times))

    made = [ids.next() for _ in range(70_000)]

    assert len(set(made)) == len(made)
    assert sorted(made) == made
    assert check_command_id(made[0]) == made[0]


def test_made_ids_of_two_makers_differ_at_the_same_instant() -> None:
    makers = [CommandIds(lambda: 1_700_000_000_000) for _ in range(100)]

    assert len({maker.next() for maker in makers}) == 100


@pytest.mark.parametrize("ms", [0, 1, 1_357_000_000_000, 2**47])
def test_the_time_of_a_made_id_can_be_read(ms: int) -> None:
    assert made_at_ms(CommandIds(lambda: ms).next()) == ms


@pytest.mark.parametrize("own", ["", "pay-7", "r" * 28, "x0000000000-0000000000000000", "r000000000z-0000000000000000"])
def test_ids_of_callers_have_no_time(own: str) -> None:
    assert made_at_ms(own) is None


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Account", "account"),
        ("FlightPlan", "flight_plan"),
        ("HTTPServer", "http_server"),
        ("Route66", "route66"),
        ("A", "a"),
        ("Flight_Plan", "flight_plan"),
        ("iPhone", "i_phone"),
    ],
)
def test_class_names_become_snake_case_types(name: str, snake: str) -> None:
    assert snake_case(name) == snake
