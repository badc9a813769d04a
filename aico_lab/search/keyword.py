"""Find items by words: messages by the full-text index (FTS5), memories and documents directly.

An item need not contain every word. The score is BM25: the more words an item contains, and the
rarer they are, the higher. Words are rare among all messages, or among the memories or documents
that may be found.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.sql_text import quoted
from aico_lab.embeddings import texts
from aico_lab.embeddings.known_texts import Found
from aico_lab.repositories import full_text
from aico_lab.repositories.words import bm25_of_any, pieces, words
from aico_lab.search import filters as filters_

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.search.filters import SearchFilters

MATCHED: Final = 5_000
"""The words of a query choose passages, the rarest first, until this many messages have one."""

COMMON: Final = 5
"""The words also choose no more passages once one message in this many has one of them."""

RESCORED: Final = 300
"""The minimum number of passages, chosen by the scores of their messages, that are scored.

Among 22,846 passages of the demo, 300 that are chosen from 5,000 messages contain 7.5 of the 10
best ones of a query that is a message; 100 from 20,000 messages contain 6.2, and take three times
as long.
"""

TERMS: Final = 32
"""The maximum number of words of a query that are used, the rarest first."""

_SCORED: Final = """
    WITH hit AS MATERIALIZED (
        SELECT rowid AS id, -bm25(messages_search) AS score
        FROM messages_search WHERE messages_search MATCH ?
    )
    SELECT CAST(sm.segment_id AS BLOB), sum(hit.score) AS total
    FROM hit CROSS JOIN messages AS m ON m.id = hit.id
    CROSS JOIN segment_messages AS sm ON sm.message_id = m.message_id
    WHERE {condition}
    GROUP BY sm.segment_id ORDER BY total DESC, sm.segment_id LIMIT ?"""


def find(
    primary: Connection, text: str, limit: int, collection: str, filters: SearchFilters
) -> list[Found]:
    """Return the items with the words of a text, those with the highest scores first.

    Args:
        primary: The primary database; where it can be written, new messages are indexed first.
        text: The words; other characters are ignored.
        limit: The maximum number of items.
        collection: One of `aico_lab.embeddings.texts.COLLECTIONS`.
        filters: The filters; a message with a word must itself pass them.
    """
    if limit < 1 or not any(words(piece) for piece in pieces(text)):
        return []
    if collection != texts.SEGMENTS:
        return _directly(primary, text, limit, collection, filters)
    full_text.index_messages(primary)
    weights, rarest = _weights(primary, text)
    if not rarest:
        return []
    condition, parameters = filters.messages()
    match = " OR ".join(map(quoted, rarest))
    rows = primary.fetch_all(
        _SCORED.format(condition=condition), [match, *parameters, max(RESCORED, 3 * limit)]
    )
    ids = [key.decode(errors="replace") for key, _ in rows]
    return _by_bm25(
        list(texts.read_some(primary, collection, ids)), " ".join(weights), weights, limit
    )


def _weights(primary: Connection, text: str) -> tuple[dict[str, float], list[str]]:
    """Return the weights in BM25 of a text's words that occur in messages, and the rarest words."""
    distinct = list(dict.fromkeys(word for piece in pieces(text) for word in words(piece)))
    primary.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.words_of_messages "
        "USING fts5vocab(main, messages_search, row)"
    )
    counts = primary.fetch_all(
        "SELECT hit.value, v.doc FROM json_each(?) AS hit "
        "CROSS JOIN temp.words_of_messages AS v ON v.term = hit.value ORDER BY v.doc, hit.value",
        [json.dumps(distinct)],
    )
    # An estimate, because counting the rows takes longer than the rest of the search.
    last = primary.fetch_all("SELECT indexed_through FROM search_state")[0][0]
    most, messages = max(RESCORED, min(MATCHED, last // COMMON)), 0
    rarest: list[str] = []
    for word, count in counts[:TERMS]:
        messages += count
        if rarest and messages > most:
            break
        rarest.append(word)
    weights = {
        word: math.log(1 + (max(last, count) - count + 0.5) / (count + 0.5))
        for word, count in counts[:TERMS]
    }
    return weights, rarest


def _by_bm25(
    items: list[texts.Item], query: str, weights: dict[str, float] | None, limit: int
) -> list[Found]:
    """Return the items with the highest scores for the words of a query."""
    scores = bm25_of_any(query, [item.text or "" for item in items], weights)
    found = [Found(items[place].item_id, score) for place, score in scores.items()]
    return sorted(found, key=lambda one: (-one.score, one.item_id))[:limit]


def _directly(
    primary: Connection, text: str, limit: int, collection: str, filters: SearchFilters
) -> list[Found]:
    """Score every memory or chunk, of which there are few compared with messages."""
    some = filters_.candidates(primary, collection, filters)
    items = (
        texts.read_all(primary, collection)
        if some is None
        else texts.read_some(primary, collection, some)
    )
    return _by_bm25([item for item in items if item.text], text, None, limit)
