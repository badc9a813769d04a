"""Views of `mart` over the rows of `raw`, so that no text is stored twice."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from aico_lab.mart.extras import EXTRAS
from aico_lab.mart.text import APOSTROPHES, without_addresses, words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_TEXT: Final = functools.reduce(
    lambda text, apostrophe: f"replace({text}, '{apostrophe}', '''')",
    APOSTROPHES.replace("'", ""),
    f"lower({without_addresses('r.content')})",
)

_LISTED: Final = f"{words(_TEXT)} AS words"


def words_of(lists: str) -> str:
    """Return SQL for the columns of `mart.words`.

    Args:
        lists: SQL for the columns of `mart.messages`, and for the list `words` of each message.
    """
    return f"""SELECT
        id, conversation_id, channel_id, user_id, role, ts_ms, turn_idx, session_idx,
        generate_subscripts(words, 1) - 1 AS position, unnest(words) AS word
    FROM (
        {lists}
    )"""


def word_lists(condition: str) -> str:
    """Return SQL for the `id` of each message and `words`, the list of its words.

    Args:
        condition: SQL that selects messages by the columns of `mart.messages`.
    """
    selected = f"FROM mart.messages WHERE n_words > 0 AND {condition}"
    return f"SELECT id, {_LISTED} FROM ({selected}) JOIN raw.messages r USING (id)"


_WORDS: Final = f"""SELECT m.*, {_LISTED}
        FROM mart.messages m JOIN raw.messages r USING (id) WHERE n_words > 0"""

WORDS: Final = f"""CREATE OR REPLACE VIEW mart.words AS
    {words_of(_WORDS)}"""
"""Every word of every message whose words can be counted, in lower case, in Unicode's form NFC and
with one kind of apostrophe; `position` counts from 0 in each message."""

TEXTS: Final = """CREATE OR REPLACE VIEW mart.texts AS
    SELECT
        m.id, m.conversation_id, m.channel_id, m.user_id, m.role, m.ts_ms, m.msg_idx, r.content
    FROM mart.messages m JOIN raw.messages r USING (id)"""
"""The texts of messages, for questions that words alone do not answer."""

PROFILES: Final = """CREATE OR REPLACE VIEW mart.profiles AS
    SELECT
        profile_id, user_id AS profile_user_id, version, epoch_ms(active_from) AS active_from_ms,
        epoch_ms(active_until) AS active_until_ms, context
    FROM raw.personality_profiles"""
"""Every version of a companion's personality, whatever its traits. A NULL `profile_user_id` means
that it is for everybody, a NULL `active_until_ms` that it is still active, and a NULL `context`
that it is for every context."""

TRAITS: Final = """CREATE OR REPLACE VIEW mart.traits AS
    SELECT
        profile_id, p.user_id AS profile_user_id, version, t.key AS trait,
        CAST(t.value AS DOUBLE) AS level, epoch_ms(active_from) AS active_from_ms,
        epoch_ms(active_until) AS active_until_ms, context
    FROM raw.personality_profiles p, json_each(p.traits) t
    WHERE json_type(p.traits) = 'OBJECT'
        AND json_type(t.value) IN ('BIGINT', 'UBIGINT', 'DOUBLE')"""
"""The numeric traits of every version of a companion's personality; a NULL `active_until_ms` means
that the version is still active."""

DECISIONS: Final = """CREATE OR REPLACE VIEW mart.decisions AS
    SELECT
        message_id, user_id, conversation_id, profile_id, policy, context, arm, propensity,
        propensity_kind, arms, features, simulated, epoch_ms(decided_at) AS ts_ms
    FROM raw.personality_decisions"""
"""The companion's decisions on a style or skill, as they were logged."""

FEEDBACK: Final = """CREATE OR REPLACE VIEW mart.feedback AS
    SELECT
        event_id, user_id, conversation_id, message_id, kind, name, value,
        epoch_ms(timestamp) AS ts_ms
    FROM raw.feedback_events"""
"""People's feedback on messages and conversations."""

PREFERENCES: Final = """CREATE OR REPLACE VIEW mart.preference_changes AS
    SELECT change_id, user_id, preference_key, value, epoch_ms(changed_at) AS ts_ms
    FROM raw.preference_changes"""
