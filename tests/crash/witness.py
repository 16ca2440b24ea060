"""What the test has seen of a process, written down as it came, and compared with what the store holds at the end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import zlib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from remora.messages import VALUE
from tests.crash.app import Prefix, app


class Sent(NamedTuple):
    """A command, before it leaves."""

    lane: int
    key: str
    value: int
    inbox: str
    """Whom the command tells; empty for nobody."""


class Answered(NamedTuple):
    """A reply, a rejection or a query's answer, as received."""

    what: str
    """``reply``, ``no`` or ``seen``"""
    key: str
    value: int
    command_id: str
    """Empty if Remora made it, and for queries."""
    floor: int
    """What was known to be there when it was sent."""
    shown: tuple[int, int, int]
    """(count, total, chain)"""


class Witness:
    """Writes to a file of its own, outside of the process that is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8")
        self.answers = 0
        self.counts: Counter[str] = Counter()
        self.known: dict[str, int] = defaultdict(int)
        """Key → how many values are known to be there: none of them may ever vanish."""

    def sent(self, one: Sent) -> None:
        self._write("sent", *one)

    def answered(self, one: Answered) -> None:
        self.answers += 1
        self.counts[one.what] += 1
        self.known[one.key] = max(self.known[one.key], one.shown[0])
        self._write("answered", *one)

    def failed(self, key: str, value: int, error: Exception) -> None:
        self.counts["failed"] += 1
        self._write("failed", key, value, repr(error))

    def _write(self, *line: object) -> None:
        self._file.write(json.dumps(line) + "\n")

    def read(self) -> tuple[list[Sent], list[Answered], list[list[Any]]]:
        """Return what was sent, what was answered and what failed."""
        self._file.flush()
        lines = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        return (
            [Sent(*line[1:]) for line in lines if line[0] == "sent"],
            [Answered._make([*line[1:6], tuple(line[6])]) for line in lines if line[0] == "answered"],
            [line[1:] for line in lines if line[0] == "failed"],
        )

    def close(self) -> None:
        self._file.close()


def shown(prefix: Prefix) -> tuple[int, int, int]:
    return (prefix.count, prefix.total, prefix.chain)


def prefixes(values: list[int]) -> list[tuple[int, int, int]]:
    """Return what an entity shows after none, one, two … of the values."""
    found = [(0, 0, 0)]
    for value in values:
        count, total, chain = found[-1]
        found.append((count + 1, total + value, zlib.crc32(b"%d" % value, chain)))
    return found


class Journal(NamedTuple):
    """What the store holds, read past the platform."""

    histories: dict[str, list[int]]
    """Key → values in the order of the journal."""
    took: dict[str, list[tuple[str, int]]]
    """Inbox → (sender, value) in the order of the journal."""
    entries: int
    outbox: int
    last: int
    """Position of the last commit's last entry."""


def read_rows(store_url: str, statement: str, *values: object) -> list[Any]:
    """Read from a store with nothing of the platform in between."""
    if store_url.startswith("postgresql:"):
        with ThreadPoolExecutor(1) as own:  # a loop of its own: the caller may be in one
            return own.submit(asyncio.run, _read_postgres(store_url, statement, values)).result(30.0)
    path = store_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)) as connection:
        return connection.execute(statement, values).fetchall()


async def _read_postgres(store_url: str, statement: str, values: tuple[object, ...]) -> list[Any]:
    connection = await asyncpg.connect(store_url, server_settings={"search_path": f"remora_{app.name}"})
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


def read_journal(store_url: str) -> Journal:
    """Read all entries, and check what must hold whatever was sent."""
    rows = read_rows(
        store_url,
        "SELECT position, entity, n, seq, events, command_id, verdict, reply FROM entries ORDER BY entity, n",
    )
    histories: dict[str, list[int]] = defaultdict(list)
    took: dict[str, list[tuple[str, int]]] = defaultdict(list)
    numbers: dict[str, int] = defaultdict(int)
    sequences: dict[str, int] = defaultdict(int)
    totals: dict[str, int] = defaultdict(int)
    ids: set[tuple[str, str]] = set()
    for _, key, n, seq, events, command_id, verdict, reply in rows:
        numbers[key] += 1
        assert n == numbers[key], f"{key}: entry {n} is number {numbers[key]} in the journal"
        assert (key, command_id) not in ids, f"{key}: {command_id} was applied twice"
        ids.add((key, command_id))
        data = [event for _, event in json.loads(events or "[]")]
        sequences[key] += len(data)
        assert seq == sequences[key]
        if key.startswith("inbox/"):
            took[key] += [(event["sender"], event["value"]) for event in data]
        elif key.startswith("ledger/"):
            histories[key] += [event["value"] for event in data]
        elif verdict == VALUE:  # of a purse only the state is kept: each reply tells by how much it grew
            total = json.loads(reply)["total"]
            histories[key].append(total - totals[key])
            totals[key] = total
    (outbox,) = read_rows(store_url, "SELECT count(*) FROM outbox")[0]
    return Journal(dict(histories), dict(took), len(rows), outbox, max((row[0] for row in rows), default=0))


def check_answers(answers: list[Answered], histories: dict[str, list[int]]) -> None:
    """All that was ever shown is true of the one history, and shows what was known when it was asked for."""
    states = {key: prefixes(values) for key, values in histories.items()}
    for one in answers:
        count = one.shown[0]
        assert states.get(one.key, [(0, 0, 0)])[count : count + 1] == [one.shown], f"vanished or doubled: {one}"
        least = one.floor + 1 if one.what == "reply" else one.floor
        assert count >= least, f"does not show what was acknowledged before: {one}"
        if one.what == "reply":
            assert histories[one.key][count - 1] == one.value, f"not the answer to its own command: {one}"


def check(witness: Witness, journal: Journal) -> None:
    """Compare: everything acknowledged once, in order; nothing that was refused; every send once, in order."""
    sent, answers, failed = witness.read()
    assert failed == [], "every command is to get its outcome"
    check_answers(answers, journal.histories)
    acknowledged: dict[str, set[int]] = defaultdict(set)
    for one in answers:
        if one.what == "reply":
            acknowledged[one.key].add(one.value)
    for key, values in journal.histories.items():
        assert len(set(values)) == len(values), f"{key}: applied twice"
        assert set(values) == acknowledged[key], f"{key}: lost, or applied although refused"
    assert set(acknowledged) <= set(journal.histories)
    lanes: dict[tuple[int, str], list[int]] = defaultdict(list)
    told: dict[int, str] = {}
    for command in sent:
        if command.value in acknowledged[command.key]:
            lanes[command.lane, command.key].append(command.value)
            told[command.value] = command.inbox
    places = {key: {value: place for place, value in enumerate(values)} for key, values in journal.histories.items()}
    for (lane, key), values in lanes.items():
        order = [places[key][value] for value in values]
        assert order == sorted(order), f"{key}: out of the order sent by client {lane}"
    inboxes = {inbox for inbox in told.values() if inbox}
    assert {key.partition("/")[2] for key in journal.took} == inboxes
    for inbox in inboxes:
        took = journal.took[f"inbox/{inbox}"]
        for key, values in journal.histories.items():
            arrived = [value for sender, value in took if f"ledger/{sender}" == key]
            assert arrived == [value for value in values if told[value] == inbox], f"sends of {key} to {inbox}"
