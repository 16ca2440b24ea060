"""Which host owns which entity: pure decisions, from table and event to plan."""

import dataclasses
import random
import statistics
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remora.settings import Settings
from remora.sharding import registry as decisions
from remora.sharding.allocation import External, LeastShards, Move, Pinned, View, matches, moves_allowed
from remora.sharding.hashing import entity_key, group_of, shard_of
from remora.sharding.registry import Layout, Plan
from remora.sharding.table import HostRow, ShardRow, Table, decode_table, encode_table

SHARDS = 12
LAYOUT = Layout(SHARDS)


def host(number: int, name: str = "", dedicated: str = "") -> HostRow:
    return HostRow(number, name or f"host-{number}", dedicated=dedicated)


def up(*numbers: int) -> Table:
    """Return the table after those hosts joined together."""
    return decisions.joined(Table(), [host(number) for number in numbers], LAYOUT).table


def view(owned: Mapping[int, Sequence[str]], **more: Any) -> View:  # noqa: ANN401 - the view's other fields
    """Return what an allocation sees of hosts that are alike."""
    return View({number: host(number) for number in owned}, owned, **more)


def allocate(shards: Sequence[str], load: Mapping[int, int]) -> dict[str, int]:
    owned = {number: [f"{number}.{n}" for n in range(count)] for number, count in load.items()}
    return LeastShards().place(shards, view(owned))


def rebalance(owned: Mapping[int, Sequence[str]], moves_max: int) -> dict[str, Move]:
    return LeastShards().moves(view(owned), moves_max)


def owners(table: Table) -> dict[int, int]:
    return {number: len(table.owned_by(number)) for number in table.hosts}


def refreshed(table: Table, stored: Table, targets: dict[str, int] | None = None) -> Plan:
    return decisions.settled(decisions.known(table, stored), LAYOUT, targets)


def release(table: Table, names: Sequence[str]) -> Table:
    """Return what the store holds after the owners of those shards released them."""
    given_up = {name: ShardRow(0, table.shards[name].epoch) for name in names}
    return Table(table.version, table.hosts, {**table.shards, **given_up})


def check_is_written(before: Table, plan: Plan) -> None:
    """What a plan says is exactly what it writes; nobody loses a shard without a fence or a release."""
    assert plan.table.version == before.version + 1
    assert plan.table.shards == {**before.shards, **plan.assign}
    for name, row in plan.assign.items():
        old = before.shards.get(name, ShardRow(0, 0))
        assert old.owner in {0, *plan.fence}, f"{name} was taken from {old.owner}, which stands"
        assert row.epoch == old.epoch + (1 if row.owner else 0)


# -- entity → shard ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "shards", "shard"),
    [
        ("123456789", 2**32, "3421780262"),  # the check value of CRC-32/ISO-HDLC
        ("account/alice", 256, "247"),
        ("account/bob", 256, "130"),
        ("aircraft/N14228", 256, "50"),
        ("airport/JFK", 256, "65"),
        ("konto/ärger", 256, "227"),
        ("a/😀", 256, "209"),
        ("account/alice", 7, "3"),
        ("account/alice", 1, "0"),
    ],
)
def test_the_hash_of_a_key_never_changes_because_every_store_depends_on_it(key: str, shards: int, shard: str) -> None:
    assert shard_of(key, shards) == shard


def test_a_key_is_type_and_id() -> None:
    assert entity_key("account", "alice") == "account/alice"


@pytest.mark.parametrize("form", ["{}", "user-{}", "N{:05d}", "2013-01-{:03d}", "{:x}"])
def test_entities_spread_evenly_over_shards(form: str) -> None:
    counts = dict.fromkeys(map(str, range(256)), 0)
    for number in range(51_200):
        counts[shard_of(entity_key("account", form.format(number)), 256)] += 1

    # 200 on average; a fair draw spreads by its root, and never leaves six of those.
    assert min(counts.values()) > 200 - 6 * 200**0.5
    assert max(counts.values()) < 200 + 6 * 200**0.5
    assert statistics.pstdev(counts.values()) < 2 * 200**0.5


# -- allocation and rebalance ------------------------------------------------------------------------


