"""The tables of `mart`, from which questions about conversations start, declared for all engines.

A sync computes the place of each message (`aico_lab.mart.places`) and counts its words; the rest
are Ibis expressions of operations that are equal on DuckDB and on Spark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
from ibis import _

from aico_lab.mart.sums import total

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
    "is_estimated": "boolean",
    "reply_is_estimated": "boolean",
    "n_words": "int64",
    "n_chars": "int64",
    "is_question": "boolean",
    "sentiment_score": "float64",
}
"""The columns of the measured messages of the user's and the companion's side.

Messages are ordered by time, and within a microsecond by arrival; `msg_idx`, `turn_idx` and
`session_idx` count from 0 in each conversation.

`user_id` is the person. A message by the companion belongs to the person it names, if that person
wrote before, as a user, in the same conversation; else to the person who wrote last; and until
somebody has written, to the person named by the conversation's first message.

A session begins with the first message, and after a silence longer than `SESSION_GAP_MS`. A turn
begins with a session, with a change of side, when another person writes, and when the companion
turns to another person. `gap_ms` is the silence before the message.

A message is a reply if the last message before it between its person and the companion is by the
other side. `reply_ms` is the time since that message, and `recorded_ms` the response time that the
source recorded; both are NULL for other messages. The first message by a user in a conversation
replies to the companion's message before it, whomever that message names.

`is_estimated` is true if the source had no time for the message, so that `ts_ms` is a guess between
its neighbours. A reply has `reply_is_estimated` if the time of one of the two messages is a guess;
`reply_ms` and `recorded_ms` are then NULL.

Messages that disappeared from a later export are left out: see `aico_lab.importing.disappearing`.

`n_words` is NULL in scripts without spaces between words: see `aico_lab.mart.text`.
"""


def starts_session_after(gap_ms: ir.IntegerValue, longest_ms: int) -> ir.BooleanValue:
    """Return whether a message begins a session, from the silence before it in milliseconds."""
    return gap_ms.isnull() | (gap_ms > longest_ms)


def turns(messages: ir.Table) -> ir.Table:
    """Return the turns: messages of one side until the other side writes, or a long silence.

    `reply_ms` and `recorded_ms` are those of the first message: no other message is a reply. Of
    `started_ms` and `ended_ms`, only whether the end is estimated is recorded.
    """
    return messages.group_by("conversation_id", "turn_idx").agg(
        # The same in all messages of a turn.
        session_idx=messages.session_idx.arbitrary(),
        user_id=messages.user_id.arbitrary(),
        role=messages.role.arbitrary(),
        channel_id=messages.channel_id.min(),
        started_ms=messages.ts_ms.min(),
        ended_ms=messages.ts_ms.max(),
        reply_ms=messages.reply_ms.min(),
        recorded_ms=messages.recorded_ms.min(),
        reply_is_estimated=messages.reply_is_estimated.any(),
        end_is_estimated=messages.is_estimated.argmax(messages.msg_idx),
        **_amounts(),
    )


def sessions(messages: ir.Table) -> ir.Table:
    """Return the sessions: messages of a conversation without a long silence between them.

    `user_id` is the person of the first message by a user that names one; without such a message,
    the person of the first message that has one.
    """
    by_user, named = messages.role == "user", messages.user_id.notnull()
    first, last = messages.msg_idx.min(), messages.msg_idx.max()
    users = messages.msg_idx.count(where=by_user)
    users_words = messages.n_words.sum(where=by_user)
    return messages.group_by("conversation_id", "session_idx").agg(
        channel_id=messages.channel_id.min(),
        user_id=ibis.coalesce(
            messages.user_id.argmin(messages.msg_idx, where=by_user & named),
            messages.user_id.argmin(messages.msg_idx, where=named),
        ),
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
    """Return the amounts of each side, person and day of a conversation; 1970-01-01 is day 0."""
    return (
        messages.mutate(day=day)
        .group_by("conversation_id", "channel_id", "user_id", "role", "day")
        .agg(**_amounts())
    )


def _amounts() -> dict[str, ir.Deferred]:
    return {
        "n_messages": _.count(),
        # In the messages whose words can be counted: all but `n_unsegmented`.
        "n_words": ibis.coalesce(_.n_words.sum(), 0),
        "n_unsegmented": _.n_words.isnull().cast("int64").sum(),
        "n_chars": _.n_chars.sum(),
        "n_questions": _.is_question.cast("int64").sum(),
        "n_scored": _.sentiment_score.count(),
        "sentiment_sum": ibis.coalesce(total(_.sentiment_score), 0.0),
    }
