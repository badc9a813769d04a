"""The folder of bundles of a home, and the copying of files between it and a shared folder.

Both have the same layout. Files are never changed: a file is there whole, or it is not there. Files
are copied under a name that begins with a dot, and then renamed. What a cloud drive or a crash cut
off in the shared folder is copied again: a file there is compared if its size or time is not that
of the file here, which gets the time of an equal one. A file here that is damaged is removed, and
fetched again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aico_lab.adapters import age
from aico_lab.errors import FolderUnusable
from aico_lab.federation.bundles import (
    LARGEST_FILE,
    FileName,
    Refused,
    hash_of,
    parse_name,
)
from aico_lab.federation.rows import is_stream
from aico_lab.home.files import (
    os_errors,
    private_files,
    remove_whole,
    sync_folder,
    write_atomically,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

_PENDING: Final = ".pending-"
_MARK: Final = re.compile("federation-([0-9a-f]{32})")
_PRECISION: Final = 1_000_000
"""Nanoseconds by which the times of equal files may differ between file systems."""
_WRITING: Final = 60.0
"""Seconds after which a file that is being received belongs to a process that was killed."""
_COPYING: Final = 3_600.0
"""Seconds after which one that is being copied into a shared folder does."""
_LEFT: Final = re.compile(r"\.\.?pending-.*|\.\d{8}-.*", re.DOTALL)
"""Names of files that are not complete yet, in a home."""
_COPY: Final = re.compile(r"\.copy-([0-9a-f]{16})-[0-9a-f]{16}")
"""Names of files that are not complete yet, in a shared folder, with the id of the device."""
_OF_ONE_FILE: Final = {
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENOENT,
    errno.EACCES, errno.EPERM, errno.ENAMETOOLONG,
}  # fmt: skip
"""Errors that say nothing about the other files of a folder."""


@dataclass
class Exchanged:
    """The result of an exchange with a folder.

    Attributes:
        received: The files that came.
        sent: The files that were copied into the folder.
        refused: Bundles that are incomplete, or cannot be read or written, each with the reason.
        removed: The files that were removed from the folder, because newer ones replace them.
        foreign: What is in the folder and no bundle of a known device, each with the reason.
        damaged: Bundles of this device that were damaged, and removed.
    """

    received: int = 0
    sent: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    removed: int = 0
    foreign: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def followed_by(self, later: Exchanged) -> Exchanged:
        """Return the result of both; what was refused may be whole later, or of a known device."""
        return Exchanged(
            self.received + later.received,
            self.sent + later.sent,
            later.refused,
            self.removed + later.removed,
            later.foreign,
            self.damaged + later.damaged,
        )


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A bundle whose bytes are not those that its name stands for.

    Attributes:
        path: The path of the file.
        is_repaired: Whether it is whole again, or, on this device, removed to be sent anew.
    """

    path: str
    is_repaired: bool