def test_new_shards_go_to_whoever_has_fewest() -> None:
    assert allocate(["a", "b", "c"], {1: 2, 2: 0, 3: 1}) == {"a": 2, "b": 2, "c": 3}


def test_without_hosts_nothing_is_allocated() -> None:
    assert allocate(["a"], {}) == {}
    assert rebalance({}, 10) == {}


def test_even_hosts_are_left_alone() -> None:
    assert rebalance({1: ["a", "b"], 2: ["c"]}, 10) == {}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 64))
def test_a_rebalance_moves_each_shard_once_no_more_than_allowed_and_only_towards_balance(
    sizes: list[int], moves_max: int
) -> None:
    names = iter(range(1_000))
    owned = {number: [str(next(names)) for _ in range(size)] for number, size in enumerate(sizes, 1)}

    moves = rebalance(owned, moves_max)

    assert len(moves) <= moves_max
    after = {number: set(shards) for number, shards in owned.items()}
    for shard, (source, target) in moves.items():
        assert source != target
        after[source].remove(shard)
        after[target].add(shard)
    assert max(map(len, after.values())) <= max(sizes)
    assert min(map(len, after.values())) >= min(sizes)
    if len(moves) < moves_max:
        assert max(map(len, after.values())) - min(map(len, after.values())) <= 1
        # the fewest moves possible: what is above the even share has to leave, nothing else
        fewest = sum(max(0, len(owned[n]) - len(after[n])) for n in owned)
        assert len(moves) == fewest


@pytest.mark.parametrize("start", ["one_has_all", "half_are_new", "one_is_new"])
def test_23_a_hundred_hosts_and_a_thousand_shards_are_in_balance_after_two_rounds(start: str) -> None:
    names = [str(number) for number in range(1_000)]
    if start == "one_has_all":
        owned = {1: names} | {number: [] for number in range(2, 101)}
    elif start == "half_are_new":
        owned = {n: names[(n - 1) * 20 : n * 20] if n <= 50 else [] for n in range(1, 101)}
    else:
        owned = {n: names[n - 1 :: 99] if n <= 99 else [] for n in range(1, 101)}

    for _ in range(2):
        for shard, (source, target) in rebalance(owned, 1_000).items():
            owned[source].remove(shard)
            owned[target].append(shard)

    assert {len(shards) for shards in owned.values()} == {10}
    assert rebalance(owned, 1_000) == {}


# -- hosts come --------------------------------------------------------------------------------------


def test_hosts_that_join_together_share_evenly() -> None:
    plan = decisions.joined(Table(), [host(1), host(2), host(3)], LAYOUT)

    check_is_written(Table(), plan)
    assert owners(plan.table) == {1: 4, 2: 4, 3: 4}
    assert {row.epoch for row in plan.table.shards.values()} == {1}
    assert plan.fence == ()


def test_a_host_that_joins_later_gets_nothing_that_another_owns() -> None:
    before = up(1, 2)

    plan = decisions.joined(before, [host(3)], LAYOUT)

    check_is_written(before, plan)
    assert owners(plan.table) == {1: 6, 2: 6, 3: 0}
    assert plan.assign == {}


def test_54_a_host_that_comes_back_under_its_name_fences_its_former_self_whose_shards_are_shared_out() -> None:
    before = up(1, 2)

    plan = decisions.joined(before, [host(3, "host-1")], LAYOUT)

    check_is_written(before, plan)
    assert plan.fence == (1,)
    assert sorted(plan.table.hosts) == [2, 3]
    assert owners(plan.table) == {2: 6, 3: 6}
    assert {plan.table.shards[name].epoch for name in before.owned_by(1)} == {2}


def test_the_first_host_after_a_time_without_any_gets_everything() -> None:
    empty = decisions.gone(up(1), [1], LAYOUT).table
    assert {row.owner for row in empty.shards.values()} == {0}

    plan = decisions.joined(empty, [host(2)], LAYOUT)

    check_is_written(empty, plan)
    assert owners(plan.table) == {2: SHARDS}
    assert {row.epoch for row in plan.table.shards.values()} == {2}


# -- hosts go ----------------------------------------------------------------------------------------


