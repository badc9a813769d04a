"""Find the notebooks and pipelines shipped with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped(folder: str, suffix: str) -> dict[str, Path]:
    """Return the shipped files of a folder, by their names without suffix.

    Args:
        folder: 'notebooks' or 'pipelines'.
        suffix: The suffix, such as '.ipynb'.
    """
    package = Path(str(files("aico_lab")))
    # The folder is inside an installed package, but beside the package in a checkout.
    for place in (package / folder, package.parent / folder):
        if place.is_dir():
            return {path.stem: path for path in sorted(place.glob(f"*{suffix}"))}
    return {}
