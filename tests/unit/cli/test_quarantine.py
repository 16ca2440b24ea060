"""``remora quarantine list|show|release``, with the part that talks to Ray replaced."""

from types import ModuleType
from typing import Any

import pytest

from remora.cluster.record import ClusterRecord
from remora.errors import UnknownEntity
from tests.unit.cli.running import Run, stand_in

CRASH: dict[str, Any] = {
    "entity": "account/alice", "command": "deposit", "cause": "Segmentation fault", "host": "host-1", "incarnation": 3,
    "at_ms": 61_000,
}  # fmt: skip
APART: dict[str, Any] = {
    "entity": "account/alice", "command": "", "because": "account/alice.deposit took its host down 3 times", "crashes": 3,
    "since_ms": 61_000, "until_ms": 0, "latest": [CRASH, {**CRASH, "cause": "os._exit(1)", "at_ms": 31_000}],
}  # fmt: skip
BACK: dict[str, Any] = {**APART, "entity": "account/bob", "command": "close", "until_ms": 62_000, "latest": [CRASH]}


class Operations(ModuleType):
    """Stands in for ``remora.operations``."""

    def __init__(self) -> None:
        super().__init__("remora.operations")
        self.found = [APART, BACK]
        self.released: list[tuple[str, str]] = []

    def quarantine(self, record: ClusterRecord) -> list[dict[str, Any]]:
        assert record.app == "bank"
        return self.found

    def release_from_quarantine(self, record: ClusterRecord, entity: str, command: str) -> dict[str, Any]:
        assert record.app == "bank"
        if entity != "account/alice":
            msg = f"{entity} is not in quarantine; in quarantine: account/alice."
            raise UnknownEntity(msg)
        self.released.append((entity, command))
        return APART


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Operations:
    return stand_in(Operations(), monkeypatch)


def test_what_is_held_is_a_table_for_people_and_a_document_for_programs(run: Run, operations: Operations) -> None:
    people, programs = run("quarantine", "list"), run("quarantine", "list", "--json")

    alice, bob = (next(line for line in people.out.splitlines() if name in line) for name in ("alice", "bob"))
    assert all(shown in alice for shown in ("all", "3", "released", "Segmentation fault"))
    assert "close" in bob
    assert "released" not in bob
    assert programs.document == operations.found


def test_one_is_shown_with_every_crash_and_how_to_release_it(run: Run, operations: Operations) -> None:
    del operations

    shown = run("quarantine", "show", "account", "alice")

    for part in ("took its host down 3 times", "Segmentation fault", "os._exit(1)", "host-1"):
        assert part in shown.out
    assert "bob" not in shown.out
    assert "remora quarantine release account alice" in shown.out + shown.err


def test_what_is_not_held_cannot_be_shown_nor_released(run: Run, operations: Operations) -> None:
    shown, released = run("quarantine", "show", "account", "carol"), run("quarantine", "release", "account", "carol")

    assert (shown.code, released.code) == (1, 1)
    assert "remora quarantine list" in shown.err
    assert "in quarantine: account/alice" in released.err
    assert operations.released == []


def test_a_release_says_what_runs_again(run: Run, operations: Operations) -> None:
    whole, one = (
        run("quarantine", "release", "account", "alice"),
        run("quarantine", "release", "account", "alice", "close"),
    )

    assert "account/alice runs again" in whole.out
    assert "account/alice.close runs again" in one.out
    assert operations.released == [("account/alice", ""), ("account/alice", "close")]


def test_where_nothing_is_held_that_is_said(run: Run, operations: Operations) -> None:
    operations.found = []

    assert "Nothing is in quarantine." in run("quarantine", "list").out