"""New values of people's preferences, in order of `change_id`; NULL if a preference was removed."""


_ARRIVAL: Final = "min(id)"

_TIME: Final = """CASE
                WHEN EXISTS (FROM raw.devices WHERE recipient IS NOT NULL)
                THEN min(epoch_us(timestamp)) ELSE min(id) END"""


def _numbered(view: str, key: str, table: str, prefix: str, order: str = _ARRIVAL) -> str:
    return f"""CREATE OR REPLACE VIEW mart.{view} AS
    SELECT
        {key}, number, '{prefix} ' || number AS pseudonym,
        CASE
            WHEN named = '' THEN {key}
            WHEN count(*) OVER (PARTITION BY named) > 1 THEN named || ' (' || {key} || ')'
            ELSE named
        END AS name
    FROM (
        SELECT
            {key}, number,
            coalesce(trim(regexp_replace(t.name, '[\\p{{Cc}}\\s]+', ' ', 'g')), '') AS named
        FROM (
            SELECT {key}, row_number() OVER (ORDER BY {order}, {key}) AS number
            FROM raw.messages WHERE {key} IS NOT NULL GROUP BY {key}
        ) LEFT JOIN raw.{table} t USING ({key})
    )"""


PEOPLE: Final = _numbered("people", "user_id", "users", "Person")
"""Every person of a message, with a pseudonym. People are numbered in the order in which their
first message was stored in the primary database: `raw.messages.id`, which never changes and is
never reused. So a number stays when others are imported later and when the warehouse is rebuilt,
and cannot be inferred from an id. Only the deletion of a person's first messages can change it.

A home that is one of several devices numbers them by the times of their first messages, because
each device stores the messages in another order.

`name` is the stored name in one line, followed by the id if several people have it; or the id if
there is no name."""

CHANNELS: Final = _numbered("channels", "channel_id", "channels", "Channel")
"""Every channel of a message, numbered and named like people."""

_ON_DEVICES: Final = (
    _numbered("people", "user_id", "users", "Person", _TIME),
    _numbered("channels", "channel_id", "channels", "Channel", _TIME),
)
"""The same views in a home that may be one of several devices."""

REPLIES: Final = """CREATE OR REPLACE VIEW mart.replies AS
    SELECT r.id, a.id AS answered_id
    FROM raw.messages r JOIN raw.messages a ON a.message_id = r.reply_to"""
"""The messages that name the message which they answer, and that message."""

_CURRENT: Final = """(
        SELECT exploration_id, model FROM raw.explorations
        ORDER BY coalesce(chosen_at, created_at) DESC, exploration_id LIMIT 1
    )"""

EXPLORATIONS: Final = f"""CREATE OR REPLACE VIEW mart.explorations AS
    SELECT
        exploration_id, model, parameters, seed, generation, passages, stability,
        epoch_ms(created_at) AS created_ms,
        exploration_id = (SELECT exploration_id FROM {_CURRENT}) AS is_current
    FROM raw.explorations"""
"""All stored explorations; the current one is that which was asked for last."""

THEMES: Final = f"""CREATE OR REPLACE VIEW mart.themes AS
    SELECT theme, t.name, p.passages, p.outliers, w.people, e.model
    FROM {_CURRENT} e JOIN raw.themes t USING (exploration_id) LEFT JOIN (
        SELECT
            exploration_id, theme, count(*) AS passages, count(*) FILTER (is_outlier) AS outliers
        FROM raw.passage_themes GROUP BY ALL
    ) p USING (exploration_id, theme) LEFT JOIN (
        SELECT exploration_id, theme, count(DISTINCT m.user_id) AS people
        FROM raw.passage_themes JOIN raw.segment_messages sm USING (segment_id)
        JOIN raw.messages m ON m.message_id = sm.message_id AND m.role = 'user'
        GROUP BY ALL
    ) w USING (exploration_id, theme)"""
"""The themes of the current exploration."""

PASSAGE_THEMES: Final = f"""CREATE OR REPLACE VIEW mart.passage_themes AS
    SELECT
        segment_id, s.conversation_id, s.channel_id, epoch_ms(s.started_at) AS started_ms,
        epoch_ms(s.ended_at) AS ended_ms, theme, t.name, p.distance, p.is_outlier, p.x, p.y
    FROM {_CURRENT} e JOIN raw.passage_themes p USING (exploration_id)
    JOIN raw.themes t USING (exploration_id, theme)
    JOIN raw.conversation_segments s USING (segment_id)"""
