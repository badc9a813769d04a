"""Read zip archives, also those that are damaged or cut off, and archives in archives.

A file in an archive is never unpacked under its own name, so its name may be anything. A file that
cannot be read to its end is read as far as possible, and the fault is noted.
"""

from __future__ import annotations

import copy
import io
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final, Self, cast

from aico_lab.errors import SourceUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_MEMBERS: Final = 100_000
LARGEST: Final = 64 * 1024**3
"""Bytes that all members of an archive may have together when unpacked."""

_RATIO: Final = 1_000
"""An archive that grows by more than this factor is not a person's export, but made to fill disks;
JSON shrinks to a tenth or a fiftieth."""

_SMALL: Final = 64 * 1024**2
"""Bytes below which the ratio does not matter."""

_MOST_BY_DEFLATE: Final = 1_032
"""The most by which deflate shrinks anything."""

_HEADER: Final = b"PK\x03\x04"
_HEADER_SIZE: Final = 30
_UNKNOWN_SIZE: Final = 8
"""The bit of a local header that says that its sizes stand behind the data."""

_UTF_8: Final = 0x800
_PIECE: Final = 1 << 16
_FAULTS: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError)
_CHANGED: Final = "it is damaged in its archive: what can be read of it was read"
_WRONG_SIZE: Final = (
    "the archive states a size for it that cannot be right: what can be read of it was read"
)
_DAMAGED: Final = "it is damaged in its archive: what stands before the damage was read"


@dataclass(slots=True)
class Faults:
    """The files of an archive that cannot be read.

    Attributes:
        reasons: The reason by the name of the file.
    """

    reasons: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, reason: str) -> None:
        """Note the first reason of a file."""
        self.reasons.setdefault(name, reason)


Packed = tuple[str, int, "Callable[[], IO[bytes]]"]
"""The name and size of a file in an archive, and how to open it."""


def is_archive(stream: IO[bytes]) -> bool:
    """Return whether a file is a zip archive, whole or only its beginning."""
    stream.seek(0)
    if stream.read(len(_HEADER)) == _HEADER:
        return True
    stream.seek(0)
    return zipfile.is_zipfile(stream)


def packed(stream: IO[bytes], name: str, size: int, faults: Faults) -> Iterator[Packed]:
    """Yield the files of an archive by name.

    Args:
        stream: The archive, which must stay open as long as its files are read.
        name: The name of the archive, for messages.
        size: The size of the archive in bytes.
        faults: Gets what cannot be read.

    Raises:
        SourceUnreadable: The archive would unpack to too much, or all files need a password.
    """
    try:
        archive = zipfile.ZipFile(stream)
        if any(one.header_offset >= size for one in archive.infolist()):
            raise zipfile.BadZipFile("a file lies behind the end of the archive")
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
        faults.note(name, "the archive is damaged or cut off: what its beginning has was read")
        yield from _salvaged(stream, name, faults)
        return
    files = [one for one in archive.infolist() if not one.is_dir()]
    locked = [one for one in files if one.flag_bits & 1]
    if locked and len(locked) == len(files):
        raise SourceUnreadable(
            f"{name} is protected by a password; unpack it and import the folder."
        )
    for one in locked:
        faults.note(one.filename, "it is protected by a password")
    wrong = [one for one in files if not _may_have_its_size(one, size)]
    if wrong:
        for one in wrong:
            faults.note(one.filename, _WRONG_SIZE)
        yield from _salvaged(stream, name, faults)
        return
    files = [one for one in files if not one.flag_bits & 1]
    unpacked = sum(one.file_size for one in files)
    small = max(min(sum(one.compress_size for one in files), size), 1)
    is_bomb = unpacked > LARGEST or (unpacked > _SMALL and unpacked / small > _RATIO)
    if len(files) > MOST_MEMBERS or is_bomb:
        raise SourceUnreadable(
            f"{name} would unpack to {len(files):,} files of {unpacked / 1e9:,.1f} GB, which is no "
            "export of conversations; unpack what you need and import that."
        )
    for one in sorted(files, key=lambda file: file.filename):
        yield one.filename, one.file_size, _opener(archive, one, faults)


def _may_have_its_size(one: zipfile.ZipInfo, archive_size: int) -> bool:
    """Return whether the sizes of a file in an archive's directory can be right."""
    if one.compress_size > archive_size:
        return False
    if one.compress_type == zipfile.ZIP_STORED:
        return one.file_size == one.compress_size
    most = (one.compress_size + 1) * _MOST_BY_DEFLATE
    return one.compress_type != zipfile.ZIP_DEFLATED or one.file_size <= most


def _opener(
    archive: zipfile.ZipFile, one: zipfile.ZipInfo, faults: Faults
) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        unchecked = copy.copy(one)
        if not one.filename.lower().endswith(".zip"):  # without a checksum it cannot seek
            del unchecked.CRC  # zipfile drops the piece in which a checksum fails; see _Limited
        try:
            stream = archive.open(unchecked)
        except NotImplementedError:
            faults.note(one.filename, "it is compressed in a way that cannot be read")
            return io.BytesIO()
        except _FAULTS:
            faults.note(one.filename, _DAMAGED)
            return io.BytesIO()
        return cast("IO[bytes]", _Limited(stream, one, faults))

    return opened


