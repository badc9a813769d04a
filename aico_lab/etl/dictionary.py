"""What the tables and views for questions hold: each column's type, unit and meaning.

A test compares the names and types with those of a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table or view.

    Attributes:
        name: Its name.
        type: Its type in DuckDB.
        meaning: What its values tell.
        unit: In which unit, such as 'ms'; empty for names, texts and counts.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view.

    Attributes:
        name: With its schema, unless that is `main`.
        meaning: What one row is.
        columns: In their order.
    """

    name: str
    meaning: str
    columns: tuple[Field, ...]


_TEXT, _WHOLE, _NUMBER, _TRUTH = "VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN"
_TIME: Final = "TIMESTAMP WITH TIME ZONE"
_MS_OF_UTC: Final = "ms since 1970, UTC"

_ID: Final = Field("id", _WHOLE, "number of the message's row in raw.messages")
_CONVERSATION: Final = Field("conversation_id", _TEXT, "the conversation")
_CHANNEL: Final = Field("channel_id", _TEXT, "the channel of the conversation")
_PERSON: Final = Field(
    "user_id", _TEXT, "the person who wrote, or to whom the companion wrote; NULL if unknown"
)
_ROLE: Final = Field("role", _TEXT, "the side that wrote: 'user' or 'assistant'")
_WHEN: Final = Field("ts_ms", _WHOLE, "when it was written", _MS_OF_UTC)
_MESSAGE_IDX: Final = Field("msg_idx", _WHOLE, "place in the conversation, from 0")
_TURN_IDX: Final = Field("turn_idx", _WHOLE, "the turn, counted from 0 in the conversation")
_SESSION_IDX: Final = Field("session_idx", _WHOLE, "the session, counted from 0 likewise")
_REPLY: Final = Field(
    "reply_ms", _WHOLE, "time since the message that it answers; NULL if it answers none", "ms"
)
_RECORDED: Final = Field(
    "recorded_ms", _WHOLE, "response time that the source recorded, of an answer", "ms"
)
_STARTED: Final = Field("started_ms", _WHOLE, "when its first message was written", _MS_OF_UTC)
_ENDED: Final = Field("ended_ms", _WHOLE, "when its last message was written", _MS_OF_UTC)
_AMOUNTS: Final = (
    Field("n_messages", _WHOLE, "messages"),
    Field("n_words", _WHOLE, "words of the messages whose words can be told"),
    Field("n_unsegmented", _WHOLE, "messages in a script without spaces between words"),
    Field("n_chars", _WHOLE, "characters"),
    Field("n_questions", _WHOLE, "messages that hold a question mark"),
    Field("n_scored", _WHOLE, "messages with a sentiment score"),
    Field("sentiment_sum", _NUMBER, "sum of the sentiment scores"),
)
_SCORE: Final = Field(
    "sentiment_score", _NUMBER, "from -1, negative, to 1, positive; NULL if there is none"
)
_WHOSE_PROFILE: Final = Field(
    "profile_user_id", _TEXT, "the person it is made for; NULL if for everybody"
)
_ACTIVE: Final = (
    Field("active_from_ms", _WHOLE, "when it became active", _MS_OF_UTC),
    Field("active_until_ms", _WHOLE, "when it ended; NULL if it is active", _MS_OF_UTC),
)

