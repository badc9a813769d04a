"""The file of a backup: a readable heading, and an encrypted stream of pages and files.

The heading names the home and holds its `lab.json`, so that whoever has the key file or passphrase
can derive the key of the rest. That is an age file; inside are blocks compressed with Zstandard:
a line of JSON with the facts, the pages of the database (each with its number), files of the home
(each after a line of JSON), and a line of JSON with the digests and counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from aico_lab.adapters.age import decrypt_stream, encrypt_stream
from aico_lab.errors import AicoLabError, CorruptDatabase, InvalidValue, SourceMissing
from aico_lab.home.files import os_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

MAGIC: Final = b"aico-lab backup 1\n"
NAME_BEGIN: Final = "aico-"
SUFFIX: Final = ".backup"
"""The names of backups in a folder: these around the beginning of the home's id, and the time."""

_LONGEST: Final = 1 << 24  # bytes of a line of JSON
_BLOCK: Final = 1 << 20  # bytes that are compressed at a time
_SIZES: Final = struct.Struct(">II")  # of a block: compressed, and whole
_NUMBER: Final = struct.Struct(">I")  # of a page; 0 after the last one
_LEVEL: Final = 3  # of compression: 1 saves a fifth of the time, and makes files a tenth larger


@dataclass(frozen=True, slots=True)
class Heading:
    """The readable beginning of a backup.

    Attributes:
        home_id: The id of the home.
        made_at: When the backup was made: ISO 8601, UTC.
        marker: The home's `lab.json`.
        digest: The SHA-256 of the heading's bytes, which the encrypted part confirms.
        size: The number of these bytes.
    """

    home_id: str
    made_at: str
    marker: dict[str, object]
    digest: str
    size: int


def newest_in(path: Path) -> Path:
    """Return the newest backup of a folder; a file as it is.

    Raises:
        SourceMissing: The folder has no backup.
        InvalidValue: The folder has backups of several homes.
    """
    if not path.is_dir():
        return path
    found = {path.name.rpartition("-")[2]: path for path in path.glob(f"{NAME_BEGIN}*-*{SUFFIX}")}
    if not found:
        raise SourceMissing(f"There is no backup in {path}: name a file of `aico-lab backup`.")
    if len({path.name.rpartition("-")[0] for path in found.values()}) > 1:
        raise InvalidValue(f"{path} has backups of several homes: name one file.")
    return found[max(found)]


def heading_bytes(home_id: str, made_at: str, marker: Mapping[str, object]) -> bytes:
    """Return the bytes of a heading."""
    facts = {"home_id": home_id, "made_at": made_at, "marker": marker}
    return MAGIC + json.dumps(facts).encode() + b"\n"


def read_heading(path: Path) -> Heading:
    """Read the heading of a backup.

    Raises:
        SourceMissing: There is no such file.
        CorruptDatabase: The file is not a backup, or its heading is damaged.
    """
    if not path.is_file():
        raise SourceMissing(f"There is no backup {path}: name a file of `aico-lab backup`.")
    with os_errors(path), path.open("rb") as file:
        magic, line = file.read(len(MAGIC)), file.readline(_LONGEST)
    try:
        if magic != MAGIC:
            raise ValueError("no backup")
        facts = json.loads(line)
        return Heading(
            home_id=str(facts["home_id"]),
            made_at=str(facts["made_at"]),
            marker=dict(facts["marker"]),
            digest=hashlib.sha256(magic + line).hexdigest(),
            size=len(magic) + len(line),
        )
    except (ValueError, KeyError, TypeError) as damage:
        raise CorruptDatabase(
            f"{path} is not a backup of aico-lab, or is damaged: name a file of `aico-lab backup`."
        ) from damage


def write_container(
    file: BinaryIO, heading: bytes, content: Iterable[bytes], recipients: Collection[str]
) -> None:
    """Write a backup.

    Args:
        file: The file, which is empty.
        heading: See `heading_bytes`.
        content: The bytes of the encrypted part, in pieces.
        recipients: The age recipients whose identities open it.
    """
    file.write(heading)
    encrypt_stream(_Pulled(_compressed(content)), file, recipients)


def line_of(facts: Mapping[str, object]) -> bytes:
    """Return facts as a line of JSON."""
    return json.dumps(facts).encode() + b"\n"


