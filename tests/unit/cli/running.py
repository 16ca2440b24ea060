"""Runs the command line in this process and keeps what it printed."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import pytest

import remora
from remora.cli.main import main
from remora.cluster import record as records
from remora.cluster.record import ClusterRecord

Fake = TypeVar("Fake", bound=ModuleType)


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Run = Callable[..., Ended]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``remora`` with the words it is given."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        code = main(words)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Ended(code, printed.out, printed.err)

    return run


def stand_in(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a module in the place of ``remora.operations``, which talks to Ray, beside the record of a bank that runs."""
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(remora, "operations", fake, raising=False)
    monkeypatch.setenv("COLUMNS", "250")
    records.save(ClusterRecord("bank", "m:app", "127.0.0.1:1", "", "http://127.0.0.1:8000", "sqlite:///x.db", 2))
    return fake
