"""A person's own copies of the notebooks that come with the package, where nobody edits them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from aico_lab.home import os_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RECORD = ".shipped.json"
"""Which version of each notebook a folder's copy was made from."""


def renew(folder: Path, notebooks: Iterable[Path]) -> list[Path]:
    """Copy the notebooks that are missing, and those of which nobody changed the older copy.

    Only what its cells say makes a copy a changed one: JupyterLab writes outputs and metadata into
    a notebook that somebody merely ran. Outputs are lost where a newer notebook takes its place.

    Args:
        folder: Where the copies lie; it is made where it is missing, for its owner alone.
        notebooks: Those that come with the package.

    Returns:
        The changed copies of which there is a newer version; they stay as they are.

    Raises:
        HomeNotWritable: The folder, or a copy, cannot be read or written.
    """
    behind = []
    with os_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        copied_from = _read_record(folder)
        for notebook in notebooks:
            copy, name = folder / notebook.name, notebook.name
            content = notebook.read_bytes()
            newest = _cells_digest(content)
            present = _cells_digest(copy.read_bytes()) if copy.exists() else None
            if present in (None, newest, copied_from.get(name)):
                if present != newest:
                    write_atomically(copy, content)
                copied_from[name] = newest
            elif copied_from.get(name) != newest:
                behind.append(copy)
        write_atomically(folder / RECORD, json.dumps(copied_from, indent=2).encode() + b"\n")
    return behind


def own_notebooks(folder: Path) -> dict[str, Path]:
    """Return the notebooks of a folder, by name, without the copies that nobody changed.

    Raises:
        HomeNotWritable: One of them cannot be read.
    """
    with os_errors(folder):
        copied_from = _read_record(folder)
        return {
            notebook.stem: notebook
            for notebook in sorted(folder.glob("[!.]*.ipynb"))
            if _cells_digest(notebook.read_bytes()) != copied_from.get(notebook.name)
        }


def _read_record(folder: Path) -> dict[str, str]:
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except (FileNotFoundError, ValueError):  # without it every copy that differs is a changed one
        return {}
    return record if isinstance(record, dict) else {}


def _cells_digest(content: bytes) -> str:
    """Give a hash of what a notebook's cells say; of the whole file where that is no notebook."""
    try:
        # A cell's text is a string or a list of lines.
        cells = [
            (cell["cell_type"], "".join(cell["source"])) for cell in json.loads(content)["cells"]
        ]
    except (ValueError, LookupError, TypeError):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()
