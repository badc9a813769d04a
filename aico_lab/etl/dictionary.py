"""The data dictionary of `conversations` and `mart`, the tables and views for questions.

`aico_lab.etl.dictionary_stored` describes the other tables, `aico_lab.etl.dictionary_lookup` finds
a table by its name. A test compares the names and types with those of a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table or view.

    Attributes:
        name: The name of the column.
        type: The type of the column in DuckDB.
        meaning: The meaning of the values.
        unit: The unit of the values, such as 'ms'; empty for names, texts and counts.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view.

    Attributes:
        name: The name of the table, such as `mart.turns`; without a schema if the schema is `main`.
        meaning: The meaning of one row.
        columns: The columns, in order.
    """

    name: str
    meaning: str
    columns: tuple[Field, ...]


_TEXT, _WHOLE, _NUMBER, _TRUTH = "VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN"
_TIME: Final = "TIMESTAMP WITH TIME ZONE"
_MS_OF_UTC: Final = "ms since 1970, UTC"

_ID: Final = Field("id", _WHOLE, "the message's number in raw.messages, in order of arrival")
_CONVERSATION: Final = Field("conversation_id", _TEXT, "the conversation's id")
_CHANNEL: Final = Field("channel_id", _TEXT, "id of the conversation's channel")
_PERSON: Final = Field(
    "user_id",
    _TEXT,
    "id of the person who wrote, or to whom the companion wrote; NULL if unknown",
)
_ROLE: Final = Field("role", _TEXT, "the side that wrote: 'user', or 'assistant' (the companion)")
_WHEN: Final = Field("ts_ms", _WHOLE, "when the message was written", _MS_OF_UTC)
_MESSAGE_IDX: Final = Field("msg_idx", _WHOLE, "place of the message in its conversation, from 0")
_TURN_IDX: Final = Field("turn_idx", _WHOLE, "number of the turn in its conversation, from 0")
_SESSION_IDX: Final = Field(
    "session_idx", _WHOLE, "number of the session in its conversation, from 0"
)
_REPLY: Final = Field(
    "reply_ms",
    _WHOLE,
    "time between the answered message and this answer; NULL if no message is answered, or if the "
    "time of one of the two is estimated",
    "ms",
)
_RECORDED: Final = Field(
    "recorded_ms",
    _WHOLE,
    "response time of an answer that the source recorded; NULL if it recorded none",
    "ms",
)
_GUESSED_REPLY: Final = Field(
    "reply_is_estimated",
    _TRUTH,
    "whether this is an answer, and its time or that of the answered message is estimated",
)
_STARTED: Final = Field("started_ms", _WHOLE, "when the first message was written", _MS_OF_UTC)
_ENDED: Final = Field("ended_ms", _WHOLE, "when the last message was written", _MS_OF_UTC)
_AMOUNTS: Final = (
    Field("n_messages", _WHOLE, "number of messages"),
    Field("n_words", _WHOLE, "number of words, in messages whose words can be counted"),
    Field("n_unsegmented", _WHOLE, "number of messages in a script without spaces between words"),
    Field("n_chars", _WHOLE, "number of characters"),
    Field("n_questions", _WHOLE, "number of messages with a question mark that ends a sentence"),
    Field("n_scored", _WHOLE, "number of messages with a sentiment score"),
    Field("sentiment_sum", _NUMBER, "sum of the sentiment scores"),
)
_SCORE: Final = Field(
    "sentiment_score",
    _NUMBER,
    "sentiment of the message, from -1 (negative) to 1 (positive); NULL without a score",
)
_WHOSE_PROFILE: Final = Field(
    "profile_user_id",
    _TEXT,
    "id of the person for whom the version is made; NULL if it is for everybody",
)
_ACTIVE: Final = (
    Field("active_from_ms", _WHOLE, "when the version became active", _MS_OF_UTC),
    Field("active_until_ms", _WHOLE, "when the version ended; NULL while it is active", _MS_OF_UTC),
    Field("context", _TEXT, "the context bucket, such as 'evening'; NULL for every context"),
)

_THEME: Final = Field("theme", _WHOLE, "number of the theme, from 0; the largest theme is first")
_THEME_NAME: Final = Field("name", _TEXT, "the theme's name, made of its most distinguishing words")
_SEGMENT: Final = Field("segment_id", _TEXT, "id of the segment that is the passage")
_OUTLIER: Final = Field("is_outlier", _TRUTH, "whether the passage is far from every theme")

