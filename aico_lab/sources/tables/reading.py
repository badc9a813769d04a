"""Read a table in batches of messages, and recognise one by its content."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from aico_lab.errors import InvalidValue, SourceUnreadable
from aico_lab.messages.context import ASSUMED_USER, Context
from aico_lab.messages.metadata import TIMESTAMP_ESTIMATED
from aico_lab.messages.records import Batch, NotAMessageError, Rejected
from aico_lab.messages.rules import derive_id, parse_object, to_record
from aico_lab.sources.exports.engine.advice import advice
from aico_lab.sources.exports.engine.conversation import Options, Said
from aico_lab.sources.exports.engine.moments import Run
from aico_lab.sources.exports.engine.opened import opened
from aico_lab.sources.exports.engine.records import AUTHOR, joined_id
from aico_lab.sources.exports.engine.stored import Shelf
from aico_lab.sources.exports.engine.times import Clock
from aico_lab.sources.files import batches
from aico_lab.sources.files import size as total
from aico_lab.sources.tables.dates import FormOfTimes, is_missing, joined
from aico_lab.sources.tables.headers import (
    NAMES,
    NUMBERS,
    are_own,
    columns_by_field,
    folded,
    listed,
    says_utc,
)
from aico_lab.sources.tables.opened import Progress, no_table, open_table
from aico_lab.sources.tables.roles import SKIPPED, Cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aico_lab.messages.records import MessageRecord
    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.tables.dates import Moment
    from aico_lab.sources.tables.opened import OpenedTable, Row

__all__ = ["described", "fields_of", "read", "recognise", "total"]

_NUMBERS: Final = ("sentiment_score", "response_time")
_PLAIN: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_COMMA: Final = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+),\d+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SAMPLE: Final = 2_000
"""Times by which the order of the rows is judged, and whether they are those of an import."""

_MOST: Final = 100_000
"""The most conversations whose clocks are kept."""

_WORDS: Final = {
    "content": "the text",
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
    "metadata": "further facts",
}


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
    path: Path, *, limit: int | None = None, options: Options | None = None
) -> Iterator[Batch]:
    """Yield the messages of a table in batches, in constant memory.

    Args:
        path: The file.
        limit: The most messages to read.
        options: The answers of the user.

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
        survey = _Survey(table, options)
        survey.run()
        yield from _batches(member, survey, limit)


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
    if options.columns:  # an error about the first column that is not there
        from aico_lab.sources.tables.opened import header_of

        columns_by_field(header_of(member), options.columns)
    instead = advice(export)
    raise no_table(member) if instead is None else SourceUnreadable(instead)


