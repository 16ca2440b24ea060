"""What earlier releases wrote stays readable: their journals are replayed, their truth is asked for again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import remora
from remora.errors import RemoraError
from remora.storage.sqlite import SqliteStore
from tests.histories.app import app

HISTORIES = Path(__file__).parents[1] / "histories"
RELEASES = sorted(path.stem for path in HISTORIES.glob("*.sql"))


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(release: str, tmp_path: Path) -> Path:
    made = tmp_path / "history.db"
    with closing(sqlite3.connect(made)) as connection:
        connection.executescript((HISTORIES / f"{release}.sql").read_text(encoding="utf-8"))
        connection.execute("UPDATE hosts SET fenced = 1")  # they are gone for certain: no lease of theirs is waited for
        connection.commit()
    return made


@pytest.fixture
def truth(release: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HISTORIES / f"{release}.json").read_text(encoding="utf-8"))
    return found


def ref(client: remora.Client, key: str) -> Any:  # noqa: ANN401 - of whichever type the key names
    kind, _, ident = key.partition("/")
    return client.ref(app.spec(kind).cls, ident)


async def test_every_entity_has_the_state_and_the_events_it_had(path: Path, truth: dict[str, Any]) -> None:
    async with remora.local(app, store=f"sqlite:///{path}") as client:
        assert {key: await ref(client, key).snapshot() for key in truth["states"]} == truth["states"]
        assert {key: await ref(client, key).history(limit=1000) for key in truth["events"]} == truth["events"]


async def test_commands_that_were_answered_are_answered_the_same_again(path: Path, truth: dict[str, Any]) -> None:
    async with remora.local(app, store=f"sqlite:///{path}") as client:
        visits = ref(client, "counter/visits")
        again = {i: await visits.with_options(command_id=i).increment(2) for i in truth["replies"]["counter/visits"]}
        alice = ref(client, "account/alice")
        paid = [await alice.with_options(command_id=f"pay-{n}").deposit(n + 1) for n in range(250)]
        with pytest.raises(RemoraError, match="does not cover") as refused:
            await alice.with_options(command_id="too-much").withdraw(10**9)

        assert again == truth["replies"]["counter/visits"]
        assert paid == list(truth["replies"]["account/alice"].values())
        assert refused.value.repeated
        assert await alice.snapshot() == truth["states"]["account/alice"]


async def test_reminders_that_were_set_are_still_to_come(path: Path, truth: dict[str, Any]) -> None:
    async with remora.local(app, store=f"sqlite:///{path}"):
        store = SqliteStore(path)
        await store.open("history", 8)
        rows = await store.due([str(n) for n in range(8)], 2**62, 10)
        await store.close()

    assert [[row.entity, row.name] for row in rows] == truth["reminders"]


async def test_entities_go_on_where_they_were(path: Path) -> None:
    async with remora.local(app, store=f"sqlite:///{path}") as client:
        before = await ref(client, "account/alice").balance()
        await ref(client, "account/alice").deposit(1)
        await ref(client, "inbox/one").tell("two", "fourth")

        assert await ref(client, "account/alice").balance() == before + 1
        assert (await ref(client, "account/alice").history(after=250))[0]["seq"] == 251
