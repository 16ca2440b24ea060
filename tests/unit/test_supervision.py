"""What becomes of an entity after a failure: declared as data, decided as a pure function."""

import random
from collections.abc import Sequence

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from remora import App, Backoff, ContractError, Directive, EntityOptions, Rejected, Rule, Supervision, on
from remora.supervision.decisions import Decision, History, aged, dated, decide, is_failing
from remora.supervision.levels import DEFAULTS, SHARD_DEFAULTS
from remora.supervision.rules import CAUSES_MAX, Rules, kinds_of, name_of
from tests.things import Till

RESUME, RESTART, STOP, ESCALATE = Directive.RESUME, Directive.RESTART, Directive.STOP, Directive.ESCALATE


class Least:
    """A source of jitter that draws the least."""

    def random(self) -> float:
        return 0.0


NO_JITTER: random.Random = Least()  # type: ignore[assignment]  # only random() is used
FAILURE = ValueError("no")


class SoldOutError(LookupError):
    """One of an application's own."""


def decisions(rules: Sequence[Rule], at_s: Sequence[float], failure: BaseException = FAILURE) -> list[Decision]:
    """Return what is decided about one failure after the other."""
    history: History = {}
    made = []
    for now_s in at_s:
        decision, history = decide(rules, kinds_of(failure), history, now_s, NO_JITTER)
        made.append(decision)
    return made


def directive(rules: Sequence[Rule], failure: BaseException) -> Directive:
    return decisions(rules, [0.0], failure)[0].directive


def caused(failure: BaseException, by: BaseException) -> BaseException:
    failure.__cause__ = by
    return failure


# -- which rule ----------------------------------------------------------------------------------------


def test_79_nested_rules_choose_by_exception_type_and_the_first_that_matches_decides() -> None:
    rules = (on(KeyError).stop(), on(ValueError).resume(), on(Exception).restart())

    assert directive(rules, ValueError()) is RESUME
    assert directive(rules, KeyError()) is STOP
    assert directive(rules, OSError()) is RESTART
    assert directive((on(Exception).restart(), on(ValueError).resume()), ValueError()) is RESTART


def test_a_rule_is_for_subclasses_too() -> None:
    assert directive((on(LookupError).stop(),), KeyError("x")) is STOP
    assert directive((on(LookupError).stop(),), SoldOutError()) is STOP
    assert directive((on(SoldOutError).stop(),), LookupError()) is ESCALATE


def test_a_rule_is_for_what_was_caused_by_its_exceptions_too() -> None:
    by_cause = (on(SoldOutError).stop(), on(Exception).resume())

    assert directive(by_cause, caused(RuntimeError(), SoldOutError())) is STOP
    assert directive(by_cause, caused(RuntimeError(), caused(OSError(), SoldOutError()))) is STOP
    beside = RuntimeError()
    beside.__context__ = SoldOutError()  # raised while that was handled, not because of it
    assert directive(by_cause, beside) is RESUME


def test_causes_that_go_round_come_to_an_end() -> None:
    failure = RuntimeError()
    caused(failure, caused(ValueError(), failure))
    long: BaseException = SoldOutError()
    for _ in range(CAUSES_MAX):
        long = caused(RuntimeError(), long)

    assert directive((on(ValueError).stop(),), failure) is STOP
    assert directive((on(SoldOutError).stop(),), failure) is ESCALATE
    assert directive((on(SoldOutError).stop(),), long) is ESCALATE, "beyond the bound"


def test_a_rule_by_name_is_the_rule_by_class() -> None:
    assert name_of(ValueError) == "ValueError"
    assert on(SoldOutError).stop() == on(name_of(SoldOutError)).stop() == on(f"{__name__}:SoldOutError").stop()
    assert directive((on("SoldOutError").stop(),), SoldOutError()) is STOP, "without its module: any class of that name"
    assert directive((on("LookupError").stop(),), SoldOutError()) is STOP, "by what it derives from as well"
    assert directive((on("other.SoldOutError").stop(),), SoldOutError()) is ESCALATE
    assert directive((on("old").stop(),), SoldOutError()) is ESCALATE


