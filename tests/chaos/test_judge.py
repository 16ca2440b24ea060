"""The judge finds what it is there to find: every rule is broken here by hand, on its own."""

import dataclasses
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.judge import Entry, histories, judge
from tests.chaos.witness import Log, Operation, Shown, Witness, read_logs

KEY = "ledger/a"


def shown(*items: str) -> Shown:
    chain = 0
    for item in items:
        chain = zlib.crc32(item.encode(), chain)
    return Shown(len(items), chain)


def append(number: int, item: str, sent: int, answered: int | None, *before: str, caller: str = "one") -> Operation:
    reply = shown(*before, item) if answered is not None else None
    return Operation(number, caller, KEY, "append", item, sent, answered_ns=answered, shown=reply)


def seen(number: int, sent: int, answered: int, *items: str, caller: str = "two") -> Operation:
    return Operation(number, caller, KEY, "seen", "", sent, answered_ns=answered, shown=shown(*items))


def entries(*items: str, tokens: str = "") -> list[Entry]:
    """Return rows of one entity; ``tokens`` has one letter for each."""
    return [
        Entry(KEY, n, item, token)
        for n, (item, token) in enumerate(zip(items, tokens or "A" * len(items), strict=True), 1)
    ]


def rules(operations: list[Operation], rows: list[Entry]) -> list[str]:
    return [finding.rule for finding in judge(operations, histories(rows))]


def good() -> tuple[list[Operation], list[Entry]]:
    """Return a short history of two callers, with commands under way together, a move and a refusal."""
    operations = [
        append(1, "a", 10, 20),
        append(2, "b", 11, 21, "a"),
        append(1, "c", 12, 40, "a", "b", caller="two"),
        seen(2, 22, 30, "a", "b"),
        seen(3, 22, 60, "a", "b", "c"),
        Operation(3, "one", KEY, "refuse", "r", 41, answered_ns=50, shown=shown("a", "b", "c")),
        append(4, "d", 51, 70, "a", "b", "c"),
    ]
    return operations, entries("a", "b", "c", "d", tokens="AABB")


def test_nothing_is_found_in_a_history_that_keeps_all_promises() -> None:
    assert judge(*good()[:1], histories(good()[1])) == []


def test_an_acknowledged_command_that_the_journal_does_not_hold_is_lost() -> None:
    operations, rows = good()

    assert "lost" in rules(operations, rows[:-1])


def test_the_loss_of_a_command_in_the_middle_is_seen_in_the_answers_behind_it_too() -> None:
    operations, _ = good()

    assert {"lost", "untrue"} <= set(rules(operations, entries("a", "c", "d")))


def test_an_item_that_the_journal_holds_twice_is_doubled() -> None:
    operations, rows = good()

    assert "doubled" in rules(operations, [*rows, Entry(KEY, 5, "b", "B")])
    assert "doubled" in rules(operations, [*rows, Entry("ledger/b", 1, "b", "B")])


def test_an_item_that_nobody_asked_for_or_that_was_refused_does_not_belong_there() -> None:
    operations, rows = good()

    assert rules(operations, [*rows, Entry(KEY, 5, "x", "B")]) == ["unasked"]
    assert rules(operations, [*rows, Entry(KEY, 5, "r", "B")]) == ["unasked"]


def test_commands_of_one_caller_in_another_order_than_sent_are_swapped() -> None:
    operations = [append(1, "a", 10, 20, "b"), append(2, "b", 11, 21)]

    assert rules(operations, entries("b", "a")) == ["swapped"]


def test_commands_of_two_callers_may_stand_in_any_order_if_they_were_under_way_together() -> None:
    operations = [append(1, "a", 10, 20, "b"), append(1, "b", 11, 21, caller="two")]

    assert rules(operations, entries("b", "a")) == []


def test_a_command_that_was_given_up_and_sent_again_has_lost_its_place_but_takes_none_from_others() -> None:
    first, second = append(1, "a", 10, 90, "b"), append(2, "b", 11, 21)

    assert rules([dataclasses.replace(first, given_up=1), second], entries("b", "a")) == []
    assert rules([first, dataclasses.replace(second, given_up=1)], entries("b", "a")) == ["swapped"]


def test_a_query_that_does_not_show_what_was_acknowledged_before_it_was_sent_is_stale() -> None:
    operations = [append(1, "a", 10, 20), seen(1, 21, 30)]

    assert rules(operations, entries("a")) == ["stale"]
    assert rules([operations[0], seen(1, 19, 30)], entries("a")) == [], "they were under way together"


def test_a_query_that_shows_less_than_an_earlier_one_is_stale() -> None:
    operations = [append(1, "a", 10, 90), seen(1, 20, 30, "a"), seen(2, 31, 40)]

    assert rules(operations, entries("a")) == ["stale"]


def test_a_command_that_comes_before_what_was_known_when_it_was_sent_is_stale() -> None:
    operations = [append(1, "a", 10, 20, "b"), append(1, "b", 21, 30, caller="two")]

    assert rules(operations, entries("b", "a")) == ["stale"]
    late = append(1, "b", 21, None, caller="two")
    assert rules([operations[0], late], entries("b", "a")) == ["unanswered", "stale"], "without an answer too"


