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

_PEOPLE: Final = 1 << 32

SESSION_GAP_MS: Final = 30 * 60 * 1000
"""A longer silence ends a session, and with it a turn. Thirty minutes are what web analytics and
chat-analytics use; `sessions` of the metrics takes another one."""

SOURCE: Final = {
    "id": "int64",
    "conversation": "int64",
    "author": "int64",
    "by_user": "boolean",
    "addressed": "boolean",
    "earlier": "boolean",
    "ts_us": "int64",
    "ts_ms": "int64",
    "response_ms": "int64",
}
"""Messages of the user's and the companion's side; what the system wrote is no talk.

All of them pass through windows, so they are narrow: conversations and people are numbers, and 0 is
nobody. `author` is whom the message names, `response_ms` is NULL where it was not recorded.
`addressed` messages are those of the companion that name a person who wrote before, as a user, in
the same conversation.

`earlier` messages have their place already, and the others count on from them: of each conversation
the last message by, and the last one to, each person. They are in their order by `ts_us` and `id`,
before all others, name their person, and are `addressed` where the companion wrote them.
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


def places(source: ir.Table) -> ir.Table:
    """Return the messages of `SOURCE` that are not `earlier` their places.

    Their numbers count on from 0 after the earlier ones; one that goes on with the last turn, or
    session, of these has -1.
    """
    nothing = ibis.null("int64")
    in_order = ibis.window(group_by="conversation", order_by=["ts_us", "id"])
    names = source.by_user | source.addressed
    first = source.mutate(
        place=ibis.row_number().over(in_order),
        gap_ms=source.ts_ms - source.ts_ms.lag().over(in_order),
        other_side=source.by_user != source.by_user.lag().over(in_order),
        named=ibis.ifelse(names, source.author, nothing),
        named_before=ibis.ifelse(names, source.author, nothing).lag().over(in_order),
    )
    so_far = ibis.window(group_by="conversation", order_by="place", preceding=None, following=0)
    # Grows with every message that counts: the largest so far is the last one's.
    wrote = first.place * _PEOPLE + first.author
    second = first.mutate(
        writer=ibis.ifelse(first.by_user | (first.place == 0), wrote, nothing).max().over(so_far)
        % _PEOPLE,
        by_users=first.by_user.cast("int64").sum().over(so_far),
    )
    person = ibis.coalesce(second.named, second.writer)
    starts_session = starts_session_after(second.gap_ms, SESSION_GAP_MS)
    # Between two messages of the companion nobody wrote: the writer is the same for both.
    other_person = person != ibis.coalesce(second.named_before, second.writer)
    starts_turn = starts_session | second.other_side | other_person
    third = second.mutate(
        person=person,
        counts=(~second.earlier).cast("int64"),
        starts_session=(starts_session & ~second.earlier).cast("int64"),
        starts_turn=(starts_turn & ~second.earlier).cast("int64"),
    )
    between = ibis.window(group_by=["conversation", "person"], order_by="place")
    answers = third.by_user != third.by_user.lag().over(between)
    waited = third.ts_ms - third.ts_ms.lag().over(between)
    replies = third.mutate(
        reply_ms=ibis.cases(
            (third.by_user & (third.by_users == 1), third.gap_ms), (answers, waited), else_=nothing
        ),
        msg_idx=third.counts.sum().over(so_far) - 1,
        session_idx=third.starts_session.sum().over(so_far) - 1,
        turn_idx=third.starts_turn.sum().over(so_far) - 1,
    )
    return replies.filter(~replies.earlier).select(
        "id",
        "conversation",
        "person",
        "msg_idx",
        "turn_idx",
        "session_idx",
        "gap_ms",
        "reply_ms",
        recorded_ms=ibis.ifelse(_.reply_ms.notnull(), _.response_ms, nothing),
    )


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
