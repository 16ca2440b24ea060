"""Which hosts are there: what a registry sees, suspects and decides, as values."""

from hypothesis import given
from hypothesis import strategies as st

from remora.sharding import membership
from remora.sharding.membership import HostState, Watch
from remora.sharding.table import HostRow, Table

TTL_S = 2.0
STEP_S = 0.25
HOSTS = (1, 2)
TABLE = Table(1, {number: HostRow(number, f"host-{number}") for number in HOSTS}, {})


def look(watch: Watch, now_s: float, **renewed: float) -> Watch:
    leases = {int(name[1:]): value for name, value in renewed.items()}
    return membership.looked(watch, HOSTS, leases, now_s, TTL_S)


def test_a_host_whose_lease_is_not_renewed_for_its_time_is_given_up() -> None:
    watch, now_s = Watch(), 100.0
    over: list[int] = []
    while not over:
        watch = look(watch, now_s, h1=1.0, h2=now_s)
        over = membership.over(watch, TTL_S)
        now_s += STEP_S

    assert over == [1]
    assert now_s - STEP_S == 102.25, "the first look beyond two seconds"


def test_a_lease_is_looked_at_in_the_moment_of_its_end_and_not_a_period_later() -> None:
    watch = look(look(Watch(), 100.0, h1=1.0, h2=100.0), 100.2, h1=1.0, h2=100.2)

    assert membership.pause_s(watch, STEP_S, 100.2, TTL_S) == STEP_S, "no lease is near its end"
    assert membership.pause_s(Watch(), STEP_S, 100.2, TTL_S) == STEP_S
    at_s = 101.9 + membership.pause_s(watch, STEP_S, 101.9, TTL_S)
    assert 102.0 < at_s < 102.01
    assert membership.pause_s(watch, STEP_S, 102.0, TTL_S) == membership.BEYOND_S

    for now_s in (100.9, 101.7, at_s):
        assert membership.over(watch, TTL_S) == []
        watch = look(watch, now_s, h1=1.0, h2=now_s)
    assert membership.over(watch, TTL_S) == [1]
    assert membership.pause_s(watch, STEP_S, at_s, TTL_S) == STEP_S, "that is known: nobody looks more often for it"


def test_a_host_that_never_renewed_is_given_its_time_too() -> None:
    watch = Watch()
    for step in range(9):
        watch = look(watch, step * STEP_S)
        assert membership.over(watch, TTL_S) == []

    assert membership.over(look(watch, 9 * STEP_S), TTL_S) == [1, 2]


def test_leases_are_never_judged_across_a_gap_in_the_registrys_own_view() -> None:
    watch = look(Watch(), 0.0, h1=1.0, h2=1.0)

    watch = look(watch, 60.0, h1=1.0, h2=1.0)

    assert membership.over(watch, TTL_S) == []
    for step in range(1, 10):
        watch = look(watch, 60.0 + step * STEP_S, h1=1.0, h2=float(step))
    assert membership.over(watch, TTL_S) == [1], "its time counts from the end of the gap"


def test_50_a_renewal_is_any_change_since_clocks_of_other_machines_say_nothing_here() -> None:
    watch = look(Watch(), 0.0, h1=1e9, h2=1e9)
    for step in range(1, 20):
        watch = look(watch, step * STEP_S, h1=1e9 - step, h2=1e9 - step)

    assert membership.over(watch, TTL_S) == []


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.booleans()), max_size=60))
def test_nobody_is_given_up_within_a_lease_of_a_renewal_whatever_the_looks(steps: list[tuple[float, bool]]) -> None:
    watch, now_s, value, renewed_s = Watch(), 0.0, 0.0, 0.0
    for pause_s, renews in steps:
        now_s += pause_s
        if renews:
            value, renewed_s = value + 1.0, now_s
        watch = look(watch, now_s, h1=value, h2=now_s)

        if 1 in membership.over(watch, TTL_S):
            assert now_s - renewed_s > TTL_S