def test_an_answer_that_shows_what_never_was_is_untrue() -> None:
    operations, rows = good()

    assert rules([*operations, seen(9, 80, 81, "a", "b", "c", "d", "e")], rows) == ["untrue"]
    assert rules([*operations, seen(9, 80, 81, "b", "a", "c", "d")], rows) == ["untrue"]


def test_a_reply_that_is_anothers_is_untrue() -> None:
    operations = [append(1, "a", 10, 20, "b"), append(1, "b", 11, 21, caller="two")]
    swapped = [
        dataclasses.replace(operations[0], shown=operations[1].shown),
        dataclasses.replace(operations[1], shown=operations[0].shown),
    ]

    assert rules(swapped, entries("b", "a")) == ["untrue", "untrue"]


def test_an_activation_that_commits_after_another_has_is_found() -> None:
    operations, _ = good()

    assert rules(operations, entries("a", "b", "c", "d", tokens="ABAA")) == ["overlap", "overlap"]
    assert rules(operations, entries("a", "b", "c", "d", tokens="ABCD")) == []


def test_what_got_no_answer_or_an_error_that_asking_again_does_not_help_is_found() -> None:
    operations, rows = good()
    operations[-1] = dataclasses.replace(operations[-1], answered_ns=None, shown=None)

    assert rules(operations, rows) == ["unanswered"]
    operations[-1] = dataclasses.replace(operations[-1], refused="InvalidArgument: no")
    assert rules(operations, rows) == ["refused"]


@pytest.mark.parametrize("damage", ["drop", "double", "swap", "interleave", "age a query"])
def test_one_damage_at_random_in_a_long_true_history_is_always_found(rng: random.Random, damage: str) -> None:
    operations, rows = _long(rng)
    assert judge(operations, histories(rows)) == []

    at = rng.randrange(8, len(rows) - 1)
    harm: dict[str, Callable[[], object]] = {
        "drop": lambda: rows.pop(at),
        "double": lambda: rows.insert(at, rows[at]._replace(n=10_000)),
        "swap": lambda: rows.__setitem__(
            slice(at - 1, at + 1), [rows[at]._replace(n=rows[at - 1].n), rows[at - 1]._replace(n=rows[at].n)]
        ),
        "interleave": lambda: rows.__setitem__(at, rows[at]._replace(token=rows[0].token)),
        "age a query": lambda: operations.append(seen(10_000, 10**9, 10**9 + 1, *[row.item for row in rows[:at]])),
    }
    harm[damage]()

    assert judge(operations, histories(rows)) != []


def _long(rng: random.Random) -> tuple[list[Operation], list[Entry]]:
    items = [f"i{number}" for number in range(60)]
    operations, at = [], 0
    for number, item in enumerate(items, 1):
        at += rng.randrange(1, 10)
        # Answered after it was sent and before the end; the next is sent meanwhile.
        operations.append(append(number, item, at, at + rng.randrange(1, 10), *items[: number - 1]))
    ends = [one.answered_ns or 0 for one in operations]
    for number in range(61, 90):
        at = rng.randrange(ends[-1])
        known = max((level for level, end in enumerate(ends, 1) if end < at), default=0)
        operations.append(seen(number, at, at + 1, *items[:known]))
    return operations, entries(*items, tokens="".join(chr(65 + number // 7) for number in range(60)))


def test_a_log_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "client-1.log", "client-1")
    first = witness.sends(KEY, "append", "a")
    second = witness.sends(KEY, "seen", "")
    witness.given_up(first, TimeoutError("late"))
    witness.answered(first, 10**18, shown("a"))
    witness.refused(second, ValueError("no"))
    witness.close()

    one, two = read_logs([tmp_path / "client-1.log"])

    assert (one.caller, one.key, one.what, one.item, one.given_up) == ("client-1", KEY, "append", "a", 1)
    assert (one.answered_ns, one.shown, one.errors) == (10**18, shown("a"), ("TimeoutError: late",))
    assert one.sent_ns <= two.sent_ns
    assert (two.what, two.shown, two.answered_ns, two.refused) == ("seen", None, None, "ValueError: no")


def test_a_log_read_as_it_grows_says_what_one_read_whole_does(tmp_path: Path) -> None:
    path = tmp_path / "client-1.log"
    witness, log = Witness(path, "client-1"), Log(path)
    assert log.operations() == []
    first = witness.sends(KEY, "append", "a")
    assert [one.answered_ns for one in log.operations()] == [None]
    second = witness.sends(KEY, "append", "b")
    witness.answered(second, 10**18, shown("b"))
    witness.given_up(first, TimeoutError("late"))
    assert log.operations() == read_logs([path])
    with path.open("a") as begun:
        begun.write('["answered", 1, 5')
    witness.close()

    assert log.operations() == read_logs([path])
    assert [(one.given_up, one.answered_ns) for one in log.operations()] == [(1, None), (0, 10**18)]