@dataclass
class _Survey:
    """The facts about a table after reading it once."""

    table: OpenedTable
    options: Options
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: int = 0

    def __post_init__(self) -> None:
        self.columns = columns_by_field(self.table.columns, self.options.columns)
        is_asked = self.options.me is not None or self.options.companion
        if is_asked and "role" not in self.columns and "author" not in self.columns:
            if "user_id" in self.columns:
                self.columns["author"] = self.columns.pop("user_id")
            elif self.options.companion:
                raise InvalidValue(
                    "The table has no column of authors, among whom the companion could be: name "
                    "it with --map author=COLUMN, or leave --companion out."
                )

    @property
    def has_older_ids(self) -> bool:
        """Whether older readers of such files derive ids from texts with CR LF, as is kept here."""
        return self.table.kind in ("csv", "jsonl") and are_own(self.columns)

    def run(self) -> None:
        """Read the table.

        Raises:
            SourceUnreadable: Its times or roles cannot be read.
            WhoIsWho: The companion among its authors is not known.
        """
        self._column = {name: columns[0] for name, columns in self.columns.items()}
        self.cast = Cast(self.options)
        self.form = FormOfTimes(self.options.day_first, self.table.unit)
        self.names_users = False
        self.points = self.commas = 0
        counted = self.columns.get("message_id", ("",))[0]
        counting = _Counting() if folded(counted) in NUMBERS else None
        if "message_id" in self.options.columns:
            counting = None
        self._first: dict[str, object] = {}
        self._sample: list[tuple[object, str | None, str | None]] = []
        is_timed = "timestamp" in self.columns
        numbers = [name for name in _NUMBERS if name in self.columns]
        for number, row in self.table.rows(Progress()):
            self.rows += 1
            if isinstance(row, NotAMessageError):
                self.names_users |= "user_id" in self.columns
                continue
            conversation = self.conversation(row)
            if counting is not None:
                counting.add(self.text(row, "message_id"))
            role, author = self.text(row, "role"), self.text(row, "author")
            self.cast.add(conversation, role, author)
            self.names_users |= self.cell(row, "user_id") not in (None, "")
            if is_timed and not is_missing(time := self.time(row)):
                self.form.add(number, time)
                if len(self._sample) < _SAMPLE:
                    self._sample.append((time, role, author))
                if len(self._first) < _MOST:
                    self._first.setdefault(conversation, time)
            for name in numbers:
                text = self.text(row, name) or ""
                self.points += "." in text and "," not in text
                self.commas += "," in text
        self.names_users |= self.cast.named
        self.notes = self.table.notes()
        if counting is not None and not counting.is_so:
            del self.columns["message_id"], self._column["message_id"]
            self.notes.append(f"{counted} does not count the messages, so it is kept as metadata.")
        self._decide(is_timed=is_timed)

    def _decide(self, *, is_timed: bool) -> None:
        column = self.columns.get("role")
        self.cast.decide(column[0] if column else None)
        self.named_after = self._companion()
        if is_timed:
            self.form.decide("+".join(self.columns["timestamp"]))
        self.is_timed = self.form.read > 0
        if not self.is_timed and self.rows and self.options.start is None:
            shown = listed(self.table.columns, all_are_names=True)
            raise SourceUnreadable(
                f"The table has no time of any message (columns: {shown}): name the column of the "
                "times with --map timestamp=COLUMN, or give the time of the first message with "
                "--start TIME, and the seconds between two with --step SECONDS."
            )
        self.is_utc = any(says_utc(name) for name in self.columns.get("timestamp", ()))
        sample = [
            (moment, role, author)
            for value, role, author in self._sample
            if (moment := self._moment(value)) is not None
        ]
        naive = [moment.time.replace(tzinfo=None) for moment, _, _ in sample]
        self.is_newest_first = (
            not are_own(self.columns)
            and sum(
                (later < earlier) - (later > earlier)
                for earlier, later in itertools.pairwise(naive)
            )
            > 0
        )
        run = Run()
        at_once = all(
            # Without sides, no two successive messages are known to be of the same one.
            run.takes(Said("", time, role if role or author else str(place % 2), author))
            for place, (time, (_, role, author)) in enumerate(zip(naive, sample, strict=True))
        )
        is_of_an_import = (
            at_once
            and any(moment.has_clock for moment, _, _ in sample)
            and run.is_of_an_import(whole=True)
        )
        if is_of_an_import and not self.options.trust_times:
            raise SourceUnreadable(
                f"The first {len(naive):,} messages of the table have the same time, that of an "
                "import: find the original table, or take the times with --trust-times."
            )

    def _companion(self) -> str | None:
        """Return the id of the only conversation of a table of authors, by its companion.

        None means that columns or people tell the conversations apart.
        """
        if "author" not in self.columns or {"conversation_id", "channel_id"} & self.columns.keys():
            return None
        companions = self.cast.companions()
        return joined_id("table", clean(", ".join(companions))) if companions else None

    def cell(self, row: Row, name: str) -> Any:
        """Return the value of a field in a row; None if there is none."""
        column = self._column.get(name)
        return None if column is None else row.get(column)

    def text(self, row: Row, name: str) -> str | None:
        """Return the value of a field as text without blanks around it; None if it is empty."""
        column = self._column.get(name)
        value = None if column is None else row.get(column)
        if value is None or isinstance(value, dict | list | bool):
            return None
        return _stripped(str(value)) or None

    def conversation(self, row: Row) -> str:
        """Return what distinguishes the conversation of a row from others of the table."""
        for name in ("conversation_id", "channel_id"):
            if (value := self.text(row, name)) is not None:
                return value
        return ""

    def time(self, row: Row) -> object:
        """Return the time of a row as it is written; None if there is none."""
        columns = self.columns.get("timestamp")
        if columns is None:
            return None
        values = [row.get(column) for column in columns]
        if any(isinstance(value, dict | list) for value in values):
            return "an object"  # which is no time; its text may be endless
        return values[0] if len(values) == 1 else joined(values[0], values[1])

    def _moment(self, value: object) -> Moment | None:
        try:
            return self.form.time_of(value)
        except NotAMessageError:
            return None

    def first_time(self, conversation: str) -> datetime | None:
        """Return the first time of a conversation, or None."""
        moment = self._moment(self._first.get(conversation, ""))
        return None if moment is None else moment.time


