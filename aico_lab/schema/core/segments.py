"""Columns of segments, and the triggers that let no summary outlive the messages it quotes."""

from __future__ import annotations

from typing import Final

_IS_MISSING: Final = """instr(coalesce({row}.metadata, ''), '"missing_since"') > 0"""

CHANGED: Final = """(
        OLD.message_id, OLD.channel_id, OLD.conversation_id, OLD.content, OLD.timestamp, {old}
    ) IS NOT (
        NEW.message_id, NEW.channel_id, NEW.conversation_id, NEW.content, NEW.timestamp, {new}
    )""".format(old=_IS_MISSING.format(row="OLD"), new=_IS_MISSING.format(row="NEW"))
"""SQL for whether an update of a message can change the segments of its conversation."""

CHANGEABLE: Final = "message_id, channel_id, conversation_id, content, timestamp, metadata"
"""The columns that `CHANGED` compares."""


def _outdate(segments: str) -> str:
    """Return a statement that marks segments as stale and removes their summaries.

    Args:
        segments: SQL for the ids of the segments.
    """
    return f"""UPDATE conversation_segments SET is_stale = 1, summary = NULL
        WHERE segment_id IN ({segments}) AND (is_stale = 0 OR summary IS NOT NULL);"""


def _of(message_ids: str) -> str:
    return f"SELECT segment_id FROM segment_messages WHERE message_id IN ({message_ids})"


_COLUMNS: Final = {
    "conversation_id": "TEXT",
    "message_count": "INTEGER",
    "coherence": "REAL",
    "activity": "REAL",
    "segmenter": "TEXT",
    "is_stale": "BOOLEAN INTEGER NOT NULL DEFAULT 0",
}

_TRIGGERS: Final = {
    # Membership ends before a segment can end with a message: a cascade deletes it, and where
    # another program has not turned on foreign keys, the second trigger does.
    "segments_lost_message": f"""AFTER DELETE ON segment_messages
    WHEN NOT EXISTS (SELECT 1 FROM messages WHERE message_id = OLD.message_id) BEGIN
        {_outdate("OLD.segment_id")}
    END""",
    "segments_message_delete": """AFTER DELETE ON messages BEGIN
        DELETE FROM segment_messages WHERE message_id = OLD.message_id;
    END""",
    "segments_message_update": f"""AFTER UPDATE OF {CHANGEABLE} ON messages
    WHEN {CHANGED} BEGIN
        {_outdate(_of("OLD.message_id, NEW.message_id"))}
    END""",
    # OR REPLACE removes messages without a trigger: see `messages_replaced`. The note names no
    # message that only had the same `id`, so this one is looked up before it is removed.
    "segments_message_replaced": f"""AFTER DELETE ON messages_replaced
    WHEN OLD.by_message_id IS NOT NULL BEGIN
        {_outdate(_of("OLD.by_message_id"))}
    END""",
    # `NEW.id` is -1 where the database chooses the id, which is nearly always.
    "segments_message_id_taken": f"""BEFORE INSERT ON messages
    WHEN NEW.id <> -1 AND EXISTS (SELECT 1 FROM messages WHERE id = NEW.id) BEGIN
        {_outdate(_of("SELECT message_id FROM messages WHERE id = NEW.id"))}
    END""",
}

APPLY: Final = (
    *(
        f"ALTER TABLE conversation_segments ADD COLUMN {name} {type_}"
        for name, type_ in _COLUMNS.items()
    ),
    *(f"CREATE TRIGGER {name} {body}" for name, body in _TRIGGERS.items()),
)
ROLLBACK: Final = (
    *(f"DROP TRIGGER {name}" for name in reversed(_TRIGGERS)),
    *(f"ALTER TABLE conversation_segments DROP COLUMN {name}" for name in reversed(_COLUMNS)),
)
