"""Whether files of the warehouse are still what was written: checksums, and a read of everything.

A checksum is cheap (some 10 ms for 150 MB), so every sync can compare the file that it is about to
link to. It guards against rot, not against people: what authenticates a file is DuckDB's
encryption. A file without a checksum is read whole by DuckDB, which checks every block.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from aico_lab.adapters.duckdb import ALIAS, DuckDBAdapter, translated
from aico_lab.home import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MEMORY_LIMIT = "200MB"
WORD = 8  # bytes
WORDS = 1 << 15  # summed at a time


def checksum(path: Path) -> str:
    """Return a checksum of a file: a hash of its size and of the sums of its 256 KiB pieces."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.sha256(str(path.stat().st_size).encode())
    if path.stat().st_size:
        with pa.memory_map(str(path)) as file:
            content = file.read_buffer()
            count = content.size // WORD
            words = pa.Array.from_buffers(
                pa.uint64(), count, [None, content.slice(0, count * WORD)]
            )
            for start in range(0, count, WORDS):
                digest.update(repr(pc.sum(words.slice(start, WORDS)).as_py()).encode())
            digest.update(content.slice(count * WORD).to_pybytes())
    return digest.hexdigest()


def read_checksums(record: Path) -> dict[str, str]:
    """Return the checksums that were noted, by file name; none where the record is damaged."""
    try:
        noted = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
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
