"""``up``, ``down`` and ``status``, with the part that talks to Ray replaced: it has its own tests."""

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import remora.cluster
from entities.account import app as bank
from remora.cli.examples import Example, first_command
from remora.cluster import record as records
from remora.cluster.record import ClusterRecord
from remora.config import AS_CODED, read_config
from remora.errors import PortTaken
from tests.unit.cli.running import Run
from tests.unit.cli.sample import app as sample

Report = Callable[[str], None]
STATUS = {
    "app": "bank",
    "store": "sqlite:////data/bank.db",
    "shards": 256,
    "hosts": [
        {"name": "host-1", "incarnation": 3, "node": "n1", "pid": 11, "dedicated": "", "shards": 128},
        {
            "name": "remora/bank/entity/board/all",
            "incarnation": 4,
            "node": "n1",
            "pid": 12,
            "dedicated": "board/all",
            "shards": 1,
        },
    ],
    "live": [
        {"name": "host-1", "incarnation": 3, "shards": 127, "live": 41, "commands": 7777},
        {"name": "remora/bank/entity/board/all", "error": "no answer"},
    ],
    "outbox": {"undelivered": 5, "parked": 0},
    "gateway": "http://127.0.0.1:8000",
    "dashboard": "http://127.0.0.1:8265",
    "address": "127.0.0.1:6379",
}


class Bootstrap(ModuleType):
    """Stands in for ``remora.operations``."""

    def __init__(self) -> None:
        super().__init__("remora.operations")
        self.asked: dict[str, Any] = {}
        self.shown: ClusterRecord | None = None
        self.failure: Exception | None = None

    def up(self, app_path: str, *, report: Report, **options: object) -> ClusterRecord:
        self.asked = {"app_path": app_path, **options}
        report("starting Ray")
        print("noise of a library")  # noqa: T201 - what this stands for
        if self.failure is not None:
            raise self.failure
        record = ClusterRecord(
            "bank", app_path, "127.0.0.1:6379", "http://127.0.0.1:8265", "http://127.0.0.1:8000", STATUS["store"], 2  # type: ignore[arg-type]
        )  # fmt: skip
        records.save(record)
        return record

    def down(self, record: ClusterRecord, report: Report) -> None:
        report("stopping Ray")
        records.delete(record.app)

    def status(self, record: ClusterRecord) -> dict[str, Any]:
        self.shown = record
        return STATUS


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch) -> Bootstrap:
    fake = Bootstrap()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(remora, "operations", fake, raising=False)
    return fake


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_up_passes_on_its_options_and_prints_what_runs_where(run: Run, bootstrap: Bootstrap) -> None:
    ended = run(
        "up", "entities.account:app", "--store", "memory://", "--hosts", "3", "--port", "8100", "--address", "h:1"
    )

    assert bootstrap.asked == {
        "app_path": "entities.account:app", "store": "memory://", "hosts": 3, "port": 8100, "address": "h:1",
        "config": AS_CODED,
    }  # fmt: skip
    assert ended.code == 0
    assert "starting Ray …" in ended.err
    for shown in ("host-1", "remora/bank/entity/board/all", "http://127.0.0.1:8000", "http://127.0.0.1:8265"):
        assert shown in ended.out


def test_up_leaves_what_is_not_said_to_the_platform(run: Run, bootstrap: Bootstrap) -> None:
    run("up", "entities.account:app")

    assert {**bootstrap.asked, "app_path": ""} == {
        "app_path": "", "store": None, "hosts": None, "port": 8000, "address": None,
        "config": AS_CODED,
    }  # fmt: skip


