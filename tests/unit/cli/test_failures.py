"""``remora failures``, with the part that talks to Ray replaced."""

from types import ModuleType
from typing import Any

import pytest

from remora.cluster.record import ClusterRecord
from remora.errors import UnknownEntity
from tests.unit.cli.running import Run, stand_in

ROW: dict[str, Any] = {
    "entity": "account/alice", "command": "deposit", "kind": "ValueError", "first_ms": 1_000, "last_ms": 61_000, "times": 12,
    "latest": {
        "message": "no [red]such\x1b amount", "directive": "restart", "after_s": 0.32, "host": "host-1", "node": "n1",
        "arguments": '{"amount":1}', "command_id": "c-7", "shard": "3", "epoch": 2, "traceback": "in deposit\nValueError: no",
    },
}  # fmt: skip


class Operations(ModuleType):
    """Stands in for ``remora.operations``."""

    def __init__(self) -> None:
        super().__init__("remora.operations")
        self.asked: list[tuple[Any, ...]] = []
        self.found = [ROW]

    def failures(self, record: ClusterRecord, limit: int, of: str) -> list[dict[str, Any]]:
        self.asked.append((record.app, limit, of))
        if of == "acount":
            msg = "App 'bank' has no entity type 'acount'; it has account."
            raise UnknownEntity(msg)
        return self.found


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Operations:
    return stand_in(Operations(), monkeypatch)


def test_failures_are_a_table_for_people_and_a_document_for_programs(run: Run, operations: Operations) -> None:
    people, programs = run("failures"), run("failures", "account/alice", "--limit", "3", "--json")

    line = next(line for line in people.out.splitlines() if "account/alice" in line)
    for shown in ("deposit", "ValueError", "12", "restart after 0.32 s", "host-1", "no [red]such\\x1b amount"):
        assert shown in line
    assert "in deposit" not in people.out
    assert programs.document == [ROW]
    assert operations.asked == [("bank", 20, ""), ("bank", 3, "account/alice")]


def test_in_full_there_are_arguments_and_the_traceback(run: Run, operations: Operations) -> None:
    del operations

    out = run("failures", "--full").out

    assert "account/alice.deposit, 12 times since" in out
    for shown in ('{"amount":1}', "c-7", "ValueError: no"):
        assert shown in out


def test_where_nothing_failed_that_is_said(run: Run, operations: Operations) -> None:
    operations.found = []

    assert "Nothing has failed." in run("failures").out
    assert "Nothing of account has failed." in run("failures", "account").out


def test_a_type_that_there_is_not_is_refused_with_those_there_are(run: Run, operations: Operations) -> None:
    del operations

    ended = run("failures", "acount")

    assert ended.code == 1
    assert "it has account" in ended.err
