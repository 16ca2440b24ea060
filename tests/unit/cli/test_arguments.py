"""How words on the command line become JSON arguments."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remora.cli.arguments import json_arguments, json_value
from remora.cli.exits import WrongUsage


def read(*words: str, args: str | None = None) -> object:
    return json.loads(json_arguments(words, args))


def test_no_words_are_no_arguments() -> None:
    assert read() == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--amount", "10"], {"amount": 10}),
        (["--amount=10"], {"amount": 10}),
        (["--amount", "-5"], {"amount": -5}),
        (["--name", "Alice"], {"name": "Alice"}),
        (["--name", '"10"'], {"name": "10"}),
        (["--name", ""], {"name": ""}),
        (["--name="], {"name": ""}),
        (["--name=--odd"], {"name": "--odd"}),
        (["--name=a=b"], {"name": "a=b"}),
        (["--vip"], {"vip": True}),
        (["--vip", "--amount", "1"], {"vip": True, "amount": 1}),
        (["--vip", "false"], {"vip": False}),
        (["--note", "null"], {"note": None}),
        (["--tags", '["a", 1]'], {"tags": ["a", 1]}),
        (["--tail-number", "N725MQ"], {"tail_number": "N725MQ"}),
        (["--größe", "1"], {"größe": 1}),
    ],
)
def test_words_are_read_by_the_stated_rules(words: list[str], expected: object) -> None:
    assert read(*words) == expected


def test_args_gives_several_at_once_and_options_add_to_them() -> None:
    assert read("--b", "2", args='{"a": 1, "c": {"d": [true, null, "x"]}}') == {
        "a": 1,
        "b": 2,
        "c": {"d": [True, None, "x"]},
    }


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "01", "1.", "{", "[1,", "'a'", "True", "[" * 100_000])
def test_what_is_not_json_is_a_string(text: str) -> None:
    assert json.loads(json_value(text)) == text


@pytest.mark.parametrize("digits", ["1" * 5000, "0.1000000000000000055511151231257827", "1e400", "-0.0"])
def test_numbers_keep_the_digits_that_were_typed(digits: str) -> None:
    assert json_arguments(["--n", digits]) == f'{{"n": {digits}}}'
    assert json_arguments([], f'{{"n": [{digits}]}}') == f'{{"n": [{digits}]}}'


@settings(max_examples=50)
@given(st.text())
def test_every_text_is_a_value_whatever_it_holds(text: str) -> None:
    found = json.loads(json_arguments([f"--value={text}"]), parse_float=Decimal)["value"]

    assert found == text or json.loads(text, parse_float=Decimal) == found


@pytest.mark.parametrize(
    ("words", "args", "named"),
    [
        (["10"], None, "'10'"),
        (["-x", "1"], None, "'-x'"),
        (["--amount", "1", "2"], None, "'2'"),
        (["--", "1"], None, "'--'"),
        (["--1st", "1"], None, "'--1st'"),
        (["--a", "1", "--a", "2"], None, "'a' is given twice"),
        (["--a-b", "1", "--a_b", "2"], None, "'a_b' is given twice"),
        (["--a", "1"], '{"a": 1}', "'a' is given twice"),
        ([], '{"a": 1, "a": 2}', "'a' is given twice"),
        ([], "amount=1", "--args is not JSON"),
        ([], '{"a": NaN}', "NaN is not JSON"),
        ([], "[1]", "one JSON object"),
        ([], "[" * 100_000, "--args is not JSON"),
    ],
)
def test_words_against_the_rules_are_refused_by_name(words: list[str], args: str | None, named: str) -> None:
    with pytest.raises(WrongUsage, match=named):
        json_arguments(words, args)
