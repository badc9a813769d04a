"""The conversations that a question is about: the tables of `mart`, restricted by its filters.

Filters choose whole things by when they begin: a turn or a session that began in the period counts
whole, one that began before it does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import ibis
from ibis import _

from aico_lab.mart import compiler, definitions
from aico_lab.metrics.zones import get_zone, local_ms, offsets, to_local

if TYPE_CHECKING:
    from datetime import date

    import ibis.expr.types as ir

    from aico_lab.metrics.filters import Filters

Unit = Literal["day", "week", "month"]
Scope = Literal["conversation", "person"]

_MS_OF_A_DAY: Final = 86_400_000
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
    },
}
"""Columns of the views of `mart`, beside its tables."""


@dataclass(frozen=True)
class Talk:
    """Canonical tables, as the filters of one question leave them.

    Attributes:
        filters: What counts.
        first_ms: When the first message of all was written, in UTC milliseconds. Neither this nor
            the last one is for expressions, which are compiled once for all data.
        last_ms: When the last one was.
        by_side: Whether `role` restricts these tables, rather than the rows of the answer.
        bounds: The period of the filters in UTC milliseconds, from the first on, before the second.
        shifts: What the zone adds to UTC while messages were written; see `zones.offsets`.
    """

    filters: Filters
    first_ms: int = field(compare=False)
    last_ms: int = field(compare=False)
    by_side: bool = False
    bounds: tuple[int | None, int | None] = field(init=False)
    shifts: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        days = self.first_ms // _MS_OF_A_DAY, self.last_ms // _MS_OF_A_DAY + 1
        shifts = offsets(self.filters.timezone, *days)
        object.__setattr__(self, "bounds", self.filters.bounds(self.last_ms))
        # When the first one begins does not matter, and is another day for other data.
        object.__setattr__(self, "shifts", ((0, shifts[0][1]), *shifts[1:]))

    @cached_property
    def messages(self) -> ir.Table:
        """`aico_lab.mart.definitions.MESSAGES`, and `local_ts` in the zone of the question."""
        return self._restricted(self._stored("messages"), "ts_ms")

    @cached_property
    def turns(self) -> ir.Table:
        """What one side wrote at a time; `local_ts` is its beginning."""
        return self._restricted(self._stored("turns"), "started_ms")

    @cached_property
    def words(self) -> ir.Table:
        """One row a word, in lower case."""
        return self._restricted(self._view("words"), "ts_ms")

    @cached_property
    def texts(self) -> ir.Table:
        """What was written, for what no count of words tells: no answer may quote it."""
        return self._restricted(self._view("texts"), "ts_ms")

    @cached_property
    def feedback(self) -> ir.Table:
        """What people said of conversations and messages; in no channel, and of no side."""
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
        """What people set their preferences to, of all time: only `user` restricts these."""
        changes = self._view("preference_changes")
        if self.filters.users:
            changes = changes.filter(_.user_id.isin(self.filters.users))
        return changes

    @cached_property
    def beginnings(self) -> ir.Table:
        """When each person first wrote, of all data: only `user` of the filters restricts these."""
        said = self._stored("messages").filter(_.role == "user", _.user_id.notnull())
        firsts = said.group_by("user_id").agg(ts_ms=_.ts_ms.min())
        if self.filters.users:
            firsts = firsts.filter(_.user_id.isin(self.filters.users))
        return firsts.mutate(local_ts=self._local(firsts.ts_ms))

    def sessions(
        self, gap_ms: int = definitions.SESSION_GAP_MS, scope: Scope = "conversation"
    ) -> ir.Table:
        """Stretches of conversation without a longer silence; `local_ts` is its beginning.

        A session has two sides, so the role does not restrict sessions.

        Args:
            gap_ms: A longer silence ends a session.
            scope: Whether a session is within a conversation, or goes over all conversations of a
                person, in the channels that count. In place of a conversation, `conversation_id`
                then says whose it is.
        """
        if scope == "person":
            messages = self._stored("messages")
            if self.filters.channels:
                messages = messages.filter(messages.channel_id.isin(self.filters.channels))
            made = definitions.sessions(_of_people(messages, gap_ms)).drop("channel_id")
        elif gap_ms == definitions.SESSION_GAP_MS:
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

    @cached_property
    def daily(self) -> ir.Table:
        """What each side of a conversation wrote on a local day; `date` is the day."""
        since, until = self.bounds
        whole_days = all(bound is None or bound % _MS_OF_A_DAY == 0 for bound in (since, until))
        if self.filters.timezone == "UTC" and whole_days:
            days = self._stored("daily")
            days = days.mutate(started_ms=days.day * _MS_OF_A_DAY)
            return self._restricted(days, "started_ms").mutate(date=lambda t: t.local_ts.date())
        messages = self.messages
        midnight = messages.local_ts.truncate("D")
        # The same table, of another zone's days; `date` in the place of a number.
        return definitions.daily(messages, midnight.date()).rename(date="day")

    @cached_property
    def first_day(self) -> date:
        """The local day on which the period begins, or the first message was written."""
        since = self.bounds[0]
        first_ms = self.first_ms if since is None else max(since, self.first_ms)
        return to_local(first_ms, get_zone(self.filters.timezone)).date()

    @cached_property
    def last_day(self) -> date:
        """The local day on which the period ends, or the last message was written."""
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
        return table.mutate(local_ts=self._local(table[time]))

    def _local(self, ts_ms: ir.IntegerValue) -> ir.TimestampValue:
        return local_ms(ts_ms, self.shifts).as_timestamp("ms")


def _of_people(messages: ir.Table, gap_ms: int) -> ir.Table:
    """Put each person's messages in one row, as if they had one conversation.

    Those of nobody known stay in their conversation.
    """
    # One name may be that of a person and of a conversation.
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
    """Give the day, the Monday of the week, or the first of the month."""
    return local_ts.truncate(_TRUNCATE[unit]).date()
