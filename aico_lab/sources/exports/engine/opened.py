"""Open an export as it was downloaded: one file, a folder, or a zip archive.

Formats see the same thing in all three cases: members with a name, a size and a stream of bytes.
Archives in a folder, or in an archive, are opened too, but no deeper.
"""

from __future__ import annotations

import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from aico_lab.errors import SourceMissing, SourceUnreadable
from aico_lab.sources.exports.engine.archives import MOST_MEMBERS, Faults, is_archive, packed
from aico_lab.sources.exports.engine.replaced import Replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEAD: Final = 65_536
"""Bytes of `Member.head`."""

_ARCHIVE: Final = ".zip"
_MOST_ARCHIVES: Final = 1_000
"""Archives in a folder or an archive that are opened."""

_NOISE: Final = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an export.

    Attributes:
        name: Its path inside the export, with slashes.
        size: Its size in bytes.
        path: Its path on the disk; None in an archive.
        replaced: What was replaced in it; grows while it is read.
    """

    name: str
    size: int
    _open: Callable[[], IO[bytes]]
    path: Path | None = None
    replaced: Replaced = field(default_factory=Replaced, compare=False)

    @property
    def stem(self) -> str:
        """The last part of the name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def base(self) -> str:
        """The last part of the name."""
        return PurePosixPath(self.name).name

    @property
    def suffix(self) -> str:
        """The suffix of the name in lower case, such as '.json'."""
        return PurePosixPath(self.name).suffix.lower()

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file for reading.

        Raises:
            SourceUnreadable: The file cannot be read.
        """
        with reading(self.name), self._open() as stream:
            yield stream

    @contextmanager
    def replacing(self) -> Iterator[Replaced]:
        """Count what is replaced while the file is read once; it may be read several times."""
        found = Replaced()
        try:
            yield found
        finally:
            self.replaced.note(found)

    def head(self) -> bytes:
        """Return the first bytes, without a byte order mark, as far as they can be read."""
        with self.open() as stream:
            return stream.read(HEAD).removeprefix(b"\xef\xbb\xbf")


@dataclass(frozen=True, slots=True)
class Opened:
    """An export.

    Attributes:
        path: The file, folder or archive that the user named.
        members: Its files, by name.
        faults: What cannot be read in its archives; grows while its files are read.
    """

    path: Path
    members: tuple[Member, ...]
    faults: Faults = field(default_factory=Faults)

    @property
    def size(self) -> int:
        """Bytes of all members together."""
        return sum(member.size for member in self.members)

    def notes(self) -> list[str]:
        """Return sentences about what was replaced in the files read so far."""
        return [
            sentence
            for member in self.members
            for sentence in member.replaced.sentences(member.name)
        ]

    def named(self, *names: str) -> list[Member]:
        """Return the members whose last part is one of some names, in any case of letters."""
        wanted = {name.casefold() for name in names}
        return [member for member in self.members if member.base.casefold() in wanted]

    def with_suffix(self, *suffixes: str) -> list[Member]:
        """Return the members with one of some suffixes, such as '.json'."""
        return [member for member in self.members if member.suffix in suffixes]


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open an export.

    Raises:
        SourceMissing: The path does not exist.
        SourceUnreadable: The path cannot be read, is neither a file nor a folder, or is an archive
            that is protected by a password, or would unpack to too much.
    """
    faults = Faults()
    with reading(str(path)), ExitStack() as open_files:
        if not path.exists():
            raise SourceMissing(f"The file {path} does not exist; check its name.")
        if path.is_dir():
            yield Opened(path, tuple(_of_folder(path, faults, open_files)), faults)
        elif not path.is_file():  # reading a pipe or a device may never end
            raise SourceUnreadable(f"{path} is neither a file nor a folder; name the export.")
        else:
            stream = open_files.enter_context(path.open("rb"))
            if is_archive(stream):
                size = path.stat().st_size
                members = _of_archive(stream, str(path), size, faults, open_files)
                yield Opened(path, tuple(members), faults)
            else:
                yield Opened(path, (_of_file(path, path.name),), faults)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn errors of reading a file into SourceUnreadable."""
    try:
        yield
    except PermissionError as error:
        raise SourceUnreadable(
            f"You are not permitted to read {name}; change its permissions or copy it."
        ) from error
    except OSError as error:
        said = error.strerror or error
        raise SourceUnreadable(
            f"{name} could not be read ({said}); check the disk, then try again."
        ) from error
    except NotImplementedError as error:  # zipfile's word for a compression that it cannot read
        raise SourceUnreadable(
            f"{name} is compressed in a way that cannot be read; unpack it and import the folder."
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SourceUnreadable(
            f"{name} is damaged in its archive ({error}); download the export again."
        ) from error


def _of_folder(folder: Path, faults: Faults, open_files: ExitStack) -> Iterator[Member]:
    archives = 0
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if number >= MOST_MEMBERS:
            raise SourceUnreadable(
                f"{folder} has more than {MOST_MEMBERS:,} files; name the folder of the export."
            )
        name = path.relative_to(folder).as_posix()
        if _is_noise(name) or not path.is_file():
            continue
        if path.suffix.lower() == _ARCHIVE and archives < _MOST_ARCHIVES:
            stream = open_files.enter_context(path.open("rb"))
            if is_archive(stream):
                archives += 1
                yield from _inside(stream, name, path.stat().st_size, faults)
                continue
        yield _of_file(path, name)


def _of_file(path: Path, name: str) -> Member:
    return Member(name, path.stat().st_size, lambda: path.open("rb"), path)


def _of_archive(
    stream: IO[bytes], name: str, size: int, faults: Faults, open_files: ExitStack
) -> Iterator[Member]:
    """Yield the files of an archive, and of the archives in it."""
    archives = 0
    for member in _members_of(stream, name, size, faults):
        if member.suffix == _ARCHIVE and archives < _MOST_ARCHIVES:
            inner = open_files.enter_context(member.open())
            if inner.seekable() and is_archive(inner):
                archives += 1
                yield from _inside(inner, member.name, member.size, faults)
                continue
        yield member


def _inside(stream: IO[bytes], name: str, size: int, faults: Faults) -> Iterator[Member]:
    """Yield the files of an archive that is one of several files."""
    try:
        for member in _members_of(stream, name, size, faults):
            yield replace(member, name=f"{name}/{member.name}")
    except SourceUnreadable as error:
        faults.note(name, str(error))


def _members_of(stream: IO[bytes], name: str, size: int, faults: Faults) -> Iterator[Member]:
    for one, unpacked, opener in packed(stream, name, size, faults):
        if not _is_noise(one):
            yield Member(one, unpacked, opener)


def _is_noise(name: str) -> bool:
    return any(part in name for part in _NOISE)
