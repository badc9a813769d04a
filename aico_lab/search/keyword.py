"""Find items by words, with the full-text indexes (FTS5) of messages, memories and documents.

An item need not contain every word. The score is BM25: the more words an item contains, and the
rarer they are, the higher. All items of a search are scored together, with the same weights of
words and the same average length, wherever they are from: words are rare among all messages,
memories and chunks that are searched.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.adapters.sql_text import quoted
from aico_lab.embeddings import texts
from aico_lab.embeddings.known_texts import Found
from aico_lab.repositories import full_text
from aico_lab.repositories.words import bm25_of_any, pieces, words
from aico_lab.search import filters as filters_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.search.filters import SearchFilters

MATCHED: Final = 5_000
"""The words of a query choose items, the rarest first, until this many messages, memories or chunks
have one; common words choose more only if fewer items were found than were asked for."""

COMMON: Final = 5
"""The words also choose no more items once one message in this many has one of them."""

RESCORED: Final = 300
"""The minimum number of items of a collection, chosen by the scores of the full-text index, that
are scored.

Among 22,846 passages of the demo, 300 that are chosen from 5,000 messages contain 7.4 of the 10
best ones of a query that is a message, or the beginning of one; 200 from 20,000 messages contain
6.9, and take longer.
"""

TERMS: Final = 32
"""The maximum number of words of a query that are used, the rarest first."""


_INDEXES: Final = {
    texts.SEGMENTS: "messages_search",
    texts.MEMORIES: "memories_search",
    texts.KNOWLEDGE: "knowledge_chunks_search",
}
"""The full-text index of each collection."""

_HIT: Final = """
    WITH hit AS MATERIALIZED (
        SELECT rowid AS id, -bm25({index}) AS score FROM {index} WHERE {index} MATCH ?
    )"""
_CHOSEN: Final = {
    # Messages are joined last, because finding the segments of each takes most of the time.
    texts.SEGMENTS: f"""{_HIT}, best AS MATERIALIZED (
            SELECT hit.id, hit.score FROM hit {{join}} WHERE {{condition}}
            ORDER BY hit.score DESC LIMIT {{most}}
        )
        SELECT CAST(sm.segment_id AS BLOB), sum(best.score) AS total
        FROM best CROSS JOIN messages AS m ON m.id = best.id
        CROSS JOIN segment_messages AS sm ON sm.message_id = m.message_id
        GROUP BY sm.segment_id ORDER BY total DESC, sm.segment_id LIMIT ?""",
    texts.MEMORIES: f"""{_HIT}
        SELECT CAST(i.memory_id AS BLOB) FROM hit
        CROSS JOIN memories_search_ids AS i ON i.id = hit.id {{join}} WHERE {{condition}}
        ORDER BY hit.score DESC, i.memory_id LIMIT ?""",
    texts.KNOWLEDGE: f"""{_HIT}
        SELECT CAST(i.chunk_id AS BLOB) FROM hit
        CROSS JOIN knowledge_chunks_search_ids AS i ON i.id = hit.id WHERE {{condition}}
        ORDER BY hit.score DESC, i.chunk_id LIMIT ?""",
}
"""SQL for the ids of items that contain words, those whose texts have the highest scores first."""

_JOINS: Final = {
    texts.SEGMENTS: "CROSS JOIN messages AS m ON m.id = hit.id",
    texts.MEMORIES: "CROSS JOIN memories AS m ON m.memory_id = i.memory_id",
    texts.KNOWLEDGE: "",
}
"""SQL that joins the rows that filters examine."""

_SIZES: Final = {
    # An estimate, because counting the messages takes longer than the rest of the search.
    texts.SEGMENTS: "SELECT indexed_through FROM search_state",
    texts.MEMORIES: "SELECT count(*) FROM memories_search_ids",
    texts.KNOWLEDGE: "SELECT count(*) FROM knowledge_chunks_search_ids",
}


class NewText(NamedTuple):
    """A text that is searched besides those that are indexed.

    Attributes:
        item_id: The id of the item.
        text: Its text.
        passing: The part of the text that passes the filters, where a word must be.
    """

    item_id: str
    text: str
    passing: str


def find(
    primary: Connection,
    text: str,
    limit: int,
    collections: Sequence[str],
    *,
    filters: SearchFilters,
    new: Sequence[NewText] = (),
) -> list[tuple[str, Found]]:
    """Return the items with the words of a text, those with the highest scores first.

    Args:
        primary: The primary database; where it can be written, new messages are indexed first.
        text: The words; other characters are ignored.
        limit: The maximum number of items.
        collections: Some of `aico_lab.embeddings.texts.COLLECTIONS`.
        filters: The filters; a message with a word must itself pass them.
        new: Passages of messages in no segment.

    Returns:
        Each item with its collection.
    """
    wanted = list(dict.fromkeys(word for piece in pieces(text) for word in words(piece)))
    if limit < 1 or not wanted:
        return []
    if texts.SEGMENTS in collections:
        full_text.index_messages(primary)
    counts = {name: _counts(primary, name, wanted) for name in collections}
    sizes = {name: primary.fetch_all(_SIZES[name])[0][0] for name in collections}
    held = {word: sum(found.get(word, 0) for found in counts.values()) for word in wanted}
    rarest = sorted(filter(held.__getitem__, wanted), key=lambda word: (held[word], word))[:TERMS]
    all_texts = max(sum(sizes.values()), *held.values())
    weights = {
        word: math.log(1 + (all_texts - held[word] + 0.5) / (held[word] + 0.5))
        for word in wanted
        if not held[word] or word in rarest
    }
    items: list[tuple[str, texts.Item]] = []
    for name in collections:
        by_rarity = sorted(counts[name].items(), key=lambda one: (one[1], one[0]))
        of_index = [(word, count) for word, count in by_rarity if word in weights]
        chosen = _chosen(primary, name, of_index, size=sizes[name], limit=limit, filters=filters)
        items += [(name, item) for item in texts.read_some(primary, name, chosen)]
    items += [
        (texts.SEGMENTS, texts.Item(one.item_id, one.text))
        for one in new
        if not weights.keys().isdisjoint(words(one.passing))
    ]
    scores = bm25_of_any(weights, [item.text or "" for _, item in items])
    found = [
        (items[place][0], Found(items[place][1].item_id, score)) for place, score in scores.items()
    ]
    return sorted(found, key=lambda one: (-one[1].score, one[0], one[1].item_id))[:limit]


def _counts(primary: Connection, collection: str, wanted: Sequence[str]) -> dict[str, int]:
    """Return the number of indexed texts with each of some words; words in none are left out."""
    index = _INDEXES[collection]
    primary.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.words_of_{index} "
        f"USING fts5vocab(main, {index}, row)"
    )
    return dict(
        primary.fetch_all(
            f"SELECT hit.value, v.doc FROM json_each(?) AS hit "
            f"CROSS JOIN temp.words_of_{index} AS v ON v.term = hit.value",
            [json.dumps(wanted)],
        )
    )


def _chosen(
    primary: Connection,
    collection: str,
    words_: Sequence[tuple[str, int]],
    *,
    size: int,
    limit: int,
    filters: SearchFilters,
) -> list[str]:
    """Return the ids of the items of a collection that are scored.

    Args:
        primary: The primary database.
        collection: The collection.
        words_: The words, the rarest first, with the number of indexed texts that have each.
        size: The number of indexed texts.
        limit: The number of items that are asked for.
        filters: The filters.
    """
    among = filters_.condition(collection, filters)
    if among is None:
        return []
    condition, parameters = among
    query = _CHOSEN[collection].format(
        index=_INDEXES[collection],
        join=_JOINS[collection] if filters else "",
        condition=condition,
        most=max(MATCHED, 50 * limit),
    )
    most, texts_, used = max(RESCORED, min(MATCHED, size // COMMON)), 0, 0
    rows: list[tuple[bytes]] = []
    while used < len(words_) and len(rows) < limit:
        start = used
        while used < len(words_) and (used == start or texts_ + words_[used][1] <= most):
            texts_ += words_[used][1]
            used += 1
        match = " OR ".join(quoted(word) for word, _ in words_[:used])
        rows = primary.fetch_all(query, [match, *parameters, max(RESCORED, 3 * limit)])
        most = max(4 * most, 2 * texts_)
    return [row[0].decode(errors="replace") for row in rows]
