"""Open a table: find its kind, encoding, delimiter and columns, and read its rows.

The rows of all kinds are alike: a number for reports, and a mapping of JSON values by column, or
the reason why the row cannot be read.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from aico_lab.errors import SourceUnreadable
from aico_lab.messages.records import NotAMessageError
from aico_lab.sources.csv_file import Rows
from aico_lab.sources.exports.engine.conversation import Unreadable
from aico_lab.sources.exports.engine.json_items import items, shape
from aico_lab.sources.exports.engine.recognition import TABLE_SUFFIXES
from aico_lab.sources.files import MAX_LINE, Lines
from aico_lab.sources.jsonl import parse_line
from aico_lab.sources.tables.encodings import FALLBACK, WORDS, Decoder, as_utf8
from aico_lab.sources.tables.headers import columns_by_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.sources.exports.engine.opened import Member

Row = dict[str, Any]

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
_PARQUET: Final = b"PAR1"
_LINES: Final = 50
"""Rows at the beginning of a file by which its delimiter and columns are found."""

_EXCEL: Final = "sep="
"""How a line of Excel begins that names the delimiter."""

_BINARY: Final = bytes([*range(1, 9), *range(14, 27)])
_BINARY_SHARE: Final = 0.05

_TIME: Final = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}\b")
"""How a cell with a date begins."""


@dataclass(slots=True)
class Progress:
    """The place that reading has reached.

    Attributes:
        number: The number of the last line or row.
        position: The amount read, roughly in bytes.
    """

    number: int = 0
    position: int = 0


class OpenedTable(Protocol):
    """A table whose columns are known.

    Attributes:
        kind: A key of `aico_lab.sources.tables.KINDS`.
        layout: What was detected, as a part of a sentence.
        columns: The names of the columns.
        unit: The noun of the number of a row: 'line' or 'row'.
    """

    kind: str
    columns: list[str]
    unit: str

    @property
    def layout(self) -> str:  # noqa: D102 see the class
        ...

    def rows(self, progress: Progress) -> Iterator[tuple[int, Row | NotAMessageError]]:
        """Yield the rows with their numbers; can be called again to read from the beginning."""

    def notes(self) -> list[str]:
        """Return sentences about oddities, complete after all rows were read."""


def open_table(member: Member, given: Mapping[str, str] | None = None) -> OpenedTable | None:
    """Return the table in a file, or None if the file is no table with a text of messages.

    Args:
        member: The file.
        given: Columns that the user names, by field; a table with them is one for sure.

    Raises:
        SourceUnreadable: The file cannot be read.
        UnknownName: The user names a column that the table does not have.
    """
    with member.open() as stream:
        is_parquet = stream.read(len(_PARQUET)) == _PARQUET
    if is_parquet:
        from aico_lab.sources.tables.parquet import ParquetTable

        return _with_content(ParquetTable(member), given)
    text, encoding = as_utf8(member)
    head = text.head()
    binary = len(head) - len(head.translate(None, _BINARY))
    if not head.strip() or binary > _BINARY_SHARE * len(head):
        return None
    if head.lstrip()[:1] in (b"{", b"["):
        return _of_json(text, WORDS[encoding], given)
    return _of_text(text, encoding, given)


def _with_content(table: OpenedTable, given: Mapping[str, str] | None) -> OpenedTable | None:
    has_content = "content" in columns_by_field(table.columns, given)
    return table if has_content else None


# Text with delimiters


@dataclass(slots=True)
class TextTable:
    """A table of text with delimiters."""

    member: Member
    delimiter: str
    columns: list[str]
    encoding: str
    skipped_lines: int
    content: str | None = None
    kind: str = "csv"
    unit: str = "line"
    twice: list[str] = field(default_factory=list)
    _decoder: Decoder = field(default_factory=Decoder)

    @property
    def layout(self) -> str:
        """The layout and the encoding that were detected, as a part of a sentence."""
        return f"a table with {DELIMITERS[self.delimiter]} in {self.encoding}"

    def rows(self, progress: Progress) -> Iterator[tuple[int, Row | NotAMessageError]]:
        """Yield the rows with the numbers of their first lines."""
        self._decoder = decoder = Decoder()
        with self.member.open() as stream:
            lines = Lines(stream)  # type: ignore[arg-type]  # it only reads lines

            def decoded(line: bytes) -> str:
                return decoder.decoded(line, lines.number).replace("\0", "")

            reader = Rows(lines, self.delimiter, decoded)
            for _ in range(self.skipped_lines):
                next(lines, None)
            next(reader, None)  # the header
            for number, cells in reader:
                found = self._row(cells, reader.first_line)
                progress.number, progress.position = lines.number, lines.position
                yield number, found

    def _row(
        self, cells: list[str] | NotAMessageError, line: bytes | None
    ) -> Row | NotAMessageError:
        if isinstance(cells, NotAMessageError):
            literal = self._literal(line)
            if literal is None:
                return cells
            cells = literal
        wanted = len(self.columns)
        if len(cells) > wanted:
            if not any(cells[wanted:]):
                cells = cells[:wanted]
            elif self.columns[-1] == self.content:  # a text with delimiters and without quotes
                cells = [*cells[: wanted - 1], self.delimiter.join(cells[wanted - 1 :])]
        is_cut = len(cells) < wanted and line is not None and not line.endswith((b"\n", b"\r"))
        if len(cells) > wanted or is_cut or len(cells) == 1 < wanted:
            said = f"the row has {len(cells)} columns, the header has {wanted}"
            return NotAMessageError(f"{said}: it is cut off" if is_cut else said)
        return dict(zip(self.columns, cells, strict=False))

    def _literal(self, line: bytes | None) -> list[str] | None:
        """Return the cells of a line whose quotes are a part of the text, or None."""
        if line is None or b'"' not in line:
            return None
        cells = _lenient(line).replace("\0", "").rstrip("\r\n").split(self.delimiter)
        if len(cells) != len(self.columns):
            return None
        for place, cell in enumerate(cells):
            if not cell.startswith('"'):
                continue
            if cell.count('"') % 2:
                return None
            if len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', ""):
                cells[place] = cell[1:-1].replace('""', '"')
        return cells

    def notes(self) -> list[str]:
        """Return sentences about the encoding and about columns with the same name."""
        found = [self._decoder.note] if self._decoder.note else []
        if self.twice:
            found.append(
                f"The header names {', '.join(self.twice)} more than once; the further ones are "
                f"called '{self.twice[0]} (2)' and so on here."
            )
        return found


def _of_text(member: Member, encoding: str, given: Mapping[str, str] | None) -> OpenedTable | None:
    head = member.head()
    lines = head.split(b"\n")
    said = WORDS[encoding]
    if encoding == "utf-8":
        complete = b"\n".join(lines[:-1]) if len(lines) > 1 else head
        decoder = Decoder()
        for line in complete.split(b"\n"):
            try:
                decoder.decoded(line, 0)
            except UnicodeDecodeError:
                continue
        if decoder.others and not decoder.utf8:
            said = FALLBACK
    texts = [_lenient(line) for line in lines[: _LINES + 1]]
    skipped = 0
    only = None
    first = texts[0].lstrip("\ufeff")
    if first.lower().startswith(_EXCEL):
        only = first[len(_EXCEL) :][:1]
        texts, skipped = texts[1:], 1
    best: tuple[tuple[int, float, int], TextTable] | None = None
    for delimiter in [only] if only in DELIMITERS else DELIMITERS:
        fit = _delimited(member, (delimiter, said, skipped), texts, given)
        if fit is None:
            continue
        found, score = fit
        if best is None or score > best[0]:
            best = (score, found)
    if best is None:
        return None
    table: OpenedTable = best[1]
    return table


def _lenient(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def _delimited(
    member: Member,
    layout: tuple[str, str, int],
    texts: list[str],
    given: Mapping[str, str] | None,
) -> tuple[TextTable, tuple[int, float, int]] | None:
    """Return the table with one delimiter if its header names the text, and how well it fits."""
    delimiter, encoding, skipped = layout
    rows = csv.reader((f"{text}\n" for text in texts), delimiter=delimiter)
    counts = []
    header: list[str] | None = None
    try:
        for cells in rows:
            if cells and header is None:
                header = cells
            elif cells:
                counts.append(len(cells))
    except csv.Error:
        pass
    if header is None:
        return None
    columns, twice = _columns(header)
    if given and not _has(columns, given):
        return None
    fields = columns_by_field(columns, given)
    if "content" not in fields:
        return None
    if len(columns) == 1 and member.suffix not in TABLE_SUFFIXES:
        return None
    same = sum(count == len(columns) for count in counts) / len(counts) if counts else 1.0
    table = TextTable(member, delimiter, columns, encoding, skipped, fields["content"][0])
    table.twice = twice
    return table, (len(fields), same, len(columns))


def _has(columns: list[str], given: Mapping[str, str]) -> bool:
    """Return whether any column that the user names is there, so that errors name the others."""
    from aico_lab.errors import UnknownName

    for name, column in given.items():
        try:
            columns_by_field(columns, {name: column})
        except UnknownName:
            continue
        return True
    return False


def header_of(member: Member) -> list[str]:
    """Return the most likely columns of a text with delimiters, whatever they are called."""
    text, _ = as_utf8(member)
    first = _lenient(text.head().partition(b"\n")[0]).strip("\ufeff\r\n")
    delimiter = max(DELIMITERS, key=first.count)
    try:
        return _columns(next(csv.reader([first], delimiter=delimiter), []))[0]
    except csv.Error:
        return []


def lacks_header(member: Member) -> bool:
    """Return whether the first line of a text with delimiters has a time, so that it is a row."""
    first = header_of(member)
    return len(first) > 1 and any(_TIME.match(cell) for cell in first)


def _columns(header: list[str]) -> tuple[list[str], list[str]]:
    """Return unique names of columns, and the names that are there more than once."""
    columns: list[str] = []
    twice: list[str] = []
    for place, cell in enumerate(header, 1):
        name = cell.replace("\0", "").strip("\ufeff \t\r\n\u00a0") or f"column_{place}"
        unique, number = name, 1
        while unique in columns:
            number += 1
            unique = f"{name} ({number})"
        if unique != name and name not in twice:
            twice.append(name)
        columns.append(unique)
    return columns, twice


# JSON


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

    def rows(self, progress: Progress) -> Iterator[tuple[int, Row | NotAMessageError]]:
        """Yield the objects with their numbers."""
        for item in items(self.member, self.prefix, needs=(self.content,), what="row"):
            progress.number += 1
            if isinstance(item, Unreadable):
                yield progress.number, NotAMessageError(item.reason)
                continue
            progress.position += sum(
                len(value) if isinstance(value, str) else 8 for value in item.values()
            )
            yield progress.number, item

    def notes(self) -> list[str]:  # noqa: D102
        return []


@dataclass(slots=True)
class LinesTable:
    """A table with an object per line."""

    member: Member
    columns: list[str]
    layout: str
    kind: str = "jsonl"
    unit: str = "line"

    def rows(self, progress: Progress) -> Iterator[tuple[int, Row | NotAMessageError]]:
        """Yield the objects with the numbers of their lines."""
        with self.member.open() as stream:
            lines = Lines(stream)  # type: ignore[arg-type]  # it only reads lines
            for line in lines:
                if line is not None and not line.strip():
                    continue
                found: Row | NotAMessageError
                try:
                    found = parse_line(line)
                except NotAMessageError as refused:
                    found = refused
                progress.number, progress.position = lines.number, lines.position
                yield lines.number, found

    def notes(self) -> list[str]:  # noqa: D102
        return []


def _of_json(member: Member, encoding: str, given: Mapping[str, str] | None) -> OpenedTable | None:
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


def _content(columns: list[str], given: Mapping[str, str] | None) -> str | None:
    """Return the column of the text, or None if there is none."""
    if given and not _has(columns, given):
        return None
    return columns_by_field(columns, given).get("content", (None,))[0]


def _is_deep(parent: str) -> bool:
    """Return whether objects are in a list within another list, as the parts of messages are."""
    return parent.split(".").count("item") > 1 and parent != "item.item"  # a key may be so called


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _first_lines(member: Member) -> list[dict[str, Any]]:
    """Return the objects that are alone in one of the first lines."""
    found = []
    with member.open() as stream:
        for number in range(_LINES):
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


def no_table(member: Member) -> SourceUnreadable:
    """Return the error about a file in which no column is the text of messages."""
    from aico_lab.sources.tables.headers import listed

    columns = header_of(member)
    shown = listed(columns, all_are_names=False)
    return SourceUnreadable(
        f"{member.name} is no table whose header names the text of its messages (columns found: "
        f"{shown}): name the columns in its first line, or say which it is with --map "
        "content=COLUMN."
    )
