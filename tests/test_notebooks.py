"""Every notebook runs as people run it: cell by cell in a kernel, with nbval."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.messages import add, message

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_cell_of_a_notebook_runs(notebook, lab, home):
    """With the home from the environment, as in JupyterLab."""
    add(lab.primary, *map(message, range(300)))
    lab.sync()
    process = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "nbval", "--nbval-lax", "--nbval-current-env",
            "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider",
            str(notebook),
        ],
        capture_output=True, text=True, check=False,
        env={**os.environ, "AICO_LAB_HOME": str(home)},
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-3000:]
    assert " passed" in process.stdout