def test_the_shards_of_a_host_that_is_gone_go_to_survivors_at_once_and_it_is_fenced() -> None:
    before = up(1, 2, 3)

    plan = decisions.gone(before, [2], LAYOUT)

    check_is_written(before, plan)
    assert plan.fence == (2,)
    assert owners(plan.table) == {1: 6, 3: 6}
    assert set(plan.assign) == set(before.owned_by(2)), "nobody else's shards move"


def test_several_hosts_may_be_gone_at_once() -> None:
    before = up(1, 2, 3)

    plan = decisions.gone(before, [1, 3, 99], LAYOUT)

    check_is_written(before, plan)
    assert plan.fence == (1, 3)
    assert owners(plan.table) == {2: SHARDS}


def test_a_host_that_nobody_knows_is_no_reason_to_do_anything() -> None:
    before = up(1, 2)

    plan = decisions.gone(before, [7], LAYOUT)

    assert (plan.fence, plan.assign) == ((), {})


def test_every_shard_is_told_to_its_new_owner_with_its_epoch() -> None:
    before = up(1, 2, 3)
    plan = decisions.gone(before, [2], LAYOUT)

    told = decisions.news(before, plan.table)

    assert set(told) == {1, 3}
    assert {name: epoch for shards in told.values() for name, epoch in shards.items()} == {
        name: row.epoch for name, row in plan.assign.items()
    }


def test_a_host_that_was_not_told_before_is_told_also_if_the_store_held_it_already() -> None:
    empty = Table()
    written = decisions.joined(empty, [host(1), host(2)], LAYOUT).table

    plan = decisions.joined(decisions.known(empty, written), [host(1), host(2)], LAYOUT)

    assert plan.assign == {}
    assert {number: len(shards) for number, shards in decisions.news(empty, plan.table).items()} == {1: 6, 2: 6}


# -- hand-off ----------------------------------------------------------------------------------------


def test_released_shards_go_where_the_rebalance_wanted_them_with_the_next_epoch() -> None:
    before = up(1, 2, 3)
    mine = before.owned_by(1)[:2]

    plan = refreshed(before, release(before, mine), {mine[0]: 3, mine[1]: 2})

    assert plan.assign == {mine[0]: ShardRow(3, 2), mine[1]: ShardRow(2, 2)}
    assert plan.fence == ()
    assert plan.table.version == before.version + 1


def test_released_shards_whose_target_is_gone_go_to_whoever_has_fewest() -> None:
    before = up(1, 2, 3)
    (mine,) = before.owned_by(1)[:1]

    plan = refreshed(before, release(before, [mine]), {mine: 99})

    assert plan.assign == {mine: ShardRow(1, 2)}


def test_the_last_host_takes_its_own_released_shards_anew() -> None:
    before = up(1)
    (mine,) = before.owned_by(1)[:1]

    plan = refreshed(before, release(before, [mine]))

    assert plan.assign == {mine: ShardRow(1, 2)}


def test_reading_the_store_again_without_news_changes_nothing() -> None:
    before = up(1, 2, 3)

    plan = refreshed(before, before)

    assert (plan.assign, plan.fence, plan.table.hosts, plan.table.shards) == ({}, (), before.hosts, before.shards)


def test_a_host_that_went_on_under_a_new_incarnation_keeps_its_shards() -> None:
    before = up(1, 2)
    shards = {name: ShardRow(3, row.epoch + 1) if row.owner == 1 else row for name, row in before.shards.items()}
    stored = Table(before.version, {2: host(2), 3: host(3, "host-1")}, shards)

    plan = refreshed(before, stored)

    assert (plan.assign, plan.fence) == ({}, ())
    assert (plan.table.hosts, plan.table.shards) == (stored.hosts, stored.shards)


def test_a_host_that_the_store_has_and_that_has_not_reported_yet_gets_no_shards() -> None:
    before = up(1, 2)
    stored = release(Table(before.version, {**before.hosts, 3: host(3)}, before.shards), ["0"])

    plan = refreshed(before, stored)

    assert 3 not in plan.table.hosts
    assert plan.assign["0"].owner in {1, 2}


def test_a_host_that_joins_after_the_store_was_read_again_is_not_taken_for_its_former_self() -> None:
    before = up(1)
    seen = Table(before.version, {**before.hosts, 2: host(2)}, before.shards)

    plan = decisions.joined(seen, [host(2)], LAYOUT)

    assert plan.fence == ()
    assert sorted(plan.table.hosts) == [1, 2]