def test_where_no_rule_matches_the_next_level_decides() -> None:
    assert decisions((on(KeyError).stop(),), [0.0]) == [Decision(ESCALATE)]
    assert decisions((), [0.0]) == [Decision(ESCALATE)]


def test_by_default_what_has_a_journal_restarts_and_what_has_none_resumes() -> None:
    for kind, wanted in (("event_sourced", RESTART), ("durable", RESTART), ("transient", RESUME)):
        made = decisions(DEFAULTS[kind], [float(n) for n in range(1_000)], SystemExit())
        assert {one.directive for one in made} == {wanted}, "without a limit, whatever is raised"
        assert max(one.after_s for one in made) <= 30.0


def test_by_default_a_shard_restarts_three_times_a_minute_and_then_only_the_entity_concerned_does() -> None:
    made = decisions(SHARD_DEFAULTS, [0.0, 1.0, 2.0, 3.0, 70.0])

    assert [one.directive for one in made] == [RESTART, RESTART, RESTART, RESUME, RESTART]
    assert all(one.after_s == 0.0 for one in made)


# -- limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [on(Exception).resume(at_most=3), on(Exception).restart(at_most=3)])
def test_79_beyond_its_limit_a_rule_gives_way_to_stop(rule: Rule) -> None:
    made = [one.directive for one in decisions((rule,), [0.0, 1.0, 2.0, 3.0, 4.0])]

    assert made == [rule.directive] * 3 + [STOP, STOP]


def test_beyond_its_limit_a_rule_gives_way_to_what_it_says() -> None:
    rule = on(Exception).resume(at_most=1, then=RESTART)

    made = decisions((rule,), [0.0, 0.1])

    assert made == [Decision(RESUME, count=1), Decision(RESTART, 0.01, count=2)]


def test_79_a_limit_of_none_at_all_stops_at_the_first_failure() -> None:
    assert decisions((on(Exception).restart(at_most=0),), [5.0]) == [Decision(STOP)]


def test_79_the_count_begins_anew_when_the_window_is_over() -> None:
    rule = on(Exception).resume(at_most=1, within_s=5.0)

    made = [one.directive for one in decisions((rule,), [0.0, 5.1, 10.2, 12.0])]

    assert made == [RESUME, RESUME, RESUME, STOP]


def test_each_rule_counts_its_own_uses() -> None:
    rules = (on(KeyError).resume(at_most=1), on(ValueError).resume(at_most=1))
    history: History = {}
    made = []
    for failure in (KeyError(), ValueError(), ValueError(), KeyError()):
        decision, history = decide(rules, kinds_of(failure), history, 0.0, NO_JITTER)
        made.append(decision.directive)

    assert made == [RESUME, RESUME, STOP, STOP]


def test_what_is_remembered_of_uses_is_bounded() -> None:
    history: History = {}
    for now_s in range(5_000):
        _, history = decide((on(Exception).resume(at_most=3, within_s=1e6),), ("Exception",), history, now_s, NO_JITTER)

    assert len(history[0].at_s) == 4


# -- pauses --------------------------------------------------------------------------------------------


def test_79_the_pause_doubles_with_each_failure_up_to_its_maximum_and_stays_there() -> None:
    at_s = [0.0]
    for pause in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
        at_s.append(at_s[-1] + pause)  # it fails as soon as it is back

    made = decisions((on(Exception).restart(Backoff(min_s=0.1, max_s=1.0)),), at_s)

    assert [one.after_s for one in made] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]


