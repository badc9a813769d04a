"""Find items by words, with the full-text indexes (FTS5) of segments, memories and documents.

An item need not contain every word. The score is BM25: the more words an item contains, and the
rarer they are, the higher. All items of a search are scored together, with the same weights of
words and the same average length, wherever they are from: words are rare among all segments,
memories and chunks that are searched.
"""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.adapters.sql_text import quoted
from aico_lab.embeddings import segment_words, texts
from aico_lab.embeddings.known_texts import Found, next_part
from aico_lab.repositories.words import bm25_of_any, pieces, words
from aico_lab.search import filters as filters_

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractContextManager

    from aico_lab.adapters.libsql import Connection
    from aico_lab.search.filters import SearchFilters

MATCHED: Final = 5_000
"""The words of a query choose items, the rarest first, until this many segments, memories or chunks
have one; common words choose more only if fewer items were found than were asked for."""

COMMON: Final = 5
"""The words also choose no more items once one segment in this many has one of them."""

RESCORED: Final = 100
"""The minimum number of items of a collection, chosen by the scores of the full-text index, that
are scored.

Among 22,846 passages of the demo, 100 contain 8.1 of the 10 best ones of a query that is a message,
and 7.2 of one that is the first four words of it; 30 contain 7.3 and 5.7. For the index, a word
that more than half of the passages have is worth nothing.
"""

TERMS: Final = 32
"""The maximum number of words of a query that are used, the rarest first."""

_INDEXES: Final = {
    texts.SEGMENTS: "segments_search",
    texts.MEMORIES: "memories_search",
    texts.KNOWLEDGE: "knowledge_chunks_search",
}
"""The full-text index of each collection; the table with its ids has its name with `_ids`."""

_CHOSEN: Final = """
    WITH hit AS MATERIALIZED (
        SELECT rowid AS id, bm25({index}) AS cost FROM {index} WHERE {index} MATCH ? {among}
    )
    SELECT CAST(i.{key} AS BLOB), hit.cost FROM hit CROSS JOIN {index}_ids AS i ON i.id = hit.id
    ORDER BY hit.cost, i.{key} LIMIT ?"""
"""SQL for the ids of items that contain words, with their negative scores, the best first."""

_AMONG: Final = """
    AND +{index}.rowid IN (
        SELECT i.id FROM json_each(?) AS c CROSS JOIN {index}_ids AS i ON i.{key} = c.value
    )"""
"""SQL that leaves out other items before their scores are computed; `+`, as it would otherwise
search once for each item."""

_CURRENT: Final = """
    SELECT hit.value, (
        SELECT count(*) FROM segments_search
        CROSS JOIN segments_search_ids AS i ON i.id = segments_search.rowid
        WHERE segments_search MATCH '"' || hit.value || '"'
    )
    FROM json_each(?) AS hit"""
"""SQL for the number of segments with each of some words, without former ones: 2 ms for a word
that each of 20,000 has."""

_KEYS: Final = {
    texts.SEGMENTS: "segment_id",
    texts.MEMORIES: "memory_id",
    texts.KNOWLEDGE: "chunk_id",
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


def prepare(primary: Connection, collections: Sequence[str]) -> None:
    """Index new segments where the database can be written, and prepare `find`, which only reads.

    Args:
        primary: The primary database, outside a snapshot.
        collections: Some of `aico_lab.embeddings.texts.COLLECTIONS`.
    """
    if texts.SEGMENTS in collections:
        segment_words.refresh(primary)
    for name in collections:
        index = _INDEXES[name]
        primary.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.words_of_{index} "
            f"USING fts5vocab(main, {index}, row)"
        )


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
        primary: The primary database, after `prepare`.
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
    behind = segment_words.read_behind(primary) if texts.SEGMENTS in collections else set()
    counts: dict[str, dict[str, int]] = {}
    for name in collections:
        with _naming_the_remedy(name):
            counts[name] = _counts(primary, name, wanted)
    sizes = {
        name: primary.fetch_all(f"SELECT count(*) FROM {_INDEXES[name]}_ids")[0][0]
        for name in collections
    }
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
        passing = _Passing(primary, name, filters, weights.keys())
        with _naming_the_remedy(name):
            best = _chosen(primary, name, of_index, size=sizes[name], limit=limit, among=passing)
        chosen = {one.item_id for one in best}
        if name == texts.SEGMENTS:
            chosen |= passing.of(sorted(behind))
        items += [(name, item) for item in texts.read_some(primary, name, chosen)]
    items += [
        (texts.SEGMENTS, texts.Item(one.item_id, one.text))
        for one in new
        if not weights.keys().isdisjoint(words(one.passing))
    ]
    scores = bm25_of_any(weights, [item.text for _, item in items])
    found = [
        (items[place][0], Found(items[place][1].item_id, score)) for place, score in scores.items()
    ]
    return sorted(found, key=lambda one: (-one[1].score, one[0], one[1].item_id))[:limit]


