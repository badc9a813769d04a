"""The data dictionary of the tables and views for questions: columns, types, units and meanings.

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
        meaning: The meaning of its values.
        unit: The unit of its values, such as 'ms'; empty for names, texts and counts.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view.

    Attributes:
        name: Its name, with the schema unless that is `main`.
        meaning: The meaning of one row.
        columns: Its columns, in order.
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
_SESSION_IDX: Final = Field("session_idx", _WHOLE, "the session, counted from 0 in it too")
_REPLY: Final = Field(
    "reply_ms", _WHOLE, "time since the message that it answers; NULL if it answers none", "ms"
)
_RECORDED: Final = Field(
    "recorded_ms", _WHOLE, "response time of a reply, as the source recorded it", "ms"
)
_STARTED: Final = Field("started_ms", _WHOLE, "when its first message was written", _MS_OF_UTC)
_ENDED: Final = Field("ended_ms", _WHOLE, "when its last message was written", _MS_OF_UTC)
_AMOUNTS: Final = (
    Field("n_messages", _WHOLE, "messages"),
    Field("n_words", _WHOLE, "words of the messages whose words can be counted"),
    Field("n_unsegmented", _WHOLE, "messages in a script without spaces between words"),
    Field("n_chars", _WHOLE, "characters"),
    Field("n_questions", _WHOLE, "messages with a question mark that ends a sentence"),
    Field("n_scored", _WHOLE, "messages with a sentiment score"),
    Field("sentiment_sum", _NUMBER, "sum of the sentiment scores"),
)
_SCORE: Final = Field(
    "sentiment_score", _NUMBER, "from -1, negative, to 1, positive; NULL if there is none"
)
_WHOSE_PROFILE: Final = Field(
    "profile_user_id", _TEXT, "the person for whom it is made; NULL if it is for everybody"
)
_ACTIVE: Final = (
    Field("active_from_ms", _WHOLE, "when it became active", _MS_OF_UTC),
    Field("active_until_ms", _WHOLE, "when it ended; NULL if it is active", _MS_OF_UTC),
)

TABLES: Final = (
    Table(
        "conversations",
        "a message; most questions in SQL start from this view",
        (
            Field("user_id", _TEXT, "the person whom the source names; NULL if none"),
            Field("message", _TEXT, "the text, by its name in the source document"),
            Field("content", _TEXT, "the text"),
            Field("timestamp", _TIME, "when it was written"),
            Field("is_ai_response", _TRUTH, "whether the companion wrote it"),
            Field("sentiment", _TEXT, "'positive' from 0.05 on, 'negative' to -0.05, 'neutral'"),
            _SCORE,
            Field(
                "response_time",
                _NUMBER,
                "as recorded; else the time since the previous message, if the other side wrote it",
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
            Field("is_question", _TRUTH, "whether a question mark ends a sentence of it"),
            _SCORE,
        ),
    ),
    Table(
        "mart.turns",
        "messages of one side until the other side writes, or a long silence",
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
                "the alphabetically first who wrote; else of those to whom the companion wrote",
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
        "what one side wrote as or to one person in a conversation on a day (UTC)",
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
            Field("word", _TEXT, "the word in lower case, in Unicode's form NFC"),
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
        "mart.replies",
        "a message that names the message which it answers",
        (
            Field("id", _WHOLE, "number of the reply's row in raw.messages"),
            Field("answered_id", _WHOLE, "number of the answered message's row in raw.messages"),
        ),
    ),
    Table(
        "mart.extras",
        "an emoji, link, mention, kind of reaction or attachment, or the edit of a message",
        (
            _ID,
            _CONVERSATION,
            _CHANNEL,
            _PERSON,
            _ROLE,
            _WHEN,
            Field("kind", _TEXT, "'emoji', 'reaction', 'link', 'mention', 'attachment' or 'edit'"),
            Field(
                "item",
                _TEXT,
                "the emoji without skin tone, domain of the link, name, or kind of attachment",
            ),
            Field("n", _WHOLE, "how many of it; reactions are counted by the source"),
            Field("is_text", _TRUTH, "whether the item is a text that may tell who wrote"),
            Field("mentioned_id", _TEXT, "the mentioned person, if known by id or name"),
        ),
    ),
    Table(
        "mart.people",
        "a person of a message",
        (
            Field("user_id", _TEXT, "the person"),
            Field("number", _WHOLE, "place in the order of the first stored messages, from 1"),
            Field("pseudonym", _TEXT, "'Person' and the number"),
            Field(
                "name",
                _TEXT,
                "the person's name, with the id if several have it; the id if there is no name",
            ),
        ),
    ),
    Table(
        "mart.channels",
        "a channel of a message",
        (
            Field("channel_id", _TEXT, "the channel"),
            Field("number", _WHOLE, "place in the order of the first stored messages, from 1"),
            Field("pseudonym", _TEXT, "'Channel' and the number"),
            Field(
                "name",
                _TEXT,
                "the channel's name, with the id if several have it; the id if there is no name",
            ),
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
        "a numeric trait of a version of the companion's personality",
        (
            Field("profile_id", _TEXT, "the version's id"),
            _WHOSE_PROFILE,
            Field("version", _WHOLE, "the version's number"),
            Field("trait", _TEXT, "the trait's name"),
            Field("level", _NUMBER, "the trait's value, on the profile's own scale"),
            *_ACTIVE,
        ),
    ),
    Table(
        "mart.feedback",
        "feedback of a person on a message or a conversation",
        (
            Field("event_id", _TEXT, "the event's id"),
            Field("user_id", _TEXT, "the person; NULL if unknown"),
            _CONVERSATION,
            Field("message_id", _TEXT, "the message; NULL if the whole conversation is meant"),
            Field("kind", _TEXT, "the kind of feedback, such as 'rating'"),
            Field("name", _TEXT, "what was rated"),
            Field("value", _NUMBER, "the rating, on the source's own scale"),
            Field("ts_ms", _WHOLE, "when it was given", _MS_OF_UTC),
        ),
    ),
    Table(
        "mart.preference_changes",
        "a change of a person's preference",
        (
            Field("change_id", _WHOLE, "number of the change, in order"),
            Field("user_id", _TEXT, "the person"),
            Field("preference_key", _TEXT, "the preference"),
            Field("value", _TEXT, "its new value; NULL if it was removed"),
            Field("ts_ms", _WHOLE, "when it was set", _MS_OF_UTC),
        ),
    ),
)
