"""Plans are values: the seed that a run prints draws the same again."""

import itertools
from collections import Counter

from tests.chaos.plan import CALM_S, GAP_S, LASTS_S, SHORT, Fault, draw, short


def test_a_seed_draws_the_same_plan_again_and_another_seed_another() -> None:
    assert draw(7, 600) == draw(7, 600)
    assert draw(7, 600) != draw(8, 600)
    assert short(7, 80) == short(7, 80) != short(8, 80)


def test_in_a_long_plan_every_fault_comes_about_as_often_as_the_others() -> None:
    counts = Counter(step.fault for step in draw(1, 1200))

    assert set(counts) == set(Fault)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_faults_come_in_order_and_leave_time_to_recover_at_the_end() -> None:
    for seed in range(50):
        plan = draw(seed, 300)
        times = [step.at_s for step in plan]

        assert times == sorted(times)
        assert all(0 < step.at_s < 300 - CALM_S for step in plan)
        assert max(late - early for early, late in itertools.pairwise(times)) <= GAP_S[1] + 0.1
        assert all((step.lasts_s > 0) == (step.fault in LASTS_S) for step in plan)


def test_a_plan_of_chosen_faults_holds_only_those() -> None:
    chosen = (Fault.HOST_KILL, Fault.STORE_CUT)

    assert {step.fault for step in draw(3, 200, chosen)} == set(chosen)


def test_a_short_plan_holds_each_of_its_faults_once() -> None:
    assert [step.fault for step in short(3, 80)] == list(SHORT)
