"""The folder of bundles of a home, and the copying of files between it and a shared folder.

Both have the same layout. Files are never changed: a file is there whole, or it is not there. Files
are copied under a name that begins with a dot, and then renamed. What a cloud drive or a crash cut
off in the shared folder is copied again: a file there is compared if its size or time is not that
of the file here, which gets the time of an equal one.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aico_lab.errors import FolderUnusable
from aico_lab.federation.bundles import LARGEST_FILE, FileName, Refused, hash_of, parse_name
from aico_lab.home.files import private_files, sync_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

_PENDING: Final = ".pending-"
_MARK: Final = re.compile("federation-([0-9a-f]{32})")
_PRECISION: Final = 1_000_000
"""Nanoseconds by which the times of equal files may differ between file systems."""


@dataclass
class Exchanged:
    """The result of an exchange with a folder.

    Attributes:
        received: The files that came.
        sent: The files that were copied into the folder.
        refused: Files that are no bundles, each with the reason.
        removed: The files that were removed from the folder, because newer ones replace them.
    """

    received: int = 0
    sent: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    removed: int = 0

    def followed_by(self, later: Exchanged) -> Exchanged:
        """Return the result of both; what was refused may be whole later, or of a known device."""
        return Exchanged(
            self.received + later.received,
            self.sent + later.sent,
            later.refused,
            self.removed + later.removed,
        )


class Spool:
    """The bundles of a home: those of this device and those that were received."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> set[str]:
        """Return the names of all bundles, such as `<stream>/<number>-<hash>.age`."""
        return {name for name, _ in _files(self.folder) if _is_name(name)}

    def _statuses(self) -> dict[str, os.stat_result]:
        return {name: status for name, status in _files(self.folder) if _is_name(name)}

    def size(self) -> int:
        """Return the size of all bundles in bytes."""
        return sum(one.st_size for one in self._statuses().values())

    def read(self, name: str) -> bytes:
        """Return the content of a bundle's file."""
        return (self.folder / name).read_bytes()

    def take(self, name: str, content: bytes) -> None:
        """Store a file that was received.

        Raises:
            Refused: It is not a whole file of this name.
        """
        parsed = parse_name(name)
        if hash_of(content) != parsed.hash:
            raise Refused("it is incomplete, or was changed", is_final=False)
        self._write(self.folder / name, content)

    def prepare(self, name: FileName, content: bytes) -> None:
        """Store a bundle of this device that becomes visible by `publish`."""
        path = self.folder / str(name)
        self._write(path.with_name(f"{_PENDING}{path.name}"), content)

    def publish(self, is_written: Callable[[FileName], bool]) -> None:
        """Make prepared bundles visible whose transaction committed, and remove the others.

        Args:
            is_written: Returns whether the database has a bundle.
        """
        for path in list(self.folder.glob(f"*/{_PENDING}*")):
            name = parse_name(f"{path.parent.name}/{path.name.removeprefix(_PENDING)}")
            if is_written(name):
                path.replace(self.folder / str(name))
                sync_folder(path.parent)
            else:
                path.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a bundle, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def exchange(
        self,
        folder: Path,
        federation: str,
        *,
        devices: Container[str],
        junk: set[str],
        gone: set[str],
    ) -> Exchanged:
        """Copy the missing files from a shared folder, and to it; repair damaged ones there.

        Args:
            folder: The shared folder.
            federation: The id of the federation, by which the folder is marked.
            devices: The ids of its devices; files of others are left where they are.
            junk: Files that were refused, and are neither fetched nor passed on.
            gone: Files that others replace, and are removed.

        Raises:
            FolderUnusable: The folder is missing, cannot be read or written, or is that of another
                federation.
        """
        done = Exchanged()
        try:
            _mark(folder, federation)
            here, there = self._statuses(), dict(_files(folder))
            for name in sorted(there.keys() - here.keys() - gone - junk):
                try:
                    if parse_name(name).device not in devices:
                        raise Refused("its device is unknown", is_final=False)
                    self.take(name, _content(folder / name))
                    self._note_time(folder, name)
                    done.received += 1
                except Refused as refused:
                    done.refused.append((printable(name), str(refused)))
            for name in sorted(here.keys() - junk - gone):
                if name in there and (_are_alike(here[name], there[name])
                                      or self._is_whole(folder, name)):  # fmt: skip
                    continue
                content = self.read(name)
                if hash_of(content) != parse_name(name).hash:
                    done.refused.append((name, "it is damaged on this device"))
                    continue
                _copy(folder, name, content)
                self._note_time(folder, name)
                done.sent += 1
            for name in sorted(there.keys() & gone):
                (folder / name).unlink(missing_ok=True)
                done.removed += 1
        except OSError as error:
            raise FolderUnusable(
                f"The folder {folder} cannot be used ({error.strerror}): check that it is there, "
                "can be written, and has space."
            ) from error
        return done

    def _is_whole(self, folder: Path, name: str) -> bool:
        """Return whether a file of a shared folder is as here; then it is known by its time."""
        here, there = self.folder / name, folder / name
        if here.stat().st_size != there.stat().st_size or here.read_bytes() != there.read_bytes():
            return False
        self._note_time(folder, name)
        return True

    def _note_time(self, folder: Path, name: str) -> None:
        time_ns = (folder / name).stat().st_mtime_ns
        os.utime(self.folder / name, ns=(time_ns, time_ns))

    def _write(self, path: Path, content: bytes) -> None:
        with private_files():
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _are_alike(here: os.stat_result, there: os.stat_result) -> bool:
    """Return whether two files with the same name need not be compared."""
    return (
        here.st_size == there.st_size
        and here.st_mtime_ns // _PRECISION == there.st_mtime_ns // _PRECISION
    )


def printable(name: str) -> str:
    """Return the name of a file that anybody may have chosen without what a terminal obeys."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in name
    )


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the names and states of the visible regular files one folder below another."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as outer:
        for entry in outer:
            if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            with os.scandir(entry.path) as inner:
                for file in inner:
                    if file.name.startswith("."):
                        continue
                    # A link could lead anywhere, and a pipe would never end.
                    status = file.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield f"{entry.name}/{file.name}", status


def _is_name(name: str) -> bool:
    try:
        parse_name(name)
    except Refused:
        return False
    return True


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise Refused("it is too large for a bundle")
    return content


def _mark(folder: Path, federation: str) -> None:
    """Mark a folder as that of a federation, unless it is."""
    marks = {found[1] for path in folder.iterdir() if (found := _MARK.fullmatch(path.name))}
    if marks - {federation}:
        raise FolderUnusable(
            f"{folder} is the folder of other devices that do not trust this one: choose another "
            "folder, or let one of them add this device."
        )
    if not marks:
        (folder / f"federation-{federation}").touch()


def _copy(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{secrets.token_hex(8)}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
