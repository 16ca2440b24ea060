"""What becomes of an entity after a failure: decided by declared rules, as a pure function."""

import random

import pytest

from remora.supervision import DEFAULT_RULES, Decision, Directive, Rule, decide


class Least:
    """A source of jitter that draws the least."""

    def random(self) -> float:
        return 0.0


NO_JITTER: random.Random = Least()  # type: ignore[assignment]  # only random() is used
FAILURE = ValueError("no")


def test_the_first_rule_that_matches_decides() -> None:
    rules = (Rule(on=(KeyError,), directive=Directive.STOP), Rule(on=(ValueError,), directive=Directive.RESUME), Rule())

    assert decide(rules, FAILURE, [0.0], 0.0, NO_JITTER) == Decision(Directive.RESUME)


def test_a_rule_matches_subclasses() -> None:
    rules = (Rule(on=(LookupError,), directive=Directive.STOP),)

    assert decide(rules, KeyError("x"), [0.0], 0.0, NO_JITTER) == Decision(Directive.STOP)


def test_without_a_rule_that_matches_the_entity_restarts_at_once() -> None:
    rules = (Rule(on=(KeyError,), directive=Directive.STOP),)

    assert decide(rules, FAILURE, [0.0], 0.0, NO_JITTER) == Decision(Directive.RESTART, 0.0)


def test_the_pause_doubles_with_each_failure_up_to_its_maximum() -> None:
    rule = Rule(backoff_min_s=0.1, backoff_max_s=1.0)

    pauses = [decide((rule,), FAILURE, [0.0] * count, 0.0, NO_JITTER).after_s for count in range(1, 7)]

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_failures_before_the_window_do_not_count() -> None:
    rule = Rule(backoff_min_s=0.1, window_s=10.0)

    assert decide((rule,), FAILURE, [0.0, 1.0, 95.0, 100.0], 100.0, NO_JITTER).after_s == 0.2


def test_a_hundred_failures_neither_overflow_nor_exceed_the_maximum() -> None:
    rule = Rule(backoff_min_s=0.01, backoff_max_s=30.0, factor=1e6)

    assert decide((rule,), FAILURE, [0.0] * 100, 0.0, NO_JITTER).after_s == 30.0


def test_the_jitter_takes_away_at_most_its_share() -> None:
    rng = random.Random(7)
    rule = Rule(backoff_min_s=1.0, jitter=0.2)

    pauses = [decide((rule,), FAILURE, [0.0], 0.0, rng).after_s for _ in range(1_000)]

    assert 0.8 <= min(pauses) < 0.85
    assert 0.95 < max(pauses) <= 1.0


@pytest.mark.parametrize(("failures", "directive"), [(1, Directive.RESUME), (3, Directive.RESUME), (4, Directive.STOP)])
def test_beyond_its_limit_a_rule_gives_way(failures: int, directive: Directive) -> None:
    rule = Rule(directive=Directive.RESUME, limit=3, window_s=60.0, then=Directive.STOP)

    assert decide((rule,), FAILURE, [10.0] * failures, 10.0, NO_JITTER).directive is directive


def test_the_limit_counts_within_the_window_only() -> None:
    rule = Rule(directive=Directive.RESUME, limit=1, window_s=5.0, then=Directive.ESCALATE)

    assert decide((rule,), FAILURE, [0.0, 1.0, 2.0, 100.0], 100.0, NO_JITTER).directive is Directive.RESUME


def test_by_default_entities_restart_after_a_short_pause_without_limit() -> None:
    decision = decide(DEFAULT_RULES, FAILURE, [0.0] * 1_000, 0.0, NO_JITTER)

    assert decision.directive is Directive.RESTART
    assert 0 < decision.after_s <= 30.0
