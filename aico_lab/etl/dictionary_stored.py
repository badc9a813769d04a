"""The data dictionary of `raw`, `quarantine` and `meta`: copied tables, and records of syncs.

A test compares the names and types with those of a snapshot.
"""

from __future__ import annotations

from typing import Final

from aico_lab.etl.dictionary import Field, Table

_TEXT, _WHOLE, _NUMBER, _TRUTH, _BYTES = "VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "BLOB"
_TIME: Final = "TIMESTAMP WITH TIME ZONE"

_METADATA: Final = Field(
    "metadata", _TEXT, "further facts, as a JSON object; NULL if there are none"
)
_CHANNEL: Final = Field("channel_id", _TEXT, "id of the channel")
_PERSON: Final = Field("user_id", _TEXT, "id of the person")
_UPDATED: Final = Field("updated_at", _TIME, "when the row was last changed")
_PREFERENCE: Final = Field("preference_key", _TEXT, "the preference's name")
_LABEL: Final = Field(
    "table_name", _TEXT, "the table; with its schema if it was copied from another file"
)
_ROW_KEY: Final = Field(
    "row_key",
    _TEXT,
    "the row's key: text as it is, other values as SQL literals, several columns as a JSON array",
)
_EXPLORATION: Final = Field("exploration_id", _TEXT, "id of the exploration")
_CONTEXT: Final = Field(
    "context", _TEXT, "the context bucket, such as 'evening'; NULL for every context"
)
_SIMULATED: Final = Field("simulated", _TRUTH, "whether a simulation wrote the row")
_GENERATION: Final = Field("generation", _WHOLE, "number of the snapshot")

