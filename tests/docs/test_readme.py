"""The README's Python is executed as written, top to bottom, later blocks seeing what earlier ones defined.

A block behind ``<!-- needs a cluster -->`` runs too: its ``remora.connect`` gives a client of
``remora.local`` for the app that the blocks before it defined, which takes the same calls.
"""

import ast
import inspect
import re
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import remora

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"(?P<cluster><!-- needs a cluster -->\s*)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    code: str
    line: int
    needs_cluster: bool


def blocks(text: str) -> list[Block]:
    return [
        Block(match["code"], text.count("\n", 0, match.start("code")), match["cluster"] is not None)
        for match in BLOCK.finditer(text)
    ]


async def execute(block: Block, module: ModuleType) -> None:
    # Blank lines in front make a traceback's line numbers those of the README.
    source = "\n" * block.line + block.code
    code = compile(source, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, module.__dict__)  # noqa: S307 - this repository's own README
    if inspect.isawaitable(result):
        await result


async def test_the_readmes_python_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("readme")

    def connect(name: str, **_: object) -> AbstractAsyncContextManager[remora.Client]:
        app: remora.App = module.__dict__["app"]
        assert app.name == name
        return remora.local(app)

    monkeypatch.chdir(tmp_path)  # a store that a block opens belongs to this run
    monkeypatch.setitem(sys.modules, module.__name__, module)  # annotations are resolved in their module
    found = blocks(README.read_text(encoding="utf-8"))

    assert found
    for block in found:
        with monkeypatch.context() as patch:
            if block.needs_cluster:
                patch.setattr(remora, "connect", connect)
            await execute(block, module)


async def test_a_block_may_wait_and_sees_what_earlier_blocks_defined() -> None:
    module = ModuleType("sample")
    text = "```python\nimport asyncio\nx = 1\n```\n\n<!-- needs a cluster -->\n```python\nawait asyncio.gather()\ny = x + 1\n```\n"

    for block in blocks(text):
        await execute(block, module)

    assert [block.needs_cluster for block in blocks(text)] == [False, True]
    assert module.__dict__["y"] == 2
