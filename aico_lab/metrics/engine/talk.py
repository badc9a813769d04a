"""The input of a metric: the tables of `mart`, restricted by filters.

The period selects turns and sessions by their beginning: one that began in the period counts as a
whole, one that began earlier does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import ibis
from ibis import _

from aico_lab.constants import FIRST_PLAUSIBLE_MS, MS_PER_DAY, MS_PER_HOUR
from aico_lab.mart import compiler, definitions
from aico_lab.mart.places import SESSION_GAP_MS
from aico_lab.metrics.engine import selected
from aico_lab.metrics.engine.local_time import local_ms, offsets, year_of
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from datetime import date

    import ibis.expr.types as ir

    from aico_lab.metrics.engine.filters import Filters

Unit = Literal["day", "week", "month"]
Scope = Literal["conversation", "person"]

_DAYS_BEFORE: Final = 719_162
"""Days from 0001-01-01, a Monday, to 1970-01-01. Added so that days before 1970 are not negative,
since SQL's remainder of a negative number is negative."""

_BEGINNING: Final = ibis.timestamp("1970-01-01 00:00:00")
_TRUNCATE: Final = {"day": "D", "week": "W", "month": "M"}

VIEWS: Final = {
    "words": {
        "id": "int64",
        "conversation_id": "string",
        "channel_id": "string",
        "user_id": "string",
        "role": "string",
        "ts_ms": "int64",
        "turn_idx": "int64",
        "session_idx": "int64",
        "position": "int64",
        "word": "string",
    },
    "texts": {
        "id": "int64",
        "conversation_id": "string",
        "channel_id": "string",
        "user_id": "string",
        "role": "string",
        "ts_ms": "int64",
        "msg_idx": "int64",
        "content": "string",
    },
    "replies": {
        "id": "int64",
        "answered_id": "int64",
    },
    "extras": {
        "id": "int64",
        "conversation_id": "string",
        "channel_id": "string",
        "user_id": "string",
        "role": "string",
        "ts_ms": "int64",
        "kind": "string",
        "item": "string",
        "n": "int64",
        "is_text": "boolean",
        "mentioned_id": "string",
    },
    "people": {
        "user_id": "string",
        "number": "int64",
        "pseudonym": "string",
        "name": "string",
    },
    "channels": {
        "channel_id": "string",
        "number": "int64",
        "pseudonym": "string",
        "name": "string",
    },
    "feedback": {
        "event_id": "string",
        "user_id": "string",
        "conversation_id": "string",
        "message_id": "string",
        "kind": "string",
        "name": "string",
        "value": "float64",
        "ts_ms": "int64",
    },
    "profiles": {
        "profile_id": "string",
        "profile_user_id": "string",
        "version": "int64",
        "active_from_ms": "int64",
        "active_until_ms": "int64",
        "context": "string",
    },
    "preference_changes": {
        "change_id": "int64",
        "user_id": "string",
        "preference_key": "string",
        "value": "string",
        "ts_ms": "int64",
    },
    "traits": {
        "profile_id": "string",
        "profile_user_id": "string",
        "version": "int64",
        "trait": "string",
        "level": "float64",
        "active_from_ms": "int64",
        "active_until_ms": "int64",
        "context": "string",
    },
}
"""The columns and types of the views in `mart`."""