class Spool:
    """The bundles of a home: those of this device and those that were received."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> set[str]:
        """Return the names of all bundles, such as `<stream>/<number>-<hash>.age`."""
        return {*self._statuses()}

    def _statuses(self) -> dict[str, os.stat_result]:
        with os_errors(self.folder):
            return {
                name: one for name, one in _Listing(self.folder).files.items() if _is_name(name)
            }

    def size(self) -> int:
        """Return the size of all bundles in bytes."""
        return sum(one.st_size for one in self._statuses().values())

    def read(self, name: str) -> bytes:
        """Return the content of a bundle's file."""
        with os_errors(self.folder):
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

        What killed processes were writing, which may be readable, is removed, too.

        Args:
            is_written: Returns whether the database has a bundle.
        """
        with os_errors(self.folder):
            for path in self.unfinished():
                name = f"{path.parent.name}/{path.name.removeprefix(_PENDING)}"
                if _is_name(name) and path.is_file() and is_written(parse_name(name)):
                    self._make_way(self.folder / name)
                    path.replace(self.folder / name)
                    sync_folder(path.parent)
                # A thread that serves in the local network may be receiving a file.
                elif "pending" in path.name or _is_older(path, _WRITING):
                    remove_whole(path)

    def unfinished(self) -> list[Path]:
        """Return the files that are being written, or were by a process that was killed."""
        return [path for path in self.folder.glob("*/.*") if _LEFT.fullmatch(path.name)]

    def remove(self, name: str) -> None:
        """Remove a bundle, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def exchange(
        self,
        folder: Path,
        federation: str,
        *,
        device_id: str,
        devices: Container[str],
        junk: set[str],
        gone: set[str],
    ) -> Exchanged:
        """Copy the missing files from a shared folder, and to it; repair damaged ones.

        Args:
            folder: The shared folder.
            federation: The id of the federation, by which the folder is marked.
            device_id: The id of this device.
            devices: The ids of its devices; files of others are left where they are.
            junk: Files that were refused, and are neither fetched nor passed on.
            gone: Files that others replace, and are removed.

        Raises:
            FolderUnusable: The folder is missing, cannot be read or written, or is that of another
                federation.
            HomeNotWritable: The home cannot be read or written.
            DiskFull: Its disk is full.
        """
        done = Exchanged()
        with _usable(folder, as_whole=True):
            _mark(folder, federation)
            there = _Listing(folder)
        there.remove_left(device_id)
        done.foreign += [(printable(name), why) for name, why in there.odd.items()]
        here = self._statuses()
        for name in sorted(there.files.keys() - here.keys() - gone - junk):
            try:
                if parse_name(name).device not in devices:
                    raise Refused("its device is unknown")
            except Refused as refused:
                done.foreign.append((printable(name), str(refused)))
                continue
            self._fetch(folder, name, done)
        for name in sorted(here.keys() - junk - gone):
            if name in there.odd or parse_name(name).stream in there.odd:
                continue
            if name in there.files and (_are_alike(here[name], there.files[name])
                                        or self._is_whole(folder, name)):  # fmt: skip
                continue
            self._send(folder, name, done, device_id, is_there=name in there.files)
        for name in sorted(there.files.keys() & gone):
            with contextlib.suppress(Refused), _usable(folder):
                (folder / name).unlink(missing_ok=True)
                done.removed += 1
        return done

    def check(
        self, folder: Path | None, device_id: str, devices: Container[str]
    ) -> list[DamagedFile]:
        """Compare the bytes of all files with their names, and repair damaged ones.

        One that is whole neither here nor there is removed here: its rows are sent again.

        Args:
            folder: A shared folder, whose files are compared, too.
            device_id: The id of this device.
            devices: The ids of the devices.
        """
        here = self.names()
        there: set[str] = set()
        if folder is not None:
            with _usable(folder, as_whole=True):
                there = {
                    name
                    for name in _Listing(folder).files
                    if _is_name(name) and parse_name(name).device in devices
                }
        found = []
        for name in sorted(here | there):
            mine = name in here and _read_whole(self.folder / name)
            theirs = folder is not None and name in there and _read_whole(folder / name)
            if name in here and not mine:
                self.remove(name)
                if theirs:
                    self.take(name, theirs)
                found.append(DamagedFile(str(self.folder / name), is_repaired=True))
            if folder is not None and name in there and not theirs:
                if mine:
                    with contextlib.suppress(Refused), _usable(folder):
                        _copy(folder, name, mine, device_id)
                        theirs = _read_whole(folder / name)
                found.append(DamagedFile(str(folder / name), is_repaired=bool(theirs)))
        return found

    def _fetch(self, folder: Path, name: str, done: Exchanged) -> None:
        try:
            with _usable(folder):
                content = _content(folder / name)
            self.take(name, content)
        except Refused as refused:
            done.refused.append((printable(name), str(refused)))
        else:
            self._note_time(folder, name)
            done.received += 1

    def _send(
        self, folder: Path, name: str, done: Exchanged, device_id: str, *, is_there: bool
    ) -> None:
        content = self.read(name)
        if hash_of(content) != parse_name(name).hash or not age.has_head(content):
            self.remove(name)
            done.damaged.append(name)
            if is_there:
                self._fetch(folder, name, done)
            return
        try:
            with _usable(folder):
                _copy(folder, name, content, device_id)
        except Refused as refused:
            done.refused.append((name, str(refused)))
        else:
            self._note_time(folder, name)
            done.sent += 1

    def _is_whole(self, folder: Path, name: str) -> bool:
        """Return whether a file of a shared folder is as here; then it is known by its time."""
        here, there = self.folder / name, folder / name
        with contextlib.suppress(OSError):
            if here.stat().st_size == there.stat().st_size:
                if here.read_bytes() != there.read_bytes():
                    return False
                self._note_time(folder, name)
                return True
        return False

    def _note_time(self, folder: Path, name: str) -> None:
        with contextlib.suppress(OSError):  # it is only compared again then
            time_ns = (folder / name).stat().st_mtime_ns
            os.utime(self.folder / name, ns=(time_ns, time_ns))

    def _write(self, path: Path, content: bytes) -> None:
        with os_errors(self.folder):
            self._make_way(path)
            with private_files():
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    def _make_way(self, path: Path) -> None:
        """Remove what another program has put in the place of a file, or of a folder above it."""
        for above in (self.folder, path.parent):
            if above.exists() and not above.is_dir():
                above.unlink()
        if path.is_dir():
            remove_whole(path)


