"""``shards``, ``drain``, ``undrain``, ``rebalance`` and the states in ``status``, with the part that talks to Ray replaced."""

import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import remora
from remora.cluster import record as records
from remora.cluster.record import ClusterRecord
from remora.errors import BY_CODE, ClusterUnreachable, RemoraError, Unavailable
from tests.unit.cli.running import Run

SHARDS = [
    {"shard": "0", "owner": 3, "host": "host-1", "node": "n1", "epoch": 2, "state": "owned", "live": 40, "commands_s": 812.5},
    {"shard": "1", "owner": 4, "host": "host-2", "node": "n2", "epoch": 7, "state": "moving", "live": 0, "commands_s": 0.0},
    {"shard": "board/a", "owner": 0, "host": "", "node": "", "epoch": 1, "state": "without a host", "live": 0, "commands_s": 0.0},
]  # fmt: skip
LIMIT_S = 10.0


class Operations(ModuleType):
    """Stands in for ``remora.operations``."""

    def __init__(self) -> None:
        super().__init__("remora.operations")
        self.asked: list[tuple[Any, ...]] = []
        self.failures: list[RemoraError | None] = []
        """What the next looks at shards end with."""
        self.drained: dict[str, Any] | Exception = {"node": "n1", "hosts": ["host-1"], "left": []}
        self.looks_to_drain = 0
        self.looks = 0
        self.looked = threading.Event()
        self.moves = [
            {"shard": "7", "source": "host-1", "target": "host-2", "because": "source has 9 shards; target has 2"}
        ]

    def shards(self, record: ClusterRecord) -> list[dict[str, Any]]:
        self.asked.append(("shards", record.app))
        self.looks += 1
        if self.looks > self.looks_to_drain:
            self.looked.set()
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        return SHARDS[1:] if self.looks > 1 else SHARDS

    def drain(self, record: ClusterRecord, node: str, report: Callable[[str], None]) -> dict[str, Any]:
        self.asked.append(("drain", record.app, node))
        report(f"emptying {node}")
        assert self.looked.wait(LIMIT_S)
        if isinstance(self.drained, Exception):
            raise self.drained
        return self.drained

    def undrain(self, record: ClusterRecord, node: str) -> dict[str, Any]:
        self.asked.append(("undrain", record.app, node))
        return {"nodes": [f"{node}234"]}

    def rebalance(self, record: ClusterRecord, *, dry_run: bool) -> list[dict[str, Any]]:
        self.asked.append(("rebalance", record.app, dry_run))
        return self.moves

    def status(self, record: ClusterRecord) -> dict[str, Any]:
        del record
        return STATUS


STATUS: dict[str, Any] = {
    "app": "bank",
    "leader": "registry-1",
    "hosts": [
        {"name": "host-1", "state": "up", "node": "n1", "pid": 7, "incarnation": 3, "shards": 2},
        {"name": "host-2", "state": "suspect", "node": "n2", "pid": 8, "incarnation": 4, "shards": 1},
        {"name": "host-3", "state": "joining", "shards": 0},
    ],
    "gone": [{"name": "host-0", "because": "its lease is over", "for_s": 12.0}],
    "refused": {"host-4": "it runs another release"},
    "supervisors": [
        {"name": "foreman", "state": "up", "node": "n1", "pid": 9, "restarts": 2, "because": "it was killed"},
    ],
    "drained": ["n9"],
    "waiting": [{"what": "model", "waits_for": "check weights: not yet on host-1", "for_s": 95.0}],
}


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Operations:
    fake = Operations()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(remora, "operations", fake, raising=False)
    monkeypatch.setattr("remora.cli.placement.LOOK_S", 0.01)
    records.save(ClusterRecord("bank", "m:app", "127.0.0.1:1", "", "http://127.0.0.1:8000", "sqlite:///x.db", 2))
    return fake


def test_shards_are_a_table_for_people_with_their_sum_and_a_document_for_programs(
    run: Run, operations: Operations
) -> None:
    people, programs = run("shards"), run("shards", "--app", "bank", "--json")

    lines = [line.split() for line in people.out.splitlines()]
    assert ["0", "host-1", "3", "n1", "2", "owned", "40", "812.5"] in lines
    assert ["board/a", "1", "without", "a", "host", "0", "0.0"] in lines
    assert "3 shards on 2 hosts: 1 owned, 1 moving, 1 without a host" in people.out
    assert programs.document == SHARDS[1:]
    assert operations.asked == [("shards", "bank")] * 2