@dataclass(frozen=True)
class Talk:
    """The tables of `mart`, restricted by the filters of one question.

    Expressions must not use the times `first_ms`, `last_ms`, `recent_ms` and `begin_ms`: an
    expression is compiled once and reused for other data.

    Attributes:
        filters: The filters.
        first_ms: The time of the first message of the selected people and channels, in UTC
            milliseconds.
        last_ms: The time of the last message of all.
        recent_ms: The time of the last message that is not in the future, from which a relative
            `since` counts back; None means `last_ms`.
        begin_ms: The time of the first message of all; None means `first_ms`.
        years: The UTC years of messages, in ascending order; None means all from the first message
            to the last.
        by_side: Whether `role` restricts these tables, rather than the rows of the answer.
        by_person: Whether several people are named, so that people are the units of intervals.
        words_are_cut: Whether DuckDB holds the words of this selection; see `engine.selected`.
        bounds: The start (included) and end (excluded) of the period, in UTC milliseconds.
        shifts: The zone's UTC offsets in these years; see `local_time.offsets`.
    """

    filters: Filters
    first_ms: int = field(compare=False)
    last_ms: int = field(compare=False)
    by_side: bool = False
    by_person: bool = True
    words_are_cut: bool = False
    recent_ms: int | None = field(default=None, compare=False)
    begin_ms: int | None = field(default=None, compare=False)
    years: tuple[int, ...] | None = field(default=None, compare=False)
    bounds: tuple[int | None, int | None] = field(init=False)
    shifts: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        recent_ms = self.last_ms if self.recent_ms is None else self.recent_ms
        years = self.years or range(year_of(self.first_ms), year_of(self.last_ms) + 1)
        shifts = offsets(self.filters.timezone, years)
        object.__setattr__(self, "bounds", self.filters.bounds(recent_ms))
        # The start of the first offset does not matter, but would differ between data sets.
        object.__setattr__(self, "shifts", ((0, shifts[0][1]), *shifts[1:]))

    @property
    def units(self) -> str:
        """The units that intervals treat as independent: 'people' or 'conversations'."""
        return "people" if self.by_person else "conversations"

    def unit(self, table: ir.Table) -> ir.StringValue:
        """Return the unit of each row: the person, or the conversation if nobody is named.

        Args:
            table: A table with `user_id` and `conversation_id`.
        """
        conversation = ibis.literal("c") + table.conversation_id
        if not self.by_person:
            return conversation
        return ibis.ifelse(table.user_id.notnull(), ibis.literal("p") + table.user_id, conversation)

    def by_unit(self, table: ir.Table, *by: str, **sums: ir.Value | ir.Deferred) -> ir.Table:
        """Aggregate a table for each group and unit, as input of `intervals.estimate`.

        Args:
            table: A table with `user_id` and `conversation_id`.
            by: The group columns.
            sums: The aggregates by name.
        """
        known = table.user_id.notnull().max()
        return table.group_by(*by, unit=self.unit(table)).agg(known=known, **sums).drop("unit")

    @cached_property
    def messages(self) -> ir.Table:
        """Messages, with their local time as `local_ms` and `local_ts`."""
        return self._restricted(self._stored("messages"), "ts_ms")

    @cached_property
    def turns(self) -> ir.Table:
        """Turns; `local_ts` is the local time of their beginning."""
        return self._restricted(self._stored("turns"), "started_ms")

    @cached_property
    def words(self) -> ir.Table:
        """One row per word, in lower case."""
        words = self._view("words")
        if self.words_are_cut:
            words = ibis.table(VIEWS["words"], name=selected.WORDS, database="temp")
        return self._restricted(words, "ts_ms")

    @cached_property
    def texts(self) -> ir.Table:
        """Message texts, for metrics that need more than words; no answer may quote them."""
        return self._restricted(self._view("texts"), "ts_ms")

    @cached_property
    def extras(self) -> ir.Table:
        """One row for each emoji, reaction, link, mention, attachment and edit of a message."""
        return self._restricted(self._view("extras"), "ts_ms")

    @cached_property
    def replies(self) -> ir.Table:
        """The messages that name the message which they answer; unrestricted."""
        return self._view("replies")

    @cached_property
    def people(self) -> ir.Table:
        """One row for each person: `user_id`, `number`, `pseudonym` and `name`; unrestricted."""
        return self._view("people")

    @cached_property
    def channels(self) -> ir.Table:
        """One row for each channel: `channel_id`, `number`, `pseudonym`, `name`; unrestricted."""
        return self._view("channels")

    @cached_property
    def feedback(self) -> ir.Table:
        """Feedback on conversations and messages; `channel` and `role` do not restrict it."""
        return self._restricted(self._view("feedback"), "ts_ms")

    @cached_property
    def traits(self) -> ir.Table:
        """One row for each trait of each version of the companion's personality, unrestricted."""
        return self._view("traits")

    @cached_property
    def profiles(self) -> ir.Table:
        """One row for each version of the companion's personality, unrestricted."""
        return self._view("profiles")

    @cached_property
    def preference_changes(self) -> ir.Table:
        """Every setting of a preference; only the filter `user` restricts these rows."""
        changes = self._view("preference_changes")
        if self.filters.users:
            changes = changes.filter(_.user_id.isin(self.filters.users))
        return changes

    @cached_property
    def beginnings(self) -> ir.Table:
        """The first message of each person; only `user` and `channel` restrict these rows."""
        said = self._stored("messages").filter(_.role == "user", _.user_id.notnull())
        if self.filters.channels:
            said = said.filter(_.channel_id.isin(self.filters.channels))
        # One wrong time before 1990 must not date a person's first message.
        usual = _.ts_ms.min(where=_.ts_ms >= FIRST_PLAUSIBLE_MS)
        firsts = said.group_by("user_id").agg(ts_ms=ibis.coalesce(usual, _.ts_ms.min()))
        if self.filters.users:
            firsts = firsts.filter(_.user_id.isin(self.filters.users))
        return self._with_local(firsts, "ts_ms")

    @cached_property
    def since_ever(self) -> ir.Table:
        """Messages of any time; only `user`, `channel` and `role` restrict these rows."""
        return replace(self, filters=replace(self.filters, since=None, until=None)).messages

    @cached_property
    def everybody(self) -> ir.Table:
        """One row with the number of people named in all messages, whatever the filters.

        Filters must not weaken the protection of people.
        """
        messages = self._stored("messages")
        return messages.aggregate(everybody=messages.user_id.nunique())

    @cached_property
    def everything(self) -> ir.Table:
        """All messages, whatever the filters, without local times."""
        return self._stored("messages")

    def sessions(self, gap_ms: int = SESSION_GAP_MS, scope: Scope = "conversation") -> ir.Table:
        """Return sessions: stretches without a silence longer than `gap_ms`.

        `local_ts` is the local time of their beginning. A session has two sides, so the filter
        `role` does not restrict sessions.

        Args:
            gap_ms: The longest silence within a session, in milliseconds.
            scope: 'conversation' for sessions within a conversation, 'person' for sessions across
                all conversations of a person in the selected channels; `conversation_id` then
                identifies the person.
        """
        if scope == "person":
            messages = self._stored("messages")
            if self.filters.channels:
                messages = messages.filter(messages.channel_id.isin(self.filters.channels))
            made = definitions.sessions(_of_people(messages, gap_ms)).drop("channel_id")
        elif gap_ms == SESSION_GAP_MS:
            made = self._stored("sessions")
        else:
            messages = self._stored("messages")
            starts = definitions.starts_session_after(messages.gap_ms, gap_ms)
            in_order = ibis.window(
                group_by="conversation_id", order_by="msg_idx", preceding=None, following=0
            )
            made = definitions.sessions(
                messages.mutate(session_idx=starts.cast("int64").sum().over(in_order) - 1)
            )
        return self._restricted(made, "started_ms")

    def plausible(self, table: ir.Table, time: str) -> ir.Table:
        """Return the rows dated from 1990 to now; all rows if no message of the home is.

        A bound of the period replaces that end of the span.

        Args:
            table: A table restricted by the filters.
            time: Its column of UTC milliseconds.
        """
        now_ms = ibis.now().epoch_seconds() * 1000 + 1000

        def usual(ts_ms: ir.IntegerValue) -> ir.BooleanValue:
            conditions = [ts_ms.notnull()]
            if self.filters.since is None:
                conditions.append(ts_ms >= FIRST_PLAUSIBLE_MS)
            if self.filters.until is None:
                conditions.append(ts_ms <= now_ms)
            return ibis.and_(*conditions)

        known = self.everything.aggregate(any_usual=usual(self.everything.ts_ms).any())
        rows = table.cross_join(known)
        return rows.filter(usual(rows[time]) | ~rows.any_usual).drop("any_usual")

    @cached_property
    def daily(self) -> ir.Table:
        """Daily sums of each side of a conversation, by local `date` or `day` (since 1970)."""
        since, until = self.bounds
        whole_days = all(bound is None or bound % MS_PER_DAY == 0 for bound in (since, until))
        if self.filters.timezone == "UTC" and whole_days:
            days = self._stored("daily")
            days = days.mutate(started_ms=days.day * MS_PER_DAY)
            days = self._restricted(days, "started_ms")
        else:  # the stored table has the days of UTC
            days = definitions.daily(self.messages, days_of(self.messages.local_ms))
        return days.mutate(date=as_date(days.day))

    @cached_property
    def first_day(self) -> date:
        """The local day on which the period begins, or that of the first message if it is later."""
        since = self.bounds[0]
        first_ms = self.first_ms if since is None else max(since, self.first_ms)
        return to_local(first_ms, get_zone(self.filters.timezone)).date()

    @cached_property
    def last_day(self) -> date:
        """The local day on which the period ends, or that of the last message if it is earlier."""
        until = self.bounds[1]
        last_ms = self.last_ms if until is None else min(until - 1, self.last_ms)
        return to_local(last_ms, get_zone(self.filters.timezone)).date()

    def _stored(self, table: str) -> ir.Table:
        return ibis.table(compiler.schemas()[table], name=table, database="mart")

    def _view(self, name: str) -> ir.Table:
        return ibis.table(VIEWS[name], name=name, database="mart")

    def _restricted(self, table: ir.Table, time: str) -> ir.Table:
        since, until = self.bounds
        if since is not None:
            table = table.filter(table[time] >= since)
        if until is not None:
            table = table.filter(table[time] < until)
        if self.filters.users:
            table = table.filter(table.user_id.isin(self.filters.users))
        if self.filters.channels and "channel_id" in table.columns:
            table = table.filter(table.channel_id.isin(self.filters.channels))
        if self.by_side and self.filters.role and "role" in table.columns:
            table = table.filter(table.role == self.filters.role)
        return self._with_local(table, time)

    def _with_local(self, table: ir.Table, time: str) -> ir.Table:
        table = table.mutate(local_ms=local_ms(table[time], self.shifts))
        return table.mutate(local_ts=_BEGINNING + (table.local_ms // 1000).as_interval("s"))


def hours_of(local_ms: ir.IntegerValue) -> ir.IntegerValue:
    """Return whole hours since 1970."""
    return local_ms // MS_PER_HOUR


def hour_of_day(hours: ir.IntegerValue) -> ir.IntegerValue:
    """Return the hour of the day, from 0 to 23, of hours since 1970."""
    return (hours + _DAYS_BEFORE * 24) % 24


def days_of(local_ms: ir.IntegerValue) -> ir.IntegerValue:
    """Return whole days since 1970."""
    return local_ms // MS_PER_DAY


def ms_after(hour: int, local_ms: ir.IntegerValue) -> ir.IntegerValue:
    """Return the milliseconds since an hour was last reached, from 0 to a day."""
    return (local_ms + _DAYS_BEFORE * MS_PER_DAY - hour * MS_PER_HOUR) % MS_PER_DAY


def weekday(days: ir.IntegerValue) -> ir.IntegerValue:
    """Return the day of the week, from 0 for Monday, of days since 1970."""
    return (days + _DAYS_BEFORE) % 7


def as_date(days: ir.IntegerValue) -> ir.DateValue:
    """Return the date of days since 1970."""
    return (_BEGINNING + days.as_interval("D")).date()


def _of_people(messages: ir.Table, gap_ms: int) -> ir.Table:
    """Merge the conversations of each person into one, ordered by time.

    Conversations without a named person stay as they are.
    """
    # Prefixes, since a person and a conversation may have the same id.
    whose = ibis.ifelse(
        messages.user_id.notnull(),
        ibis.literal("person ") + messages.user_id,
        ibis.literal("conversation ") + messages.conversation_id,
    )
    messages = messages.mutate(whose=whose)
    in_order = ibis.window(group_by="whose", order_by=["ts_ms", "conversation_id", "msg_idx"])
    joined = messages.mutate(
        place=ibis.row_number().over(in_order),
        starts=definitions.starts_session_after(
            messages.ts_ms - messages.ts_ms.lag().over(in_order), gap_ms
        ),
    )
    so_far = ibis.window(group_by="whose", order_by="place", preceding=None, following=0)
    joined = joined.mutate(session_idx=joined.starts.cast("int64").sum().over(so_far) - 1)
    in_turn = ibis.window(
        group_by=["whose", "session_idx", "conversation_id", "turn_idx"], order_by="place"
    )
    joined = joined.mutate(begins_turn=ibis.row_number().over(in_turn) == 0)
    return joined.mutate(
        conversation_id=joined.whose,
        msg_idx=joined.place,
        turn_idx=joined.begins_turn.cast("int64").sum().over(so_far) - 1,
    )


def period(local_ts: ir.TimestampValue, unit: Unit) -> ir.DateValue:
    """Return the first day of the period: the day, its Monday, or the first of its month."""
    return local_ts.truncate(_TRUNCATE[unit]).date()
