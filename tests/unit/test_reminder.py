"""When a periodic reminder rings, and when next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remora.reminder import CODES, Misfire, next_due_ms, rings

POLICIES = st.sampled_from(list(Misfire))
TIMES = st.integers(0, 10**15)
PERIODS = st.integers(1_000, 10**12)


@given(due=TIMES, every=PERIODS, policy=POLICIES, late=st.integers(-1_000, 10**13))
def test_the_next_time_is_a_whole_number_of_periods_later_and_not_past_unless_every_ring_is_to_come(
    due: int, every: int, policy: Misfire, late: int
) -> None:
    now = due + late
    following = next_due_ms(due, every, policy, now)

    assert following > due
    assert (following - due) % every == 0
    if policy is Misfire.EACH or late < 0:
        assert following == due + every
    else:
        assert now < following <= now + every


@pytest.mark.parametrize(("late", "rung"), [(0, True), (999, True), (1_000, False), (5_000, False)])
def test_skipping_lets_go_of_a_ring_that_is_a_whole_period_late(late: int, rung: bool) -> None:  # noqa: FBT001 - a parameter of the table
    assert rings(0, 1_000, Misfire.SKIP, late) is rung
    assert rings(0, 1_000, Misfire.COALESCE, late)
    assert rings(0, 1_000, Misfire.EACH, late)


def test_a_one_shot_always_rings() -> None:
    assert all(rings(0, 0, policy, 10**15) for policy in Misfire)


def test_the_numbers_of_policies_in_stores_do_not_change() -> None:
    assert CODES == (Misfire.COALESCE, Misfire.SKIP, Misfire.EACH)
