"""Tables of messages as people have them: any delimiter, encoding, header and form of dates.

A file is read twice: first for the form of its times, its roles and authors, then for its messages.
"""

from __future__ import annotations

from typing import Final

KINDS: Final[dict[str, tuple[str, str]]] = {
    "csv": (
        "CSV and TSV: commas, semicolons, tabs or pipes between the cells, with a header",
        "UTF-8 with or without a byte order mark, UTF-16, Windows-1252; Excel's line sep=; too",
    ),
    "json": (
        "JSON: an array of flat objects, alone or as the only list of an object",
        "streamed, so that its size does not matter; what follows damage is searched for",
    ),
    "jsonl": (
        "JSON Lines: one flat object per line, with any names of columns",
        "UTF-8 with or without a byte order mark, UTF-16",
    ),
    "parquet": (
        "Parquet: one row per message; nested columns are kept in the metadata",
        "times of every unit and zone; dictionaries",
    ),
}
"""The description of each kind of table, and what of it is understood."""
