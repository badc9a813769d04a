"""Find pipelines by name or path: those of a home, and those that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from aico_lab.errors import UnknownName, did_you_mean
from aico_lab.home.files import os_errors
from aico_lab.shipped import shipped

if TYPE_CHECKING:
    from aico_lab.home.folder import Home

_MOVED: Final = {"daily": "nightly"}
"""The present names of shipped pipelines that had another one."""


def pipelines(home: Home | None = None) -> dict[str, tuple[Path, str]]:
    """Return the files and origins of the pipelines that can be run by name.

    Args:
        home: A home, whose own pipelines take precedence over shipped ones with the same name.
    """
    found = {name: (path, "package") for name, path in shipped("pipelines", ".toml").items()}
    if home is not None and (folder := home.path / "pipelines").is_dir():
        with os_errors(folder):
            own = {path.stem: (path, "home") for path in sorted(folder.glob("[!.]*.toml"))}
        found |= own
    return dict(sorted(found.items()))


def find_pipeline(name: str, home: Home | None) -> tuple[Path, str]:
    """Return the file of a pipeline and its origin: 'package', 'home', or its path.

    Args:
        name: The name of a pipeline of the home or the package, or the path of a `.toml` file.
        home: A home with pipelines of its own.

    Raises:
        UnknownName: There is no such pipeline.
    """
    known = pipelines(home)
    if not name.lower().endswith(".toml"):
        if name in known:
            return known[name]
    elif (path := Path(name).expanduser().absolute()).is_file():
        origins = {one.resolve(): origin for one, origin in known.values()}
        return path, origins.get(path.resolve(), str(path))
    if (now := _MOVED.get(name)) in known:
        raise UnknownName(f"The pipeline {name} is {now} now: run `aico-lab pipeline run {now}`.")
    end = f": name a .toml file, or one of these: {', '.join(known) or 'none'}."
    raise UnknownName(f"There is no pipeline {name!r}{did_you_mean(name, known, end)}")
