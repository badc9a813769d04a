"""Recognise the format of an export, or describe the export if it has no known format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from aico_lab.errors import SourceUnreadable
from aico_lab.sources.exports import FORMATS
from aico_lab.sources.exports.engine.advice import advice
from aico_lab.sources.exports.engine.json_items import shape
from aico_lab.sources.exports.engine.opened import HEAD, opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.exports.engine.reading import Format

_NAMED: Final = 8

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".tab", ".psv")
"""Suffixes of tables of text, which no chat has."""

_GENERAL: Final = (frozenset({"table"}), frozenset({"openai", "sharegpt"}))
"""Tables, and formats of training files, whose simple shape parts of other exports have too: they
count only where no other format fits."""

_KINDS: Final = {
    b"SQLite format 3\0": "a SQLite database, whose tables `aico-lab load` copies",
    b"%PDF-": "a PDF document",
}
_BINARY: Final = frozenset(bytes(range(9)))


@dataclass(frozen=True, slots=True)
class Recognised:
    """The format of an export.

    Attributes:
        name: The name of the format.
        why: The evidence for the format, as the end of a sentence.
    """

    name: str
    why: str


def module_of(name: str) -> Format:
    """Return the module of a format by its full name."""
    return cast("Format", import_module(name))


def recognise(path: Path, formats: Mapping[str, str]) -> Recognised:
    """Return the format of an export.

    Args:
        path: The file, folder or archive.
        formats: The module of each format, by its name.

    Raises:
        SourceMissing: The path does not exist.
        SourceUnreadable: No format or more than one fits, or the file cannot be read.
    """
    with opened(path) as export:
        if not export.faults.reasons and not (export.members and export.size):
            raise SourceUnreadable(f"{path} is empty; name the file as it was downloaded.")
        found = _fitting(export, formats)
        instead = advice(export) if _may_need_advice(export, found) else None
        if instead is not None:
            raise SourceUnreadable(instead)
        if len(found) == 1:
            return found[0]
        if found:
            both = " and ".join(f"{one.name} ({one.why})" for one in found)
            raise SourceUnreadable(f"{path} looks like {both}: choose one with --as.")
        for name, reason in export.faults.reasons.items():
            raise SourceUnreadable(f"{path} has nothing that can be read. {name}: {reason}.")
        if len(export.members) == 1 and _is_index(export.members[0]):
            raise SourceUnreadable(
                f"{path} is only the index of Claude's conversations: import the folder or the zip "
                "that it is from, which has the messages."
            )
        raise SourceUnreadable(
            f"{path} has none of the known formats, so it may be another product's file: it is "
            f"{_described(export)}. "
            f"Known are {', '.join(formats)}; choose one with --as, or see `aico-lab sources`."
        )


def _may_need_advice(export: Opened, found: list[Recognised]) -> bool:
    """Return whether nothing fits an export, or only lines with dates in a table."""
    is_table = export.members[0].suffix in TABLE_SUFFIXES if len(export.members) == 1 else False
    return not found or (is_table and [one.name for one in found] == ["whatsapp"])


def _is_index(member: Member) -> bool:
    """Return whether a file lists conversations of Claude whose messages are in other files."""
    return {"item.uuid", "item.name", "item.created_at", "item.updated_at"} <= shape(member)


def is_empty(export: Opened) -> bool:
    """Return whether a file of an export says that there is nothing in it, by an empty list.

    The list is the whole JSON document, as in an export of no conversations, or a value of its
    object, as in a conversation without messages.
    """
    return any(_is_empty(member) for member in export.members)


def _is_empty(member: Member) -> bool:
    try:
        document = json.loads(member.head()) if member.size < HEAD else None
    except (ValueError, RecursionError):
        return False
    return document == [] or (isinstance(document, dict) and [] in document.values())


def misnamed(export: Opened, name: str) -> SourceUnreadable:
    """Return the error for an export that is not in the format that the user named."""
    if not export.size:
        return SourceUnreadable(
            f"{export.path} is not in the format {name}: it is empty; name the file as it was "
            "downloaded."
        )
    others = {known: module for known, module in _modules().items() if known != name}
    found = _fitting(export, others | {"table": "aico_lab.sources.tables.reading"})
    instead = advice(export) if _may_need_advice(export, found) else None
    if instead is not None:
        return SourceUnreadable(instead)
    if not found:
        return SourceUnreadable(
            f"{export.path} is not in the format {name}: it looks like {_described(export)}."
        )
    looks = " or ".join(f"{one.name} ({one.why})" for one in found)
    return SourceUnreadable(
        f"{export.path} is not in the format {name}: it looks like {looks}; leave the format out, "
        "or name that one."
    )


def fitting_formats(export: Opened) -> list[Recognised]:
    """Return the formats of other programs that an export may have; tables are none of them."""
    return _fitting(export, _modules())


def _modules() -> dict[str, str]:
    package = __package__.removesuffix(".engine")
    return {name: f"{package}.{name}" for name in FORMATS}


def _fitting(export: Opened, formats: Mapping[str, str]) -> list[Recognised]:
    """Return the formats that an export may have; general ones only if no other fits."""
    found = [
        Recognised(name, why)
        for name, module in formats.items()
        if (why := module_of(module).recognise(export)) is not None
    ]
    if any(one.name == "table" for one in found):  # its header is clearer than lines with dates
        found = [one for one in found if one.name != "whatsapp"]
    for general in _GENERAL:
        if len(found) > 1:
            found = [one for one in found if one.name not in general] or found
    return found


def _described(export: Opened) -> str:
    """Describe the files and keys of an export, without any text of its messages."""
    if len(export.members) > 1:
        names = ", ".join(member.name for member in export.members[:_NAMED])
        more = len(export.members) - _NAMED
        return f"{len(export.members):,} files ({names}{f' and {more:,} more' if more > 0 else ''})"
    return _of_member(export.members[0])


def _of_member(member: Member) -> str:
    paths = shape(member)
    if paths:
        root = (
            "a list of objects" if all(path.startswith("item") for path in paths) else "an object"
        )
        keys = sorted({path.removeprefix("item.").split(".")[0] for path in paths})
        return f"JSON, {root} with the keys {', '.join(keys[:_NAMED])}"
    head = member.head()
    if not head:
        return "an empty file"
    for begin, what in _KINDS.items():
        if head.startswith(begin):
            return what
    if head.lstrip()[:1] in (b"[", b"{"):
        return "JSON without any object"
    if _BINARY.intersection(head[:1_000]):
        return "a binary file"
    return _of_text(member)


def _of_text(member: Member) -> str:
    from aico_lab.sources.tables.delimited import header_of
    from aico_lab.sources.tables.headers import listed

    columns = header_of(member)
    shown = listed(columns, all_are_names=False)
    if len(columns) == 1 or shown == "none":
        return "a text file"
    return (
        f"a text file, perhaps a table with the columns {shown}, of which --map content=COLUMN "
        "would name that of the texts"
    )
