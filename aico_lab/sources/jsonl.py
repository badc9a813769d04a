"""Messages from a file with one JSON object a line.

A line that is no message is rejected by its number and the rest goes on; blank lines count, but
are nothing. Whether the file names users is looked for first, up to the first message that does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

from aico_lab.sources.context import Context
from aico_lab.sources.files import MAX_LINE, Lines, batches, names_users, open_text
from aico_lab.sources.files import size as total
from aico_lab.sources.records import Batch, MessageRecord, Rejected
from aico_lab.sources.rules import NotAMessageError, parse_object, to_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read", "total"]

# Finds the lines that are worth parsing; the name may also stand deeper in the object.
_USER: Final = re.compile(rb'"user_id"\s*+:\s*+(?!null\b)')

# What orjson reads otherwise than Python, which has integers of any length.
_LONG_NUMBER: Final = re.compile(rb"\d{19}")
_TEXTS: Final = frozenset({str, type(None)})
_NESTED: Final = 100
"""Brackets in a line from which on it may be nested too deeply for one of the two."""


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
        context = Context(names_users=names_users(stream, _any_names_a_user))
        lines = Lines(stream)
        yield from batches(_outcomes(lines, context), lines, context, limit)


def _any_names_a_user(lines: Lines) -> bool:
    return any(_names_a_user(line) for line in lines if line is not None and _USER.search(line))


def _names_a_user(line: bytes) -> bool:
    try:
        return _parse(line).get("user_id") is not None
    except NotAMessageError:
        return True  # a broken line names somebody all the same


def _outcomes(lines: Lines, context: Context) -> Iterator[tuple[int, MessageRecord | Rejected]]:
    for line in lines:
        if line is not None and line.isspace():
            continue
        outcome: MessageRecord | Rejected
        try:
            outcome = to_record(_parse(line), context)
        except NotAMessageError as refusal:
            outcome = Rejected(lines.number, str(refusal))
        yield lines.number, outcome


def _parse(line: bytes | None) -> dict[str, object]:
    """Read the object of a line: quickly where that changes nothing, else by Python's own parser.

    That one also says what is wrong with a line.
    """
    if line is not None and line.count(b"[") + line.count(b"{") < _NESTED:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            pass
        else:
            # Texts alone, as in most lines, hold no number that could have been read otherwise.
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
