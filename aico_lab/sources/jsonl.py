"""Read messages from a file with one JSON object per line.

An invalid line is rejected with its number, and reading continues; blank lines are numbered, but
skipped. First the file is searched for a message that names a user.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

from aico_lab.messages.context import Context
from aico_lab.messages.records import Batch, MessageRecord, NotAMessageError, Rejected
from aico_lab.messages.rules import parse_object, to_record
from aico_lab.sources.files import MAX_LINE, Lines, batches, names_users, open_text
from aico_lab.sources.files import size as total

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read", "total"]

# Finds candidate lines to parse; the name may also be in a nested object.
_USER: Final = re.compile(rb'"user_id"\s*+:\s*+(?!null\b)')

# Numbers that orjson may parse differently from Python, which has integers of any length.
_LONG_NUMBER: Final = re.compile(rb"\d{19}")
_TEXTS: Final = frozenset({str, type(None)})
_NESTED: Final = 100
"""Lines with at least this many brackets may be nested too deeply for orjson or Python."""


def read(path: Path, *, limit: int | None = None) -> Iterator[Batch]:
    """Yield the messages of a JSONL file in batches, in constant memory.

    Args:
        path: The file, in UTF-8.
        limit: The most messages to read.

    Raises:
        SourceMissing: The file does not exist.
        SourceUnreadable: The file is not text, or cannot be read.
    """
    with open_text(path) as stream:
        context = Context(names_users=names_users(stream, _any_names_a_user))
        lines = Lines(stream)
        yield from batches(_outcomes(lines, context), lines, context, limit)


def _any_names_a_user(lines: Lines) -> bool:
    return any(_names_a_user(line) for line in lines if line is not None and _USER.search(line))


def _names_a_user(line: bytes) -> bool:
    try:
        return parse_line(line).get("user_id") is not None
    except NotAMessageError:
        return True  # an invalid line may name a user, too


def _outcomes(lines: Lines, context: Context) -> Iterator[tuple[int, MessageRecord | Rejected]]:
    for line in lines:
        if line is not None and line.isspace():
            continue
        outcome: MessageRecord | Rejected
        try:
            outcome = to_record(parse_line(line), context)
        except NotAMessageError as refusal:
            outcome = Rejected(lines.number, str(refusal))
        yield lines.number, outcome


def parse_line(line: bytes | None) -> dict[str, object]:
    """Parse the object of a line, with orjson if the result is the same as by Python's parser.

    Python's parser also provides the reason for which an invalid line is rejected.
    """
    if line is not None and line.count(b"[") + line.count(b"{") < _NESTED:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            pass
        else:
            # An object of texts only, as in most lines, has no number that could differ.
            if isinstance(value, dict) and (
                _TEXTS.issuperset(map(type, value.values())) or not _LONG_NUMBER.search(line)
            ):
                return value
    return parse_object("the line", _text(line))


def _text(line: bytes | None) -> str:
    if line is None:
        raise NotAMessageError(f"the line is longer than {MAX_LINE:,} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise NotAMessageError("the line is not UTF-8") from None