class _Counting:
    """Tells whether the numbers of a column count its rows up, or down.

    Attributes:
        is_so: Whether they do, as far as rows were added.
    """

    def __init__(self) -> None:
        self.is_so = True
        self._last: int | None = None
        self._step = 0

    def add(self, value: str | None) -> None:
        """Add the number of a row."""
        try:
            number = int(value or "")
        except ValueError:
            self.is_so = False
            return
        step = 0 if self._last is None else (number > self._last) - (number < self._last)
        is_first = self._last is None
        self.is_so &= is_first or (step != 0 and self._step in (0, step))
        self._last, self._step = number, step


@lru_cache(maxsize=4_096)
def _stripped(text: str) -> str:
    return clean(text).strip()


def clean(text: str) -> str:
    """Return a text without NUL and half surrogates, which no database can store."""
    if "\0" in text:
        text = text.replace("\0", "")
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _batches(member: Member, survey: _Survey, limit: int | None) -> Iterator[Batch]:
    progress = Progress()
    maker = _Maker(survey)
    named: dict[str, Any] = {
        "read_as": _sentence(member, survey.table, survey.options.columns),
        "notes": survey.notes,
    }
    for batch in batches(
        maker.outcomes(_in_order(survey, progress)), progress, maker.context, limit
    ):
        yield replace(batch, **maker.taken(), **named)
        named = {}
    if not survey.rows:
        named["notes"] = [*survey.notes, f"{member.name} has columns, and no rows."]
        yield Batch([], [], [], [], [], 0, 0, **named)


def _in_order(survey: _Survey, progress: Progress) -> Iterator[tuple[int, Row | NotAMessageError]]:
    """Yield the rows in the order in which the conversation went."""
    rows = survey.table.rows(progress)
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


