"""Advise what to import instead of a file that is no export, such as a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aico_lab.sources.exports.engine.opened import Opened

_SPREADSHEETS: Final = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
_PAGES: Final = (".html", ".htm")
_PAGE_BEGINS: Final = (b"<!doctype html", b"<html")
_GZIP: Final = b"\x1f\x8b"
_LOOKED_AT: Final = 8
"""Files of a folder that are opened to see whether they are tables."""


def advice(export: Opened) -> str | None:
    """Return a sentence about what to import instead of a file, or None."""
    if not export.members or export.faults.reasons or export.with_suffix(".json", ".jsonl"):
        return None  # what is wrong with an export itself is said elsewhere
    path, first = export.path, export.members[0]
    if path.suffix.lower() in _SPREADSHEETS or export.with_suffix(*_SPREADSHEETS):
        return (
            f"{path} is a spreadsheet in the program's own format: save the sheet as CSV there, "
            "and import that file."
        )
    if len(export.members) == 1 and first.head().startswith(_GZIP):
        return f"{path} is compressed with gzip: unpack it, and import the file in it."
    if export.with_suffix(*_PAGES) or first.head().lstrip()[:20].lower().startswith(_PAGE_BEGINS):
        return (
            f"{path} is made of pages for a browser (HTML): export again as JSON. In Telegram "
            "Desktop, choose Format: Machine-readable JSON; in Google Takeout, My Activity with "
            "JSON instead of HTML."
        )
    return _about_tables(export)


def _about_tables(export: Opened) -> str | None:
    from aico_lab.errors import AicoLabError
    from aico_lab.sources.tables.delimited import lacks_header
    from aico_lab.sources.tables.opened import open_table

    if len(export.members) == 1:
        lacks = lacks_header(export.members[0])
        return _NO_HEADER.format(name=export.path) if lacks else None
    for member in export.members[:_LOOKED_AT]:
        try:
            is_table = open_table(member) is not None
        except AicoLabError:
            continue
        if is_table:
            return (
                f"{export.path} has {len(export.members):,} files, with tables among them: import "
                "one file at a time, or the whole folder with an import step of a pipeline."
            )
    return None


_NO_HEADER: Final = (
    "The header of {name} is missing, as its first line is a message already: add a first line "
    "with the names of the columns, such as timestamp, author and content."
)
