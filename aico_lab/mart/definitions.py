"""What questions about conversations start from, each table declared once for every engine.

An engine gives the messages as `SOURCE`, and counts their words; from there on these are Ibis
expressions, of operations that are equal on DuckDB and on Spark.
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
}
"""Messages of the user's and the companion's side; what the system wrote is no talk.

All of them pass through windows, so they are narrow: conversations and people are numbers, these
below 2^32 and 0 where nobody is named. `response_ms` is NULL where it was not recorded.
"""

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
"""Messages of the user's and the companion's side, measured.

They are in order of their time, and of their arrival within a microsecond; `msg_idx`, `turn_idx`
and `session_idx` count from 0 in each conversation.

`user_id` is the person: of a message of the companion, who wrote last before; until somebody has
written, whom the conversation's first message names.

A session begins with the first message, and after a silence longer than `SESSION_GAP_MS`. A turn
begins with a session, with a change of side, and where another person goes on. `gap_ms` is the
silence before the message.

`reply_ms`, of a message that begins a turn, is how long its author took: as recorded, else the
silence before it if the other side wrote last.

`n_words` is NULL of a message in a script without spaces between words: see `aico_lab.mart.text`.
"""

_PEOPLE: Final = 1 << 32


def places(source: ir.Table) -> ir.Table:
    """Give every message of `SOURCE` its place: the person, the turn, the session, the silence."""
    in_order = ibis.window(group_by="conversation", order_by=["ts_us", "id"])
    first = source.mutate(
        msg_idx=ibis.row_number().over(in_order),
        gap_ms=source.ts_ms - source.ts_ms.lag().over(in_order),
        answers=source.by_user != source.by_user.lag().over(in_order),
        other_author=source.author != source.author.lag().over(in_order),
    )
    starts_session = starts_session_after(first.gap_ms, SESSION_GAP_MS)
    starts_turn = starts_session | first.answers | (first.by_user & first.other_author)
    names_a_person = first.by_user | (first.msg_idx == 0)
    nothing = ibis.null("int64")
    second = first.select(
        "id",
        "conversation",
        "msg_idx",
        "gap_ms",
        # Grows with every message that names a person: the largest so far is the last one's.
        named=ibis.ifelse(names_a_person, first.msg_idx * _PEOPLE + first.author, nothing),
        starts_session=starts_session.cast("int64"),
        starts_turn=starts_turn.cast("int64"),
        reply_ms=ibis.ifelse(
            starts_turn,
            ibis.coalesce(first.response_ms, ibis.ifelse(first.answers, first.gap_ms, nothing)),
            nothing,
        ),
    )
    so_far = ibis.window(group_by="conversation", order_by="msg_idx", preceding=None, following=0)
    return second.select(
        "id",
        "conversation",
        "msg_idx",
        "gap_ms",
        "reply_ms",
        person=second.named.max().over(so_far) % _PEOPLE,
        session_idx=second.starts_session.sum().over(so_far) - 1,
        turn_idx=second.starts_turn.sum().over(so_far) - 1,
    )


def starts_session_after(gap_ms: ir.IntegerValue, longest_ms: int) -> ir.BooleanValue:
    """Whether a message begins a session, by the silence before it."""
    return gap_ms.isnull() | (gap_ms > longest_ms)


def turns(messages: ir.Table) -> ir.Table:
    """What one side wrote before the other one, or a long silence: `turn_idx` of `MESSAGES`.

    `reply_ms` is that of its first message.
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
    """Messages of a conversation without a long silence between them: `session_idx` of `MESSAGES`.

    In a channel of several people `user_id` is the first by name of those who wrote; it is whom
    the companion wrote to where nobody did.
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
        # Of the messages whose words can be told: all but `n_unsegmented`.
        "n_words": ibis.coalesce(_.n_words.sum(), 0),
        "n_unsegmented": _.n_words.isnull().cast("int64").sum(),
        "n_chars": _.n_chars.sum(),
        "n_questions": _.is_question.cast("int64").sum(),
        "n_scored": _.sentiment_score.count(),
        "sentiment_sum": ibis.coalesce(_.sentiment_score.sum(), 0.0),
    }
