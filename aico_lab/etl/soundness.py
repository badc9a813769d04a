"""Whether files of the warehouse are still what was written: checksums, and a read of everything.

A checksum is cheap (some 40 ms for 150 MB), so every sync can compare the file that it is about to
link to. It guards against rot, not against people: what authenticates a file is DuckDB's
encryption. A file without a checksum is read whole by DuckDB, which checks every block.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from aico_lab.adapters.duckdb import ALIAS, DuckDBAdapter, translated
from aico_lab.home import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MEMORY_LIMIT = "200MB"
PIECE = 1 << 20  # bytes read at a time


def checksum(path: Path) -> str:
    """Return a checksum of a file: its size in bytes, and its CRC-32."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            crc = zlib.crc32(piece, crc)
        return f"{file.tell()}-{crc:08x}"


def read_checksums(record: Path) -> dict[str, str]:
    """Return the checksums that were noted, by file name; none of a record that cannot be read."""
    try:
        noted = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def write_checksums(record: Path, noted: Mapping[str, str]) -> None:
    """Note checksums, instead of those that were noted before."""
    write_atomically(record, json.dumps(dict(noted), indent=1).encode())


def read_whole(path: Path, key: str | None, *, temporary: Path, where: str) -> None:
    """Read every value of a DuckDB file, so that every block of it is checked.

    Args:
        path: The file; nobody may be writing it.
        key: DuckDB's key.
        temporary: The folder for what does not fit into memory.
        where: The file, as a person knows it.

    Raises:
        StorageError: It cannot be read.
    """
    adapter = DuckDBAdapter(
        path, key, read_only=True, temporary=temporary, memory_limit=MEMORY_LIMIT, where=where
    )
    with translated(where):
        connection = adapter.connect()
        try:
            tables = connection.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?",
                [ALIAS],
            ).fetchall()
            for schema, table in tables:
                named = ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))
                connection.execute(f"SELECT max(hash(t)) FROM {named} AS t").fetchall()
        finally:
            connection.close()
