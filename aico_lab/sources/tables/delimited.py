"""Find the delimiter and the columns of a table of text, and read its rows."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aico_lab.messages.records import NotAMessageError
from aico_lab.sources.csv_file import Rows
from aico_lab.sources.exports.engine.recognition import TABLE_SUFFIXES
from aico_lab.sources.files import Lines
from aico_lab.sources.tables.encodings import FALLBACK, WORDS, Decoder, as_utf8
from aico_lab.sources.tables.headers import columns_by_field, has_texts
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

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}


_EXCEL: Final = "sep="
"""Start of Excel's line that names the delimiter."""


_TIME: Final = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}\b")
"""Start of a cell with a date."""


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

    def rows(self, reached: Reached) -> Iterator[tuple[int, TableRow | NotAMessageError]]:
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
                reached.number, reached.position = lines.number, lines.position
                yield number, found

    def _row(
        self, cells: list[str] | NotAMessageError, line: bytes | None
    ) -> TableRow | NotAMessageError:
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


def text_table(
    member: Member, encoding: str, given: Mapping[str, str] | None
) -> OpenedTable | None:
    """Return the table in a text, or None if its header names no text of messages.

    Args:
        member: The file, as UTF-8.
        encoding: The name of the encoding that the file has.
        given: Columns that the user names, by field.
    """
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
    texts = [_lenient(line) for line in lines[: LINES_LOOKED_AT + 1]]
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
    if given and not names_any(columns, given):
        return None
    fields = columns_by_field(columns, given)
    if not has_texts(fields):
        return None
    if len(columns) == 1 and member.suffix not in TABLE_SUFFIXES:
        return None
    same = sum(count == len(columns) for count in counts) / len(counts) if counts else 1.0
    text = fields.get("content", fields.get("answer", ("",)))[0]
    table = TextTable(member, delimiter, columns, encoding, skipped, text)
    table.twice = twice
    return table, (len(fields), same, len(columns))


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
