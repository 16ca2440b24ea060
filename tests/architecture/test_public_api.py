"""The names users may rely on. Adding one is a decision: write it into public_api.txt."""

from pathlib import Path

import remora
from remora import testing

FROZEN = (Path(__file__).parent / "public_api.txt").read_text(encoding="utf-8").split()


def test_the_public_names_are_those_of_the_frozen_list() -> None:
    assert sorted(remora.__all__) == sorted(FROZEN)


def test_the_frozen_list_is_sorted_and_holds_each_name_once() -> None:
    assert sorted(set(FROZEN)) == FROZEN


def test_every_public_name_exists() -> None:
    assert [name for name in remora.__all__ if not hasattr(remora, name)] == []


def test_every_public_class_and_function_says_what_it_is() -> None:
    public = {name: getattr(remora, name) for name in remora.__all__}

    assert [name for name, value in public.items() if callable(value) and not value.__doc__] == []


def test_the_test_kit_has_these_names_and_each_says_what_it_is() -> None:
    assert sorted(testing.__all__) == [
        "EffectMismatch",
        "EntityKit",
        "Fault",
        "FaultyStore",
        "KitClock",
        "ManualClock",
        "Message",
        "Outcome",
        "Reminder",
        "RoundTripMismatch",
        "UnansweredCall",
        "message",
    ]
    assert [name for name in testing.__all__ if not getattr(testing, name).__doc__] == []
