"""Execute notebooks in this process, without the time that a kernel takes to start."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def execute_here(notebook: Path, executed: Path, **parameters: object) -> None:
    """Execute a notebook as a kernel does, and write it with its outputs.

    Args:
        notebook: The notebook.
        executed: The path of the executed notebook.
        parameters: Values for its parameters cell.
    """
    node = nbformat.read(notebook, as_version=4)
    with itself_as_main():
        _execute(node, executed, parameters)
    nbformat.write(node, executed)


@contextlib.contextmanager
def itself_as_main() -> Iterator[None]:
    """Restore the main module after the block.

    A shell replaces it by a module without `__spec__`, which processes started later need.
    """
    main = sys.modules["__main__"]
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _execute(node: nbformat.NotebookNode, executed: Path, parameters: Mapping[str, object]) -> None:
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(ipython_dir=str(executed.parent), config=quiet)
    shell.reset(new_session=True)
    for number, cell in enumerate((c for c in node.cells if c.cell_type == "code"), 1):
        with capture_output() as captured:
            shell.display_trap.hook = sys.displayhook  # for the value of the last line
            shell.run_cell(cell.source, store_history=False).raise_error()
        if "parameters" in cell.metadata.get("tags", []):
            shell.push(parameters)
        cell.execution_count = number
        cell.outputs = [
            nbformat.v4.new_output("display_data", shown.data, metadata=shown.metadata or {})
            for shown in captured.outputs
        ]
        if printed := captured.stdout:
            cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=printed))
    with contextlib.suppress(KeyError):
        shell.user_ns["lab"].close()
