"""The command line as a program: its help, and what starting it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from remora.cli import exits
from tests.unit.cli.running import Run
from tests.unit.cli.serving import Canned

ROOT = Path(__file__).parents[3]
HEAVY = (
    "fastapi",
    "pandas",
    "ray",
    "remora.cluster.bootstrap",
    "remora.operations",
    "remora.gateway.asgi",
    "starlette",
)


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_help_lists_every_command_and_every_exit_code(run: Run) -> None:
    ended = run("--help")

    assert ended.code == 0
    for command in (
        "up",
        "down",
        "status",
        "call",
        "state",
        "events",
        "why",
        "release",
        "schema",
        "shards",
        "drain",
        "undrain",
        "rebalance",
        "failures",
    ):
        assert f"{command}  " in ended.out
    for sentence in exits.HELP.split("; "):
        assert sentence in ended.out


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "down",
        "status",
        "call",
        "state",
        "events",
        "why",
        "release",
        "shards",
        "drain",
        "undrain",
        "rebalance",
        "failures",
        "schema write",
        "schema check",
        "schema accept",
    ],
)
def test_every_command_has_help_with_the_exit_codes_and_takes_json(run: Run, command: str) -> None:
    ended = run(*command.split(), "--help")

    assert ended.code == 0
    assert "--json" in ended.out
    assert "Exit codes" in ended.out


def test_the_help_of_call_states_how_arguments_are_read(run: Run) -> None:
    shown = run("call", "--help").out

    for stated in ("[1, 2]", "--name '\"10\"'", "--name=--value", "--args '{\"json\": 1}'"):
        assert stated in shown


def test_python_dash_m_runs_it_too() -> None:
    done = python("-m", "remora.cli", "state", "account", "a/b", "--json")

    assert (done.returncode, done.stderr) == (1, "")
    assert '"code":"invalid_id"' in done.stdout


def test_asking_an_entity_loads_neither_ray_nor_a_web_framework() -> None:
    code = (
        "import sys; from remora.cli.main import main; "
        "assert main(['call', 'a', 'b', 'c', '--gateway', 'http://127.0.0.1:1']) == 4; "
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )

    done = python("-c", code)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("words", [["--help"], ["state", "a", "b"], ["state", "a", "b", "--json"]])
def test_a_reader_that_goes_away_early_is_no_error(canned: Canned, words: list[str]) -> None:
    canned.answers(200, {"text": ["more than a pipe holds"] * 10_000}, remora_durability="journal")

    with subprocess.Popen(
        [sys.executable, "-m", "remora.cli", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()

    assert (process.returncode, complaint) == (0, b"")