class _Limited:
    """A stream that ends at the size in the archive's directory, or at the first damage.

    The checksum is compared after everything was read, so that what can be decompressed is read.
    """

    def __init__(self, stream: IO[bytes], one: zipfile.ZipInfo, faults: Faults) -> None:
        self._stream = stream
        self._left = self._size = one.file_size
        self._name = one.filename
        self._faults = faults
        self._checksum: int | None = 0
        self._wanted = one.CRC

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > self._left:
            count = self._left
        return self._taken(lambda: self._stream.read(count))

    def readline(self, count: int = -1) -> bytes:
        most = self._left if count < 0 else min(count, self._left)
        return self._taken(lambda: self._stream.readline(most))

    def close(self) -> None:
        self._stream.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._checksum = None
        try:
            at = self._stream.seek(offset, whence)
        except _FAULTS:
            self._faults.note(self._name, _DAMAGED)
            at = self._size
        self._left = max(self._size - at, 0)
        return at

    def _taken(self, take: Callable[[], bytes]) -> bytes:
        if not self._left:
            return b""
        try:
            data = take()
        except _FAULTS:
            self._faults.note(self._name, _DAMAGED)
            self._left = 0
            return b""
        self._left -= len(data)
        if self._checksum is not None:
            self._checksum = zlib.crc32(data, self._checksum)
            if not self._left and self._checksum != self._wanted:
                self._faults.note(self._name, _CHANGED)
        return data

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()


# An archive without its directory, which stands at its end


def _salvaged(stream: IO[bytes], archive: str, faults: Faults) -> Iterator[Packed]:
    """Yield the files of an archive by the headers before their data."""
    at = unpacked = number = 0
    while (begin := _find_header(stream, at)) is not None:
        stream.seek(begin)
        header = stream.read(_HEADER_SIZE)
        if len(header) < _HEADER_SIZE:
            return
        flags, method = (int.from_bytes(header[i : i + 2], "little") for i in (6, 8))
        small, name_size, extra_size = (
            int.from_bytes(header[i:j], "little") for i, j in ((18, 22), (26, 28), (28, 30))
        )
        encoding = "utf-8" if flags & _UTF_8 else "cp437"
        name = stream.read(name_size).decode(encoding, errors="replace")
        data = begin + _HEADER_SIZE + name_size + extra_size
        known = None if flags & _UNKNOWN_SIZE or small == 0xFFFFFFFF else small  # noqa: PLR2004
        at = data if known is None else data + known
        if name.endswith("/"):
            continue
        if flags & 1 or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            faults.note(name, "it is protected by a password, or compressed in an unknown way")
            continue
        if method == zipfile.ZIP_STORED and known is None:
            faults.note(name, _DAMAGED)
            continue

        def opened(begin: int = data, small: int | None = known, method: int = method) -> IO[bytes]:
            raw = _Raw(stream, begin, small, is_deflated=method == zipfile.ZIP_DEFLATED)
            return cast("IO[bytes]", io.BufferedReader(raw, _PIECE))

        size = 0
        with opened() as whole:
            while piece := whole.read(_PIECE):
                size += len(piece)
                if unpacked + size > LARGEST:
                    break
        unpacked, number = unpacked + size, number + 1
        is_bomb = unpacked > _SMALL and unpacked > _RATIO * max(stream.seek(0, 2), 1)
        if number > MOST_MEMBERS or unpacked > LARGEST or is_bomb:
            raise SourceUnreadable(
                f"{archive} would unpack to more than {unpacked / 1e9:,.1f} GB, which is no export "
                "of conversations; unpack what you need and import that."
            )
        yield name, size, opened


def _find_header(stream: IO[bytes], at: int) -> int | None:
    """Return where the next local header begins."""
    last = b""
    stream.seek(at)
    while piece := stream.read(_PIECE):
        found = (last + piece).find(_HEADER)
        if found >= 0:
            return at - len(last) + found
        at += len(piece)
        last = piece[-3:]
    return None


class _Raw(io.RawIOBase):
    """The data of a file in an archive, from its beginning to its end, or to the first damage."""

    def __init__(
        self, stream: IO[bytes], begin: int, size: int | None, *, is_deflated: bool
    ) -> None:
        self._stream = stream
        self._at = begin
        self._left = size
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if is_deflated else None
        self._input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, count: int) -> bytes:
        while True:
            if self._inflate is not None and self._inflate.eof:
                return b""
            self._input = self._input or self._piece()
            if self._inflate is None:
                data, self._input = self._input[:count], self._input[count:]
                return data
            at_end = not self._input
            try:
                data = self._inflate.decompress(self._input, count)
            except zlib.error:
                return b""
            self._input = self._inflate.unconsumed_tail
            if data or at_end:
                return data

    def _piece(self) -> bytes:
        self._stream.seek(self._at)
        data = self._stream.read(_PIECE if self._left is None else min(_PIECE, self._left))
        self._at += len(data)
        if self._left is not None:
            self._left -= len(data)
        return data
