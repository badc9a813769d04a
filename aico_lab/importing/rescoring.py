"""Score the sentiment of new messages, and of stored ones without a current score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.messages.records import BATCH_MESSAGES, MessageRecord
from aico_lab.messages.sentiment import score
from aico_lab.messages.vader import source

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.adapters.libsql import Connection

_READ: Final = ("channel_id", "conversation_id", "role", "content")
_NOTHING: Final = MessageRecord(
    message_id="", channel_id="", conversation_id="", user_id=None, role="", content="",
    timestamp="", sentiment_score=None, sentiment_source=None, response_time=None, reply_to=None,
    metadata=None,
)  # fmt: skip

SPACES: Final = "".join(filter(str.isspace, map(chr, range(0x3001))))
"""The characters of a blank message."""

_DUE: Final = """(
    (sentiment_source GLOB 'vader-*' AND sentiment_source <> ?1)
    OR (sentiment_score IS NULL AND sentiment_source IS NULL AND trim(content, ?2) <> '')
)"""
"""The condition of messages that an older version scored, or that never were scored."""

# Cast to BLOB, since the driver panics on text of other programs that is not UTF-8.
_EARLIER: Final = """SELECT CAST(content AS BLOB) FROM (
        SELECT conversation_id, role, content FROM messages
        WHERE channel_id = ? ORDER BY timestamp DESC LIMIT 200
    )
    WHERE conversation_id = ? AND role <> 'system' LIMIT 30"""
"""The latest texts of a conversation, searched only among the channel's latest messages."""


@dataclass(frozen=True, slots=True)
class RescoreResult:
    """Counts of rescored messages.

    Attributes:
        rescored: Messages that were rescored.
        scored: Rescored messages that have a score.
        unscored: Rescored messages without a score, being in another language or blank.
    """

    rescored: int
    scored: int
    unscored: int


def score_with_stored(connection: Connection, messages: list[MessageRecord]) -> list[MessageRecord]:
    """Return messages with scores; stored texts help to find the language of short ones."""

    def earlier(message: MessageRecord) -> list[str]:
        place = [message.channel_id, message.conversation_id]
        return [_decoded(text) for (text,) in connection.fetch_all(_EARLIER, place)]

    return score(messages, earlier)


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def count_due(connection: Connection) -> int:
    """Count the messages that an older version of the rules scored, or that were never scored."""
    ((count,),) = connection.fetch_all(
        f"SELECT count(*) FROM messages WHERE {_DUE}", [source(), SPACES]
    )
    return int(count)


def rescore(
    connection: Connection,
    *,
    progress: Callable[[str, int, int | None], None] | None = None,
    batch: int = BATCH_MESSAGES,
) -> RescoreResult:
    """Score messages that an older version scored, or that have no score; imported scores stay.

    Blank messages stay without a score.

    Batches committed before an interruption stay, and the next run continues with the rest.

    Args:
        connection: The primary database.
        progress: Called with "rescore", the number of messages done, and their total.
        batch: The number of messages per transaction.
    """
    total = count_due(connection)
    last = done = scored = 0
    while True:
        with connection.transaction():
            rows = connection.fetch_all(
                f"SELECT id, {', '.join(f'CAST({name} AS BLOB)' for name in _READ)} FROM messages "
                f"WHERE id > ?3 AND {_DUE} ORDER BY id LIMIT ?4",
                [source(), SPACES, last, batch],
            )
            messages = [
                _NOTHING._replace(
                    channel_id=channel, conversation_id=conversation, role=role, content=content
                )
                for channel, conversation, role, content in (
                    map(_decoded, texts) for _, *texts in rows
                )
            ]
            rescored = score_with_stored(connection, messages)
            connection.execute_many(
                "UPDATE messages SET sentiment_score = ?, sentiment_source = ? WHERE id = ?",
                [
                    [message.sentiment_score, message.sentiment_source, row[0]]
                    for row, message in zip(rows, rescored, strict=True)
                ],
            )
        if not rows:
            return RescoreResult(done, scored, done - scored)
        last = rows[-1][0]
        done += len(rows)
        scored += sum(message.sentiment_score is not None for message in rescored)
        if progress:
            progress("rescore", done, max(total, done))
