"""A release that cannot read what its store holds does not start; one that can keeps its description there."""

import asyncio
import fcntl
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import BaseModel

import remora
from remora import App, Event, EventSourced, StoreMismatch
from remora.runtime.admission import admit
from remora.runtime.survey import survey
from remora.schema.describe import describe, to_text
from remora.storage.memory import MemoryStore
from remora.storage.sqlite import SqliteStore
from tests.unit.schema.ledgers import first, second
from tests.unit.schema.test_versions import Kept, pay, ref


class Counting(Kept):
    """Counts how often a description is written."""

    written = 0

    async def set_schema(self, text: str) -> None:
        self.written += 1
        await super().set_schema(text)


async def start(store: MemoryStore, app: App) -> None:
    async with remora.local(app, store=store):
        pass


async def test_an_app_that_can_read_all_starts_and_its_description_is_kept() -> None:
    store = Kept()

    await start(store, first())

    assert await store.schema() == to_text(describe(first()))


async def test_the_description_is_written_when_it_has_changed_and_not_otherwise() -> None:
    store = Counting()
    for _ in range(3):
        await start(store, first())
    assert store.written == 1

    for _ in range(3):
        await start(store, second())

    assert store.written == 2


async def test_an_app_that_cannot_read_all_is_refused_before_anything_runs_with_every_finding() -> None:
    store = Kept()
    await start(store, first())

    with pytest.raises(StoreMismatch, match=r"remora schema check MODULE:APP --store URL") as caught:
        await start(store, second(upcasting=False))

    assert "ledger, event Payment: The event was written in version 1" in caught.value.message
    assert [one["argument"] for one in caught.value.details] == ["ledger, event Payment", "memo, state"]
    assert all("Define upcast" in one["problem"] for one in caught.value.details)
    assert await store.schema() == to_text(describe(first()))


async def test_an_older_release_is_refused_where_a_newer_one_has_written() -> None:
    store = Kept()
    await start(store, second())

    with pytest.raises(StoreMismatch, match="not declared any more"):
        await start(store, first())


async def test_a_description_of_a_newer_release_is_refused_in_words() -> None:
    store = Kept()
    await store.set_schema('{"format": 99, "entities": {}}')

    with pytest.raises(StoreMismatch, match="upgrade Remora"):
        await start(store, first())


async def test_what_an_earlier_release_wrote_is_remembered_however_many_releases_later() -> None:
    store = Kept()
    for app in (first(), second(), second()):
        await start(store, app)

    kept = json.loads(await store.schema() or "")
    assert list(kept["history"]["ledger"]["events"]) == ["Payment"]
    assert list(kept["history"]["memo"]["states"][""]) == ["1"]


async def test_a_start_with_nothing_new_waits_for_no_frozen_writer_of_the_store(tmp_path: Path) -> None:
    path, app = tmp_path / "ledgers.db", first()
    store = SqliteStore(path)
    await store.open(app.name, app.settings.shards)
    await admit(app, store)
    await store.close()
    turn = os.open(f"{path}-turn", os.O_RDWR)
    fcntl.flock(turn, fcntl.LOCK_EX)  # as a frozen host holds it
    try:
        again = SqliteStore(path)
        async with asyncio.timeout(5):
            await again.open(app.name, app.settings.shards)
            await admit(app, again)
        await again.close()
    finally:
        os.close(turn)


async def test_a_store_of_release_0_1_0_which_kept_no_description_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledgers.db"
    async with remora.local(first(), store=f"sqlite:///{path}"):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'schema'")
        connection.commit()

    async with remora.local(first(), store=f"sqlite:///{path}"):
        pass

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0] == to_text(
            describe(first())
        )


# -- reading everything ------------------------------------------------------------------------------------------


async def test_reading_everything_finds_what_no_description_tells_of() -> None:
    store, app = Kept(), first()
    await pay(store, app, 1, 2, 3)
    async with remora.local(app, store=store) as client:
        await ref(app, client, "memo").write("x")

    good, bad = await survey(second(), store), await survey(second(upcasting=False), store)

    assert (good.events, good.states, good.findings()) == (3, 1, [])
    assert [(one.entity, one.part) for one in bad.findings()] == [("ledger", "event Payment"), ("memo", "state")]
    assert "Met 3 times, first in ledger/a, entry 1." in bad.findings()[0].what


async def test_a_durable_state_that_is_of_an_event_sourced_type_now_is_no_finding_of_reading() -> None:
    """Release 0.1.0 kept snapshots among the states; that the kind has changed is found by comparing."""
    store, app = Kept(), first()
    async with remora.local(app, store=store) as client:
        await ref(app, client, "memo").write("x")

    class Nothing(BaseModel):
        pass

    class Memo(EventSourced[Nothing, Event]):
        pass

    other = App("ledgers", entities=[Memo], settings=app.settings)

    assert (await survey(other, store)).findings() == []
    with pytest.raises(StoreMismatch, match="was durable and is event_sourced"):
        await start(store, other)


async def test_reading_everything_finds_types_that_the_app_has_not() -> None:
    store, app = Kept(), first()
    await pay(store, app, 1)
    async with remora.local(app, store=store) as client:
        await ref(app, client, "memo").write("x")
    less = App("ledgers", entities=[app.specs["memo"].cls], settings=app.settings)

    found = (await survey(less, store)).findings()

    assert [(one.entity, one.what.partition(".")[0]) for one in found] == [
        ("ledger", "The app has no such entity type, and the journal holds events of it")
    ]
