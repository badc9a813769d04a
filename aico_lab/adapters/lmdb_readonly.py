"""Read a database of an LMDB file, of which no program may be writing: best a copy.

LMDB maps the file into memory and trusts it, so a damaged file may end the process that reads it:
another process reads it, and writes the pairs to a pipe.

The library is optional: `pip install 'aico-lab[aico]'`.
"""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from aico_lab.config import without_secrets
from aico_lab.errors import CorruptDatabase, LibraryMissing, NotADatabase

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = struct.pack("<I", 0xBEEFC0DE)
MAGIC_AT: Final = 16
"""The offset of the magic number of a file, in bytes."""

_LENGTHS: Final = struct.Struct("<II")
_MOST_DATABASES: Final = 64
_DONE: Final = 100
"""The exit code of the other process when it has read everything."""


def read_lmdb(path: Path, database: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a named database in the order of the keys; none if it is absent.

    Args:
        path: The file `data.mdb`, or a copy of it.
        database: The name of the database in it.

    Raises:
        LibraryMissing: lmdb is not installed.
        NotADatabase: The file is not an LMDB file.
        CorruptDatabase: The file is damaged or cut short; what could be read was yielded.
    """
    if importlib.util.find_spec("lmdb") is None:
        raise LibraryMissing("LMDB is not installed: run `pip install 'aico-lab[aico]'`.")
    with path.open("rb") as stream:
        if stream.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] != MAGIC:
            raise NotADatabase(f"{path.name} is not an LMDB file: name another one.")
    command = [sys.executable, "-P", "-m", __name__, str(path), database]
    with subprocess.Popen(  # noqa: S603 - this program, with a path and no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=without_secrets(),
    ) as process:
        last: bytes | None = None
        for key, value in _pairs(cast("IO[bytes]", process.stdout)):
            if last is not None and key <= last:  # its pages form a circle
                process.kill()
                break
            yield key, value
            last = key
    if process.returncode != _DONE:
        raise CorruptDatabase(f"{path.name} is damaged: use another copy of it.")


def _pairs(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    while len(head := stream.read(_LENGTHS.size)) == _LENGTHS.size:
        length, size = _LENGTHS.unpack(head)
        key, value = stream.read(length), stream.read(size)
        if len(key) == length and len(value) == size:
            yield key, value


def _write(path: Path, database: str, stream: IO[bytes]) -> None:
    """Write the pairs of a database to a stream, in the other process."""
    import lmdb

    with lmdb.open(
        str(path), subdir=False, readonly=True, lock=False, max_dbs=_MOST_DATABASES
    ) as opened:
        try:
            handle = opened.open_db(database.encode(), create=False)
        except lmdb.NotFoundError:
            return
        with opened.begin(db=handle) as transaction, transaction.cursor() as cursor:
            for key, value in cursor:
                stream.write(_LENGTHS.pack(len(key), len(value)) + key + value)


if __name__ == "__main__":
    _write(Path(sys.argv[1]), sys.argv[2], sys.stdout.buffer)
    sys.stdout.flush()
    sys.exit(_DONE)
