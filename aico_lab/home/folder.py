"""The folder of a lab: its layout, its marker file, and its creation."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aico_lab.errors import HomeExists, HomeMissing, HomeNotWritable
from aico_lab.home.files import held, os_errors, private_files, sync_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT = 2
FORMER_FORMAT = 1
"""The format of homes with a single slot, which stay as they are until their keys change."""

MAKING_SECONDS = 30
"""Seconds to wait for another program that is creating the same home."""


@dataclass(frozen=True, slots=True)
class Home:
    """A lab's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def marker(self) -> Path:
        """The file that makes the folder a lab, with the home's id and its wrapped key."""
        return self.path / "lab.json"

    @property
    def unfinished(self) -> Path:
        """The marker of a home that is being created; the last step renames it to `lab.json`."""
        return self.path / "lab.json.unfinished"

    @property
    def primary(self) -> Path:
        """The libSQL database, the only source of truth."""
        return self.path / "aico.db"

    @property
    def warehouse(self) -> Path:
        """The folder of the DuckDB projection."""
        return self.path / "warehouse"

    @property
    def writer(self) -> Path:
        """The DuckDB file that a sync writes; nothing else opens it."""
        return self.warehouse / "writer.duckdb"

    @property
    def snapshots(self) -> Path:
        """The folder of published copies of the writer's file, one per generation."""
        return self.warehouse / "snapshots"

    @property
    def answers(self) -> Path:
        """The folder of kept answers of metrics, with a folder for each generation."""
        return self.warehouse / "answers"

    @property
    def vectors(self) -> Path:
        """The ChromaDB projection: this folder, or one encrypted file beside it."""
        return self.path / "vectors"

    @property
    def cache(self) -> Path:
        """The RocksDB cache."""
        return self.path / "cache"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files of databases, which are encrypted."""
        return self.path / "tmp"

    @property
    def reports(self) -> Path:
        """The folder of reports, with a folder for each report that ran."""
        return self.path / "reports"

    @property
    def erasures(self) -> Path:
        """The sealed file of erasures, by which a restored older database is noticed."""
        return self.path / "erasures.sealed"

    def read_marker(self) -> dict[str, object]:
        """Read `lab.json`.

        Raises:
            HomeMissing: The folder does not contain a lab, or its marker is damaged.
            HomeNotWritable: The marker cannot be read.
        """
        try:
            marker = json.loads(self.marker.read_text(encoding="utf-8"))
            if not isinstance(marker, dict) or marker.get("format") not in {FORMAT, FORMER_FORMAT}:
                raise ValueError(f"format {marker!r}"[:60])
        except (FileNotFoundError, NotADirectoryError) as missing:
            raise HomeMissing(
                f"There is no lab in {self.path}: run `aico-lab init` or `aico-lab demo`, "
                "or name another folder with --home."
            ) from missing
        except OSError as refused:
            raise HomeNotWritable(
                f"{self.marker} cannot be read ({refused.strerror}): check its permissions."
            ) from refused
        except ValueError as damaged:
            raise HomeMissing(
                f"{self.marker} is damaged or of another version: restore it from a backup; "
                "without it the home's key cannot be unwrapped."
            ) from damaged
        return marker

    def prepare(self, home_id: str) -> None:
        """Create the folders of a home, and an empty file as the primary database.

        The unfinished marker is written before that file, so that the next attempt can tell an
        unfinished home from one whose `lab.json` was lost.

        Raises:
            HomeExists: The folder contains a lab already, or the remains of one.
            HomeNotWritable: The folder cannot be written.
        """
        with os_errors(self.path), private_files():
            self.refuse_lab()
            if self.primary.exists():
                raise HomeExists(
                    f"{self.primary} exists without the lab.json that opens it: "
                    "restore that file, or name another folder with --home."
                )
            for half_written in self.path.glob(f".{self.unfinished.name}.*"):
                half_written.unlink(missing_ok=True)
            write_atomically(self.unfinished, json.dumps({"home_id": home_id}).encode())
            for folder in (self.warehouse, self.temporary, self.reports):
                folder.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self.primary, os.O_CREAT | os.O_EXCL, 0o600))

    def refuse_lab(self) -> None:
        """Raise HomeExists if the folder contains a lab."""
        with os_errors(self.path):
            if self.marker.exists():
                raise HomeExists(
                    f"There is a lab in {self.path} already: use it, or name another folder."
                )

    @contextlib.contextmanager
    def being_made(self) -> Iterator[None]:
        """Lock the folder while this program creates a home in it.

        Raises:
            HomeExists: Another program is creating it, or the folder contains other files.
            HomeNotWritable: The folder cannot be created or written.
        """
        is_new = not self.path.exists()
        with os_errors(self.path), private_files():
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.marker.exists():
                self._refuse_others()
                self.path.chmod(0o700)
            self.temporary.mkdir(mode=0o700, exist_ok=True)
        lock = self.temporary / "init.lock"
        entered = False
        try:
            with held(lock, MAKING_SECONDS, self._is_made):
                entered = True
                yield
        except BaseException:
            if entered and not self.marker.exists():
                lock.unlink(missing_ok=True)
                self._remove_empty(is_new=is_new)
            raise
        lock.unlink(missing_ok=True)  # programs that wait for it will find the finished home

    def _remove_empty(self, *, is_new: bool) -> None:
        folders = [self.warehouse, self.temporary, self.reports, *([self.path] if is_new else ())]
        for folder in folders:
            with contextlib.suppress(OSError):  # it is not empty, or was not created
                folder.rmdir()

    def _refuse_others(self) -> None:
        """Raise HomeExists if the folder contains files that do not belong to an unfinished home.

        The home's permissions would hide them from others, and their names may collide.
        """
        if self.unfinished.exists():  # the folder was empty when that was begun
            return
        own = {path.name for path in (self.warehouse, self.temporary, self.reports)}
        for there in sorted(path.name for path in self.path.iterdir()):
            ours = there.lstrip(".").startswith((self.primary.name, self.unfinished.name))
            if there not in own and not ours:
                raise HomeExists(
                    f"{self.path} is not empty (it contains {there!r}): name a new or an empty "
                    "folder with --home."
                )

    def _is_made(self, who: str) -> HomeExists:
        return HomeExists(f"The lab in {self.path} is being created by {who}: use that one.")

    def abandoned(self) -> str | None:
        """Return the id of an unfinished home in this folder, or None."""
        if self.marker.exists():
            return None
        try:
            begun = json.loads(self.unfinished.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return str(begun.get("home_id")) if isinstance(begun, dict) else None

    def discard(self) -> None:
        """Remove the empty primary database and the marker of an unfinished home."""
        for suffix in ("", "-wal", "-shm", ".seal", ".tail"):
            self.primary.with_name(f"{self.primary.name}{suffix}").unlink(missing_ok=True)
        half_written = self.path.glob(f".{self.unfinished.name}.*")
        for path in (self.unfinished, *half_written, *self.path.glob(".aico.db.seal.*")):
            path.unlink(missing_ok=True)

    def write_marker(self, marker: Mapping[str, object]) -> None:
        """Write `lab.json`, which turns the folder into a lab."""
        with os_errors(self.path):
            write_atomically(self.unfinished, _content(marker))
            self.unfinished.replace(self.marker)
            sync_folder(self.path)

    def rewrite_marker(self, marker: Mapping[str, object]) -> None:
        """Replace `lab.json`, whole or not at all."""
        with os_errors(self.path):
            for half_written in self.path.glob(f".{self.marker.name}.*"):
                half_written.unlink(missing_ok=True)
            write_atomically(self.marker, _content(marker))


def _content(marker: Mapping[str, object]) -> bytes:
    return json.dumps({**marker, "format": FORMAT}, indent=2).encode() + b"\n"
