"""Turn the rows of a table into records of messages."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from aico_lab.domain.values import to_timestamp
from aico_lab.messages.context import ASSUMED_USER, Context
from aico_lab.messages.metadata import TIMESTAMP_ESTIMATED
from aico_lab.messages.records import NotAMessageError, Rejected
from aico_lab.messages.rules import derive_id, parse_object, to_record
from aico_lab.messages.storable import storable, with_texts
from aico_lab.sources.csv_file import NUMBER
from aico_lab.sources.exports.engine.records import AUTHOR
from aico_lab.sources.exports.engine.times import Clock
from aico_lab.sources.tables.dates import is_missing
from aico_lab.sources.tables.headers import (
    are_own,
)
from aico_lab.sources.tables.pairs import ANSWER, NO_TEXT, ROLE, TEXT
from aico_lab.sources.tables.roles import SKIPPED
from aico_lab.sources.tables.survey import MOST_CONVERSATIONS, NUMBER_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.messages.records import MessageRecord
    from aico_lab.sources.tables.layout import TableRow
    from aico_lab.sources.tables.survey import TableSurvey


_COMMA: Final = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d+")


class RowsToRecords:
    """Turns rows into records."""

    def __init__(self, survey: TableSurvey) -> None:
        """Make records.

        Args:
            survey: The survey of the table.
        """
        self._survey = survey
        self._options = survey.options
        self.context = Context(names_users=survey.names_users or survey.options.me is not None)
        # In tables with this package's own columns the role is optional, as in `import csv`.
        roles = () if are_own(survey.columns) else survey.columns.get("role", ())
        self._role_column = roles[0] if roles else None
        self._clocks: dict[str, Clock] = {}
        self._last: datetime | None = None
        self._asked: str | None = None  # the id of the message before in the same row
        self._paced = Clock(survey.options, survey.options.start, paced=True)
        self._used = {column for columns in survey.columns.values() for column in columns}
        self._begin()
        only = survey.options.me if survey.is_named_by_me else survey.cast.only_person()
        if only is not None and not {"conversation_id", "channel_id"} & survey.columns.keys():
            # For what the companion says before the person.
            self.context.place("user", only, None, None)

    def _begin(self) -> None:
        self._estimated = self._zoneless = self._local = 0
        self._skipped: Counter[str] = Counter()

    def taken(self) -> dict[str, Any]:
        """Return the counts since the last batch."""
        counts = {
            "estimated": self._estimated,
            "zoneless": self._zoneless,
            "local": self._local,
            "skipped": self._skipped,
        }
        self._begin()
        return counts

    def outcomes(
        self, rows: Iterator[tuple[int, TableRow | NotAMessageError]]
    ) -> Iterator[tuple[int, MessageRecord | Rejected]]:
        """Yield a record of each row, or the reason why there is none."""
        unit = self._survey.table.unit
        for number, row in self._apart(rows):
            try:
                if isinstance(row, NotAMessageError):
                    raise row
                record = self._record(row)
            except (NotAMessageError, OverflowError, RecursionError) as refused:
                reason = str(refused)
                if isinstance(refused, OverflowError):
                    reason = "timestamp lies outside the years 1 to 9999 in UTC"
                if isinstance(refused, RecursionError):
                    reason = "a value is nested too deeply"
                where = "" if unit == "line" else f"{unit} {number:,}"
                yield number, Rejected(number, reason, where)
                continue
            if record is not None:
                yield number, record

    def _apart(
        self, rows: Iterator[tuple[int, TableRow | NotAMessageError]]
    ) -> Iterator[tuple[int, TableRow | NotAMessageError]]:
        """Yield the messages of each row, as rows of their own; those without text are counted."""
        pairs = self._survey.pairs
        for number, row in rows:
            self._asked = None
            if pairs is None or isinstance(row, NotAMessageError):
                yield number, row
                continue
            for message in pairs.messages(row):
                if message[TEXT] is None:
                    self._skipped[NO_TEXT] += 1
                else:
                    yield number, message

    def _record(self, row: TableRow) -> MessageRecord | None:
        survey = self._survey
        conversation = survey.conversation(row)
        author = survey.text(row, "author")
        role = survey.cast.role(conversation, self._role(row), author)
        if role == SKIPPED:
            self._skipped["message of a tool"] += 1
            return None
        fields = self._fields(row, role, author)
        metadata = self._metadata(row)
        if author is not None:
            metadata[AUTHOR] = author
        time, written, is_estimated = self._time(row, conversation)
        answered = self._answered(row, conversation)
        if answered is not None:
            time, is_estimated = answered
        elif self._asked is not None:  # the time is that of the question
            is_estimated = True
        stamp = to_timestamp(time)
        if is_estimated:
            metadata[TIMESTAMP_ESTIMATED] = True
        is_unnamed = "message_id" not in fields
        if is_unnamed:
            fields["message_id"] = "x"
        fields |= {"timestamp": stamp, "metadata": metadata or None}
        record = to_record(fields, self.context)
        text = record.content.replace("\r\n", "\n")
        known_by = record.content if survey.has_older_ids else text
        record = record._replace(content=text)
        self._estimated += is_estimated
        if is_unnamed:
            who = self._who(row, role, author)
            parts = (record.conversation_id, record.channel_id, *who, written, known_by)
            record = record._replace(message_id=derive_id(parts, self.context.occurrences))
        self._asked = record.message_id
        return record

    def _fields(self, row: TableRow, role: str, author: str | None) -> dict[str, object]:
        """Return the fields of a record that are read from one cell each."""
        survey = self._survey
        content = survey.cell(row, "content")
        if isinstance(content, str):
            content = storable(content)
        fields: dict[str, object] = {
            name: value
            for name in ("conversation_id", "channel_id", "message_id", "reply_to")
            if (value := _identifier(survey.cell(row, name))) is not None
        }
        if survey.named_after is not None:
            fields["conversation_id"] = survey.named_after
        fields |= {"role": role, "content": content, "user_id": self._user(row, role, author)}
        for name in NUMBER_FIELDS:
            if (value := survey.cell(row, name)) not in (None, ""):
                fields[name] = self._number(name, value)
        if self._asked is not None:
            fields["reply_to"] = self._asked
        if row.get(ROLE) == "assistant" and "message_id" in fields:
            fields["message_id"] = f"{fields['message_id']}{ANSWER}"
        return fields

    def _role(self, row: TableRow) -> str | None:
        named = self._survey.text(row, "role")
        if named is None and self._survey.cast.values and self._role_column in row:
            raise NotAMessageError("role is empty")
        return named

    def _who(self, row: TableRow, role: str, author: str | None) -> tuple[str, str]:
        """Return the user and the role by which a message is known, as the file writes them.

        The answers of the user change neither, so that other answers update the same messages. In
        a table with the names of the older readers they are the user and the role.
        """
        survey = self._survey
        role = survey.text(row, "role") or role
        if author is not None:
            return author, ""
        given = _identifier(survey.cell(row, "user_id"))
        if given is None and not survey.names_users and role != "system":
            given = ASSUMED_USER
        return given or "", role

    def _user(self, row: TableRow, role: str, author: str | None) -> str | None:
        given = _identifier(self._survey.cell(row, "user_id"))
        if given is not None:
            return given
        if role == "user":
            return self._options.me if author is None else self._survey.cast.spelled(author)
        return None

    def _time(self, row: TableRow, conversation: str) -> tuple[datetime, str, bool]:
        """Return the time in UTC, the time by which ids know it, and whether it is estimated.

        Ids know a time without a zone as the file writes it, in whatever zone it is read, and a
        time that the file does not have as an empty one.
        """
        survey = self._survey
        if not survey.is_timed:
            return self._paced.time(None)[0], "", True
        value = survey.time(row)
        clock = self._clock(conversation)
        if is_missing(value):
            try:
                return clock.time(None)[0], "", True
            except ValueError:
                raise NotAMessageError(
                    "timestamp is missing, and no message near it has one"
                ) from None
        moment = survey.form.time_of(value)
        time = moment.time
        if time.tzinfo is None and survey.is_utc:
            time = time.replace(tzinfo=UTC)
        self._local += time.tzinfo is None
        self._zoneless += time.tzinfo is None and self._options.zone is None
        found, is_guess = clock.time(time)
        self._last = found
        written = to_timestamp(time.replace(tzinfo=UTC) if time.tzinfo is None else found)
        return found, written, is_guess or not moment.has_clock

    def _answered(self, row: TableRow, conversation: str) -> tuple[datetime, bool] | None:
        """Return the time of an answer that has its own, and whether it is estimated."""
        value = self._survey.cell(row, "answer_time")
        if self._survey.pairs is None or is_missing(value):
            return None
        moment = self._survey.form.time_of(value)
        time = moment.time
        if time.tzinfo is None and self._survey.is_utc:
            time = time.replace(tzinfo=UTC)
        found, is_guess = self._clock(conversation).time(time)
        return found, is_guess or not moment.has_clock

    def _clock(self, conversation: str) -> Clock:
        clock = self._clocks.get(conversation)
        if clock is None:
            while len(self._clocks) >= MOST_CONVERSATIONS:
                del self._clocks[next(iter(self._clocks))]
            first = self._survey.first_time(conversation) or self._last
            clock = self._clocks[conversation] = Clock(self._options, first, paced=False)
        return clock

    def _number(self, name: str, value: object) -> object:
        """Return a number, whose decimals may be after a comma if all of the column are."""
        if not isinstance(value, str):
            return value
        text = value.strip()
        if NUMBER.fullmatch(text):
            return float(text)
        if _COMMA.fullmatch(text) and not self._survey.points:
            return float(text.replace(".", "").replace(",", "."))
        raise NotAMessageError(f"{name} must be a number")

    def _metadata(self, row: TableRow) -> dict[str, object]:
        """Return the columns without a meaning, and the given metadata."""
        used = self._used
        kept = {
            storable(name): with_texts(value, storable)
            for name, value in row.items()
            if name not in used and value is not None and value != ""
        }
        given = self._survey.cell(row, "metadata")
        if isinstance(given, str) and given:
            try:
                given = parse_object("metadata", given)
            except NotAMessageError:
                return kept | {"metadata": storable(given)}
        return (
            kept | cast("dict[str, object]", with_texts(given, storable))
            if isinstance(given, dict)
            else kept
        )


def _identifier(value: object) -> str | None:
    """Return an id; None if it is missing or no id."""
    if isinstance(value, str):
        return storable(value) or None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
