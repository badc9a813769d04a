"""Find the list of objects of a JSON document, or its lines, and read them as rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aico_lab.messages.records import NotAMessageError
from aico_lab.sources.exports.engine.conversation import Unreadable
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.replaced import TolerantDecoder
from aico_lab.sources.files import MAX_LINE, Lines
from aico_lab.sources.jsonl import parse_line
from aico_lab.sources.tables.encodings import Decoder
from aico_lab.sources.tables.headers import columns_by_field
from aico_lab.sources.tables.layout import (
    LINES_LOOKED_AT,
    OpenedTable,
    Reached,
    TableRow,
    names_any,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.sources.exports.engine.opened import Member
    from aico_lab.sources.exports.engine.replaced import Replaced


@dataclass(slots=True)
class JsonTable:
    """A table in an array of objects."""

    member: Member
    prefix: str
    columns: list[str]
    layout: str
    content: str
    kind: str = "json"
    unit: str = "row"

    def rows(self, reached: Reached) -> Iterator[tuple[int, TableRow | NotAMessageError]]:
        """Yield the objects with their numbers."""
        for item in items(self.member, self.prefix, needs=(self.content,), what="row"):
            reached.number += 1
            if isinstance(item, Unreadable):
                yield reached.number, NotAMessageError(item.reason)
                continue
            reached.position += sum(
                len(value) if isinstance(value, str) else 8 for value in item.values()
            )
            yield reached.number, item

    def notes(self) -> list[str]:  # noqa: D102
        return self.member.replaced.sentences(self.member.name)


@dataclass(slots=True)
class LinesTable:
    """A table with an object per line."""

    member: Member
    columns: list[str]
    layout: str
    kind: str = "jsonl"
    unit: str = "line"
    _others: Decoder = field(default_factory=Decoder)

    def rows(self, reached: Reached) -> Iterator[tuple[int, TableRow | NotAMessageError]]:
        """Yield the objects with the numbers of their lines."""
        self._others = Decoder()
        with self.member.replacing() as replaced, self.member.open() as stream:
            lines = Lines(stream)  # type: ignore[arg-type]  # it only reads lines
            for line in lines:
                if line is not None and not line.strip():
                    continue
                found: TableRow | NotAMessageError
                try:
                    found = self._parsed(line, lines.number, replaced)
                except NotAMessageError as refused:
                    found = refused
                reached.number, reached.position = lines.number, lines.position
                yield lines.number, found

    def _parsed(self, line: bytes | None, number: int, replaced: Replaced) -> TableRow:
        if line is None or not (b"NaN" in line or b"Infinity" in line):
            try:
                return parse_line(line)
            except NotAMessageError:
                if line is None or _is_utf8(line):
                    raise
        decoder = TolerantDecoder()
        try:
            text = self._others.decoded(line, number).strip()
            value, end = decoder.raw_decode(text, 0)
        except (ValueError, RecursionError):
            return parse_line(line)
        if end < len(text) or not isinstance(value, dict):
            return parse_line(line)
        replaced.numbers += decoder.replaced
        return value

    def notes(self) -> list[str]:
        """Return sentences about lines in another encoding, and about numbers that are none."""
        found = [self._others.sentence()] if self._others.others else []
        return found + self.member.replaced.sentences(self.member.name)


def json_table(
    member: Member, encoding: str, given: Mapping[str, str] | None
) -> OpenedTable | None:
    """Return the table in a JSON document or in its lines, or None if no object has a text.

    Args:
        member: The file, as UTF-8.
        encoding: The encoding in words.
        given: Columns that the user names, by field.
    """
    objects = _first_lines(member)
    if objects:
        columns = list(dict.fromkeys(key for one in objects for key in one))
        nested = {key for one in objects for key in one if isinstance(one[key], dict | list)}
        flat = [column for column in columns if column not in nested]
        table = LinesTable(member, columns, f"one JSON object per line in {encoding}")
        if _content(flat, given) is not None:
            return table
    paths = shape(member)
    for parent in sorted({_parent(path) for path in paths}, key=lambda one: (len(one), one)):
        if not (parent == "item" or parent.endswith(".item")):
            continue
        if _is_deep(parent) and not given:
            continue
        columns = sorted(path.rpartition(".")[2] for path in paths if _parent(path) == parent)
        nested = {
            column
            for column in columns
            if any(path.startswith(f"{parent}.{column}.") for path in paths)
        }
        content = _content([one for one in columns if one not in nested], given)
        if content is not None:
            layout = f"a JSON array of objects in {encoding}"
            return JsonTable(member, parent, columns, layout, content)
    return None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _content(columns: list[str], given: Mapping[str, str] | None) -> str | None:
    """Return the column of the text, or None if there is none."""
    if given and not names_any(columns, given):
        return None
    found = columns_by_field(columns, given)
    return next((found[name][0] for name in ("content", "question") if name in found), None)


def _is_deep(parent: str) -> bool:
    """Return whether objects are in a list within another list, as the parts of messages are."""
    return parent.split(".").count("item") > 1 and parent != "item.item"  # a key may be so called


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _first_lines(member: Member) -> list[dict[str, Any]]:
    """Return the objects that are alone in one of the first lines."""
    found = []
    with member.open() as stream:
        for number in range(LINES_LOOKED_AT):
            line = stream.readline(MAX_LINE).removeprefix(b"\xef\xbb\xbf").strip()
            if not line and number:
                break
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                found.append(value)
    return found
