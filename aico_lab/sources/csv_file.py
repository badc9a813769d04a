"""Read messages from a CSV file with commas, quotes doubled within quotes, and a header.

An empty cell is a missing value; in the column `content` it is a blank message. A column without
a name is named by its position, such as `column_3`.

An invalid row is rejected with the number of its first line. If a quote is not closed, a CSV reader
takes all lines up to the next quote as one cell. So only the first line of such a row is rejected,
and reading continues with the second. A quote within an unquoted cell is rejected too, since it may
be the end of such a row. First the file is searched for a row that names a user.
"""

from __future__ import annotations

import csv
import functools
import re
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from aico_lab.errors import SourceUnreadable
from aico_lab.messages.context import Context
from aico_lab.messages.records import Batch, MessageRecord, NotAMessageError, Rejected
from aico_lab.messages.rules import parse_object, to_record
from aico_lab.sources.files import MAX_LINE, Lines, batches, names_users, open_text
from aico_lab.sources.files import size as total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["read", "total"]

_REQUIRED: Final = ("content", "timestamp")
_NUMBERS: Final = ("sentiment_score", "response_time")
NUMBER: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
# Without a header the first line is a message, which an error must not quote.
_NAME: Final = re.compile(r"[\w.;:-]{1,64}")


def read(path: Path, *, limit: int | None = None) -> Iterator[Batch]:
    """Yield the messages of a CSV file in batches, in constant memory.

    Args:
        path: The file, in UTF-8.
        limit: The most messages to read.

    Raises:
        SourceMissing: The file does not exist.
        SourceUnreadable: The file is not text, cannot be read, or has no header with `content` and
            `timestamp`.
    """
    with open_text(path) as stream:
        named = names_users(stream, lambda lines: _any_names_a_user(path, lines))
        context = Context(names_users=named)
        lines = Lines(stream)
        rows = Rows(lines)
        header = _header(path, rows)
        yield from batches(_outcomes(rows, header, context), lines, context, limit)


def _any_names_a_user(path: Path, lines: Lines) -> bool:
    rows = Rows(lines)
    header = _header(path, rows)
    if "user_id" not in header:
        return False
    place = header.index("user_id")
    return any(  # an invalid row may name a user
        isinstance(cells, NotAMessageError) or (len(cells) > place and cells[place] != "")
        for _, cells in rows
    )


@functools.lru_cache
def _well_quoted(delimiter: str) -> re.Pattern[bytes]:
    """Return a pattern of rows with quotes only where CSV allows them."""
    between = re.escape(delimiter).encode()
    cell = rb'(?:"(?:[^"]++|"")*+"|[^"%b\r\n]*+)' % between
    return re.compile(rb"%b(?:%b%b)*+[\r\n]*" % (cell, between, cell))


class Rows:
    """Iterates over the rows of the file, each with the number of its first line.

    Attributes:
        first_line: The first line of the current row; None if it is too long.
    """

    def __init__(
        self, lines: Lines, delimiter: str = ",", decode: Callable[[bytes], str] = bytes.decode
    ) -> None:
        """Begin to read.

        Args:
            lines: The lines of the file.
            delimiter: The character between two cells.
            decode: Returns the text of a line, or raises UnicodeDecodeError.
        """
        # The limit of the csv module applies to the whole process, so it is never lowered.
        csv.field_size_limit(max(MAX_LINE, csv.field_size_limit()))
        self._feed = _Feed(lines, decode)
        self._reader = csv.reader(self._feed, strict=True, delimiter=delimiter)
        self._well_quoted = _well_quoted(delimiter)

    @property
    def first_line(self) -> bytes | None:
        return self._feed.first_line

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, list[str] | NotAMessageError]:
        cells: list[str] = []
        while not cells:  # skip blank lines
            self._feed.begin_row()
            try:
                cells = next(self._reader)
            except csv.Error as error:
                self._feed.take_back()
                return self._feed.start, NotAMessageError(f"the row is not valid CSV: {error}")
            except NotAMessageError as error:
                self._feed.take_back()
                return self._feed.start, error
        if self._feed.broken:
            return self._feed.start, NotAMessageError("the row is not UTF-8")
        if not self._feed.well_quoted(self._well_quoted):
            return self._feed.start, NotAMessageError("the row has a quote in an unquoted cell")
        return self._feed.start, cells


