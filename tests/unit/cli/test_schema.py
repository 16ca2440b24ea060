"""``remora schema``: files and stores compared with the code, sentences for people, JSON for programs."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import remora
from tests.unit.cli.releases import one
from tests.unit.cli.running import Run

ONE, TWO, BROKEN = (f"tests.unit.cli.releases:{name}" for name in ("one", "two", "broken"))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of its own, in which ``remora-schema.json`` is looked for."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(here: Path) -> str:
    """A store that release one has written."""
    url = f"sqlite:///{here / 'ledgers.db'}"

    async def live() -> None:
        async with remora.local(one, store=url, hosts=1) as client:
            await client.ref(one.spec("ledger").cls, "a").pay(3)
            await client.ref(one.spec("memo").cls, "m").write("x")

    asyncio.run(live())
    return url


def test_a_description_is_written_once_and_again_when_it_has_changed(run: Run, here: Path) -> None:
    written, again = run("schema", "write", ONE), run("schema", "write", ONE, "--json")

    assert (written.code, written.out) == (0, "remora-schema.json describes the app ledgers.\n")
    assert again.document == {"app": "ledgers", "file": "remora-schema.json", "changed": False}
    assert list(json.loads((here / "remora-schema.json").read_text())["entities"]) == ["ledger", "memo"]


def test_a_compatible_release_ends_with_0_and_says_what_it_was_compared_with(run: Run) -> None:
    run("schema", "write", ONE)

    same, later = run("schema", "check", ONE), run("schema", "check", TWO, "--json")

    assert (same.code, same.out) == (0, "The app ledgers is compatible with remora-schema.json.\n")
    assert (later.code, later.document["compatible"], later.document["compared"]) == (0, True, ["remora-schema.json"])
    assert later.document["remarks"] == [
        "remora-schema.json is not up to date: `remora schema write` notes what has changed."
    ]


def test_an_incompatible_release_ends_with_1_and_says_which_event_and_what_to_do(run: Run) -> None:
    run("schema", "write", ONE, "--file", "kept.json")

    people, programs = (run("schema", "check", BROKEN, "--file", "kept.json", *more) for more in ((), ("--json",)))

    assert people.code == programs.code == 1
    for told in ("ledger, event Payment", "Define upcast(cls, data, version) on the event.", "memo, state"):
        assert told in people.out
    assert "cannot read all that was written before" in people.out
    assert [finding["severity"] for finding in programs.document["findings"]][:2] == ["incompatible"] * 2
    assert programs.document["findings"][0] == {
        "severity": "incompatible",
        "entity": "ledger",
        "part": "event Payment",
        "field": "",
        "what": "The event was written in version 1, the code has version 2 and no upcast.",
        "fix": "Define upcast(cls, data, version) on the event.",
        "source": "kept.json",
    }


def test_write_leaves_a_file_alone_that_the_app_breaks_with_unless_it_is_forced(run: Run, here: Path) -> None:
    run("schema", "write", ONE)
    before = (here / "remora-schema.json").read_text()

    refused = run("schema", "write", BROKEN)

    assert refused.code == 1
    assert "--force replaces it" in refused.err
    assert (here / "remora-schema.json").read_text() == before
    assert run("schema", "write", BROKEN, "--force").code == 0
    assert run("schema", "check", BROKEN).code == 0


def test_a_later_release_keeps_the_forms_of_the_earlier_ones_in_the_file(run: Run, here: Path) -> None:
    run("schema", "write", ONE)
    run("schema", "write", TWO)

    assert "Payment" in json.loads((here / "remora-schema.json").read_text())["history"]["ledger"]["events"]
    assert run("schema", "check", BROKEN).code == 1


def test_a_store_is_compared_by_the_description_that_its_last_start_kept(run: Run, store: str) -> None:
    assert run("schema", "check", TWO, "--store", store).code == 0
    assert run("schema", "check", BROKEN, "--store", store).code == 1


def test_a_deep_check_reads_all_of_a_store_and_finds_what_no_description_tells(
    run: Run, store: str, here: Path
) -> None:
    with closing(sqlite3.connect(here / "ledgers.db")) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'schema'")
        connection.commit()

    shallow = run("schema", "check", BROKEN, "--store", store)
    fine, deep = (run("schema", "check", app, "--store", store, "--deep") for app in (TWO, BROKEN))
    programs = run("schema", "check", BROKEN, "--store", store, "--deep", "--json")

    assert shallow.code == 0
    assert "has no description yet: --deep reads all" in shallow.err
    assert fine.code == 0
    assert "1 events, 1 states and 0 undelivered sends were read." in fine.out
    assert deep.code == 1
    assert "first in ledger/a, entry 1" in deep.out
    assert programs.document["read"] == {"events": 1, "states": 1, "sends": 0}


def test_a_check_changes_nothing_also_in_a_store_of_an_older_release(run: Run, here: Path) -> None:
    histories = Path(__file__).parents[2] / "histories"
    path = here / "history.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((histories / "0.1.0.sql").read_text(encoding="utf-8"))
    before = path.read_bytes()

    ended = run("schema", "check", "tests.histories.app:app", "--store", f"sqlite:///{path}", "--deep", "--json")

    assert (ended.code, ended.document["read"]["events"]) == (0, 254)
    assert path.read_bytes() == before


def test_accept_takes_a_store_that_can_be_read_and_no_other(run: Run, store: str) -> None:
    assert run("schema", "accept", BROKEN, "--store", store).code == 1
    assert run("schema", "check", ONE, "--store", store).code == 0

    taken = run("schema", "accept", TWO, "--store", store, "--json")

    assert (taken.code, taken.document["compatible"]) == (0, True)
    assert run("schema", "check", BROKEN, "--store", store).code == 0, "its history is forgotten: nothing needs it"


def test_accept_leaves_out_a_type_whose_data_nobody_needs(
    run: Run, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.cli import releases  # noqa: PLC0415 - where the next release is put

    memo = remora.App("ledgers", entities=[one.spec("memo").cls], settings=one.settings)
    monkeypatch.setattr(releases, "memo_only", memo, raising=False)
    app = "tests.unit.cli.releases:memo_only"

    assert run("schema", "check", app, "--store", store).code == 1
    assert run("schema", "accept", app, "--store", store).code == 1
    assert run("schema", "accept", app, "--store", store, "--drop", "ledger").code == 0
    assert run("schema", "check", app, "--store", store).code == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["check", ONE], 2, "There is no remora-schema.json: write it with `remora schema write"),
        (["check", ONE, "--file", "none.json"], 2, "There is no none.json"),
        (["check", ONE, "--deep"], 2, "name it with --store URL"),
        (["check"], 2, "MODULE:APP"),
        ([], 2, "Missing command"),
        (["compare", ONE], 2, "No such command"),
        (["accept", ONE], 2, "--store"),
        (["write", ONE, "--file", "no/such/folder.json"], 2, "Cannot write no/such/folder.json"),
        (["check", ONE, "--file", "."], 2, "Cannot read ."),
        (["check", "nothing:app", "--file", "x"], 4, "Cannot import 'nothing'"),
        (["check", ONE, "--store", "sqlite:///none.db"], 4, "There is no store at"),
        (["accept", ONE, "--store", "sqlite:///none.db"], 4, "There is no store at"),
        (["check", ONE, "--store", "mysql://x"], 4, "No store adapter"),
        (["check", ONE, "--file", "letter.json"], 4, "holds no description of an app"),
        (["check", ONE, "--file", "list.json"], 4, "holds no description of an app"),
        (["check", ONE, "--store", "sqlite:///letter.json"], 4, "Cannot read the store"),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_make_no_files(
    run: Run, here: Path, words: list[str], code: int, told: str
) -> None:
    (here / "letter.json").write_text("Dear schema, " * 99)
    (here / "list.json").write_text("[]")

    people, programs = run("schema", *words), run("schema", *words, "--json")

    assert (people.code, programs.code) == (code, code)
    assert told in people.err
    assert programs.document["detail"]
    assert sorted(path.name for path in here.iterdir()) == ["letter.json", "list.json"]


def test_a_store_of_another_app_is_refused(run: Run, store: str) -> None:
    ended = run("schema", "check", "entities.account:app", "--store", store)

    assert ended.code == 4
    assert "belongs to the app 'ledgers'" in ended.err
