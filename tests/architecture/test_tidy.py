"""Sizes and names that keep the code readable. An exception is a line in ALLOWED with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600
README_LINES_MAX = 150
README_CODE_BY_LINE = 40
VAGUE = {"common", "helper", "helpers", "misc", "util", "utils"}

ALLOWED: dict[str, str] = {}
"""``path`` or ``path::function`` → why it may be longer than the rest."""


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def functions(module: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            first = node.body[0]
            is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_platform_is_no_package_since_it_would_hide_the_standard_librarys() -> None:
    assert (ROOT / "platform" / "remora" / "__init__.py").is_file()
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_no_function_has_more_than_70_lines_beside_its_docstring() -> None:
    long = {
        f"{name(module)}::{function}": lines
        for module in modules("platform", "entities")
        for function, lines in functions(module)
        if lines > FUNCTION_LINES_MAX
    }

    assert {where: lines for where, lines in long.items() if where not in ALLOWED} == {}


def test_no_module_has_more_than_600_lines() -> None:
    sizes = {
        name(module): len(module.read_text(encoding="utf-8").splitlines()) for module in modules("platform", "entities")
    }
    long = {where: lines for where, lines in sizes.items() if lines > MODULE_LINES_MAX}

    assert {where: lines for where, lines in long.items() if where not in ALLOWED} == {}


def test_no_module_or_package_has_a_name_that_says_nothing() -> None:
    paths = [path.relative_to(ROOT) for path in modules("platform", "entities", "tests")]

    assert [path.as_posix() for path in paths if VAGUE & {*path.parent.parts, path.stem}] == []


def test_every_allowed_exception_has_a_reason_and_a_module() -> None:
    known = {name(module) for module in modules("platform", "entities")}

    assert [where for where, reason in ALLOWED.items() if not reason or where.split("::")[0] not in known] == []


def test_the_readme_fits_on_150_lines_and_shows_an_entity_in_the_first_40() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    first_lines = "\n".join(lines[:README_CODE_BY_LINE])

    assert len(lines) <= README_LINES_MAX
    assert "class Account(EventSourced[" in first_lines
