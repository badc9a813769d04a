"""What questions about conversations start from, each table declared once for every engine.

An engine gives the table `source` (see `SOURCE`), since words are counted differently everywhere;
from there on these are Ibis expressions, of operations that are equal on DuckDB and on Spark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
from ibis import _

if TYPE_CHECKING:
    import ibis.expr.types as ir

SESSION_GAP_MS: Final = 30 * 60 * 1000
"""A longer silence ends a session, and with it a turn. Thirty minutes are what web analytics and
chat-analytics use; `sessions` of the metrics takes another one."""

SOURCE: Final = {
    "id": "int64",
    "conversation": "int64",
    "author": "int64",
    "by_user": "boolean",
    "ts_us": "int64",
    "ts_ms": "int64",
    "response_ms": "int64",
    # The last message before these in their conversation, where only its end is made anew.
    "before_ms": "int64",
    "before_by_user": "boolean",
    "before_author": "int64",
    "before_person": "int64",
    "before_msg_idx": "int64",
    "before_turn_idx": "int64",
    "before_session_idx": "int64",
}
"""Messages of the user's and the companion's side (what the system wrote is no talk), narrow since
all of them pass through several windows: conversations and people are numbers."""

MESSAGES: Final = {
    "id": "int64",
    "conversation_id": "string",
    "channel_id": "string",
    "user_id": "string",
    "role": "string",
    "ts_ms": "int64",
    "msg_idx": "int64",
    "turn_idx": "int64",
    "session_idx": "int64",
    "gap_ms": "int64",
    "reply_ms": "int64",
    "n_words": "int64",
    "n_chars": "int64",
    "is_question": "boolean",
    "sentiment_score": "float64",
}
"""Messages, measured.

`user_id` is the person: of the companion's messages, the one who wrote last before. `msg_idx`,
`turn_idx` and `session_idx` count from 0 in each conversation. `gap_ms` is the silence before the
message. `reply_ms` is the time until a reply, for the message with which a turn answers the other
side: as recorded, else that silence.
"""


def places(source: ir.Table) -> ir.Table:
    """Give every message its place: the person, the turn, the session, the silence before it."""
    in_order = ibis.window(group_by="conversation", order_by=["ts_us", "id"])
    up_to_here = ibis.window(
        group_by="conversation", order_by=["ts_us", "id"], preceding=None, following=0
    )
    first = source.mutate(
        gap_ms=source.ts_ms - ibis.coalesce(source.ts_ms.lag().over(in_order), source.before_ms),
        was_by_user=ibis.coalesce(source.by_user.lag().over(in_order), source.before_by_user),
        was_author=ibis.coalesce(source.author.lag().over(in_order), source.before_author),
        msg_idx=ibis.row_number().over(in_order) + ibis.coalesce(source.before_msg_idx + 1, 0),
        by_users_so_far=source.by_user.cast("int64").sum().over(up_to_here),
    )
    starts_session = starts_session_after(first.gap_ms, SESSION_GAP_MS)
    other_side = first.by_user != first.was_by_user
    other_person = first.by_user & (first.author.fill_null(-1) != first.was_author.fill_null(-1))
    # Each block begins with a person's message, and has no other one.
    block = ibis.window(group_by=["conversation", "by_users_so_far"])
    second = first.mutate(
        person=ibis.coalesce(
            ibis.ifelse(first.by_user, first.author, ibis.null("int64")).max().over(block),
            first.before_person,
            first.author,
        ),
        starts_session=starts_session,
        starts_turn=starts_session | other_side | other_person,
        answers=ibis.coalesce(other_side, False),
    )
    nothing = ibis.null("int64")
    answered_ms = ibis.ifelse(second.answers, second.gap_ms, nothing)
    return second.select(
        "id",
        "conversation",
        "person",
        "ts_ms",
        "msg_idx",
        "gap_ms",
        session_idx=second.starts_session.cast("int64").sum().over(up_to_here)
        + ibis.coalesce(second.before_session_idx, -1),
        turn_idx=second.starts_turn.cast("int64").sum().over(up_to_here)
        + ibis.coalesce(second.before_turn_idx, -1),
        reply_ms=ibis.ifelse(
            second.starts_turn, ibis.coalesce(second.response_ms, answered_ms), nothing
        ),
    )


def starts_session_after(gap_ms: ir.IntegerValue, longest_ms: int) -> ir.BooleanValue:
    """Whether a message begins a session, by the silence before it."""
    return gap_ms.isnull() | (gap_ms > longest_ms)


def turns(messages: ir.Table) -> ir.Table:
    """What one side wrote before the other one, or a long silence: `turn_idx` of `messages`.

    `reply_ms` is the time since the other side's last message, where the turn answers it.
    """
    return messages.group_by("conversation_id", "turn_idx").agg(
        session_idx=messages.session_idx.min(),
        channel_id=messages.channel_id.min(),
        user_id=messages.user_id.min(),
        role=messages.role.min(),
        started_ms=messages.ts_ms.min(),
        ended_ms=messages.ts_ms.max(),
        reply_ms=messages.reply_ms.min(),
        **_amounts(),
    )


def sessions(messages: ir.Table) -> ir.Table:
    """Messages of a conversation without a long silence between them: `session_idx` of `messages`.

    In a channel of several people `user_id` is the first of them by name.
    """
    by_user = messages.role == "user"
    first, last = messages.msg_idx.min(), messages.msg_idx.max()
    users = messages.msg_idx.count(where=by_user)
    users_words = messages.n_words.sum(where=by_user)
    return messages.group_by("conversation_id", "session_idx").agg(
        channel_id=messages.channel_id.min(),
        user_id=ibis.coalesce(messages.user_id.min(where=by_user), messages.user_id.min()),
        started_ms=messages.ts_ms.min(),
        ended_ms=messages.ts_ms.max(),
        started_by=ibis.ifelse(
            ibis.coalesce(messages.msg_idx.min(where=by_user) == first, False), "user", "assistant"
        ),
        ended_by=ibis.ifelse(
            ibis.coalesce(messages.msg_idx.max(where=by_user) == last, False), "user", "assistant"
        ),
        n_turns=messages.turn_idx.max() - messages.turn_idx.min() + 1,
        n_user_messages=users,
        n_user_words=ibis.coalesce(users_words, 0),
        **_amounts(),
    )


def daily(messages: ir.Table, day: ir.IntegerValue) -> ir.Table:
    """What each side of a conversation wrote on a day, counted from 1970-01-01."""
    return (
        messages.mutate(day=day)
        .group_by("conversation_id", "channel_id", "user_id", "role", "day")
        .agg(**_amounts())
    )


def _amounts() -> dict[str, ir.Deferred]:
    return {
        "n_messages": _.count(),
        "n_words": _.n_words.sum(),
        "n_chars": _.n_chars.sum(),
        "n_questions": _.is_question.cast("int64").sum(),
        "n_scored": _.sentiment_score.count(),
        "sentiment_sum": ibis.coalesce(_.sentiment_score.sum(), 0.0),
    }