class _Maker:
    """Turns rows into records."""

    def __init__(self, survey: _Survey) -> None:
        self._survey = survey
        self._options = survey.options
        self.context = Context(names_users=survey.names_users or survey.options.me is not None)
        # In tables with this package's own columns the role is optional, as in `import csv`.
        roles = () if are_own(survey.columns) else survey.columns.get("role", ())
        self._role_column = roles[0] if roles else None
        self._clocks: dict[str, Clock] = {}
        self._last: datetime | None = None
        self._paced = Clock(survey.options, survey.options.start, paced=True)
        self._used = {column for columns in survey.columns.values() for column in columns}
        self._begin()
        only = survey.cast.only_person()
        if only is not None and not {"conversation_id", "channel_id"} & survey.columns.keys():
            self.context.place(
                "user", only, None, None
            )  # what the companion says before the person

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
        self, rows: Iterator[tuple[int, Row | NotAMessageError]]
    ) -> Iterator[tuple[int, MessageRecord | Rejected]]:
        """Yield a record of each row, or the reason why there is none."""
        unit = self._survey.table.unit
        for number, row in rows:
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

    def _record(self, row: Row) -> MessageRecord | None:
        survey = self._survey
        conversation = survey.conversation(row)
        author = survey.text(row, "author")
        role = survey.cast.role(conversation, self._role(row), author)
        if role == SKIPPED:
            self._skipped["message of a tool"] += 1
            return None
        content = self._content(row)
        metadata = self._metadata(row)
        if author is not None:
            metadata[AUTHOR] = author
        fields: dict[str, object] = {
            name: value
            for name in ("conversation_id", "channel_id", "message_id", "reply_to")
            if (value := _identifier(survey.cell(row, name))) is not None
        }
        if survey.named_after is not None:
            fields["conversation_id"] = survey.named_after
        fields |= {"role": role, "content": content, "user_id": self._user(row, role, author)}
        for name in _NUMBERS:
            if (value := survey.cell(row, name)) not in (None, ""):
                fields[name] = self._number(name, value)
        time, written, is_estimated = self._time(row, conversation)
        stamp = _stamp(time)
        if is_estimated:
            metadata[TIMESTAMP_ESTIMATED] = True
        is_unnamed = "message_id" not in fields
        if is_unnamed:
            fields["message_id"] = "x"
        fields |= {"timestamp": stamp, "metadata": metadata or None}
        record = to_record(fields, self.context)
        as_written = record.content  # of which the older readers made their ids
        record = record._replace(content=as_written.replace("\r\n", "\n"))
        self._estimated += is_estimated
        if not is_unnamed:
            return record
        who = self._who(row, role, author)
        parts = (record.conversation_id, record.channel_id, *who, written, as_written)
        return record._replace(message_id=derive_id(parts, self.context.occurrences))

    def _role(self, row: Row) -> str | None:
        named = self._survey.text(row, "role")
        if named is None and self._survey.cast.values and self._role_column in row:
            raise NotAMessageError("role is empty")
        return named

    def _content(self, row: Row) -> object:
        content = self._survey.cell(row, "content")
        if not isinstance(content, str):
            return content
        content = clean(content)
        return content if self._survey.has_older_ids else content.replace("\r\n", "\n")

    def _who(self, row: Row, role: str, author: str | None) -> tuple[str, str]:
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

    def _user(self, row: Row, role: str, author: str | None) -> str | None:
        given = _identifier(self._survey.cell(row, "user_id"))
        if given is not None:
            return given
        if role == "user":
            return author or self._options.me
        return None

    def _time(self, row: Row, conversation: str) -> tuple[datetime, str, bool]:
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
        written = _stamp(time.replace(tzinfo=UTC) if time.tzinfo is None else found)
        return found, written, is_guess or not moment.has_clock

    def _clock(self, conversation: str) -> Clock:
        clock = self._clocks.get(conversation)
        if clock is None:
            while len(self._clocks) >= _MOST:
                del self._clocks[next(iter(self._clocks))]
            first = self._survey.first_time(conversation) or self._last
            clock = self._clocks[conversation] = Clock(self._options, first, paced=False)
        return clock

    def _number(self, name: str, value: object) -> object:
        """Return a number, whose decimals may be after a comma if all of the column are."""
        if not isinstance(value, str):
            return value
        text = value.strip()
        if _PLAIN.fullmatch(text):
            return float(text)
        if _COMMA.fullmatch(text) and not self._survey.points:
            return float(text.replace(".", "").replace(",", "."))
        raise NotAMessageError(f"{name} must be a number")

    def _metadata(self, row: Row) -> dict[str, object]:
        """Return the columns without a meaning, and the given metadata."""
        used = self._used
        kept = {
            clean(name): _cleaned(value)
            for name, value in row.items()
            if name not in used and value is not None and value != ""
        }
        given = self._survey.cell(row, "metadata")
        if isinstance(given, str) and given:
            try:
                given = parse_object("metadata", given)
            except NotAMessageError:
                return kept | {"metadata": clean(given)}
        return (
            kept | cast("dict[str, object]", _cleaned(given)) if isinstance(given, dict) else kept
        )


def _stamp(time: datetime) -> str:
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _identifier(value: object) -> str | None:
    """Return an id; None if it is missing or no id."""
    if isinstance(value, str):
        return clean(value) or None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(name)): _cleaned(one) for name, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list) else value