def test_rounds_of_moves_bring_a_new_host_its_share() -> None:
    table = decisions.joined(up(1, 2), [host(3)], LAYOUT).table

    for _ in range(4):
        for shard, (source, target) in decisions.moves(table, LAYOUT, 2).items():
            assert table.shards[shard].owner == source
            table = refreshed(table, release(table, [shard]), {shard: target}).table

    assert owners(table) == {1: 4, 2: 4, 3: 4}
    assert decisions.moves(table, LAYOUT, 2) == {}


# -- dedicated entities ------------------------------------------------------------------------------


def test_a_dedicated_entity_gets_a_shard_of_its_own_and_waits_for_its_actor() -> None:
    plan = decisions.want_dedicated(up(1), "board/network")

    assert plan.assign == {"board/network": ShardRow(0, 0)}
    assert decisions.unplaced_dedicated(plan.table) == ["board/network"]


def test_the_actor_of_a_dedicated_entity_gets_that_shard_and_no_other() -> None:
    before = decisions.want_dedicated(up(1, 2), "board/network").table

    plan = decisions.joined(before, [host(3, "entity/board/network", dedicated="board/network")], LAYOUT)

    assert plan.assign == {"board/network": ShardRow(3, 1)}
    assert owners(plan.table) == {1: 6, 2: 6, 3: 1}
    assert decisions.moves(plan.table, LAYOUT, 10) == {}, "it takes no part in the rebalance"


def test_a_dedicated_entity_without_its_actor_is_not_given_to_a_shared_host() -> None:
    table = decisions.want_dedicated(up(1, 2), "board/network").table
    table = decisions.joined(table, [host(3, "entity/board/network", dedicated="board/network")], LAYOUT).table

    plan = decisions.gone(table, [3], LAYOUT)

    assert plan.assign == {"board/network": ShardRow(0, 1)}
    assert decisions.unplaced_dedicated(plan.table) == ["board/network"]


# -- any life of a cluster ---------------------------------------------------------------------------

STEPS = st.lists(st.sampled_from(string.ascii_lowercase[:9]), min_size=1, max_size=40)


@given(STEPS)
def test_whatever_happens_every_shard_has_one_owner_that_stands_and_epochs_only_grow(steps: list[str]) -> None:
    table, number = up(1, 2), 2
    for letter in steps:
        before = table
        if letter in "abc":
            number += 1
            plan = decisions.joined(table, [host(number, f"host-{letter}")], LAYOUT)
        elif letter in "def":
            plan = decisions.gone(table, sorted(table.hosts)[: "def".index(letter)], LAYOUT)
        else:
            moves = decisions.moves(table, LAYOUT, 3)
            source = next(iter(moves.values()))[0] if moves else 0
            names = [name for name, (start, _) in moves.items() if start == source]
            if not names:
                continue
            targets = {name: moves[name][1] for name in names}
            plan = refreshed(table, release(table, names), targets)
        table = plan.table

        assert table.version == before.version + 1
        assert {row.owner for row in table.shards.values()} <= ({*table.hosts} if table.hosts else {0})
        assert set(before.hosts) - set(table.hosts) == set(plan.fence)
        for name, row in before.shards.items():
            assert table.shards[name].epoch >= row.epoch
            if table.shards[name].owner not in {row.owner, 0}:
                assert table.shards[name].epoch == row.epoch + 1


def test_a_table_travels_whole() -> None:
    table = decisions.want_dedicated(up(1, 2), "board/nétwork").table

    assert decode_table(encode_table(table)) == table


# -- weights, load, labels, places ---------------------------------------------------------------------


def test_a_host_with_twice_the_weight_gets_twice_the_shards() -> None:
    hosts = {1: HostRow(1, "host-1", weight=2.0), 2: HostRow(2, "host-2")}
    names = [str(number) for number in range(12)]

    placed = LeastShards().place(names, View(hosts, {1: [], 2: []}))

    assert Counter(placed.values()) == {1: 8, 2: 4}
    held = {number: [name for name in names if placed[name] == number] for number in hosts}
    assert LeastShards().moves(View(hosts, held), 10) == {}


