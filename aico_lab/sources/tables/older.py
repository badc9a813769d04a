"""Recognise a file that `import csv` or `import jsonl` read before, so that nothing is added twice.

These readers know exact names of columns only, and keep all others as metadata. A table knows more
names, such as `id` or `session`, so that it would give messages of the same file other ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.errors import AicoLabError
from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.exports.engine.opened import opened
from aico_lab.sources.tables.headers import are_own, columns_by_field
from aico_lab.sources.tables.opened import open_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.sources import Source

_ROWS: Final = 200
"""Messages at the beginning of a file of which one must be stored."""

NOTE: Final = (
    "Messages of this file were imported by its older reader, which was used again: "
    "`aico-lab import {name}`. With --map its other columns are read too."
)


def older_reader(
    path: Path, options: Options, is_stored: Callable[[str, str], bool]
) -> Source | None:
    """Return the source that read a table before under other ids, or None.

    Args:
        path: The file.
        options: The answers of the user; with any of them the file is read as a table.
        is_stored: Returns whether a message is stored, by its conversation and id.
    """
    if options != Options():
        return None
    with opened(path) as export:
        table = open_table(export.members[0]) if len(export.members) == 1 else None
    if table is None or table.kind not in ("csv", "jsonl"):
        return None
    if not {"content", "timestamp"} <= set(table.columns):
        return None
    if are_own(columns_by_field(table.columns)):
        return None
    older, newer = (_first(SOURCES[name], path) for name in (table.kind, "table"))
    if any(is_stored(*one) for one in newer - older):
        return None
    return SOURCES[table.kind] if any(is_stored(*one) for one in older - newer) else None


def _first(source: Source, path: Path) -> set[tuple[str, str]]:
    try:
        return {
            (message.conversation_id, message.message_id)
            for batch in source.read(path, limit=_ROWS)
            for message in batch.messages
        }
    except AicoLabError:
        return set()
