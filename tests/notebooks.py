"""Small notebooks for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat

if TYPE_CHECKING:
    from pathlib import Path

NO_PARAMETERS = "# this notebook takes none"


def write_notebook(path: Path, *sources: str, parameters: str | None = NO_PARAMETERS) -> Path:
    """Write a notebook of code cells, the first of which is tagged `parameters`."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if parameters is not None:
        tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        cells.insert(0, tagged)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def outputs(path: Path) -> str:
    """Everything that the cells of a notebook printed or showed as text."""
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
    )
