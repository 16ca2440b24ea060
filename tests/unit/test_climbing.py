"""Which level decides about a host that failed: from the host up, until one does; whom its decision concerns."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from remora import Backoff, Directive, Supervision, on
from remora.supervision.climbing import Histories, Verdict, climb, concerned
from remora.supervision.levels import HOST_DIED, Level, Strategy
from remora.supervision.rules import Rule

UP = on(HOST_DIED, BaseException).escalate()
DIED = (HOST_DIED,)


def judged(supervision: Supervision, times: int = 1, *, every_s: float = 0.0, group: str = "shared") -> list[Verdict]:
    """Return the verdicts about one host that fails again and again."""
    histories: Histories = {}
    found = []
    for n in range(times):
        verdict, histories = climb(supervision, "host-1", group, DIED, histories, n * every_s, random.Random(7))
        found.append(verdict)
    return found


def test_where_nothing_is_declared_a_host_is_started_again_without_end_and_nobody_above_is_asked() -> None:
    assert {(one.level, one.directive) for one in judged(Supervision(), 500)} == {("host", Directive.RESTART)}


def test_what_a_host_escalates_its_group_decides_three_times_then_the_app_stops() -> None:
    found = judged(Supervision(host=(UP,)), 4)
    assert [(one.level, one.directive.value) for one in found] == [("group", "restart")] * 3 + [("app", "stop")]


def test_in_its_window_a_limit_of_the_group_is_not_reached_by_failures_that_are_rare() -> None:
    found = judged(Supervision(host=(UP,)), 20, every_s=60.0)
    assert {one.level for one in found} == {"group"}


def test_a_group_decides_by_its_own_rules_and_strategy() -> None:
    rules = (on(HOST_DIED).restart(Backoff(min_s=2, jitter=0), at_most=1, then=Directive.STOP),)
    supervision = Supervision(host=(UP,), groups={"gpu": Level(rules=rules, strategy=Strategy.ALL_FOR_ONE)})
    found = judged(supervision, 2, group="gpu")
    assert found == [
        Verdict("group", Directive.RESTART, 2.0, Strategy.ALL_FOR_ONE),
        Verdict("group", Directive.STOP, 0.0, Strategy.ALL_FOR_ONE),
    ]
    assert judged(supervision)[0].strategy is Strategy.ONE_FOR_ONE, "another group"


def test_the_app_decides_what_groups_escalate_and_is_the_last_that_can() -> None:
    groups = {"shared": Level(rules=(UP,))}
    app = Level(rules=(on(HOST_DIED).restart(at_most=1, then=Directive.ESCALATE),), strategy=Strategy.REST_FOR_ONE)
    found = judged(Supervision(host=(UP,), groups=groups, app=app), 2)
    assert [(one.level, one.directive.value) for one in found] == [("app", "restart"), ("app", "stop")]
    assert found[0].strategy is Strategy.REST_FOR_ONE


def test_groups_count_for_themselves() -> None:
    supervision = Supervision(host=(UP,))
    histories: Histories = {}
    levels = []
    for n in range(6):
        group = ("gpu", "shared")[n % 2]
        verdict, histories = climb(supervision, f"{group}-1", group, DIED, histories, 0.0, random.Random(7))
        levels.append(verdict.level)
    assert levels == ["group"] * 6


@pytest.mark.parametrize("rule", [on(HOST_DIED).resume(), on(HOST_DIED).restart(then=Directive.RESUME)])
@pytest.mark.parametrize("place", [{"host": ...}, {"groups": {"shared": {"rules": ...}}}, {"app": {"rules": ...}}])
def test_rules_for_hosts_groups_and_apps_that_nothing_could_carry_out_are_refused_when_they_are_defined(
    rule: Rule, place: dict[str, Any]
) -> None:
    def filled(value: Any) -> Any:  # noqa: ANN401 - a place, or what is in one
        return {key: filled(one) for key, one in value.items()} if isinstance(value, dict) else (rule,)

    with pytest.raises(ValidationError, match="no state to resume with"):
        Supervision.model_validate(filled(place))


@given(st.sampled_from(Strategy), st.lists(st.text(min_size=1), min_size=1, unique=True), st.data())
def test_one_is_alone_all_are_all_and_the_rest_are_those_behind(
    strategy: Strategy, siblings: list[str], data: st.DataObject
) -> None:
    failed = data.draw(st.sampled_from(siblings))
    found = concerned(strategy, failed, siblings)
    expected = {
        Strategy.ONE_FOR_ONE: [failed],
        Strategy.ALL_FOR_ONE: siblings,
        Strategy.REST_FOR_ONE: siblings[siblings.index(failed) :],
    }
    assert found == expected[strategy]


def test_levels_say_the_same_as_data() -> None:
    supervision = Supervision(
        host=(UP,), groups={"gpu": Level(rules=(UP,), strategy=Strategy.ALL_FOR_ONE)}, app=Level(rules=(UP,))
    )
    assert Supervision.model_validate(supervision.model_dump(mode="json")) == supervision
