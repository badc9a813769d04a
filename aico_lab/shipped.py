"""Find the notebooks and pipelines that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped(folder: str, suffix: str) -> dict[str, Path]:
    """Give the files of a folder by their name without suffix.

    Args:
        folder: 'notebooks' or 'pipelines'.
        suffix: Such as '.ipynb'.
    """
    package = Path(str(files("aico_lab")))
    # Installed, the folder lies inside the package; in a checkout beside it.
    for place in (package / folder, package.parent / folder):
        if place.is_dir():
            return {path.stem: path for path in sorted(place.glob(f"*{suffix}"))}
    return {}
