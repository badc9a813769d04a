"""Find damage in files of the warehouse, by checksums and by reading everything.

A checksum is cheap (some 40 ms for 150 MB), so every sync can check the file that it is about to
link to. It guards against damage, not against people: DuckDB's encryption authenticates files. A
file without a checksum is read whole by DuckDB, which checks every block.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from aico_lab.adapters.duckdb import ALIAS, DuckDBAdapter, translated
from aico_lab.home.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MEMORY_LIMIT = "200MB"
PIECE = 1 << 20  # bytes read at a time


def checksum(path: Path) -> str:
    """Return a checksum of a file: its size in bytes, and its CRC-32 in hexadecimal digits."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            crc = zlib.crc32(piece, crc)
        return f"{file.tell()}-{crc:08x}"


def read_checksums(record: Path) -> dict[str, str]:
    """Return the recorded checksums by file name; none if the record cannot be read."""
    try:
        noted = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def write_checksums(record: Path, noted: Mapping[str, str]) -> None:
    """Replace the recorded checksums, which are given by file name."""
    write_atomically(record, json.dumps(dict(noted), indent=1).encode())


def read_whole(path: Path, key: str | None, *, temporary: Path, where: str) -> None:
    """Read every value of a DuckDB file, so that every block of it is checked.

    Args:
        path: The file; no process may be writing it.
        key: DuckDB's key.
        temporary: The folder for data that does not fit into memory.
        where: The name of the file in errors.

    Raises:
        StorageError: The file cannot be read.
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
