"""Rows of one entity are broken by hand while nothing runs: it alone is corrupt, its neighbours go on."""

import asyncio
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from remora import Client
from remora.clock import SystemClock
from remora.errors import Corrupt
from tests.crash.app import Ledger, Purse, app
from tests.crash.conftest import Lives
from tests.crash.link import Link

NEIGHBOURS = 20
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


@pytest.mark.parametrize("broken", BROKEN)
async def test_an_entity_whose_rows_cannot_be_read_is_corrupt_alone_and_its_neighbours_go_on(
    lives: Lives, tmp_path: Path, rng: random.Random, broken: str
) -> None:
    del tmp_path
    cls, statement = BROKEN[broken]
    names = [f"{number}" for number in range(NEIGHBOURS)]
    victim = rng.choice(names)
    for life in (1, 2):
        process = lives.begun("life")
        await process.serving()
        link = Link(process.socket)
        async with Client(link, link, SystemClock(), app.settings, f"client-{life}") as client:
            refs = {name: client.ref(cls, name).with_options(deadline_s=SOON_S) for name in names}
            if life == 1:
                for ref in refs.values():
                    for value in (1, 2, 3):
                        await ref.add(value)
            else:
                began_s = time.perf_counter()
                asking = {
                    name: asyncio.create_task(ref.seen()) for name, ref in refs.items()
                }  # all are read back at once
                await asyncio.gather(*asking.values(), return_exceptions=True)
                assert time.perf_counter() - began_s < SOON_S
                for name, asked in asking.items():
                    if name == victim:
                        assert isinstance(asked.exception(), Corrupt), asked
                    else:
                        assert asked.result().count == 3
                        assert (await refs[name].add(4)).count == 4
                with pytest.raises(Corrupt, match=f"{cls.__remora__.type}/{victim}"):
                    await refs[victim].add(4)
        await link.close()
        process.kill()
        if life == 1:
            break_rows(lives.store_url, statement, f"{cls.__remora__.type}/{victim}")
