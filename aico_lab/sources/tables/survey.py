"""Read a table once, to find out what its values have in common before they become messages."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import InvalidValue, SourceUnreadable
from aico_lab.messages.records import NotAMessageError
from aico_lab.messages.storable import storable
from aico_lab.sources.exports.engine.conversation import Options, Said
from aico_lab.sources.exports.engine.moments import Run
from aico_lab.sources.exports.engine.records import joined_id
from aico_lab.sources.exports.engine.times import START_UNUSED
from aico_lab.sources.tables.dates import FormOfTimes, is_missing, is_number, is_time, joined
from aico_lab.sources.tables.headers import (
    NUMBERS,
    are_own,
    columns_by_field,
    folded,
    listed,
    says_utc,
)
from aico_lab.sources.tables.layout import Reached
from aico_lab.sources.tables.pairs import Pairs
from aico_lab.sources.tables.roles import Cast

if TYPE_CHECKING:
    from datetime import datetime

    from aico_lab.sources.tables.dates import Moment
    from aico_lab.sources.tables.layout import OpenedTable, TableRow


NUMBER_FIELDS: Final = ("sentiment_score", "response_time")

_SAMPLE: Final = 2_000
"""Times by which the order of the rows is judged, and whether they are those of an import."""

_SPREAD: Final = 1_000
"""The most rows from all over a table that are kept."""

_LONG: Final = 10_000
"""Characters of a text with which a row is not kept."""

MOST_CONVERSATIONS: Final = 100_000
"""The most conversations whose times are kept."""


class TableSurvey:
    """The facts about a table after reading it once.

    Attributes:
        table: The table.
        options: The answers of the user.
        columns: The columns of each field of a message; a time may have two.
        pairs: The question and the answer of a row, or None if a row is one message.
        rows: The number of rows.
        sample: Rows from all over the table, with their numbers.
        cast: The roles, by the values of the columns of roles and authors.
        form: The form of the times.
        names_users: Whether any row names a user.
        points: The number of values with a decimal point, in columns of numbers.
        notes: Sentences about oddities of the file.
        named_after: The id of the only conversation, if it is known by its companion; else None.
        is_timed: Whether the times can be read.
        is_utc: Whether a column says by its name that times without a zone are in UTC.
        is_newest_first: Whether the rows go backwards in time.
    """

    def __init__(self, table: OpenedTable, options: Options) -> None:
        """Find the columns; `run` finds the rest.

        Raises:
            InvalidValue: A companion is named, but the table has no authors.
            UnknownName: The options name a column that the table does not have.
        """
        self.table, self.options = table, options
        self.rows = 0
        self.columns = columns_by_field(self.table.columns, self.options.columns)
        self.pairs = Pairs(self.columns) if "question" in self.columns else None
        if self.pairs is not None:
            self.columns = self.pairs.columns
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

    @property
    def is_named_by_me(self) -> bool:
        """Whether the only conversation has no other name than that of the person."""
        named = {"author", "user_id", "conversation_id", "channel_id"}
        return not named & self.columns.keys()

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
        self.points = 0
        counted = self.columns.get("message_id", ("",))[0]
        counting = _Counting() if folded(counted) in NUMBERS else None
        if "message_id" in self.options.columns:
            counting = None
        self._answers: dict[str, Counter[str]] = {
            name: Counter() for name in ("answer_time", "response_time") if name in self.columns
        }
        self._first: dict[str, object] = {}
        self._times: list[tuple[object, str | None, str | None]] = []
        self.sample: list[tuple[int, TableRow | NotAMessageError]] = []
        self._apart = 1  # rows between two of the sample
        is_timed = "timestamp" in self.columns
        for number, row in self.table.rows(Reached()):
            self.rows += 1
            if isinstance(row, NotAMessageError):
                self.names_users |= "user_id" in self.columns
                continue
            self._add_to_sample(number, row)
            conversation = self.conversation(row)
            if counting is not None:
                counting.add(self.text(row, "message_id"))
            role, author = self._writer(row)
            self.cast.add(conversation, role, author)
            self.names_users |= self.cell(row, "user_id") not in (None, "")
            if is_timed and not is_missing(time := self.time(row)):
                self.form.add(number, time)
                if len(self._times) < _SAMPLE:
                    self._times.append((time, role, author))
                if len(self._first) < MOST_CONVERSATIONS:
                    self._first.setdefault(conversation, time)
            self._look_at_numbers(number, row)
        self.names_users |= self.cast.named
        self.notes = self.table.notes()
        if self.pairs is not None:
            self._decide_answers()
        if counting is not None and not counting.is_so:
            del self.columns["message_id"], self._column["message_id"]
            self.notes.append(f"{counted} does not count the messages, so it is kept as metadata.")
        self._decide(is_timed=is_timed)

    def _add_to_sample(self, number: int, row: TableRow) -> None:
        is_long = any(isinstance(one, str) and len(one) > _LONG for one in row.values())
        if self.rows % self._apart == 0 and not is_long:
            self.sample.append((number, row))
        if len(self.sample) > _SPREAD:
            self.sample, self._apart = self.sample[1::2], 2 * self._apart

    def _look_at_numbers(self, number: int, row: TableRow) -> None:
        """Note the form of numbers, and whether columns about answers have times instead."""
        for name in NUMBER_FIELDS:
            text = self.text(row, name) or ""
            self.points += "." in text and "," not in text
        for name, found in self._answers.items() if self.pairs is not None else ():
            value = self.cell(row, name)
            if is_missing(value):
                continue
            if is_time(value):
                found["time"] += 1
                self.form.add(number, value)
            else:
                found["number" if is_number(value) else "other"] += 1

    def _decide_answers(self) -> None:
        """Decide which column has the times of answers, and keep what is neither as metadata."""
        for name, found in self._answers.items():
            are_times = found.keys() == {"time"} and "timestamp" in self.columns
            if (are_times and name == "answer_time") or (
                name == "response_time" and (not found or found["number"])
            ):
                continue
            columns = self.columns.pop(name)
            column = self._column.pop(name)
            if are_times and "answer_time" not in self.columns:
                self.columns["answer_time"], self._column["answer_time"] = columns, column
                self.notes.append(f"{column} has times: they are those of the answers.")
            elif found:
                self.notes.append(f"{column} is no time of the answers: it is kept as metadata.")

    def _decide(self, *, is_timed: bool) -> None:
        column = self.columns.get("role")
        self.cast.decide(column[0] if column else None)
        self.named_after = self._companion()
        if is_timed:
            self.form.decide("+".join(self.columns["timestamp"]))
        self.is_timed = self.form.read > 0
        if self.is_timed and self.options.start is not None:
            self.notes.append(START_UNUSED)
        if not self.is_timed and self.rows and self.options.start is None:
            # Without a known name, the first line may be a message.
            has_header = self.columns.keys() - {"answer_time", *self.options.columns}
            shown = listed(self.table.columns, all_are_names=bool(has_header))
            raise SourceUnreadable(
                f"The table has no time of any message (columns: {shown}): name the column of the "
                "times with --map timestamp=COLUMN, or give the time of the first message with "
                "--start TIME, and the seconds between two with --step SECONDS."
            )
        self.is_utc = any(says_utc(name) for name in self.columns.get("timestamp", ()))
        sample = [
            (moment, role, author)
            for value, role, author in self._times
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
        return joined_id("table", storable(", ".join(companions))) if companions else None

    def _writer(self, row: TableRow) -> tuple[str | None, str | None]:
        """Return the role and the author of a row, or of the question in it."""
        role = self.text(row, "role") if self.pairs is None else "user"
        return role, self.text(row, "author")

    def cell(self, row: TableRow, name: str) -> Any:
        """Return the value of a field in a row; None if there is none."""
        column = self._column.get(name)
        return None if column is None else row.get(column)

    def text(self, row: TableRow, name: str) -> str | None:
        """Return the value of a field as text without blanks around it; None if it is empty."""
        column = self._column.get(name)
        value = None if column is None else row.get(column)
        if value is None or isinstance(value, dict | list | bool):
            return None
        return _stripped(str(value)) or None

    def conversation(self, row: TableRow) -> str:
        """Return the key that tells the conversation of a row from others of the table."""
        for name in ("conversation_id", "channel_id"):
            if (value := self.text(row, name)) is not None:
                return value
        return ""

    def time(self, row: TableRow) -> object:
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
    """Whether a column's numbers only rise, or only fall.

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
    return storable(text).strip()
