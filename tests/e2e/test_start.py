"""A start that cannot succeed."""

from pathlib import Path

import pytest

from remora.cluster.ray_process import free_ports
from tests.e2e.machine import processes, remora, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


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


def test_a_cluster_that_does_not_answer_is_refused_soon(tmp_path: Path) -> None:
    port, nobody = free_ports(2)
    up = remora(
        "up", "entities.account:app", "--port", str(port), "--address", f"127.0.0.1:{nobody}", "--store",
        f"sqlite:///{tmp_path / 'bank.db'}", home=tmp_path,
    )  # fmt: skip

    assert up.code == 4, up.err
    assert f"No Ray cluster answers at 127.0.0.1:{nobody}" in up.err
    assert "Traceback" not in up.err
