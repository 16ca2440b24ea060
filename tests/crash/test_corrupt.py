"""Rows of some entities are broken by hand while nothing runs: they alone are corrupt, their neighbours go on."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from remora import Client
from remora.clock import SystemClock
from remora.errors import Corrupt
from tests.crash.app import Ledger, Prefix, Purse, app
from tests.crash.conftest import Lives
from tests.crash.link import Link
from tests.crash.lives import Life

NAMES = [f"name-{number}" for number in range(20)]
"""One each of the first is broken, of a ledger or of a purse; all the others are their neighbours."""
SOON_S = 5.0

BROKEN: dict[str, tuple[type[Ledger | Purse], str]] = {
    "an event without its field": (Ledger, """UPDATE entries SET events = '[["Added",{}]]' WHERE entity = ? AND n = 3"""),
    "an event nobody declares": (Ledger, """UPDATE entries SET events = '[["Lost",{}]]' WHERE entity = ? AND n = 3"""),
    "events that are no JSON": (Ledger, "UPDATE entries SET events = '[[' WHERE entity = ? AND n = 3"),
    "events that are no text": (Ledger, "UPDATE entries SET events = x'00ff' WHERE entity = ? AND n = 3"),
    "events that are no UTF-8": (Ledger, "UPDATE entries SET events = CAST(x'5bff' AS TEXT) WHERE entity = ? AND n = 3"),
    "a state without its field": (Purse, """UPDATE states SET state = '{"count":"many"}' WHERE entity = ?"""),
    "a state that is no JSON": (Purse, "UPDATE states SET state = '{' WHERE entity = ?"),
    "a state that is no UTF-8": (Purse, "UPDATE states SET state = CAST(x'7bff' AS TEXT) WHERE entity = ?"),
    "marks that are no JSON": (Ledger, "INSERT INTO marks VALUES (?, 1, '{')"),
}  # fmt: skip


def break_rows(store_url: str, statement: str, key: str) -> None:
    with closing(sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)) as store:
        assert store.execute(statement, (key,)).rowcount == 1


@asynccontextmanager
async def connected(life: Life, session: str) -> AsyncIterator[Client]:
    link = Link(life.socket)
    async with Client(link, link, SystemClock(), app.settings, session) as client:
        yield client
    await link.close()


def references(client: Client) -> dict[tuple[type[Ledger | Purse], str], Any]:
    types: tuple[type[Ledger | Purse], ...] = (Ledger, Purse)
    return {(cls, name): client.ref(cls, name).with_options(deadline_s=SOON_S) for cls in types for name in NAMES}


async def test_entities_whose_rows_cannot_be_read_are_corrupt_alone_and_their_neighbours_go_on(lives: Lives) -> None:
    before = lives.begun("life")
    async with connected(before, "before") as client:
        for value in (1, 2, 3):
            await asyncio.gather(*(ref.add(value) for ref in references(client).values()))
    before.kill()
    for name, (cls, statement) in zip(NAMES, BROKEN.values(), strict=False):
        break_rows(lives.store_url, statement, f"{cls.__remora__.type}/{name}")

    async with connected(lives.begun("life"), "after") as client:
        corrupt = {(cls, name): what for name, (what, (cls, _)) in zip(NAMES, BROKEN.items(), strict=False)}
        refs = references(client)
        # At once, so that they are read back together.
        asked = await asyncio.gather(*(ref.seen() for ref in refs.values()), return_exceptions=True)
        for entity, seen in zip(refs, asked, strict=True):
            if entity in corrupt:
                assert isinstance(seen, Corrupt), (corrupt[entity], seen)
                with pytest.raises(Corrupt, match=entity[1]):
                    await refs[entity].add(4)
            else:
                assert isinstance(seen, Prefix), (entity, seen)
                assert seen.count == 3
                assert (await refs[entity].add(4)).count == 4
