"""What questions about conversations start from, each table declared once for every engine.

A sync puts the messages in their places (`aico_lab.mart.places`) and counts their words; from there
on these are Ibis expressions, of operations that are equal on DuckDB and on Spark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
from ibis import _

if TYPE_CHECKING:
    import ibis.expr.types as ir

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
    "recorded_ms": "int64",
    "n_words": "int64",
    "n_chars": "int64",
    "is_question": "boolean",
    "sentiment_score": "float64",
}
"""Messages of the user's and the companion's side, measured.

They are in order of their time, and of their arrival within a microsecond; `msg_idx`, `turn_idx`
and `session_idx` count from 0 in each conversation.

`user_id` is the person. Of a message of the companion that is whom it names, if they wrote before,
as a user, in the same conversation; else who wrote last before; until somebody has written, whom
the conversation's first message names.

A session begins with the first message, and after a silence longer than `SESSION_GAP_MS`. A turn
begins with a session, with a change of side, where another person goes on, and where the companion
turns to another person. `gap_ms` is the silence before the message.

A message is an answer if the last one before it, of those between its person and the companion, is
of the other side. `reply_ms` is the time since that one, and `recorded_ms` the recorded response
time; both are NULL of other messages. The first message by a user answers what the companion wrote
before, whomever that named.

`n_words` is NULL of a message in a script without spaces between words: see `aico_lab.mart.text`.
"""


def starts_session_after(gap_ms: ir.IntegerValue, longest_ms: int) -> ir.BooleanValue:
    """Whether a message begins a session, by the silence before it."""
    return gap_ms.isnull() | (gap_ms > longest_ms)


def turns(messages: ir.Table) -> ir.Table:
    """What one side wrote before the other one, or a long silence: `turn_idx` of `MESSAGES`.

    `reply_ms` and `recorded_ms` are those of its first message: no other one is an answer.
    """
    return messages.group_by("conversation_id", "turn_idx").agg(
        # The same in all of its messages.
        session_idx=messages.session_idx.arbitrary(),
        user_id=messages.user_id.arbitrary(),
        role=messages.role.arbitrary(),
        channel_id=messages.channel_id.min(),
        started_ms=messages.ts_ms.min(),
        ended_ms=messages.ts_ms.max(),
        reply_ms=messages.reply_ms.min(),
        recorded_ms=messages.recorded_ms.min(),
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