def numbered(number: int, page: bytes = b"") -> bytes:
    """Return a page of the database with its number; without a page, the end of all pages."""
    return _NUMBER.pack(number) + page


class _Pulled:
    """A readable object over pieces of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        end = len(self._rest) if size < 0 else size
        found, self._rest = self._rest[:end], self._rest[end:]
        return found


def _compressed(content: Iterable[bytes]) -> Iterator[bytes]:
    import pyarrow as pa

    codec, held = pa.Codec("zstd", _LEVEL), bytearray()
    for piece in content:
        held += piece
        while len(held) >= _BLOCK:
            yield _block(codec, bytes(held[:_BLOCK]))
            del held[:_BLOCK]
    if held:
        yield _block(codec, bytes(held))


def _block(codec: Any, content: bytes) -> bytes:
    packed: bytes = codec.compress(content, asbytes=True)
    return _SIZES.pack(len(packed), len(content)) + packed


class Payload:
    """The encrypted part of a backup, read in order.

    Attributes:
        facts: The line of JSON at its beginning.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        import pyarrow as pa

        self._stream, self._name = stream, name
        self._codec, self._held = pa.Codec("zstd"), bytearray()
        self._hash = hashlib.sha256()
        self.facts = self._line()

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the pages that the backup holds, each with its number."""
        size = int(self.facts["page_size"])
        while number := _NUMBER.unpack(self._exactly(_NUMBER.size))[0]:
            yield number, self._exactly(size)

    def files(self) -> Iterator[tuple[dict[str, Any], bytes | None]]:
        """Yield the facts of each file, and its content, or None if the base holds it.

        The facts of the last one are the digests and counts of all.
        """
        while True:
            before = self._hash.hexdigest()
            facts = self._line()
            if "path" not in facts:
                if facts.get("digest") != before:
                    raise self._damaged()
                yield facts, None
                return
            yield facts, self._exactly(int(facts["bytes"])) if facts["stored"] else None

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._held and len(self._held) < _LONGEST:
            self._more()
        line, _, rest = bytes(self._held).partition(b"\n")
        self._held = bytearray(rest)
        self._hash.update(line + b"\n")
        try:
            facts = json.loads(line)
        except ValueError as damage:
            raise self._damaged() from damage
        if not isinstance(facts, dict):
            raise self._damaged()
        return facts

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._more()
        found = bytes(self._held[:size])
        del self._held[:size]
        self._hash.update(found)
        return found

    def _more(self) -> None:
        sizes = self._stream.read(_SIZES.size)
        if len(sizes) < _SIZES.size:
            raise self._damaged()
        packed, whole = _SIZES.unpack(sizes)
        content = self._stream.read(packed) if packed <= 2 * _BLOCK and whole <= _BLOCK else b""
        if len(content) < packed or not content:
            raise self._damaged()
        try:
            self._held += self._codec.decompress(content, whole, asbytes=True)
        except OSError as damage:
            raise self._damaged() from damage

    def _damaged(self) -> CorruptDatabase:
        return CorruptDatabase(f"{self._name} is damaged or cut off: use another backup.")


@contextlib.contextmanager
def opened(path: Path, heading: Heading, identities: Collection[str]) -> Iterator[Payload]:
    """Yield the encrypted part of a backup, decrypted piece by piece in a thread.

    Raises:
        WrongKey: None of the identities opens it.
        CorruptDatabase: The backup is damaged; also raised while the block reads.
    """
    receiving, sending = os.pipe()
    failed: list[BaseException] = []

    def send() -> None:
        try:
            with os.fdopen(sending, "wb") as pipe, path.open("rb") as file:
                file.seek(heading.size)
                decrypt_stream(file, pipe, identities, name=path.name)
        except BrokenPipeError:  # the block has read enough
            pass
        except BaseException as error:  # noqa: BLE001 - raised where the block reads
            failed.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        with os_errors(path), os.fdopen(receiving, "rb") as stream:
            try:
                payload = Payload(stream, path.name)
                if payload.facts.get("heading") != heading.digest:
                    raise CorruptDatabase(f"The heading of {path.name} was altered: use another.")
                yield payload
            except AicoLabError:
                # Cut off by an error of the thread, which says more.
                if stream.read(1) == b"":
                    sender.join()
                    if failed:
                        raise failed[0] from None
                raise
    finally:
        sender.join()