def _naming_the_remedy(collection: str) -> AbstractContextManager[None]:
    is_segments = collection == texts.SEGMENTS
    return segment_words.naming_the_remedy() if is_segments else contextlib.nullcontext()


def _counts(primary: Connection, collection: str, wanted: Sequence[str]) -> dict[str, int]:
    """Return the number of indexed texts with each of some words; words in none are left out."""
    index = _INDEXES[collection]
    counts: dict[str, int] = dict(
        primary.fetch_all(
            f"SELECT hit.value, v.doc FROM json_each(?) AS hit "
            f"CROSS JOIN temp.words_of_{index} AS v ON v.term = hit.value",
            [json.dumps(wanted)],
        )
    )
    if collection == texts.SEGMENTS and segment_words.has_former(primary):
        rarest = sorted(counts, key=lambda word: (counts[word], word))[: 2 * TERMS]
        current: dict[str, int] = dict(primary.fetch_all(_CURRENT, [json.dumps(rarest)]))
        counts = {word: count for word, count in (counts | current).items() if count}
    return counts


class _Passing:
    """Chooses the items of a collection that pass the filters, with a message that has a word.

    Attributes:
        candidates: The items that may pass; None for all.
        is_exact: Whether all candidates pass.
    """

    def __init__(
        self,
        primary: Connection,
        collection: str,
        filters: SearchFilters,
        words_: Collection[str],
    ) -> None:
        self._primary = primary
        self._filters = filters
        self._words = frozenset(words_)
        self.candidates = filters_.candidates(primary, collection, filters)
        self.is_exact = not filters or collection != texts.SEGMENTS

    def of(self, items: Sequence[str]) -> set[str]:
        """Return those of the given items that pass."""
        if self.candidates is not None:
            items = [one for one in items if one in self.candidates]
        if self.is_exact:
            return set(items)
        return {
            item_id
            for item_id, content in filters_.passing_messages(self._primary, self._filters, items)
            if not self._words.isdisjoint(words(content))
        }

    def first(self, items: Sequence[Found], limit: int) -> list[Found]:
        """Return the first ones of the given items that pass, at most `limit`."""
        if self.is_exact:
            return list(items[:limit])
        found: list[Found] = []
        done, size = 0, limit
        while done < len(items) and len(found) < limit:
            part = items[done : done + size]
            passing = self.of([one.item_id for one in part])
            found += [one for one in part if one.item_id in passing]
            done += size
            size = next_part(limit, len(found), done)
        return found[:limit]


def _chosen(
    primary: Connection,
    collection: str,
    words_: Sequence[tuple[str, int]],
    *,
    size: int,
    limit: int,
    among: _Passing,
) -> list[Found]:
    """Return the items of a collection that are scored, with the index's scores, the best first.

    Args:
        primary: The primary database.
        collection: The collection.
        words_: The words, the rarest first, with the number of indexed texts that have each.
        size: The number of indexed texts.
        limit: The number of items that are asked for.
        among: The items that may be found.
    """
    if among.candidates is not None and not among.candidates:
        return []
    index, key, restriction, parameters = _INDEXES[collection], _KEYS[collection], "", []
    if among.candidates is not None:
        restriction = _AMONG.format(index=index, key=key)
        parameters = [json.dumps(list(among.candidates))]
    query = _CHOSEN.format(index=index, key=key, among=restriction)
    wanted = max(RESCORED, limit)
    most, texts_, used = max(wanted, min(MATCHED, size // COMMON)), 0, 0
    found: list[Found] = []
    while used < len(words_) and len(found) < limit:
        start = used
        while used < len(words_) and (used == start or texts_ + words_[used][1] <= most):
            texts_ += words_[used][1]
            used += 1
        match = " OR ".join(quoted(word) for word, _ in words_[:used])
        rows = primary.fetch_all(query, [match, *parameters, wanted if among.is_exact else -1])
        hits = [Found(item_id.decode(errors="replace"), -cost) for item_id, cost in rows]
        found = among.first(hits, wanted)
        most = max(4 * most, 2 * texts_)
    return found
