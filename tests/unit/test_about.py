"""What the registry can say about a shard."""

from typing import Any

from remora.sharding.about import Moving, about, note_unowned
from remora.sharding.membership import Suspicion
from remora.sharding.table import HostRow, ShardRow, Table
from remora.why import About

HOSTS = {1: HostRow(1, "host-1", "n1"), 2: HostRow(2, "host-2", "n2")}
TABLE = Table(5, HOSTS, {"0": ShardRow(1, 3), "1": ShardRow(2, 1), "2": ShardRow(0, 4), "board/a": ShardRow(0, 0)})
NOTHING: dict[str, Any] = {"renewed": {}, "moving": {}, "unowned": {}, "suspected": {}}


def test_a_shard_with_an_owner_is_told_with_its_owners_lease() -> None:
    said = about(TABLE, "0", 100.0, **{**NOTHING, "renewed": {1: 99.5, 2: 10.0}})

    assert said == About(shard="0", owner=1, epoch=3, host="host-1", node="n1", renewed_s=0.5)


def test_a_host_that_is_suspected_is_told_with_since_when_and_why() -> None:
    suspected = {1: Suspicion("two clients cannot reach it", 97.0, 99.0)}

    said = about(TABLE, "0", 100.0, **{**NOTHING, "suspected": suspected})

    assert (said.suspected_s, said.suspected_because) == (3.0, "two clients cannot reach it")


def test_a_shard_on_its_way_is_told_with_its_target() -> None:
    said = about(TABLE, "1", 100.0, **{**NOTHING, "moving": {"1": Moving("host-1", 98.0)}})

    assert (said.host, said.target, said.moving_s) == ("host-2", "host-1", 2.0)


def test_a_shard_without_an_owner_is_told_with_since_when_and_why() -> None:
    unowned: dict[str, float] = {}
    note_unowned(unowned, TABLE, ["0", "1", "2", "3"], 90.0)
    note_unowned(unowned, TABLE, ["0", "1", "2", "3"], 95.0)
    assert unowned == {"2": 90.0, "3": 90.0, "board/a": 90.0}

    said = [about(TABLE, name, 100.0, **{**NOTHING, "unowned": unowned}) for name in ("2", "3", "board/a", "board/b")]

    assert [one.unowned_s for one in said] == [10.0, 10.0, 10.0, None]
    assert [one.placed for one in said] == [True, False, True, False]
    assert "its last owner is gone" in said[0].unowned_because
    assert "for the first time" in said[1].unowned_because
    assert "the actor of this dedicated entity" in said[2].unowned_because

    note_unowned(unowned, Table(6, HOSTS, {"2": ShardRow(1, 5), "board/a": ShardRow(2, 1)}), ["2"], 101.0)
    assert unowned == {}


def test_shards_of_a_table_without_hosts_wait_for_one() -> None:
    assert "no host is up" in about(Table(), "0", 1.0, **NOTHING).unowned_because


def test_a_registry_that_cannot_reach_the_store_says_for_how_long() -> None:
    assert about(TABLE, "0", 100.0, **NOTHING, store_away_since_s=96.0).store_away_s == 4.0