class _Listing:
    """The content of a folder of bundles.

    Attributes:
        files: The visible regular files one folder below, with their states.
        odd: What is in the place of a bundle or of a stream, each with the reason.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, os.stat_result] = {}
        self.odd: dict[str, str] = {}
        self._left: dict[Path, str] = {}
        self._folder = folder
        if not folder.is_dir():
            return
        with os.scandir(folder) as outer:
            for entry in outer:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    self._read(entry.name)
                elif is_stream(entry.name):
                    self.odd[entry.name] = "it is in the place of a folder of bundles: remove it"

    def _read(self, stream: str) -> None:
        try:
            with os.scandir(self._folder / stream) as inner:
                for file in inner:
                    name = f"{stream}/{file.name}"
                    if file.name.startswith("."):
                        if found := _COPY.fullmatch(file.name):
                            self._left[self._folder / name] = found[1]
                        continue
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        # A link could lead anywhere, and a pipe would never end.
                        status = file.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            self.files[name] = status
                        elif stat.S_ISDIR(status.st_mode) and _is_name(name):
                            self.odd[name] = "it is in the place of a bundle: remove it"
        except OSError as error:
            if is_stream(stream):
                self.odd[stream] = f"it cannot be read ({error.strerror})"

    def remove_left(self, device_id: str) -> None:
        """Remove what killed processes of a device were copying, and those of others long ago."""
        for path, device in self._left.items():
            with contextlib.suppress(OSError):
                if device == device_id or _is_older(path, _COPYING):
                    path.unlink()


def withdraw(folder: Path, federation: str, device_id: str) -> bool:
    """Remove a federation of one device from a shared folder, for others to use it.

    Args:
        folder: The shared folder.
        federation: The id of the federation.
        device_id: The id of the device.

    Returns:
        Whether it is removed; it stays if the folder cannot be used, or has bundles of others.
    """
    try:
        streams = [path for path in folder.iterdir() if is_stream(path.name)]
        if not all(path.name.startswith(f"{device_id}.") for path in streams):
            return False
        for path in streams:
            remove_whole(path)
        (folder / f"federation-{federation}").unlink(missing_ok=True)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _usable(folder: Path, *, as_whole: bool = False) -> Iterator[None]:
    """Convert an OSError in the block, about a file of a shared folder or the folder itself.

    Args:
        folder: The shared folder.
        as_whole: Whether it concerns the folder in any case.

    Raises:
        Refused: It concerns one file.
        FolderUnusable: It concerns the folder.
    """
    try:
        yield
    except OSError as error:
        is_there = folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)
        if error.errno in _OF_ONE_FILE and is_there and not as_whole:
            raise Refused(f"it cannot be used ({error.strerror})", is_final=False) from error
        raise FolderUnusable(
            f"The folder {folder} cannot be used ({error.strerror}): check that it is there, can "
            "be written, and has space."
        ) from error


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


def _is_name(name: str) -> bool:
    try:
        parse_name(name)
    except Refused:
        return False
    return True


def _is_older(path: Path, seconds: float) -> bool:
    return abs(time.time() - path.lstat().st_mtime) > seconds


def _read_whole(path: Path) -> bytes:
    """Return the content of a bundle's file; nothing if that is not what its name stands for."""
    try:
        content = _content(path)
    except (OSError, Refused):
        return b""
    is_whole = hash_of(content) == parse_name(f"{path.parent.name}/{path.name}").hash
    return content if is_whole else b""


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


def _copy(folder: Path, name: str, content: bytes, device_id: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".copy-{device_id}-{secrets.token_hex(8)}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