def test_up_reads_rules_from_a_file_and_refuses_one_that_is_wrong_before_anything_starts(
    run: Run, bootstrap: Bootstrap, tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    text = "supervision: {entities: {account: [{exceptions: ValueError, directive: stop}]}}"
    file.write_text(text, encoding="utf-8")
    assert run("up", "entities.account:app", "--config", str(file)).code == 0
    assert bootstrap.asked["config"] == read_config(text, "")

    bootstrap.asked = {}
    for wrong, said in (
        (text.replace("stop", "halt"), "directive: Input should be"),
        (text.replace("account", "acount"), "acount"),
    ):
        file.write_text(wrong, encoding="utf-8")
        ended = run("up", "entities.account:app", "--config", str(file))
        assert (ended.code, said in ended.err) == (4, True)
    ended = run("up", "entities.account:app", "--config", str(tmp_path / "none.yaml"))
    assert (ended.code, "cannot be read" in ended.err) == (4, True)
    assert bootstrap.asked == {}


def test_up_shows_a_request_that_the_apps_first_command_accepts(run: Run, bootstrap: Bootstrap) -> None:
    del bootstrap

    line = next(line for line in run("up", "entities.account:app").out.splitlines() if "curl" in line)

    words = shlex.split(line)
    assert "http://127.0.0.1:8000/v1/account/alice/deposit" in words
    assert words[-1] == '{"amount": 10}'


def test_up_prints_one_document_for_programs_whatever_libraries_print(run: Run, bootstrap: Bootstrap) -> None:
    del bootstrap

    found = run("up", "entities.account:app", "--json").document

    assert (found["app"], found["gateway_url"], found["status"]) == ("bank", "http://127.0.0.1:8000", STATUS)


def test_up_ends_with_4_and_the_reason_when_it_cannot_start(run: Run, bootstrap: Bootstrap) -> None:
    bootstrap.failure = PortTaken("Port 8000 is in use: choose another with --port.")

    ended = run("up", "entities.account:app")

    assert (ended.code, ended.out) == (4, "")
    assert "error: Port 8000 is in use: choose another with --port." in ended.err


@pytest.mark.parametrize(
    ("source", "path", "named"),
    [
        (None, "nowhere:app", "run from the folder that holds it"),
        (None, "nowhere", "write MODULE:APP"),
        ("x = 1", "shop:app", "no remora.App named 'app'"),
        ("import missing_module", "shop:app", "missing_module"),
        ("x = 1\ny = x +\n", "shop:app", "shop.py, line 2"),
        ("x = 1\ny = x / 0\n", "shop:app", "ZeroDivisionError: division by zero in"),
        ("import sys\nsys.exit(3)\n", "shop:app", "SystemExit: 3 in"),
        ("def f(): return undefined\nf()\n", "shop:app", "shop.py, line 1"),
        ("import remora\napp = remora.App('Shop', entities=[])", "shop:app", "App name 'Shop'"),
    ],
)
def test_an_app_that_cannot_be_imported_ends_with_4_and_the_line_at_fault(
    run: Run, bootstrap: Bootstrap, in_folder: Path, source: str | None, path: str, named: str
) -> None:
    if source is not None:
        (in_folder / "shop.py").write_text(source, encoding="utf-8")

    ended = run("up", path)

    assert ended.code == 4
    assert named in ended.err
    assert bootstrap.asked == {}


def test_a_class_that_breaks_the_contract_ends_with_4_and_names_it(
    run: Run, bootstrap: Bootstrap, in_folder: Path
) -> None:
    (in_folder / "shop.py").write_text(
        "from remora import Durable, command\nfrom pydantic import BaseModel\n\n"
        "class S(BaseModel): pass\n\nclass Basket(Durable[S]):\n    @command\n    def add(self) -> None: ...\n",
        encoding="utf-8",
    )

    ended = run("up", "shop:app")

    assert ended.code == 4
    assert "Basket.add must be async" in ended.err
    assert bootstrap.asked == {}


def test_an_app_of_the_current_folder_is_found(run: Run, bootstrap: Bootstrap, in_folder: Path) -> None:
    (in_folder / "shop.py").write_text("from entities.account import app", encoding="utf-8")

    assert run("up", "shop:app").code == 0
    assert bootstrap.asked["app_path"] == "shop:app"


def test_status_prints_tables_for_people_and_the_document_for_programs(run: Run, bootstrap: Bootstrap) -> None:
    run("up", "entities.account:app")

    people, programs = run("status"), run("status", "bank", "--json")

    assert "undelivered sends  5" in people.out
    (host,) = (line.split() for line in people.out.splitlines() if "host-1" in line)
    assert host == ["host-1", "n1", "11", "3", "128", "41", "7777"]
    (board,) = (line for line in people.out.splitlines() if "no answer" in line)
    assert "remora/bank/entity/board/all" in board
    assert programs.document == STATUS
    assert bootstrap.shown == records.find("bank")


def test_down_stops_the_app_and_says_where_its_state_stays(run: Run, bootstrap: Bootstrap) -> None:
    del bootstrap
    run("up", "entities.account:app")

    assert "Its state stays in sqlite:////data/bank.db" in run("down").out
    assert run("down").code == 4


def test_down_prints_a_document_for_programs(run: Run, bootstrap: Bootstrap) -> None:
    del bootstrap
    run("up", "entities.account:app")

    assert run("down", "bank", "--json").document == {"app": "bank", "store": "sqlite:////data/bank.db"}


def test_examples_are_made_from_the_annotations_of_the_first_command() -> None:
    assert first_command(bank) == Example("account", "alice", "deposit", '{"amount": 10}')
    assert first_command(remora.App("echoes", entities=[sample.specs["echo"].cls])) == Example(
        "echo", "alice", "say", '{"value": null}'
    )