TABLES: Final = (
    Table(
        "conversations",
        "a message; what most questions in SQL start from",
        (
            Field("user_id", _TEXT, "the person whom the source names; NULL if none"),
            Field("message", _TEXT, "what was written, as the source document calls it"),
            Field("content", _TEXT, "the same"),
            Field("timestamp", _TIME, "when it was written"),
            Field("is_ai_response", _TRUTH, "whether the companion wrote it"),
            Field("sentiment", _TEXT, "'positive' from 0.05 on, 'negative' to -0.05, 'neutral'"),
            _SCORE,
            Field(
                "response_time",
                _NUMBER,
                "as recorded; else the time since the other side's last message, of the first "
                "message after it",
                "s",
            ),
            Field("message_id", _TEXT, "the message's own id"),
            _CONVERSATION,
            _CHANNEL,
            Field("role", _TEXT, "the side that wrote: 'user', 'assistant' or 'system'"),
        ),
    ),
    Table(
        "mart.messages",
        "a message of the user's or the companion's side, measured",
        (
            _ID,
            _CONVERSATION,
            _CHANNEL,
            _PERSON,
            _ROLE,
            _WHEN,
            _MESSAGE_IDX,
            _TURN_IDX,
            _SESSION_IDX,
            Field("gap_ms", _WHOLE, "silence before it; NULL of the first message", "ms"),
            _REPLY,
            _RECORDED,
            Field("n_words", _WHOLE, "words; NULL if the script has no spaces between words"),
            Field("n_chars", _WHOLE, "characters"),
            Field("is_question", _TRUTH, "whether it holds a question mark"),
            _SCORE,
        ),
    ),
    Table(
        "mart.turns",
        "what one side wrote before the other side, or a long silence",
        (
            _CONVERSATION,
            _TURN_IDX,
            _SESSION_IDX,
            _PERSON,
            _ROLE,
            _CHANNEL,
            _STARTED,
            _ENDED,
            _REPLY,
            _RECORDED,
            *_AMOUNTS,
        ),
    ),
    Table(
        "mart.sessions",
        "messages of a conversation without a silence of more than 30 minutes between them",
        (
            _CONVERSATION,
            _SESSION_IDX,
            _CHANNEL,
            Field(
                "user_id",
                _TEXT,
                "of the people who wrote the first by name; else to whom the companion wrote",
            ),
            _STARTED,
            _ENDED,
            Field("started_by", _TEXT, "the side of its first message"),
            Field("ended_by", _TEXT, "the side of its last message"),
            Field("n_turns", _WHOLE, "turns"),
            Field("n_user_messages", _WHOLE, "messages of the user's side"),
            Field("n_user_words", _WHOLE, "words of the user's side"),
            *_AMOUNTS,
        ),
    ),
    Table(
        "mart.daily",
        "what one side wrote to or as one person in a conversation on a day of UTC",
        (
            _CONVERSATION,
            _CHANNEL,
            _PERSON,
            _ROLE,
            Field("day", _WHOLE, "the day", "days since 1970-01-01, UTC"),
            *_AMOUNTS,
        ),
    ),
    Table(
        "mart.words",
        "a word of a message",
        (
            _ID,
            _CONVERSATION,
            _CHANNEL,
            _PERSON,
            _ROLE,
            _WHEN,
            _TURN_IDX,
            _SESSION_IDX,
            Field("position", _WHOLE, "place in the message, from 0"),
            Field("word", _TEXT, "the word in small letters, in Unicode's form NFC"),
        ),
    ),
    Table(
        "mart.texts",
        "the text of a message of mart.messages",
        (
            _ID,
            _CONVERSATION,
            _CHANNEL,
            _PERSON,
            _ROLE,
            _WHEN,
            _MESSAGE_IDX,
            Field("content", _TEXT, "what was written"),
        ),
    ),
    Table(
        "mart.profiles",
        "a version of the companion's personality",
        (
            Field("profile_id", _TEXT, "the version's id"),
            _WHOSE_PROFILE,
            Field("version", _WHOLE, "its number"),
            *_ACTIVE,
        ),
    ),
    Table(
        "mart.traits",
        "a trait of such a version that is a number",
        (
            Field("profile_id", _TEXT, "the version's id"),
            _WHOSE_PROFILE,
            Field("version", _WHOLE, "the version's number"),
            Field("trait", _TEXT, "the trait's name"),
            Field("level", _NUMBER, "how much of it, on the profile's own scale"),
            *_ACTIVE,
        ),
    ),
    Table(
        "mart.feedback",
        "what somebody said about a message or a conversation",
        (
            Field("event_id", _TEXT, "the event's id"),
            Field("user_id", _TEXT, "who said it; NULL if unknown"),
            _CONVERSATION,
            Field("message_id", _TEXT, "the message it is about; NULL if the whole conversation"),
            Field("kind", _TEXT, "what it is, such as 'rating'"),
            Field("name", _TEXT, "what was rated"),
            Field("value", _NUMBER, "the rating, on the source's own scale"),
            Field("ts_ms", _WHOLE, "when it was said", _MS_OF_UTC),
        ),
    ),
    Table(
        "mart.preference_changes",
        "what somebody set a preference to",
        (
            Field("change_id", _WHOLE, "counts the changes in their order"),
            Field("user_id", _TEXT, "the person"),
            Field("preference_key", _TEXT, "the preference"),
            Field("value", _TEXT, "its new value; NULL if it was removed"),
            Field("ts_ms", _WHOLE, "when it was set", _MS_OF_UTC),
        ),
    ),
)