RAW: Final = (
    Table(
        "raw.users",
        "a person",
        (
            Field("user_id", _TEXT, "the person's id"),
            Field("name", _TEXT, "the person's name; NULL if unknown"),
            Field("created_at", _TIME, "when the person was stored"),
            _METADATA,
        ),
    ),
    Table(
        "raw.user_profiles",
        "the profile of a person, as the companion knows it",
        (_PERSON, Field("profile", _TEXT, "the profile, as a JSON object"), _UPDATED),
    ),
    Table(
        "raw.preferences",
        "a present preference of a person",
        (_PERSON, _PREFERENCE, Field("value", _TEXT, "the preference's value, as JSON"), _UPDATED),
    ),
    Table(
        "raw.preference_changes",
        "a change of a person's preference",
        (
            Field("change_id", _WHOLE, "number of the change, in order of the changes"),
            _PERSON,
            _PREFERENCE,
            Field("old_value", _TEXT, "the value before, as JSON; NULL if there was none"),
            Field("value", _TEXT, "the value after, as JSON; NULL if the preference was removed"),
            Field("changed_at", _TIME, "when the preference was changed"),
        ),
    ),
    Table(
        "raw.relationships",
        "a relationship of a person with somebody",
        (
            Field("relationship_id", _TEXT, "the relationship's id"),
            _PERSON,
            Field("other", _TEXT, "the other person's name"),
            Field("kind", _TEXT, "the role of the other person, such as 'sister'"),
            Field("strength", _NUMBER, "strength of the relationship, 0 to 1; NULL if unknown"),
            Field("notes", _TEXT, "notes on the relationship; NULL if there are none"),
            _UPDATED,
        ),
    ),
    Table(
        "raw.channels",
        "a channel, in which conversations take place",
        (
            Field("channel_id", _TEXT, "the channel's id"),
            Field("name", _TEXT, "the channel's name; NULL if it has none"),
            Field("kind", _TEXT, "the kind of channel, such as 'direct'"),
            Field(
                "created_at", _TIME, "when the channel was created, or its first message written"
            ),
            _METADATA,
        ),
    ),
    Table(
        "raw.messages",
        "a message, as it was imported or stored",
        (
            Field("id", _WHOLE, "number of the message, in order of arrival"),
            Field("message_id", _TEXT, "the message's id"),
            _CHANNEL,
            Field("conversation_id", _TEXT, "the conversation's id"),
            Field(
                "user_id", _TEXT, "id of the person whom the source names; NULL if it names none"
            ),
            Field(
                "role",
                _TEXT,
                "the side that wrote: 'user', 'assistant' (the companion) or 'system'",
            ),
            Field("content", _TEXT, "the text of the message"),
            Field("timestamp", _TIME, "when the message was written"),
            Field(
                "sentiment_score",
                _NUMBER,
                "sentiment of the message, from -1 (negative) to 1 (positive); NULL without score",
            ),
            Field(
                "sentiment_source",
                _TEXT,
                "origin of the score: 'given', or VADER's version such as 'vader-3.3.2-2'; or the "
                "reason why there is no score, such as 'language:de'",
            ),
            Field("response_time", _NUMBER, "response time that the source recorded", "s"),
            Field("reply_to", _TEXT, "id of the answered message; NULL if the source names none"),
            _METADATA,
        ),
    ),
    Table(
        "raw.conversation_segments",
        "a segment of a channel's messages",
        (
            Field("segment_id", _TEXT, "the segment's id"),
            _CHANNEL,
            Field("started_at", _TIME, "when the segment's first message was written"),
            Field("ended_at", _TIME, "when the segment's last message was written"),
            Field("summary", _TEXT, "a summary of the segment; NULL if there is none"),
            _METADATA,
            Field(
                "conversation_id",
                _TEXT,
                "id of the conversation; NULL if another program wrote the segment",
            ),
            Field("message_count", _WHOLE, "number of the segment's messages; NULL if unknown"),
            Field(
                "coherence",
                _NUMBER,
                "mean cosine of adjacent messages of the segment, -1 to 1; NULL if unknown, or "
                "without two messages",
            ),
            Field(
                "activity",
                _NUMBER,
                "messages per hour from the segment's first to its last; NULL if unknown, or if "
                "both were written at one time",
                "1/h",
            ),
            Field(
                "segmenter",
                _TEXT,
                "name and version of the segmenter, such as 'pause-coherence-1'; NULL if another "
                "program wrote the segment",
            ),
            Field(
                "is_stale",
                _TRUTH,
                "whether a message of the segment changed, or was deleted, since it was written",
            ),
        ),
    ),
    Table(
        "raw.segment_messages",
        "the membership of a message in a segment",
        (
            Field("segment_id", _TEXT, "id of the segment"),
            Field("message_id", _TEXT, "id of the message"),
            Field("position", _WHOLE, "place of the message in the segment, from 0"),
        ),
    ),
    Table(
        "raw.embeddings",
        "a vector of a message or a segment",
        (
            Field("embedding_id", _TEXT, "the vector's id"),
            Field("message_id", _TEXT, "id of the message; NULL if the vector is a segment's"),
            Field("segment_id", _TEXT, "id of the segment; NULL if the vector is a message's"),
            Field("model", _TEXT, "the model that made the vector"),
            Field("vector", _BYTES, "numbers of 32 bits, little-endian, as many as the model's"),
            Field("created_at", _TIME, "when the vector was made"),
        ),
    ),
    Table(
        "raw.memories",
        "a memory that the companion has of a person",
        (
            Field("memory_id", _TEXT, "the memory's id"),
            _PERSON,
            Field("content", _TEXT, "the text of the memory"),
            Field("memory_type", _TEXT, "the kind of memory, such as 'episodic'"),
            Field("importance", _NUMBER, "importance of the memory, from 0 to 1"),
            Field("created_at", _TIME, "when the memory was made"),
            _METADATA,
        ),
    ),
    Table(
        "raw.personality_profiles",
        "a version of the companion's personality",
        (
            Field("profile_id", _TEXT, "the version's id"),
            Field(
                "user_id",
                _TEXT,
                "id of the person for whom the version is made; NULL if it is for everybody",
            ),
            Field("version", _WHOLE, "the version's number"),
            Field("traits", _TEXT, "values of traits by name, as a JSON object"),
            Field("active_from", _TIME, "when the version became active"),
            Field("active_until", _TIME, "when the version ended; NULL while it is active"),
            _CONTEXT,
            Field(
                "stability", _NUMBER, "a trait moves by at most 1 - stability in a change, 0 to 1"
            ),
            Field("based_on", _TEXT, "id of the version that it replaced; NULL for a first one"),
            Field("reason", _TEXT, "reason of the change; NULL if none was stated"),
            _SIMULATED,
        ),
    ),
    Table(
        "raw.personality_decisions",
        "a decision of the companion on the style or skill of a message",
        (
            Field("message_id", _TEXT, "id of the companion's message"),
            Field("user_id", _TEXT, "id of the person it was for; NULL if unknown"),
            Field("conversation_id", _TEXT, "id of the conversation; NULL if unknown"),
            Field("profile_id", _TEXT, "id of the personality's version; NULL if unknown"),
            Field("policy", _TEXT, "id of the policy that decided; NULL if unknown"),
            Field("context", _TEXT, "the context bucket, such as 'evening'; NULL if unknown"),
            Field("features", _TEXT, "numbers that the policy knew, by name, as a JSON object"),
            Field("arms", _TEXT, "all arms that could be chosen, with probabilities, as JSON"),
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
            Field("decided_at", _TIME, "when the decision was made"),
            _SIMULATED,
        ),
    ),
    Table(
        "raw.personality_policies",
        "a policy by which the companion chooses a style or skill",
        (
            Field("policy_id", _TEXT, "the policy's id"),
            Field("user_id", _TEXT, "id of the person it is for; NULL if it is for everybody"),
            Field("kind", _TEXT, "the kind of policy, such as 'epsilon-greedy'"),
            Field("parameters", _TEXT, "parameters, such as the arms, as a JSON object"),
            Field("state", _TEXT, "state learned so far, as a JSON object"),
            Field("rounds", _WHOLE, "number of changes of the state"),
            _UPDATED,
        ),
    ),
    Table(
        "raw.personality_changes",
        "a proposal to change the companion's personality, and its end",
        (
            Field("change_id", _TEXT, "the change's id"),
            Field("proposal", _TEXT, "the whole proposal, as a JSON object"),
            Field("status", _TEXT, "'proposed', 'applied', 'kept', 'rolled back' or 'refused'"),
            Field("user_id", _TEXT, "id of the person it is for; NULL if it is for everybody"),
            _CONTEXT,
            Field("old_profile_id", _TEXT, "id of the version before; NULL if there was none"),
            Field("new_profile_id", _TEXT, "id of the version after; NULL if it was not applied"),
            Field("generation", _WHOLE, "number of the snapshot that it was made from"),
            Field("reason", _TEXT, "reason of the change"),
            Field("proposed_at", _TIME, "when it was proposed"),
            Field("applied_at", _TIME, "when it was applied; NULL if it was not"),
            Field("ended_at", _TIME, "when it was kept, rolled back or refused; NULL until then"),
        ),
    ),
    Table(
        "raw.feedback_events",
        "feedback of a person on a message or a conversation",
        (
            Field("event_id", _TEXT, "the event's id"),
            Field("user_id", _TEXT, "id of the person who gave the feedback; NULL if unknown"),
            Field("conversation_id", _TEXT, "id of the conversation; NULL if unknown"),
            Field(
                "message_id",
                _TEXT,
                "id of the rated message; NULL if the whole conversation is rated",
            ),
            Field("kind", _TEXT, "the kind of feedback, such as 'rating'"),
            Field("name", _TEXT, "the rated quality, such as 'witty'"),
            Field("value", _NUMBER, "the rating, on the source's own scale"),
            Field("timestamp", _TIME, "when the feedback was given"),
            _METADATA,
        ),
    ),
    Table(
        "raw.devices",
        "a device that may hold a copy of the home",
        (
            Field("device_id", _TEXT, "the device's id"),
            Field("name", _TEXT, "the device's name"),
            Field("public_key", _TEXT, "the device's public key"),
            Field("trusted", _TRUTH, "whether the device is trusted"),
            Field("added_at", _TIME, "when the device was added"),
            Field("last_seen_at", _TIME, "when the device was last seen; NULL if never"),
        ),
    ),
    Table(
        "raw.knowledge_documents",
        "a document of a person's own, for the companion to search",
        (
            Field("document_id", _TEXT, "the document's id"),
            Field("name", _TEXT, "the name of the document's file"),
            Field("kind", _TEXT, "the kind of document, such as 'markdown'"),
            Field("sha256", _TEXT, "SHA-256 of the document's file, in hexadecimal digits"),
            Field("added_at", _TIME, "when the document was added"),
            _METADATA,
        ),
    ),
    Table(
        "raw.knowledge_chunks",
        "a passage of a document",
        (
            Field("chunk_id", _TEXT, "the passage's id"),
            Field("document_id", _TEXT, "id of the document"),
            Field("position", _WHOLE, "place of the passage in the document, from 0"),
            Field("place", _TEXT, "headings above the passage, or its page; NULL without any"),
            Field("content", _TEXT, "the text of the passage"),
        ),
    ),
    Table(
        "raw.explorations",
        "a stored exploration: passages in themes, and a map of them",
        (
            _EXPLORATION,
            Field("created_at", _TIME, "when the exploration was made"),
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
            Field("notes", _TEXT, "remarks for readers, as JSON; NULL if there are none"),
            Field(
                "space",
                _BYTES,
                "mean and principal components of the vectors, numbers of 32 bits, little-endian",
            ),
            Field("chosen_at", _TIME, "when the exploration became the current one"),
        ),
    ),
    Table(
        "raw.themes",
        "a theme of an exploration",
        (
            _EXPLORATION,
            Field("theme", _WHOLE, "number of the theme in the exploration"),
            Field("name", _TEXT, "the theme's name, made of its most distinguishing words"),
            Field("words", _TEXT, "words that distinguish the theme, as JSON"),
            Field("passages", _WHOLE, "number of passages in the theme"),
            Field(
                "centre",
                _BYTES,
                "direction of the theme's centre among the model's vectors, or of several centres "
                "one after the other, numbers of 32 bits, little-endian",
            ),
        ),
    ),
    Table(
        "raw.passage_themes",
        "the place of a passage in an exploration",
        (
            _EXPLORATION,
            Field("segment_id", _TEXT, "id of the segment that is the passage"),
            Field("theme", _WHOLE, "number of the nearest theme"),
            Field("distance", _NUMBER, "cosine distance to the centre of the theme, 0 to 2"),
            Field("is_outlier", _TRUTH, "whether the passage is far from every theme"),
            Field("x", _NUMBER, "first coordinate on the map; NULL without a map"),
            Field("y", _NUMBER, "second coordinate on the map; NULL without a map"),
        ),
    ),
)
"""The tables that every sync copies from the primary database."""

