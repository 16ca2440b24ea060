"""Which hosts are to be on which of Ray's nodes: decisions on values, without Ray."""

from collections.abc import Sequence

from remora.cluster.ray_nodes import HOST_LABEL, Node, choose, crowded, slots_of_nodes, usable
from remora.sharding.table import HostRow


def node(name: str, cpus: float = 2.0, *, free: float | None = None, draining: bool = False, meant: str = "") -> Node:
    labels = {HOST_LABEL: meant} if meant else {}
    return Node(name, {"CPU": cpus}, {"CPU": cpus if free is None else free}, labels, draining)


def hosts(*homes: str) -> list[HostRow]:
    return [HostRow(number, f"remora/a/host/{number}/x", home) for number, home in enumerate(homes, 1)]


def names(nodes: Sequence[Node]) -> list[str]:
    return [one.id for one in nodes]


def test_nodes_without_a_cpu_leaving_ones_and_drained_ones_get_no_hosts() -> None:
    found = [node("head", 0.0), node("a"), node("leaving", draining=True), node("drained")]

    assert names(usable(found, frozenset({"drained"}))) == ["a"]


def test_where_nodes_are_labelled_for_hosts_only_those_get_any() -> None:
    assert names(usable([node("a"), node("b", meant="true"), node("c", meant="false")])) == ["b"]


def test_a_node_that_may_be_gone_gets_hosts_only_where_there_is_no_other() -> None:
    assert names(usable([node("a"), node("b")], doubted=frozenset({"a"}))) == ["b"]
    assert names(usable([node("a")], doubted=frozenset({"a"}))) == ["a"]


def test_a_new_host_goes_where_there_is_room_and_fewest_of_its_kind() -> None:
    nodes = [node("a"), node("b"), node("full", free=0.5)]

    assert choose(nodes, ["a"], {"CPU": 1.0}) == "b"
    assert choose(nodes, ["a", "b", "b"], {"CPU": 1.0}) == "a"
    assert choose([node("full", free=0.5)], [], {"CPU": 1.0}) == ""
    assert choose(nodes, [], {"CPU": 1.0, "GPU": 1.0}) == ""


def test_hosts_that_are_being_started_count_before_ray_counts_them() -> None:
    nodes = [node("a", free=2.0), node("b", free=1.0)]

    assert choose(nodes, [], {"CPU": 1.0}, ["a"]) == "b"
    assert choose(nodes, [], {"CPU": 1.0}, ["a", "b"]) == "a"
    assert choose(nodes, [], {"CPU": 1.0}, ["a", "a", "b"]) == ""


def test_a_node_on_which_a_host_failed_again_and_again_gets_it_only_where_no_other_has_room() -> None:
    nodes = [node("a"), node("b"), node("full", free=0.5)]

    assert choose(nodes, ["b", "b"], {"CPU": 1.0}, avoid="a") == "b"
    assert choose([node("a"), node("full", free=0.5)], [], {"CPU": 1.0}, avoid="a") == "a"


def test_many_small_actors_spread_though_every_node_has_room_for_all() -> None:
    nodes, homes = [node("a"), node("b"), node("c")], list[str]()
    for _ in range(50):
        homes.append(choose(nodes, homes, {"CPU": 0.01}))

    assert sorted(homes.count(name) for name in "abc") == [16, 17, 17]


def test_hosts_that_follow_nodes_are_one_per_cpu_one_being_left_to_gateways() -> None:
    slots = slots_of_nodes([node("0123456789abcdef", 4.0), node("small", 1.0)])

    assert slots == {
        "0123456789ab-1": "0123456789abcdef", "0123456789ab-2": "0123456789abcdef", "0123456789ab-3": "0123456789abcdef",
        "small-1": "small",
    }  # fmt: skip


def test_the_youngest_host_of_a_node_makes_room_where_another_has_two_fewer() -> None:
    nodes = [node("a", 4.0), node("b")]

    found = crowded(nodes, hosts("a", "a", "b", "a"))

    assert found is not None
    assert found.incarnation == 4
    assert crowded(nodes, hosts("a", "a", "b")) is None, "a difference of one cannot be improved"
    assert crowded([node("a", 4.0), node("b", free=0.0)], hosts("a", "a", "a")) is None, "there is no room"
    assert crowded(nodes, hosts("gone", "gone")) is None