def test_a_hot_shard_moves_away_from_another_hot_one_and_stays_there() -> None:
    owned = {1: ["a", "b", "c", "d"], 2: ["e", "f", "g", "h"]}
    load = {"a": 1000.0, "b": 1000.0} | dict.fromkeys("cdefgh", 10.0)

    moves = LeastShards().moves(view(owned, load=load), 10)

    hot = {shard for shard in moves if shard in "ab"}
    assert len(hot) == 1
    assert moves[hot.pop()] == Move(1, 2)
    after = {1: [s for s in owned[1] if s not in moves] + [s for s, move in moves.items() if move.target == 1]}
    after[2] = [s for s in "abcdefgh" if s not in after[1]]
    assert LeastShards().moves(view(after, load=load), 10) == {}, "the next round leaves it where it is"


def test_one_hot_shard_alone_is_not_sent_to_and_fro() -> None:
    owned = {1: ["a", "b", "c", "d"], 2: ["e", "f", "g", "h"]}
    load = {"a": 1000.0}
    for _ in range(5):
        for shard, (source, target) in LeastShards().moves(view(owned, load=load), 10).items():
            assert shard != "a", "wherever it is, that host is the busiest"
            owned[source].remove(shard)
            owned[target].append(shard)


def test_load_that_differs_by_less_than_the_tolerance_moves_nothing() -> None:
    owned = {1: ["a", "b"], 2: ["c", "d"]}

    assert LeastShards().moves(view(owned, load={"a": 110.0, "b": 100.0, "c": 95.0, "d": 95.0}), 10) == {}


def test_by_number_alone_hosts_are_evened_out_whatever_load_is_measured() -> None:
    owned = {1: [f"a{n}" for n in range(11)], 2: [f"b{n}" for n in range(9)]}
    load = {shard: 100.0 for shards in owned.values() for shard in shards}

    assert LeastShards(load_share=0.0).moves(view(owned, load=load), 10) == {"a10": Move(1, 2)}
    assert LeastShards().moves(view(owned, load=load), 10) == {}, "by load, that is within the tolerance"


@given(
    st.lists(st.lists(st.floats(0, 1e4), max_size=12), min_size=2, max_size=8),
    st.integers(1, 32),
)
def test_moves_by_load_never_make_the_busiest_host_busier_and_come_to_an_end(
    loads: list[list[float]], moves_max: int
) -> None:
    names = iter(range(1_000))
    owned: dict[int, list[str]] = {}
    load: dict[str, float] = {}
    for number, rates in enumerate(loads, 1):
        owned[number] = [str(next(names)) for _ in rates]
        load |= dict(zip(owned[number], rates, strict=True))
    before: dict[int, list[str]] = {}
    for _ in range(100):
        moves = LeastShards().moves(view(owned, load=load), moves_max)
        assert len(moves) <= moves_max
        if not moves:
            break
        before = {number: list(shards) for number, shards in owned.items()}
        for shard, (source, target) in moves.items():
            owned[source].remove(shard)
            owned[target].append(shard)
        assert owned != before
    else:
        pytest.fail("it never comes to rest")


@settings(max_examples=25)  # each of them is a hundred hosts
@given(st.integers(1, 100), st.integers(1, 1000), st.randoms(use_true_random=False))
def test_23_any_hosts_and_shards_are_in_balance_after_two_rounds(hosts: int, shards: int, draw: random.Random) -> None:
    owned: dict[int, list[str]] = {number: [] for number in range(1, hosts + 1)}
    for shard in range(shards):
        owned[draw.randint(1, hosts)].append(str(shard))
    for _ in range(2):
        for shard_name, (source, target) in rebalance(owned, 1_000).items():
            owned[source].remove(shard_name)
            owned[target].append(shard_name)

    assert max(map(len, owned.values())) - min(map(len, owned.values())) <= 1


@pytest.mark.parametrize(
    ("shards", "absolute", "relative", "allowed"),
    [(256, 64, 0.25, 64), (1000, 20, 0.1, 20), (16, 64, 0.25, 4), (2, 64, 0.1, 1)],
)
def test_23_both_limits_of_a_round_hold_and_one_shard_always_may_move(
    shards: int, absolute: int, relative: float, allowed: int
) -> None:
    assert moves_allowed(shards, absolute, relative) == allowed


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("a", True), ("b", False), ("!a", False), ("!b", True), ("in(a, b)", True), ("!in(a,b)", False), ("in(c)", False)],
)
def test_labels_are_selected_as_ray_selects_nodes(wanted: str, fits: bool) -> None:  # noqa: FBT001 - what is expected
    assert matches({"zone": "a", "x": "y"}, {"zone": wanted}) is fits
    assert matches({}, {"zone": wanted}) is wanted.startswith("!")


