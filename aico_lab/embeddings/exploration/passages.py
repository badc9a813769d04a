"""Read the passages to explore: the segments of messages in the primary database."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aico_lab.adapters.libsql import Connection

_BATCH: Final = 5_000

# As in `aico_lab.embeddings.texts`: as bytes, and in the same order, so that texts are the same.
_READ: Final = """
    SELECT CAST(s.segment_id AS BLOB), CAST(s.started_at AS BLOB), CAST(m.user_id AS BLOB),
        m.role, CAST(m.content AS BLOB)
    FROM conversation_segments AS s
    CROSS JOIN segment_messages AS sm ON sm.segment_id = s.segment_id
    CROSS JOIN messages AS m ON m.message_id = sm.message_id
    WHERE s.segmenter IS NOT NULL AND typeof(s.segment_id) = 'text'
    ORDER BY s.segment_id, sm.position, m.timestamp, m.id"""


@dataclass(frozen=True, eq=False)
class ExploredPassages:
    """Passages, ordered by id.

    Attributes:
        ids: The ids of their segments.
        texts: Their texts.
        started: When their first messages were written, as the database stores it.
        writers: The people who wrote in each passage as a user, in the order of their messages.
        named: Further people whom a message of the passage names, such as those to whom only the
            companion wrote.
        messages: A row for each message with text: `passage` (its position), `person` (who wrote
            it, or to whom the companion wrote; None if unknown) and `content`.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    started: Sequence[str]
    writers: Sequence[tuple[str, ...]]
    named: Sequence[tuple[str, ...]]
    messages: pl.DataFrame

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, chosen: Collection[int]) -> ExploredPassages:
        """Return some of the passages, in the same order."""
        kept = sorted(chosen)
        rank = pl.DataFrame({"passage": kept, "new": range(len(kept))}, schema=_RANKS)
        return ExploredPassages(
            [self.ids[at] for at in kept],
            [self.texts[at] for at in kept],
            [self.started[at] for at in kept],
            [self.writers[at] for at in kept],
            [self.named[at] for at in kept],
            self.messages.join(rank, "passage", maintain_order="left").select(
                "person", "content", passage="new"
            ),
        )


_RANKS: Final = {"passage": pl.Int64(), "new": pl.Int64()}


def read_passages(connection: Connection) -> ExploredPassages:
    """Return the segments that this package's segmenter made, with text, ordered by id."""
    rows = itertools.chain.from_iterable(connection.fetch_batches(_READ, size=_BATCH))
    ids: list[str] = []
    texts: list[str] = []
    started: list[str] = []
    writers: list[tuple[str, ...]] = []
    named: list[tuple[str, ...]] = []
    of_passage: list[int] = []
    persons: list[str | None] = []
    contents: list[str] = []
    for key, group in itertools.groupby(rows, key=lambda row: row[0]):
        lines = [
            (begun, _text(user), role, content)
            for _, begun, user, role, raw in group
            if (content := _text(raw)) and content.strip()
        ]
        if not lines:
            continue
        said = [content for *_, content in lines]
        of_passage += [len(ids)] * len(said)
        persons += _people([(user, role) for _, user, role, _ in lines])
        contents += said
        ids.append(key.decode(errors="replace"))
        texts.append("\n".join(said))
        started.append(_text(lines[0][0]) or "")
        wrote = dict.fromkeys(user for _, user, role, _ in lines if user and role == "user")
        others = dict.fromkeys(user for _, user, *_ in lines if user and user not in wrote)
        writers.append(tuple(wrote))
        named.append(tuple(others))
    messages = pl.DataFrame(
        {"passage": of_passage, "person": persons, "content": contents},
        schema={"passage": pl.Int64(), "person": pl.String(), "content": pl.String()},
    )
    return ExploredPassages(ids, texts, started, writers, named, messages)


def _people(lines: Sequence[tuple[str | None, str]]) -> list[str | None]:
    """Return the person of each message: the last one so far who wrote as a user, or the first."""
    users = [user if role == "user" else None for user, role in lines]
    first = next(filter(None, users), next((user for user, _ in lines if user), None))
    found, last = [], first
    for user in users:
        last = user or last
        found.append(last)
    return found


def _text(value: object) -> str | None:
    """Return text of the database; None for bytes of another program that are not UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else None
    except UnicodeDecodeError:
        return None
