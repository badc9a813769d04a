"""Copies of databases and homes, since applying the schemas again takes longer."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.config import usual_key_file
from aico_lab.lab import Lab
from aico_lab.schema import CORE

if TYPE_CHECKING:
    from aico_lab.home.keys import Protection


@functools.cache
def _core_schemas(key: str | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.db"
        with LibSQLAdapter(path, key).connect() as connection:
            CORE.apply_core_schemas(connection)
        return path.read_bytes()


def with_core_schemas(path: Path, key: str | None = None) -> LibSQLAdapter:
    """Create a database with the core schemas and without rows at a path."""
    with path.open("xb") as file:
        file.write(_core_schemas(key))
    return LibSQLAdapter(path, key)


class Homes:
    """Creates empty homes by copying one that `Lab.create`, and maybe `sync`, made.

    Args:
        folder: The folder of the homes that are copied.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, home: Path, protection: Protection = "key-file", *, synced: bool = False) -> Lab:
        """Create a home at a path, and its key in its usual place, and open it."""
        model = self._folder / f"{protection}-{synced}"
        key = model.with_suffix(".key")
        if not model.exists():
            file = key if protection == "key-file" else None
            with Lab.create(model, protection=protection, key_file=file) as lab:
                if synced:
                    lab.sync()
        return open_copy(model, home, key)


def open_copy(model: Path, home: Path, key: Path) -> Lab:
    """Open a copy of a home, with its key, if it has one, in the usual place of the person.

    Files that are links to one another are so in the copy, and files keep their times.
    """
    first: dict[int, str] = {}

    def copy(source: str, target: str) -> None:
        number = Path(source).stat().st_ino
        if number in first:
            Path(target).hardlink_to(first[number])
        else:
            shutil.copy2(source, target)
            first[number] = target

    shutil.copytree(model, home, copy_function=copy)
    if key.exists():
        usual = usual_key_file(json.loads((home / "lab.json").read_text())["home_id"])
        usual.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(key, usual)
    return Lab.open(home)