def zones(*names: str) -> dict[int, HostRow]:
    return {number: HostRow(number, f"host-{number}", labels={"zone": zone}) for number, zone in enumerate(names, 1)}


def test_pinned_shards_go_to_hosts_with_the_labels_and_the_others_as_the_other_strategy_has_it() -> None:
    strategy = Pinned({"0": {"zone": "b"}, "1": {"zone": "b"}, "2": {"zone": "nowhere"}})

    placed = strategy.place(["0", "1", "2", "3", "4", "5"], View(zones("a", "b"), {1: [], 2: []}))

    assert (placed["0"], placed["1"]) == (2, 2)
    assert Counter(placed.values()) == {1: 3, 2: 3}, "one that fits nowhere is served all the same"


def test_a_pinned_shard_moves_where_it_belongs_as_soon_as_there_is_such_a_host() -> None:
    strategy = Pinned({"0": {"zone": "b"}})
    hosts = zones("a", "b")

    assert strategy.moves(View(hosts, {1: ["0", "1"], 2: ["2", "3"]}), 10) == {"0": Move(1, 2)}
    assert strategy.moves(View(hosts, {1: ["1"], 2: ["0", "2", "3", "4"]}), 10) == {"4": Move(2, 1)}, (
        "then the others even out"
    )
    assert strategy.moves(View(zones("a", "a"), {1: ["0", "1"], 2: ["2", "3"]}), 10) == {}


def test_shards_go_where_somebody_outside_wants_them_and_elsewhere_while_that_is_not_there() -> None:
    hosts = {1: HostRow(1, "remora/a/host/1/x", "node-a"), 2: HostRow(2, "remora/a/host/2/y", "node-b")}
    seen = View(hosts, {1: ["0", "1"], 2: ["2", "3"]}, locations={"0": "remora/a/host/2", "2": "node-a", "3": "gone"})

    moves = External().moves(seen, 10)

    assert moves == {"0": Move(1, 2), "2": Move(2, 1)}
    assert External().place(["0"], View(hosts, {1: [], 2: []}, locations={"0": "node-b"})) == {"0": 2}
    assert External().place(["0"], View(hosts, {1: [], 2: []}, locations={"0": "gone"})) == {"0": 1}


# -- host groups -------------------------------------------------------------------------------------

GROUPS = Layout(4, ("", "gpu"))


def test_shards_of_a_host_group_have_names_of_their_own() -> None:
    assert shard_of("model/a", 4, "gpu") == f"gpu:{shard_of('model/a', 4)}"
    assert [group_of(name) for name in ("3", "gpu:3", "model/a:b", "x/gpu:3")] == ["", "gpu", "", ""]
    assert GROUPS.names() == ["0", "1", "2", "3", "gpu:0", "gpu:1", "gpu:2", "gpu:3"]


def test_shards_of_a_host_group_go_to_its_hosts_and_wait_while_it_has_none() -> None:
    plan = decisions.joined(Table(), [host(1), host(2)], GROUPS)
    assert {name for name, row in plan.table.shards.items() if row.owner} == {"0", "1", "2", "3"}

    plan = decisions.joined(plan.table, [HostRow(3, "gpu-1", group="gpu")], GROUPS)

    assert owners(plan.table) == {1: 2, 2: 2, 3: 4}
    assert plan.table.owned_by(3) == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]
    assert decisions.moves(plan.table, GROUPS, 10) == {}, "each group evens out by itself"
    lost = decisions.gone(plan.table, [3], GROUPS)
    assert {lost.table.shards[f"gpu:{number}"].owner for number in range(4)} == {0}


# -- hosts that are emptied --------------------------------------------------------------------------


def next_moves(table: Table, layout: Layout = LAYOUT, **more: Any) -> dict[str, Move]:  # noqa: ANN401 - its options
    options = {"moves_max": 64, "share_max": 1.0, "joining": False, **more}
    return decisions.next_moves(table, layout, **options)


