"""Messages from a file with one JSON object a line.

A line that is no message is rejected by its number and the rest goes on; blank lines count, but
are nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.sources.files import MAX_LINE, Lines, batches, open_text
from aico_lab.sources.files import size as total
from aico_lab.sources.records import Batch, MessageRecord, Rejected
from aico_lab.sources.rules import NotAMessageError, Occurrences, parse_object, to_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read", "total"]


def read(path: Path, *, limit: int | None = None) -> Iterator[Batch]:
    """Read a JSONL file in constant memory.

    Args:
        path: The file, in UTF-8.
        limit: At most so many messages.

    Raises:
        SourceMissing: If there is no such file.
        SourceUnreadable: If it is not text, or may not be read.
    """
    with open_text(path) as stream:
        lines = Lines(stream)
        yield from batches(_outcomes(lines), lines, limit)


def _outcomes(lines: Lines) -> Iterator[MessageRecord | Rejected]:
    occurrences = Occurrences()
    for line in lines:
        if line is not None and line.isspace():
            continue
        outcome: MessageRecord | Rejected
        try:
            outcome = to_record(parse_object("the line", _text(line)), occurrences)
        except NotAMessageError as refusal:
            outcome = Rejected(lines.number, str(refusal))
        yield outcome


def _text(line: bytes | None) -> str:
    if line is None:
        raise NotAMessageError(f"the line is longer than {MAX_LINE:,} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise NotAMessageError("the line is not UTF-8") from None
