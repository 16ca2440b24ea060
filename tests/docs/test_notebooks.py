"""Every notebook runs from its first cell to its last, on ``remora.local``."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_is_a_notebook_to_start_with() -> None:
    assert NOTEBOOKS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_notebook_runs_without_an_error(notebook: Path) -> None:
    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
    client = NotebookClient(content, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})

    client.execute()  # raises CellExecutionError with the cell and its traceback


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_notebook_is_kept_without_outputs_so_that_changes_can_be_read(notebook: Path) -> None:
    cells = nbformat.read(notebook, as_version=4).cells  # type: ignore[no-untyped-call]  # nbformat has no types

    assert [index for index, cell in enumerate(cells) if cell.get("outputs")] == []
