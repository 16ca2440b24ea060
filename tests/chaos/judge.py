"""Judges what the witnesses saw against what the journal holds: functions from values to findings.

The journal gives every entity one history, a list of entries. An answer is true if it shows a prefix of
that history. Its *level* is how many items it shows. Operations are linear if every answer is true and
levels never fall in real time: what was sent after an answer had come shows at least that much, and a
command after it comes later in the history. Sorted by level, commands before the queries that show
them, the operations of an entity are then one sequence that respects real time.
"""

from __future__ import annotations

import heapq
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from tests.chaos.witness import Operation, Shown

EMPTY = Shown(0, 0)


class Entry(NamedTuple):
    """One row of the journal that took an item."""

    key: str
    n: int
    """Number of the row within its entity."""
    item: str
    token: str
    """Of the activation that made it."""


Histories = Mapping[str, Sequence[Entry]]


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    rule: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.key}: {self.what}"


def histories(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each entity in order."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.key].append(entry)
    for rows in found.values():
        rows.sort(key=lambda row: row.n)
    return dict(found)


def judge(operations: Sequence[Operation], written: Histories) -> list[Finding]:
    """Return everything that is wrong; nothing if all promises were kept."""
    return [
        *unanswered(operations),
        *refused(operations),
        *doubled(written),
        *unasked(operations, written),
        *lost(operations, written),
        *untrue(operations, written),
        *out_of_real_time(operations, written),
        *out_of_order(operations, written),
        *overlapping(written),
    ]


def unanswered(operations: Iterable[Operation]) -> list[Finding]:
    """Whatever was asked got an answer in the end (G7)."""
    return [
        Finding(
            "unanswered", one.key, f"{one.what} {one.item or 'query'} of {one.caller}, given up {one.given_up} times"
        )
        for one in operations
        if one.answered_ns is None and not one.refused
    ]


def refused(operations: Iterable[Operation]) -> list[Finding]:
    """No error is shown that asking again would not help: nothing that was sent is wrong."""
    return [Finding("refused", one.key, f"{one.what} {one.item}: {one.refused}") for one in operations if one.refused]


def doubled(written: Histories) -> list[Finding]:
    """No item stands in the journal twice (G2)."""
    found = []
    where: dict[str, str] = {}
    for key, rows in written.items():
        for row in rows:
            if row.item in where:
                found.append(Finding("doubled", key, f"{row.item} is entry {row.n} and entry {where[row.item]}"))
            where[row.item] = f"{row.n} of {key}"
    return found


def unasked(operations: Iterable[Operation], written: Histories) -> list[Finding]:
    """Nothing stands in the journal that nobody asked for there, or that was refused."""
    asked = {(one.key, one.item) for one in operations if one.what == "append"}
    return [
        Finding("unasked", key, f"{row.item} is entry {row.n}")
        for key, rows in written.items()
        for row in rows
        if (key, row.item) not in asked
    ]


def lost(operations: Iterable[Operation], written: Histories) -> list[Finding]:
    """What was acknowledged stands in the journal (G1)."""
    there = {(key, row.item) for key, rows in written.items() for row in rows}
    return [
        Finding("lost", one.key, f"{one.item} was acknowledged as number {one.shown.items}")
        for one in operations
        if one.what == "append" and one.shown is not None and (one.key, one.item) not in there
    ]


def untrue(operations: Iterable[Operation], written: Histories) -> list[Finding]:
    """Every answer shows a prefix of the one history, a command's reply the one that ends with its item (G1, G5)."""
    prefixes = {key: _prefixes(rows) for key, rows in written.items()}
    found = []
    for one in operations:
        if one.shown is None:
            continue
        states = prefixes.get(one.key, [EMPTY])
        if one.shown.items >= len(states) or states[one.shown.items] != one.shown:
            found.append(Finding("untrue", one.key, f"{one.what} {one.item} was answered {one.shown}, which never was"))
        elif one.what == "append" and (one.shown.items == 0 or written[one.key][one.shown.items - 1].item != one.item):
            found.append(Finding("untrue", one.key, f"{one.item} was answered {one.shown}, which is another's"))
    return found


def out_of_real_time(operations: Iterable[Operation], written: Histories) -> list[Finding]:
    """Whatever was sent after an answer had come shows all that it showed, and comes after it (G5).

    Commands that got no answer but stand in the journal are held to it too.
    """
    found = []
    for key, ops in _by_key(operations).items():
        place = {row.item: number for number, row in enumerate(written.get(key, ()), start=1)}
        floor = 0
        answers: list[tuple[int, int]] = []
        """(when, level) of those sent so far, whose answers may not have come yet"""
        for one in sorted(ops, key=lambda op: op.sent_ns):
            while answers and answers[0][0] < one.sent_ns:
                floor = max(floor, heapq.heappop(answers)[1])
            level = place.get(one.item) if one.what == "append" else one.shown.items if one.shown else None
            if level is None:
                continue
            least = floor + 1 if one.what == "append" else floor
            if level < least:
                found.append(
                    Finding("stale", key, f"{one.what} {one.item} of {one.caller} is at {level}, {floor} was known")
                )
            if one.answered_ns is not None:
                heapq.heappush(answers, (one.answered_ns, level))
    return found


def out_of_order(operations: Iterable[Operation], written: Histories) -> list[Finding]:
    """Commands of one caller to one entity stand in the order sent (G4).

    One that was given up and sent again no longer holds its place before those that were sent meanwhile.
    """
    found = []
    for key, ops in _by_key(operations).items():
        place = {row.item: row.n for row in written.get(key, ())}
        latest: dict[str, tuple[int, str]] = {}
        """caller → (place, item) of its latest command that held its place"""
        for one in sorted(ops, key=lambda op: (op.caller, op.number)):
            at = place.get(one.item)
            if one.what != "append" or at is None:
                continue
            before, item = latest.get(one.caller, (0, ""))
            if at < before:
                found.append(Finding("swapped", key, f"{one.item} of {one.caller} stands before {item}, sent earlier"))
            elif not one.given_up:
                latest[one.caller] = (at, one.item)
    return found


def overlapping(written: Histories) -> list[Finding]:
    """No activation commits once another has: the entries of one are a run that never comes back (G3)."""
    found = []
    for key, rows in written.items():
        ended: set[str] = set()
        for before, after in pairwise(rows):
            if after.token != before.token:
                ended.add(before.token)
            if after.token in ended:
                found.append(Finding("overlap", key, f"activation {after.token} is back with entry {after.n}"))
    return found


def _prefixes(rows: Sequence[Entry]) -> list[Shown]:
    """Return what an entity shows after none, one, two … of its items."""
    found = [EMPTY]
    for row in rows:
        count, chain = found[-1]
        found.append(Shown(count + 1, zlib.crc32(row.item.encode(), chain)))
    return found


def _by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        found[one.key].append(one)
    return found
