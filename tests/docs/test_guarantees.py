"""docs/guarantees.md claims only what a test proves: every test that it names exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.findall(
    r"`((?:tests|platform/remora/testing)/[\w/]+\.py)::(\w+)`",
    (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8"),
)


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_guarantees_name_exists() -> None:
    assert [f"{path}::{name}" for path, name in NAMED if name not in names_in(path)] == []


def test_the_guarantees_name_a_test_for_each_promise() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)

    promised = {section[:2]: section.count(".py::test_") for section in sections if re.match(r"G\d ", section)}

    assert sorted(promised) == [f"G{number}" for number in range(1, 9)]
    assert min(promised.values()) > 0


def test_no_test_is_named_in_another_form_that_would_not_be_checked() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

    assert len(re.findall(r"::test_", text)) == len(NAMED)