# -- suspicion ---------------------------------------------------------------------------------------


def test_a_suspected_host_is_up_again_when_it_renews_and_nobody_reports_it_any_more() -> None:
    watch = look(Watch(), 0.0, h1=1.0, h2=1.0)
    watch = membership.suspected(watch, 1, "no answer", 0.1)
    assert membership.state_of(TABLE, watch, 1) is HostState.SUSPECT
    assert membership.state_of(TABLE, watch, 2) is HostState.UP

    watch = look(watch, 0.5, h1=2.0, h2=2.0)
    assert membership.state_of(TABLE, watch, 1) is HostState.SUSPECT, "who reported it cannot reach it all the same"
    for step in range(1, 10):
        watch = look(watch, 0.5 + step * STEP_S, h1=2.0 + step, h2=2.0 + step)

    assert membership.state_of(TABLE, watch, 1) is HostState.UP


def test_49_suspicion_alone_gives_nobody_up() -> None:
    watch = look(Watch(), 0.0, h1=1.0, h2=1.0)
    for step in range(100):
        watch = membership.suspected(watch, 1, "no answer", step * STEP_S)
        watch = look(watch, step * STEP_S, h1=2.0 + step, h2=2.0 + step)

        assert membership.over(watch, TTL_S) == []


def test_a_host_that_nobody_reaches_for_long_although_it_renews_is_to_be_fenced_once() -> None:
    watch = look(Watch(), 0.0, h1=1.0, h2=1.0)
    for step in range(50):
        watch = membership.suspected(watch, 1, "no answer", step * STEP_S)
        watch = look(watch, step * STEP_S, h1=2.0 + step, h2=2.0 + step)
    assert membership.unreachable(watch, unreachable_s=30.0) == []
    assert membership.unreachable(watch, unreachable_s=10.0) == [1]

    watch = membership.held(watch, [1])

    assert membership.unreachable(watch, unreachable_s=10.0) == []
    assert watch.held == {1}


def test_what_is_known_of_a_host_is_forgotten_with_it() -> None:
    watch = membership.held(membership.suspected(look(Watch(), 0.0, h1=1.0, h2=1.0), 1, "no answer", 0.0), [1])

    watch = membership.looked(watch, [2], {2: 2.0}, STEP_S, TTL_S)

    assert (set(watch.sights), set(watch.suspicions), watch.held) == ({2}, set(), frozenset())
    assert membership.state_of(Table(2, {2: TABLE.hosts[2]}, {}), watch, 1) is HostState.GONE


def test_a_host_that_is_being_emptied_is_draining() -> None:
    table = Table(1, TABLE.hosts, {}, frozenset({2}))

    assert membership.state_of(table, Watch(), 2) is HostState.DRAINING


def test_what_a_fenced_host_writes_renews_nothing_any_more_but_its_last_renewal_before_counts() -> None:
    watch = membership.held(look(Watch(), 0.0, h1=1.0, h2=1.0), [1])

    watch = membership.last_renewed(watch, [1], {1: 2.0, 2: 1.0}, 0.2)
    for step in range(1, 10):
        leases = {1: 2.0 + step, 2: float(step)}
        watch = membership.looked(watch, HOSTS, leases, step * STEP_S, TTL_S, fenced={1})
        assert (membership.over(watch, TTL_S) == [1]) == (step * STEP_S > 0.2 + TTL_S)

    assert membership.over(watch, TTL_S) == [1]
    assert membership.last_renewed(watch, [1, 9], {1: 2.0}, 9.0).sights == watch.sights, "seen already, or of nobody"


def test_whoever_goes_on_under_another_incarnation_is_not_waited_for_under_the_former() -> None:
    watch = membership.held(look(Watch(), 0.0, h1=1.0, h2=1.0), [1, 2])

    assert membership.let_go(watch, [1]).held == {2}
