"""Copy databases and homes: copying takes less time than to apply schemas and to sync."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.config import usual_key_file
from aico_lab.lab import Lab
from aico_lab.schema import CORE
from tests.messages import add, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.credentials import Protection


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
    """Creates homes by copying one that `Lab.create`, and maybe `sync`, made.

    Args:
        folder: The folder of the homes that are copied.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(
        self,
        home: Path,
        protection: Protection = "key-file",
        *,
        messages: int = 0,
        synced: bool = False,
        key_file: Path | None = None,
    ) -> Lab:
        """Create a home at a path, and open it.

        Args:
            home: The path, at which nothing exists.
            protection: The protection of its key: by a file, or none.
            messages: The number of its messages, which are those of `tests.messages.message`.
            synced: Whether it has a snapshot.
            key_file: The place of its key; by default the usual one of the person.
        """
        model = self._folder / f"{protection}-{messages}-{synced}"
        key = model.with_suffix(".key")
        if not model.exists():
            file = key if protection == "key-file" else None
            with Lab.create(model, protection=protection, key_file=file) as lab:
                add(lab.primary, *map(message, range(messages)))
                if synced:
                    lab.sync()
        return open_copy(model, home, key, key_file)


def open_copy(model: Path, home: Path, key: Path, key_file: Path | None = None) -> Lab:
    """Open a copy of a home, and of its key, if it has one.

    Files that are links to one another are so in the copy, and files keep their times.

    Args:
        model: The home to copy.
        home: The path of the copy.
        key: The key of the home to copy.
        key_file: The place of the key of the copy; by default the usual one of the person.
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
        home_id = json.loads((home / "lab.json").read_text())["home_id"]
        place = key_file or usual_key_file(home_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(key, place)
    return Lab.open(home, key_file=key_file)


class Counting:
    """A connection that counts its queries and the rows that it reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.rows = self.queries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def fetch_all(self, *arguments: Any) -> list[Any]:
        self.queries += 1
        rows = self._connection.fetch_all(*arguments)
        self.rows += len(rows)
        return rows

    def fetch_batches(self, *arguments: Any, size: int) -> Iterator[list[Any]]:
        self.queries += 1
        for rows in self._connection.fetch_batches(*arguments, size=size):
            self.rows += len(rows)
            yield rows