def test_a_draining_host_is_emptied_onto_the_others_and_gets_nothing_new() -> None:
    table = decisions.draining(up(1, 2, 3), [2])
    mine = set(table.owned_by(2))

    moves = next_moves(table)

    assert moves.keys() == mine
    assert {move.source for move in moves.values()} == {2}
    assert Counter(move.target for move in moves.values()) == {1: 2, 3: 2}
    plan = refreshed(table, release(table, sorted(mine)))
    assert owners(plan.table) == {1: 6, 2: 0, 3: 6}
    assert plan.table.draining == {2}


def test_a_host_that_is_held_keeps_what_it_has_and_gets_nothing_more() -> None:
    table = up(1, 2, 3)
    held = dataclasses.replace(LAYOUT, held=frozenset({3}))

    plan = decisions.gone(table, [2], held)

    assert set(plan.table.owned_by(3)) == set(table.owned_by(3)), "the store would refuse a fenced host"
    assert set(plan.table.owned_by(1)) == {*table.owned_by(1), *table.owned_by(2)}
    assert decisions.gone(table, [1, 2], held).assign.keys() == {*table.owned_by(1), *table.owned_by(2)}
    assert {row.owner for row in decisions.gone(table, [1, 2], held).assign.values()} == {0}, "nobody else is there"


def test_no_more_shards_leave_a_draining_host_at_a_time_than_a_round_may_move() -> None:
    assert len(next_moves(decisions.draining(up(1, 2), [1]), moves_max=2)) == 2


@pytest.mark.parametrize(("shards", "together"), [(4, 1), (60, 1), (256, 2), (400, 4), (100_000, 4)])
def test_no_more_than_a_hundredth_of_all_shards_moves_together_and_never_more_than_four(
    shards: int, together: int
) -> None:
    targets = {str(n): n % 3 for n in range(9)}

    rounds = decisions.few_at_a_time(targets, shards, Settings())

    assert {len(one) for one in rounds[:-1]} == {together}
    assert [pair for one in rounds for pair in one.items()] == list(targets.items())
    assert decisions.few_at_a_time({}, shards, Settings()) == []


def test_23_nothing_is_evened_out_while_a_host_joins_or_drains_or_a_rollout_runs() -> None:
    uneven = decisions.joined(up(1, 2), [host(3)], LAYOUT).table
    assert next_moves(uneven)

    assert next_moves(uneven, joining=True) == {}
    assert next_moves(uneven, rebalance=False) == {}
    drained = next_moves(decisions.draining(uneven, [3]))
    assert drained == {}, "the one that drains has nothing, and the others stay as they are"
    rows = {**uneven.hosts, 3: HostRow(3, "host-3", release="next")}
    assert decisions.in_rollout(Table(uneven.version, rows, uneven.shards))
    assert next_moves(Table(uneven.version, rows, uneven.shards)) == {}


def test_22_in_a_rollout_shards_go_to_the_release_that_joined_last_and_each_moves_once() -> None:
    table = decisions.joined(
        Table(), [HostRow(number, f"host-{number}", release="a") for number in range(1, 5)], LAYOUT
    ).table
    before = dict(table.shards)
    for old in range(1, 5):
        new = HostRow(old + 4, f"next-{old}", release="b")
        table = decisions.joined(table, [new], LAYOUT).table
        assert next_moves(table) == {}, "nothing is evened out meanwhile"
        table = decisions.draining(table, [old])
        moves = next_moves(table)
        assert {table.hosts[move.target].release for move in moves.values()} == {"b"}
        table = refreshed(
            table, release(table, sorted(moves)), {name: move.target for name, move in moves.items()}
        ).table
        table = decisions.gone(table, [old], LAYOUT).table

    assert sum(owners(table).values()) == SHARDS
    assert set(owners(table)) == {5, 6, 7, 8}
    assert {name: row.epoch - before[name].epoch for name, row in table.shards.items()} == dict.fromkeys(before, 1)
    assert max(owners(table).values()) <= 2 * SHARDS / 4, "and nobody has more than twice its share until it is over"


