"""Open an export as it was downloaded: one file, a folder, or a zip archive.

Formats see the same thing in all three cases: members with a name, a size and a stream of bytes.
"""

from __future__ import annotations

import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Final, Self, cast

from aico_lab.errors import SourceMissing, SourceUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOST_MEMBERS: Final = 100_000
LARGEST: Final = 64 * 1024**3
"""Bytes that all members of an archive may have together when unpacked."""

_RATIO: Final = 1_000
"""An archive that grows by more than this factor is not a person's export, but made to fill disks;
JSON shrinks to a tenth or a fiftieth."""

_SMALL: Final = 64 * 1024**2
"""Bytes below which the ratio does not matter."""

HEAD: Final = 65_536
"""Bytes of `Member.head`."""

_NOISE: Final = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an export.

    Attributes:
        name: Its path inside the export, with slashes.
        size: Its size in bytes.
    """

    name: str
    size: int
    _open: Callable[[], IO[bytes]]

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
            SourceUnreadable: The file cannot be read, or is damaged or encrypted in its archive.
        """
        with reading(self.name), self._open() as stream:
            yield stream

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
    """

    path: Path
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Bytes of all members together."""
        return sum(member.size for member in self.members)

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
        SourceUnreadable: The path cannot be read, or is an archive that is damaged, protected by a
            password, or would unpack to too much.
    """
    if not path.exists():
        raise SourceMissing(f"The file {path} does not exist; check its name.")
    with reading(str(path)):
        if path.is_dir():
            yield Opened(path, tuple(_of_folder(path)))
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield Opened(path, tuple(_of_archive(path, archive)))
        else:
            member = Member(path.name, path.stat().st_size, lambda: path.open("rb"))
            yield Opened(path, (member,))


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


def _of_folder(folder: Path) -> Iterator[Member]:
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if number >= MOST_MEMBERS:
            raise SourceUnreadable(
                f"{folder} has more than {MOST_MEMBERS:,} files; name the folder of the export."
            )
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not _is_noise(name):
            yield Member(name, path.stat().st_size, _opener(path))


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _of_archive(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    files = [one for one in archive.infolist() if not one.is_dir() and not _is_noise(one.filename)]
    if any(one.flag_bits & 1 for one in files):
        raise SourceUnreadable(
            f"{path} is protected by a password; unpack it and import the folder."
        )
    size = sum(one.file_size for one in files)
    packed = max(sum(one.compress_size for one in files), 1)
    if len(files) > MOST_MEMBERS or size > LARGEST or (size > _SMALL and size / packed > _RATIO):
        raise SourceUnreadable(
            f"{path} would unpack to {len(files):,} files of {size / 1e9:,.1f} GB, which is no "
            "export of conversations; unpack what you need and import that."
        )
    for one in sorted(files, key=lambda file: file.filename):
        yield Member(one.filename, one.file_size, _member_opener(archive, one))


def _member_opener(archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: cast("IO[bytes]", _Limited(archive.open(one), one.file_size))


class _Limited:
    """A stream that ends at the size in the archive's directory, even if there are more data."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > self._left:
            count = self._left
        data = self._stream.read(count)
        self._left -= len(data)
        return data

    def readline(self, count: int = -1) -> bytes:
        line = self._stream.readline(self._left if count < 0 else min(count, self._left))
        self._left -= len(line)
        return line

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()


def _is_noise(name: str) -> bool:
    return any(part in name for part in _NOISE)
