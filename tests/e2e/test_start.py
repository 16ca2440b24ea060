"""Starts that cannot succeed, and one that waits."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entities.account import app
from remora.cluster.ray_process import free_ports
from remora.schema.describe import describe, to_text
from remora.storage.sqlite import SqliteStore
from tests.e2e.machine import processes, remora, source_path, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.mark.slow
def test_a_start_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear Sir or Madam, " * 100)
    up = remora(
        "up", "entities.account:app", "--port", str(free_ports(1)[0]), "--store", f"sqlite:///{tmp_path / 'letter.db'}",
        home=tmp_path,
    )  # fmt: skip

    assert up.code == 4, up.err
    assert "Remora database" in up.err
    assert "Traceback" not in up.err
    until(lambda: not processes(str(tmp_path)), 10, "every process has ended")
    assert remora("status", home=tmp_path).code == 4


@pytest.mark.slow
def test_a_release_that_cannot_read_what_the_store_holds_does_not_start_and_says_what_to_do(tmp_path: Path) -> None:
    async def written_by_another_release() -> None:
        """Its Account had one event more."""
        schema = describe(app)
        events = schema["entities"]["account"]["events"]
        events["Closed"] = events["Deposited"]
        store = SqliteStore(tmp_path / "bank.db")
        await store.open(app.name, app.settings.shards)
        await store.set_schema(to_text(schema))
        await store.close()

    asyncio.run(written_by_another_release())
    up = remora(
        "up", "entities.account:app", "--port", str(free_ports(1)[0]), "--store", f"sqlite:///{tmp_path / 'bank.db'}",
        home=tmp_path,
    )  # fmt: skip

    assert up.code == 4, up.err
    assert "Closed" in up.err
    assert "remora schema check" in up.err
    assert "Traceback" not in up.err
    until(lambda: not processes(str(tmp_path)), 10, "every process has ended")


def test_a_cluster_that_does_not_answer_is_refused_soon(tmp_path: Path) -> None:
    port, nobody = free_ports(2)
    up = remora(
        "up", "entities.account:app", "--port", str(port), "--address", f"127.0.0.1:{nobody}", "--store",
        f"sqlite:///{tmp_path / 'bank.db'}", home=tmp_path,
    )  # fmt: skip

    assert up.code == 4, up.err
    assert f"No Ray cluster answers at 127.0.0.1:{nobody}" in up.err
    assert "Traceback" not in up.err


@pytest.mark.slow
def test_an_app_in_order_says_while_it_starts_what_is_waited_for_and_ends_with_nothing_left(tmp_path: Path) -> None:
    files, said = tmp_path / "ordered", tmp_path / "up.err"
    files.mkdir()
    words = ["up", "tests.integration.ordered:in_order", "--port", str(free_ports(1)[0])]
    with said.open("w") as err:
        up = subprocess.Popen(
            [sys.executable, "-m", "remora.cli", *words, "--store", f"sqlite:///{tmp_path / 'order.db'}"],
            env={**os.environ, "REMORA_HOME": str(tmp_path), "PYTHONPATH": source_path()},
            stdout=subprocess.DEVNULL,
            stderr=err,
        )
    try:
        for line, file in (
            ("model waits for check weights: not yet", "weights"),
            ("check licence: not yet", "licence"),
        ):
            until(lambda line=line: line in said.read_text(), 90, line)  # type: ignore[misc]  # a default freezes the loop variable
            assert up.poll() is None
            (files / file).touch()
        assert up.wait(90) == 0, said.read_text()
        assert remora("call", "far", "a", "add", home=tmp_path).out.split() == ["1"]
        down = remora("down", home=tmp_path)
        assert down.code == 0, down.err
        until(lambda: not processes(str(tmp_path)), 10, "every process has ended")
    finally:
        up.kill()
        remora("down", home=tmp_path)