IN_ORDER = Layout(4, ("", "early", "late"), after={"late": frozenset({"", "early"})})


def rolling(*new: str, drained: Sequence[int] = (1, 2, 3)) -> Table:
    """Return a table with a host of each of three groups, 1 to 3, and one of another release, 4 to 6, for some of them."""
    old = [HostRow(number, f"old-{number}", group=one, release="a") for number, one in enumerate(IN_ORDER.groups, 1)]
    table = decisions.joined(Table(), old, IN_ORDER).table
    at = {one: number for number, one in enumerate(IN_ORDER.groups, 4)}
    after = [HostRow(at[one], f"new-{one}", group=one, release="b") for one in new]
    return decisions.draining(decisions.joined(table, after, IN_ORDER).table, drained)


def leaving(table: Table, layout: Layout = IN_ORDER) -> set[str]:
    """Return the groups whose shards the next round moves."""
    return {group_of(name) for name in next_moves(table, layout)}


def test_a_group_leaves_drained_hosts_once_those_it_depends_on_have_left_theirs() -> None:
    table = rolling("", "early", "late")

    for expected in ({"", "early"}, {"late"}, set[str]()):
        assert leaving(table) == expected
        moves = next_moves(table, IN_ORDER)
        targets = {name: move.target for name, move in moves.items()}
        table = decisions.settled(decisions.known(table, release(table, sorted(moves))), IN_ORDER, targets).table

    assert owners(table) == {1: 0, 2: 0, 3: 0, 4: 4, 5: 4, 6: 4}


def test_a_group_that_stays_or_cannot_move_holds_up_none() -> None:
    assert leaving(rolling("", "early", "late", drained=[3])) == {"late"}, "nobody asked the others to move"
    assert leaving(rolling("late")) == {"late"}, "the others have nowhere to go"

    class Nowhere(LeastShards):
        def place(self, shards: Sequence[str], view: View) -> dict[str, int]:
            return super().place([name for name in shards if ":" in name], view)

    placeless = Layout(4, IN_ORDER.groups, Nowhere(), after={"late": frozenset({""})})
    assert leaving(rolling("", "early", "late"), placeless) == {"early", "late"}, "an allocation has no place for one"


def test_a_host_of_a_group_that_the_app_does_not_have_any_more_keeps_what_nobody_else_may_serve() -> None:
    table = rolling("", "early", drained=[1, 3])

    assert leaving(table, Layout(4, ("", "early"))) == {""}


def test_22_a_host_lost_in_a_rollout_is_followed_by_hosts_of_the_release_that_joined_last() -> None:
    rows = [*(HostRow(number, f"host-{number}", release="a") for number in (1, 2)), HostRow(3, "next-1", release="b")]
    table = decisions.joined(decisions.joined(Table(), rows[:2], LAYOUT).table, rows[2:], LAYOUT).table

    after = decisions.gone(table, [1], LAYOUT).table

    assert owners(after) == {2: SHARDS / 2, 3: SHARDS / 2}


def test_the_last_hosts_of_a_group_keep_their_shards_though_they_drain() -> None:
    table = decisions.draining(up(1, 2), [1, 2])

    assert next_moves(table) == {}
    plan = decisions.gone(table, [1], LAYOUT)
    assert owners(plan.table) == {2: SHARDS}, "served by one that is to leave rather than by nobody"


def test_a_draining_host_that_goes_on_under_a_new_incarnation_is_still_draining() -> None:
    before = decisions.draining(up(1, 2), [1])
    shards = {name: ShardRow(3, row.epoch + 1) if row.owner == 1 else row for name, row in before.shards.items()}

    after = decisions.known(before, Table(before.version, {2: host(2), 3: host(3, "host-1")}, shards))

    assert after.draining == {3}


def test_a_host_that_was_fenced_for_being_unreachable_keeps_its_shards_until_its_lease_is_over() -> None:
    before = up(1, 2)
    stored = Table(before.version, {2: before.hosts[2]}, before.shards)

    waiting = decisions.settled(decisions.known(before, stored, frozenset({1})), LAYOUT)
    assert (waiting.fence, waiting.assign) == ((), {})

    plan = decisions.gone(decisions.known(before, stored, frozenset({1})), [1], LAYOUT)
    assert owners(plan.table) == {2: SHARDS}