class _Feed:
    """Yields lines as text to the CSV reader, and keeps those of the current row.

    Attributes:
        start: The number of the row's first line.
        broken: Whether a line of the row is not UTF-8.
    """

    def __init__(self, lines: Lines, decode: Callable[[bytes], str]) -> None:
        self._lines = lines
        self._decode = decode
        self._row: list[tuple[int, bytes | None]] = []
        self._waiting: deque[tuple[int, bytes | None]] = deque()
        self._size = 0
        self.start = 0
        self.broken = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._waiting:
            number, line = self._waiting.popleft()
        else:
            line = next(self._lines)
            number = self._lines.number
        if not self._row:
            self.start = number
        self._row.append((number, line))
        self._size += MAX_LINE + 1 if line is None else len(line)
        if line is None or self._size > MAX_LINE:
            raise NotAMessageError(f"the row is longer than {MAX_LINE:,} bytes")
        try:
            return self._decode(line)
        except UnicodeDecodeError:
            self.broken = True
            return line.decode(errors="replace")

    def begin_row(self) -> None:
        """Discard the lines of the previous row."""
        self._row.clear()
        self._size = 0
        self.broken = False

    @property
    def first_line(self) -> bytes | None:
        """The first line of the current row; None if it is too long."""
        return self._row[0][1] if self._row else None

    def well_quoted(self, pattern: re.Pattern[bytes]) -> bool:
        """Return whether all quotes of the current row are where CSV allows them."""
        row = b"".join(line for _, line in self._row if line is not None)
        return b'"' not in row or pattern.fullmatch(row) is not None

    def take_back(self) -> None:
        """Yield all lines of the current row except the first one again."""
        self._waiting.extendleft(reversed(self._row[1:]))


def _header(path: Path, rows: Rows) -> list[str]:
    _, cells = next(rows, (0, []))
    if isinstance(cells, NotAMessageError):
        raise SourceUnreadable(
            f"The first line of {path} is not a header ({cells}); it must name the columns, "
            "including content and timestamp."
        )
    header = [cell.strip() or f"column_{place}" for place, cell in enumerate(cells, 1)]
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        found = ", ".join(name for name in header if _NAME.fullmatch(name)) or "none"
        raise SourceUnreadable(
            f"The first line of {path} must name its columns, separated by commas, and lacks "
            f"{' and '.join(missing)} (columns found: {found})."
        )
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise SourceUnreadable(
            f"The header of {path} names a column twice; rename one of each: {', '.join(twice)}."
        )
    return header


def _outcomes(
    rows: Rows, header: list[str], context: Context
) -> Iterator[tuple[int, MessageRecord | Rejected]]:
    for start, cells in rows:
        outcome: MessageRecord | Rejected
        try:
            if isinstance(cells, NotAMessageError):
                raise cells
            outcome = to_record(_fields(header, cells), context)
        except NotAMessageError as refusal:
            outcome = Rejected(start, str(refusal))
        yield start, outcome


def _fields(header: list[str], cells: list[str]) -> dict[str, object]:
    """Return the cells of a row as fields with JSON types, or raise NotAMessageError."""
    if len(cells) != len(header):
        raise NotAMessageError(f"the row has {len(cells)} columns, the header has {len(header)}")
    fields: dict[str, object] = {
        name: cell for name, cell in zip(header, cells, strict=True) if cell or name == "content"
    }
    for name in _NUMBERS:
        text = fields.get(name)
        if isinstance(text, str):
            if not NUMBER.fullmatch(text):
                raise NotAMessageError(f"{name} must be a number")
            fields[name] = float(text)
    metadata = fields.get("metadata")
    if isinstance(metadata, str):
        fields["metadata"] = parse_object("metadata", metadata)
    return fields