TABLES: Final = (
    Table(
        "conversations",
        "a message; most questions in SQL start from this view",
        (
            Field(
                "user_id", _TEXT, "id of the person whom the source names; NULL if it names none"
            ),
            Field("message", _TEXT, "the text of the message, under a second name besides content"),
            Field("content", _TEXT, "the text of the message"),
            Field("timestamp", _TIME, "when the message was written"),
            Field("is_ai_response", _TRUTH, "whether the companion wrote the message"),
            Field(
                "sentiment",
                _TEXT,
                "'positive' for scores from 0.05, 'negative' for scores to -0.05, else 'neutral'; "
                "NULL without a score",
            ),
            _SCORE,
            Field(
                "response_time",
                _NUMBER,
                "recorded response time; else the time since the conversation's previous message, "
                "if the other side wrote that and neither time is estimated; else NULL",
                "s",
            ),
            Field("message_id", _TEXT, "the message's id"),
            _CONVERSATION,
            _CHANNEL,
            Field(
                "role",
                _TEXT,
                "the side that wrote: 'user', 'assistant' (the companion) or 'system'",
            ),
        ),
    ),
    Table(
        "mart.messages",
        "a message of the user's or the companion's side, measured; without those that are missing "
        "from a later export",
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
            Field(
                "gap_ms",
                _WHOLE,
                "time since the conversation's previous message; NULL for the first message",
                "ms",
            ),
            _REPLY,
            _RECORDED,
            Field("is_estimated", _TRUTH, "whether the time is estimated, the source having none"),
            _GUESSED_REPLY,
            Field(
                "n_words",
                _WHOLE,
                "number of words; NULL if the script has no spaces between words",
            ),
            Field("n_chars", _WHOLE, "number of characters"),
            Field("is_question", _TRUTH, "whether a question mark ends a sentence of the message"),
            _SCORE,
        ),
    ),
    Table(
        "mart.turns",
        "a turn: successive messages of one side (of one person, where several write) in a session",
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
            _GUESSED_REPLY,
            Field("end_is_estimated", _TRUTH, "whether the time of the last message is estimated"),
            *_AMOUNTS,
        ),
    ),
    Table(
        "mart.sessions",
        "a session: messages of a conversation with no silence of more than 30 minutes",
        (
            _CONVERSATION,
            _SESSION_IDX,
            _CHANNEL,
            Field(
                "user_id",
                _TEXT,
                "id of the person who wrote, or of the person addressed if only the companion "
                "wrote; the first of several to write",
            ),
            _STARTED,
            _ENDED,
            Field("started_by", _TEXT, "the side that wrote the first message"),
            Field("ended_by", _TEXT, "the side that wrote the last message"),
            Field("n_turns", _WHOLE, "number of turns"),
            Field("n_user_messages", _WHOLE, "number of messages by the user's side"),
            Field("n_user_words", _WHOLE, "number of words by the user's side"),
            *_AMOUNTS,
        ),
    ),
    Table(
        "mart.daily",
        "the messages of a day (UTC), a conversation, a person and a side",
        (
            _CONVERSATION,
            _CHANNEL,
            _PERSON,
            _ROLE,
            Field("day", _WHOLE, "the day, as a number", "days since 1970-01-01, UTC"),
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
            Field("position", _WHOLE, "place of the word in its message, from 0"),
            Field("word", _TEXT, "the word, in lower case and Unicode's form NFC"),
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
            Field("content", _TEXT, "the text of the message"),
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
            Field("number", _WHOLE, "place in the order of the first messages, from 1"),
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
            Field("number", _WHOLE, "place in the order of the first messages, from 1"),
            Field("pseudonym", _TEXT, "'Channel' and the number"),
            Field(
                "name",
                _TEXT,
                "the channel's name, with the id if several have it; the id if there is no name",
            ),
        ),
    ),
    Table(
        "mart.explorations",
        "a stored exploration of what passages are about",
        (
            Field("exploration_id", _TEXT, "id of the exploration"),
            Field("model", _TEXT, "the model that made the vectors"),
            Field("parameters", _TEXT, "parameters of the exploration, as a JSON object"),
            Field("seed", _WHOLE, "seed of the random numbers"),
            Field("generation", _WHOLE, "number of the explored snapshot; NULL if there was none"),
            Field("passages", _WHOLE, "number of explored passages"),
            Field(
                "stability",
                _NUMBER,
                "agreement of themes between samples, up to 1; NULL if it was not measured",
            ),
            Field("created_ms", _WHOLE, "when the exploration was made", _MS_OF_UTC),
            Field("is_current", _TRUTH, "whether it is the one that was asked for last"),
        ),
    ),
    Table(
        "mart.themes",
        "a theme of the current exploration",
        (
            _THEME,
            _THEME_NAME,
            Field("passages", _WHOLE, "number of passages, outliers included; NULL for none"),
            Field("outliers", _WHOLE, "number of these that are far from every theme"),
            Field("people", _WHOLE, "number of people who wrote in them; NULL for none"),
            Field("model", _TEXT, "the model that made the vectors"),
        ),
    ),
    Table(
        "mart.passage_themes",
        "a passage of the current exploration",
        (
            _SEGMENT,
            _CONVERSATION,
            _CHANNEL,
            _STARTED,
            _ENDED,
            _THEME,
            _THEME_NAME,
            Field("distance", _NUMBER, "cosine distance to the nearest centre of a theme, 0 to 2"),
            _OUTLIER,
            Field("x", _NUMBER, "first coordinate on the map; NULL without a map"),
            Field("y", _NUMBER, "second coordinate on the map; NULL without a map"),
        ),
    ),
    Table(
        "mart.message_themes",
        "a message of a passage of the current exploration",
        (_ID, _SEGMENT, _THEME, _THEME_NAME, _OUTLIER),
    ),
    Table(
        "mart.profiles",
        "a version of the companion's personality",
        (
            Field("profile_id", _TEXT, "the version's id"),
            _WHOSE_PROFILE,
            Field("version", _WHOLE, "the version's number"),
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
        "mart.decisions",
        "a decision of the companion on the style or skill of a message",
        (
            Field("message_id", _TEXT, "id of the companion's message"),
            Field("user_id", _TEXT, "id of the person it was for; NULL if unknown"),
            _CONVERSATION,
            Field("profile_id", _TEXT, "id of the personality's version; NULL if unknown"),
            Field("policy", _TEXT, "id of the policy that decided; NULL if unknown"),
            Field("context", _TEXT, "the context bucket, such as 'evening'; NULL if unknown"),
            Field("arm", _TEXT, "the chosen style or skill"),
            Field(
                "propensity",
                _NUMBER,
                "probability with which the arm was chosen, 0 to 1; NULL if it was not logged",
            ),
            Field(
                "propensity_kind",
                _TEXT,
                "'exact', or 'monte-carlo' if estimated by drawing; NULL without a propensity",
            ),
            Field("arms", _TEXT, "all arms that could be chosen, with probabilities, as JSON"),
            Field("features", _TEXT, "numbers that the policy knew, by name, as JSON"),
            Field("simulated", _TRUTH, "whether a simulation wrote the decision"),
            Field("ts_ms", _WHOLE, "when the decision was made", _MS_OF_UTC),
        ),
    ),
    Table(
        "mart.feedback",
        "feedback of a person on a message or a conversation",
        (
            Field("event_id", _TEXT, "the event's id"),
            Field("user_id", _TEXT, "id of the person who gave the feedback; NULL if unknown"),
            _CONVERSATION,
            Field(
                "message_id",
                _TEXT,
                "id of the rated message; NULL if the whole conversation is rated",
            ),
            Field("kind", _TEXT, "the kind of feedback, such as 'rating'"),
            Field("name", _TEXT, "the rated quality, such as 'witty'"),
            Field("value", _NUMBER, "the rating, on the source's own scale"),
            Field("ts_ms", _WHOLE, "when the feedback was given", _MS_OF_UTC),
        ),
    ),
    Table(
        "mart.preference_changes",
        "a change of a person's preference",
        (
            Field("change_id", _WHOLE, "number of the change, in order of the changes"),
            Field("user_id", _TEXT, "id of the person who has the preference"),
            Field("preference_key", _TEXT, "the preference's name"),
            Field("value", _TEXT, "the preference's new value; NULL if the preference was removed"),
            Field("ts_ms", _WHOLE, "when the preference was set or removed", _MS_OF_UTC),
        ),
    ),
)