def test_a_drain_tells_how_far_it_has_come_and_who_handed_over(run: Run, operations: Operations) -> None:
    operations.looks_to_drain = 2

    ended = run("drain", "n1")

    assert ended.code == 0
    assert "emptying n1: 0 of 1 shards left" in ended.err
    assert "n1 is empty: host-1 has handed over all shards." in ended.out
    assert ("drain", "bank", "n1") in operations.asked


def test_a_drain_goes_on_when_nobody_can_tell_how_far_it_has_come(run: Run, operations: Operations) -> None:
    operations.looks_to_drain, operations.failures = 2, [None, Unavailable("No registry leads at the moment.")]

    ended = run("drain", "n1", "--json")

    assert (ended.code, ended.document) == (0, operations.drained)
    assert "how far it has come is not known (No registry leads at the moment.)" in ended.err


def test_a_drain_that_was_not_finished_in_time_says_what_is_left_and_ends_with_3(
    run: Run, operations: Operations
) -> None:
    operations.drained = {"node": "n1", "hosts": ["host-1"], "left": ["4", "5"]}

    people, programs = run("drain", "n1"), run("drain", "n1", "--json")

    assert (people.code, programs.code) == (3, 3)
    assert "2 shards are still there" in people.out
    assert "They are 4, 5. Draining it again goes on." in people.err
    assert programs.document == operations.drained


@pytest.mark.parametrize("code", ["unknown_node", "cannot_drain"])
def test_a_drain_that_is_refused_says_why_and_ends_with_1(run: Run, operations: Operations, code: str) -> None:
    operations.drained = BY_CODE[code]("'n7' is no node or host; nodes with hosts are: n1, n2.")

    people, programs = run("drain", "n7"), run("drain", "n7", "--json")

    assert (people.code, programs.code) == (1, 1)
    assert "nodes with hosts are: n1, n2." in people.err
    assert programs.document["code"] == code


def test_a_platform_that_cannot_be_reached_is_not_drained(run: Run, operations: Operations) -> None:
    operations.failures = [ClusterUnreachable("The registry of bank does not answer.")]

    assert run("drain", "n1").code == 4
    assert operations.asked == [("shards", "bank")]


def test_a_drained_node_may_be_given_back(run: Run, operations: Operations) -> None:
    people, programs = run("undrain", "n1"), run("undrain", "n1", "--json")

    assert "n1234 may have hosts again." in people.out
    assert programs.document == {"nodes": ["n1234"]}
    assert operations.asked == [("undrain", "bank", "n1")] * 2


def test_a_rebalance_says_what_it_moves_and_why_and_a_dry_run_only_says_it(run: Run, operations: Operations) -> None:
    dry, wet, programs = run("rebalance", "--dry-run"), run("rebalance"), run("rebalance", "--dry-run", "--json")

    assert "source has 9 shards; target has 2" in dry.out
    assert "The next round would move 1 shard." in dry.out
    assert "The round that moves 1 shard has begun." in wet.out
    assert programs.document == operations.moves
    assert [asked[2] for asked in operations.asked] == [True, False, True]


def test_a_rebalance_without_moves_says_so(run: Run, operations: Operations) -> None:
    operations.moves = []

    assert "Nothing is to be moved." in run("rebalance").out


def test_status_shows_the_states_of_hosts_those_that_are_gone_and_those_that_could_not_start(
    run: Run, operations: Operations
) -> None:
    del operations

    out = run("status").out

    lines = [line.split() for line in out.splitlines()]
    assert ["host-1", "up", "n1", "7", "3", "2"] in lines
    assert ["host-2", "suspect", "n2", "8", "4", "1"] in lines
    assert ["host-3", "joining", "0"] in lines
    assert ["host-0", "12", "s", "its", "lease", "is", "over"] in lines
    assert ["host-4", "it", "runs", "another", "release"] in lines
    assert ["foreman", "up", "n1", "9", "2", "it", "was", "killed"] in lines
    assert ["model", "95", "s", "check", "weights:", "not", "yet", "on", "host-1"] in lines
    assert ["drained", "nodes", "n9"] in lines