def test_what_fails_twice_in_a_row_is_failing_until_it_has_been_well_for_a_while_whichever_rule_that_was() -> None:
    rules = (on(KeyError).restart(Backoff(min_s=1, jitter=0, reset_s=60)), on(Exception).restart())
    history: History = {}
    seen = []
    for now_s, failure in ((0.0, KeyError()), (10.0, ValueError()), (20.0, KeyError()), (81.9, None), (82.1, None)):
        if failure is not None:
            _, history = decide(rules, kinds_of(failure), history, now_s, NO_JITTER)
        seen.append(is_failing(rules, history, now_s))

    assert seen == [False, False, True, True, False], "the second pause is over after 22 s"


def test_the_very_first_pause_may_be_another() -> None:
    backoff = Backoff(first_s=0, min_s=1, max_s=3)

    assert [backoff.pause_s(streak) for streak in (1, 2, 3, 4)] == [0, 1, 2, 3]


def test_79_pauses_begin_with_the_first_again_after_a_time_without_failures() -> None:
    rule = on(Exception).restart(Backoff(min_s=1.0, max_s=9.0))

    made = decisions((rule,), [0.0, 1.0, 3.0 + 4.9, 11.9 + 5.1])

    assert [one.after_s for one in made] == [1.0, 2.0, 4.0, 1.0], "half of the first and the longest pause"


def test_how_long_it_has_to_be_well_can_be_said() -> None:
    rule = on(Exception).restart(Backoff(min_s=1.0, max_s=9.0, reset_s=0.5))

    assert [one.after_s for one in decisions((rule,), [0.0, 1.4, 3.9])] == [1.0, 2.0, 1.0]


def test_a_thousand_failures_neither_overflow_nor_exceed_the_maximum() -> None:
    rule = on(Exception).restart(Backoff(min_s=0.01, max_s=30.0, factor=1000, reset_s=1e6))

    assert decisions((rule,), [float(n) for n in range(1_000)])[-1].after_s == 30.0


def test_without_a_first_pause_it_restarts_at_once_however_often() -> None:
    rule = on(Exception).restart(Backoff(min_s=0, reset_s=1e6))

    assert {one.after_s for one in decisions((rule,), [float(n) for n in range(2_000)])} == {0.0}


def test_the_jitter_takes_away_at_most_its_share() -> None:
    rng = random.Random(7)
    rule = on(Exception).restart(Backoff(min_s=1.0, jitter=0.2))

    pauses = [decide((rule,), ("Exception",), {}, 0.0, rng)[0].after_s for _ in range(1_000)]

    assert 0.8 <= min(pauses) < 0.85
    assert 0.95 < max(pauses) <= 1.0


def test_a_history_goes_on_in_another_process_whose_clock_is_another() -> None:
    rules = (on(Exception).restart(Backoff(min_s=1.0, max_s=9.0), at_most=5),)
    history: History = {}
    for now_s in (100.0, 101.0, 103.0):
        _, history = decide(rules, ("Exception",), history, now_s, NO_JITTER)

    there = dated(aged(history, 104.0), 7.0)

    assert decide(rules, ("Exception",), there, 8.0, NO_JITTER)[0] == Decision(RESTART, 8.0, count=4)


# -- as data -------------------------------------------------------------------------------------------

_seconds = st.floats(0, 1e6)
_backoffs = st.builds(
    lambda a, b, factor, jitter, reset: Backoff(min_s=min(a, b), max_s=max(a, b), factor=factor, jitter=jitter, reset_s=reset),
    _seconds, _seconds, st.floats(1, 1000), st.floats(0, 1), st.none() | _seconds,
)  # fmt: skip
_names = st.sampled_from(
    [ValueError, SoldOutError, "LookupError", "shop.errors.SoldOut", Exception, KeyError, "OSError"]
)
_rules = st.lists(
    st.builds(
        Rule,
        exceptions=st.lists(_names, min_size=1, max_size=3),
        directive=st.sampled_from(Directive),
        backoff=_backoffs,
        at_most=st.none() | st.integers(0, 3),
        within_s=st.floats(0.1, 1e6),
        then=st.sampled_from(Directive),
    ),
    max_size=4,
).map(tuple)
_failures = st.sampled_from(
    [ValueError(), SoldOutError(), KeyError(), OSError(), caused(RuntimeError(), SoldOutError()), SystemExit()]
)


