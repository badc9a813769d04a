"""Working copies of the shipped notebooks, which users edit in place of the originals."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from aico_lab.home.files import os_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RECORD = ".shipped.json"
"""The file that records, for each copy, the digest of the notebook that it was made from."""


def renew(folder: Path, notebooks: Iterable[Path]) -> list[Path]:
    """Copy missing notebooks, and replace outdated copies that nobody edited.

    Only a change of a cell's source counts as an edit: JupyterLab writes outputs and metadata into
    any notebook that is run. Outputs are lost when a copy is replaced.

    Args:
        folder: The folder of copies, created with access for its owner only if it is missing.
        notebooks: The shipped notebooks.

    Returns:
        The edited copies that have a newer version; they are left unchanged.

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
    """Return the notebooks of a folder by name, except unedited copies of shipped ones.

    Raises:
        HomeNotWritable: A notebook cannot be read.
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
    except (FileNotFoundError, ValueError):  # every copy that differs then counts as edited
        return {}
    return record if isinstance(record, dict) else {}


def _cells_digest(content: bytes) -> str:
    """Return a hash of the sources of a notebook's cells, or of a file that is not a notebook."""
    try:
        # A cell's source is a string or a list of lines.
        cells = [
            (cell["cell_type"], "".join(cell["source"])) for cell in json.loads(content)["cells"]
        ]
    except (ValueError, LookupError, TypeError):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()
