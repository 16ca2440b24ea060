"""``call``, ``state``, ``events`` and ``why`` against a real gateway over real HTTP."""

import json

import pytest

from tests.unit.cli.running import Run


def test_a_command_prints_its_reply(ask: Run) -> None:
    ended = ask("call", "account", "alice", "deposit", "--amount", "10")

    assert (ended.code, ended.out, ended.err) == (0, "10\n", "")


def test_arguments_may_come_as_one_json_object(ask: Run) -> None:
    assert ask("call", "account", "bea", "deposit", "--args", '{"amount": 7}').out == "7\n"


def test_a_query_is_called_like_a_command(ask: Run) -> None:
    assert ask("call", "account", "nobody", "balance").out == "0\n"
    assert ask("call", "echo", "quiet", "last", "--default", "none", "--json").document == "none"


def test_a_repeated_command_id_gets_the_recorded_reply_and_people_are_told(ask: Run) -> None:
    words = ("call", "account", "carl", "deposit", "--amount", "3", "--command-id", "pay-7")

    first, second = ask(*words), ask(*words)

    assert (first.out, second.out) == ("3\n", "3\n")
    assert first.err == ""
    assert "applied before" in second.err
    assert ask("call", "account", "carl", "balance").out == "3\n"


def test_a_command_id_may_be_any_printable_text(ask: Run) -> None:
    words = ("call", "account", "dörte", "deposit", "--amount", "3", "--command-id", "zahlung nº 7 ✓")

    assert [ask(*words).out, ask(*words).out] == ["3\n", "3\n"]


@pytest.mark.parametrize(
    "given", ['"10"', "10", "null", "Zoë ✈", '{"a":[1,2.5,{"b":null}]}', "[]", "true", '"\\u0000\\u001b[2J"']
)
def test_values_arrive_and_come_back_unchanged(ask: Run, given: str) -> None:
    ended = ask("call", "echo", "e", "say", "--value", given, "--json")

    try:
        expected = json.loads(given)
    except ValueError:
        expected = given
    assert (ended.code, ended.document) == (0, expected)


def test_dashes_in_the_name_of_an_argument_stand_for_underscores(ask: Run) -> None:
    assert ask("call", "echo", "e", "two_words", "--first-word", "a", "--second_word=b", "--json").document == "ab"


def test_options_of_the_command_line_and_arguments_may_be_mixed(ask: Run) -> None:
    ended = ask(
        "call", "--json", "echo", "e", "two_words", "--deadline", "5", "--first-word", "a", "--command-id", "m-1"
    )

    assert (ended.code, ended.document) == (0, "a")


def test_a_value_that_begins_with_one_dash_is_a_value(ask: Run) -> None:
    assert ask("call", "echo", "e", "say", "--value", "-10h", "--json").document == "-10h"


@pytest.mark.parametrize("name", ["ünï✈", "a b", "50%", "a?b#c", "-5", "..."])
def test_ids_of_any_unicode_reach_the_same_entity(ask: Run, name: str) -> None:
    assert ask("call", "--", "counter", name, "increment", "--by", "2").out == "2\n"
    assert ask("state", "--json", "--", "counter", name).document == {"value": 2}


def test_state_is_printed_for_people_and_for_programs(ask: Run) -> None:
    ask("call", "account", "frank", "deposit", "--amount", "5")

    assert ask("state", "account", "frank").out == '{\n  "amount": 5\n}\n'
    assert ask("state", "account", "frank", "--json").out == '{"amount":5}\n'
    assert ask("--json", "state", "account", "frank").out == '{"amount":5}\n'


def test_control_characters_of_a_state_never_reach_the_terminal(ask: Run) -> None:
    ask("call", "echo", "sly", "say", "--value", "\x1b[2J\x9b")

    assert "\x1b" not in (out := ask("state", "echo", "sly").out)
    assert "\x9b" not in out


def test_events_are_listed_in_order_with_the_command_that_caused_them(ask: Run) -> None:
    for amount in (5, 6, 7):
        ask("call", "account", "gina", "deposit", "--amount", str(amount), "--command-id", f"g-{amount}")

    table = ask("events", "account", "gina").out
    found = ask("events", "account", "gina", "--json").document

    assert [(event["seq"], event["data"], event["command_id"]) for event in found] == [
        (1, {"amount": 5}, "g-5"),
        (2, {"amount": 6}, "g-6"),
        (3, {"amount": 7}, "g-7"),
    ]
    assert [table.index(f"g-{amount}") for amount in (5, 6, 7)] == sorted(table.index(f"g-{n}") for n in (5, 6, 7))


def test_events_come_in_pages_and_people_are_told_how_to_go_on(ask: Run) -> None:
    for amount in (5, 6, 7):
        ask("call", "account", "hans", "deposit", "--amount", str(amount))

    page = ask("events", "account", "hans", "--after", "1", "--limit", "1")

    assert [event["seq"] for event in ask("events", "account", "hans", "--after", "1", "--json").document] == [2, 3]
    assert "--after 2" in page.err
    assert ask("events", "account", "hans", "--limit", "0").code == 2
    assert ask("events", "account", "hans", "--after", "-1").code == 2


def test_only_an_event_sourced_entity_has_events(ask: Run) -> None:
    ended = ask("events", "counter", "c")

    assert ended.code == 1
    assert "only an EventSourced entity has events" in ended.err


def test_releasing_says_how_many_sends_are_on_their_way_again(ask: Run) -> None:
    ask("call", "counter", "r", "increment")

    assert ask("release", "counter", "r", "--json").document == 0
    assert "0 sends of counter/r are on their way again" in ask("release", "counter", "r").err


def test_why_says_where_an_entity_is_and_what_it_does(ask: Run) -> None:
    ask("call", "counter", "w", "increment")

    assert ask("why", "counter", "w", "--json").document["entity"] == "counter/w"
    shown = ask("why", "counter", "w").out
    assert shown.startswith("counter/w: idle\nIt is in memory and has had nothing to do for ")
    assert "recorded  1\n" in shown


def test_what_is_in_memory_only_says_so_beside_the_result(ask: Run) -> None:
    called = ask("call", "presence", "lobby", "seen", "--person", "alice")

    assert (called.out, "in memory only" in called.err) == ("null\n", True)
    assert "in memory only" in ask("state", "presence", "lobby").err
    assert ask("state", "presence", "lobby", "--json").err == ""
