"""Write small notebooks, and read what executed ones show."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING, Any

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
    """Return everything that the cells of a notebook printed or showed as text."""
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
    )


def html(path: Path) -> list[str]:
    """Return the HTML that the cells of a notebook show, in their order."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        output.data["text/html"]
        for cell in cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]


def charts(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every chart of a notebook by the question that the chart answers."""
    found = {}
    for text in html(path):
        if match := re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
            specification = json.loads(match[1])
            asked = re.search(r'class="aico-lab-question">(.*?)</span>', text)
            question = unescape(asked[1]) if asked else ""
            sets = specification.get("datasets", {})  # the explorer's cube has none
            found[question] = [row for rows in sets.values() for row in rows]
    return found


def tiles(path: Path) -> dict[str, str]:
    """Return the figures at the top of `pattern_analysis` by their names."""
    text = next(text for text in html(path) if '<dl class="aico-lab-tiles' in text)
    shown = re.findall(r'<dt>(.*?)</dt><dd class="figure[^"]*">(.*?)</dd>', text)
    return {unescape(name): unescape(value) for name, value in shown}


def header(path: Path) -> str:
    """Return the text of the header of `pattern_analysis`: people, filters, snapshot."""
    text = next(text for text in html(path) if 'class="aico-lab-selection' in text)
    return unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL))
