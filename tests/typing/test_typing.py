"""Right use passes mypy and pyright, wrong use is refused by both, line by line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORRECT = HERE / "correct.py"
WRONG = sorted(HERE.glob("wrong_*.py"))
MARK = "# refused"

Findings = dict[str, dict[int, str]]
"""file name → line (from 1) → what the checker says"""

pytestmark = pytest.mark.timeout(240)  # the first test of each checker runs it, on an empty cache at times


def run(*command: str) -> str:
    # Without the variable, pyright's launcher would ask the network for a newer release.
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    # 0: no findings, 1: findings. Anything else means that the checker itself failed.
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def mypy(_: Path) -> Findings:
    found: Findings = {}
    for line in run(sys.executable, "-m", "mypy", "--output=json", str(CORRECT), *map(str, WRONG)).splitlines():
        finding = json.loads(line)
        if finding["severity"] == "error":
            found.setdefault(Path(finding["file"]).name, {})[finding["line"]] = finding["message"]
    return found


def pyright(scratch: Path) -> Findings:
    # A configuration of its own: the project's excludes the wrong files, also when they are named.
    project = scratch / "pyrightconfig.json"
    # `include` is relative to the configuration's real folder; pytest's may be reached through a link.
    included = [os.path.relpath(path, scratch.resolve()) for path in (CORRECT, *WRONG)]
    paths = [str(ROOT / "platform"), str(ROOT)]
    project.write_text(json.dumps({"include": included, "extraPaths": paths, "pythonVersion": "3.11"}), "utf-8")
    output = run(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(project))
    report = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == len(included)
    found: Findings = {}
    for finding in report["generalDiagnostics"]:
        if finding["severity"] == "error":
            line = finding["range"]["start"]["line"] + 1
            found.setdefault(Path(finding["file"]).name, {})[line] = finding["message"]
    return found


@pytest.fixture(scope="session", params=[mypy, pyright], ids=["mypy", "pyright"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    findings: Findings = request.param(tmp_path_factory.mktemp("typing"))
    return findings


def refused_lines(module: Path) -> set[int]:
    lines = module.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith(MARK)}


def test_ordinary_use_is_accepted(found: Findings) -> None:
    assert found.get(CORRECT.name, {}) == {}


@pytest.mark.parametrize("module", WRONG, ids=lambda module: module.stem)
def test_every_wrong_line_is_refused(found: Findings, module: Path) -> None:
    refused = refused_lines(module)

    assert refused
    assert refused - set(found.get(module.name, {})) == set()


@pytest.mark.parametrize("module", WRONG, ids=lambda module: module.stem)
def test_no_other_line_of_a_wrong_module_is_refused(found: Findings, module: Path) -> None:
    refused = refused_lines(module)
    others = {line: message for line, message in found.get(module.name, {}).items() if line not in refused}

    assert others == {}
