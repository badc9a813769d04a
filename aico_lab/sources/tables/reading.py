"""Read a table in batches of messages, and recognise one by its content."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from aico_lab.errors import SourceUnreadable
from aico_lab.messages.records import Batch, NotAMessageError
from aico_lab.sources.exports.engine.advice import advice
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.exports.engine.opened import opened
from aico_lab.sources.exports.engine.recognition import fitting_formats
from aico_lab.sources.exports.engine.stored import Shelf
from aico_lab.sources.files import batches
from aico_lab.sources.files import size as total
from aico_lab.sources.tables.delimited import header_of
from aico_lab.sources.tables.headers import (
    NAMES,
    columns_by_field,
)
from aico_lab.sources.tables.identity import OtherAnswers, stored_under_others
from aico_lab.sources.tables.layout import Reached
from aico_lab.sources.tables.opened import no_table, open_table
from aico_lab.sources.tables.rows import RowsToRecords
from aico_lab.sources.tables.survey import TableSurvey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.tables.identity import KnownMessages
    from aico_lab.sources.tables.layout import OpenedTable, TableRow

__all__ = ["described", "fields_of", "read", "recognise", "total"]

_WORDS: Final = {
    "content": "the text",
    "question": "the text of the user",
    "answer": "the answer in the same row",
    "timestamp": "the time",
    "role": "the role",
    "author": "the author",
    "user_id": "the user",
    "channel_id": "the channel",
    "conversation_id": "the conversation",
    "message_id": "the id",
    "reply_to": "the message that is answered",
    "sentiment_score": "the sentiment",
    "response_time": "the seconds to the reply",
    "answer_time": "the time of the answer",
    "metadata": "further facts",
}

_TWO_PEOPLE: Final = (
    "The same messages are stored as the conversation {other}: under another --me they are another "
    "person's, and are stored beside it. If one of the two names is wrong, delete its conversation."
)


def recognise(export: Opened) -> str | None:
    """Return the sentence about a table, as the reason why an export is one, or None."""
    if len(export.members) != 1:
        return None
    table = open_table(export.members[0])
    return None if table is None else _sentence(export.members[0], table, {})


def described(path: Path, options: Options) -> str:
    """Return a sentence about what was recognised: layout, encoding, and the columns.

    Raises:
        SourceMissing: The file does not exist.
        SourceUnreadable: The file is no table.
        UnknownName: The options name a column that it does not have.
    """
    with opened(path) as export:
        member = _member(export)
        return _sentence(member, _table(export, member, options), options.columns)


def fields_of(path: Path, options: Options) -> dict[str, str]:
    """Return the column of each field, two being joined by '+', as `--map` takes them."""
    with opened(path) as export:
        table = _table(export, _member(export), options)
    found = columns_by_field(table.columns, options.columns)
    return {name: "+".join(columns) for name, columns in found.items()}


def _sentence(member: Member, table: OpenedTable, given: Mapping[str, str]) -> str:
    found = columns_by_field(table.columns, given)
    parts = [f"{'+'.join(found[name])} is {_WORDS[name]}" for name in NAMES if name in found]
    kept = len(table.columns) - sum(map(len, found.values()))
    others = f"; {kept:,} other{'s are' if kept > 1 else ' is'} kept as metadata" if kept else ""
    return f"{member.name} is {table.layout}; {', '.join(parts)}{others}"


def read(
    path: Path,
    *,
    limit: int | None = None,
    options: Options | None = None,
    stored: KnownMessages | None = None,
) -> Iterator[Batch]:
    """Yield the messages of a table in batches, in constant memory.

    Args:
        path: The file.
        limit: The most messages to read.
        options: The answers of the user.
        stored: The stored messages, from which the conversation and the ids of a table follow that
            was imported before; None if it was not.

    Raises:
        SourceMissing: The file does not exist.
        SourceUnreadable: The file is no table, or its times or roles cannot be read.
        WhoIsWho: The companion among its authors is not known.
        UnknownName: The options name a column that it does not have.
    """
    options = options or Options()
    with opened(path) as export:
        member = _member(export)
        table = _table(export, member, options)
        survey = TableSurvey(table, options)
        survey.run()
        is_known_by_author = "user_id" not in survey.columns
        known = None
        if stored is not None:
            if survey.named_after is not None and is_known_by_author:
                survey.named_after = stored.place(survey.named_after, survey.cast.everybody())
            known = OtherAnswers(survey, stored)
            if (other := stored_under_others(survey, stored)) is not None:
                survey.notes.append(_TWO_PEOPLE.format(other=other))
        yield from _batches(member, survey, known, limit)


def _member(export: Opened) -> Member:
    if len(export.members) != 1:
        raise SourceUnreadable(
            advice(export)
            or f"{export.path} has {len(export.members):,} files; name the table alone."
        )
    member = export.members[0]
    if not member.size:
        raise SourceUnreadable(f"{export.path} is empty; name the file as it was downloaded.")
    return member


def _table(export: Opened, member: Member, options: Options) -> OpenedTable:
    table = open_table(member, options.columns)
    if table is not None:
        return table
    if found := fitting_formats(export):
        looks = " or ".join(f"{one.name} ({one.why})" for one in found)
        raise SourceUnreadable(
            f"{export.path} is no table: it is in the format {looks}, which takes no --map and no "
            "--role-map, and is recognised by itself: leave these and the name of a source out."
        )
    columns = header_of(member)
    if options.columns and len(columns) > 1:  # an error about the first column that is not there
        columns_by_field(columns, options.columns, all_are_names=False)
    instead = advice(export)
    raise no_table(member) if instead is None else SourceUnreadable(instead)


def _batches(
    member: Member, survey: TableSurvey, known: OtherAnswers | None, limit: int | None
) -> Iterator[Batch]:
    reached = Reached()
    maker = RowsToRecords(survey)
    rows = _in_order(survey, reached)
    outcomes = maker.outcomes(rows) if known is None else known.outcomes(maker, rows)
    named: dict[str, Any] = {
        "read_as": _sentence(member, survey.table, survey.options.columns),
        "notes": survey.notes,
    }
    for batch in batches(outcomes, reached, maker.context, limit):
        yield replace(batch, **maker.taken(), **named)
        named = {}
    if not survey.rows:
        named["notes"] = [*survey.notes, f"{member.name} has columns, and no rows."]
        yield Batch([], [], [], [], [], 0, 0, **named)


def _in_order(
    survey: TableSurvey, reached: Reached
) -> Iterator[tuple[int, TableRow | NotAMessageError]]:
    """Yield the rows in the order in which the conversation went."""
    rows = survey.table.rows(reached)
    if not survey.is_newest_first:
        yield from rows
        return
    with Shelf() as shelf:
        stored = shelf.begin(newest_first=True)
        for number, row in rows:
            stored.append([number, str(row) if isinstance(row, NotAMessageError) else row], None)
        for kept in stored.oldest_first():
            number, row = cast("tuple[int, Any]", kept)
            yield number, NotAMessageError(row) if isinstance(row, str) else row