QUARANTINE: Final = (
    Table(
        "quarantine.misfits",
        "a value that does not fit the type of its column; its row is in no other table",
        (
            _LABEL,
            _ROW_KEY,
            Field("column_name", _TEXT, "the column"),
            Field("reason", _TEXT, "why the value does not fit"),
            Field("value", _TEXT, "the beginning of the value"),
        ),
    ),
    Table(
        "quarantine.unexplained",
        "a row that ceased to fit without a recorded change, until `sync --acknowledge`",
        (
            _LABEL,
            _ROW_KEY,
            Field("generation", _WHOLE, "number of the first snapshot in which it did not fit"),
        ),
    ),
)

META: Final = (
    Table(
        "meta.state",
        "the one row about the snapshot as a whole",
        (
            _GENERATION,
            Field("database_id", _TEXT, "id of the primary database"),
            Field("seq", _WHOLE, "number of the last change that was read from the change feed"),
            Field(
                "anchor", _TEXT, "content of that change, by which a restored database is noticed"
            ),
            Field("synced_at", _TIME, "when the last sync with changes ended"),
        ),
    ),
    Table(
        "meta.runs",
        "a sync or a load that changed the warehouse",
        (
            Field("generation", _WHOLE, "number of the snapshot that it published"),
            Field("mode", _TEXT, "the kind of run, such as 'full', 'increment' or 'load full'"),
            Field("finished_at", _TIME, "when the run ended"),
            Field("seconds", _NUMBER, "duration of the run", "s"),
            Field("changes", _TEXT, "number of rows written and removed by table, as JSON"),
        ),
    ),
    Table(
        "meta.frozen",
        "a table that is left unchanged, by `sync --on-change freeze`",
        (Field("table_name", _TEXT, "the table"),),
    ),
    Table(
        "meta.watermarks",
        "a table that `load` copied from another file",
        (
            Field("source", _TEXT, "the schema of the copy"),
            Field("table", _TEXT, "the name of the table and of its copy"),
            Field("column", _TEXT, "the watermark column"),
            Field("value", _TEXT, "the highest value of the watermark that was read, as JSON"),
            Field("key_columns", _TEXT, "the columns by which rows are merged, as a JSON array"),
            Field("file", _TEXT, "path of the file"),
            Field("loaded_at", _TIME, "when the table was last loaded"),
        ),
    ),
)

STORED: Final = (*RAW, *QUARANTINE, *META)