@given(_rules, _rules, st.lists(st.tuples(_failures, st.floats(0, 100)), max_size=12), st.integers())
def test_rules_in_yaml_and_in_code_give_the_same_decisions(
    entity: Rules, shard: Rules, failures: list[tuple[BaseException, float]], seed: int
) -> None:
    declared = Supervision(entities={"till": entity}, shard=shard)

    read = Supervision.model_validate(yaml.safe_load(yaml.safe_dump(declared.model_dump(mode="json"))))

    assert read == declared
    for rules, again in ((declared.entities["till"], read.entities["till"]), (declared.shard_rules, read.shard_rules)):
        histories: list[History] = [{}, {}]
        rngs = [random.Random(seed), random.Random(seed)]
        now_s = 0.0
        for failure, after_s in failures:
            now_s += after_s
            made = []
            for n, them in enumerate((rules, again)):
                decision, histories[n] = decide(them, kinds_of(failure), histories[n], now_s, rngs[n])
                made.append(decision)
            assert made[0] == made[1]


def test_yaml_as_people_write_it() -> None:
    text = """
    entities:
      till:
        - exceptions: ValueError
          directive: resume
        - exceptions: [OSError, "shop.errors:SoldOut"]
          directive: restart
          backoff: {min_s: 0.5, max_s: 10}
          at_most: 5
          within_s: 60
          then: stop
    shard:
      - directive: restart
        at_most: 1
    """

    assert Supervision.model_validate(yaml.safe_load(text)) == Supervision(
        entities={
            "till": (
                on(ValueError).resume(),
                on(OSError, "shop.errors.SoldOut").restart(Backoff(min_s=0.5, max_s=10), at_most=5),
            )
        },
        shard=(on(Exception).restart(at_most=1),),
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"exceptions": [], "directive": "stop"}, "at least 1"),
        ({"exceptions": "no name", "directive": "stop"}, "no exception class and no name of one"),
        ({"exceptions": 7, "directive": "stop"}, "no exception class and no name of one"),
        ({"exceptions": int, "directive": "stop"}, "no exception class and no name of one"),
        ({"exceptions": "Rejected", "directive": "stop"}, "is an answer and never a failure"),
        ({"exceptions": Rejected, "directive": "stop"}, "is an answer and never a failure"),
        ({"directive": "explode"}, "'resume', 'restart', 'stop' or 'escalate'"),
        ({"directiv": "stop"}, "Extra inputs"),
        ({"at_most": -1}, "greater than or equal to 0"),
        ({"within_s": 0}, "greater than 0"),
        ({"backoff": {"min_s": 2, "max_s": 1}}, "must not be above max_s"),
        ({"backoff": {"min_s": float("nan")}}, "finite"),
        ({"backoff": {"factor": 0.5}}, "greater than or equal to 1"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_what_is_wrong(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Rule.model_validate(wrong)


def test_a_rule_for_a_subclass_of_rejected_is_refused_where_it_is_written() -> None:
    class SoldOut(Rejected):
        pass

    with pytest.raises(ValueError, match="SoldOut is an answer"):
        on(ValueError, SoldOut).stop()


def test_options_take_rules_and_nothing_that_only_looks_like_some() -> None:
    with pytest.raises(ValueError, match="tuple of rules"):
        EntityOptions(supervision=(on(ValueError),))  # type: ignore[arg-type]  # the rule was not finished
    with pytest.raises(ValueError, match="tuple of rules"):
        EntityOptions(supervision=on(ValueError).stop())  # type: ignore[arg-type]


def test_rules_for_a_type_that_the_app_does_not_have_are_refused() -> None:
    with pytest.raises(ContractError, match="names 'tills'; the app has till"):
        App("things", entities=[Till], supervision=Supervision(entities={"tills": (on(ValueError).stop(),)}))
