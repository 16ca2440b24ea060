"""Runs the command line in this process and keeps what it printed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from remora.cli.main import main


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