"""The passages of the current exploration, with their themes and their places on the map."""

MESSAGE_THEMES: Final = f"""CREATE OR REPLACE VIEW mart.message_themes AS
    SELECT m.id, segment_id, theme, t.name, p.is_outlier
    FROM {_CURRENT} e JOIN raw.passage_themes p USING (exploration_id)
    JOIN raw.themes t USING (exploration_id, theme)
    JOIN raw.segment_messages sm USING (segment_id)
    JOIN raw.messages m ON m.message_id = sm.message_id"""
"""The messages of these passages, each with the theme of its passage."""

_OF_THEMES: Final = {
    "explorations": {"exploration_id", "model", "created_at", "chosen_at"},
    "themes": {"exploration_id", "theme", "name"},
    "passage_themes": {
        "exploration_id", "segment_id", "theme", "distance", "is_outlier", "x", "y"
    },
}  # fmt: skip

VIEWS: Final = (
    (WORDS, {"messages": {"id", "content"}}),
    (TEXTS, {"messages": {"id", "content"}}),
    (PEOPLE, {"messages": {"id", "user_id"}, "users": {"user_id", "name"}}),
    (CHANNELS, {"messages": {"id", "channel_id"}, "channels": {"channel_id", "name"}}),
    (
        _ON_DEVICES[0],
        {
            "messages": {"id", "user_id", "timestamp"}, "users": {"user_id", "name"},
            "devices": {"recipient"},
        },
    ),
    (
        _ON_DEVICES[1],
        {
            "messages": {"id", "channel_id", "timestamp"}, "channels": {"channel_id", "name"},
            "devices": {"recipient"},
        },
    ),
    (REPLIES, {"messages": {"id", "message_id", "reply_to"}}),
    (
        EXTRAS,
        {
            "messages": {"id", "user_id", "content", "metadata"}, "users": {"user_id", "name"}
        },
    ),
    (
        PROFILES,
        {
            "personality_profiles": {
                "profile_id", "user_id", "version", "active_from", "active_until", "context"
            }
        },
    ),
    (
        TRAITS,
        {
            "personality_profiles": {
                "profile_id", "user_id", "version", "traits", "active_from", "active_until",
                "context",
            }
        },
    ),
    (
        DECISIONS,
        {
            "personality_decisions": {
                "message_id", "user_id", "conversation_id", "profile_id", "policy", "context",
                "arm", "propensity", "propensity_kind", "arms", "features", "simulated",
                "decided_at",
            }
        },
    ),
    (
        FEEDBACK,
        {
            "feedback_events": {
                "event_id", "user_id", "conversation_id", "message_id", "kind", "name", "value",
                "timestamp",
            }
        },
    ),
    (
        EXPLORATIONS,
        {
            "explorations": {
                "exploration_id", "model", "parameters", "seed", "generation", "passages",
                "stability", "created_at", "chosen_at",
            }
        },
    ),
    (
        THEMES,
        _OF_THEMES
        | {
            "segment_messages": {"segment_id", "message_id"},
            "messages": {"message_id", "user_id", "role"},
        },
    ),
    (
        PASSAGE_THEMES,
        _OF_THEMES
        | {
            "conversation_segments": {
                "segment_id", "conversation_id", "channel_id", "started_at", "ended_at"
            }
        },
    ),
    (
        MESSAGE_THEMES,
        _OF_THEMES
        | {"segment_messages": {"segment_id", "message_id"}, "messages": {"id", "message_id"}},
    ),
    (
        PREFERENCES,
        {
            "preference_changes": {
                "change_id", "user_id", "preference_key", "value", "changed_at"
            }
        },
    ),
)  # fmt: skip
"""Each view with the tables and columns of `raw` that it needs."""


def views_of(tables: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield the views whose columns `raw` has: another program may have changed the tables."""
    for view, needed in VIEWS:
        if all(columns.issubset(tables.get(table, ())) for table, columns in needed.items()):
            yield view
