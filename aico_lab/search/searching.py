"""Search by meaning, by words, or by both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, get_args

from aico_lab.embeddings import texts
from aico_lab.embeddings.known_texts import Found
from aico_lab.errors import InvalidValue
from aico_lab.repositories.words import bm25_of_any
from aico_lab.search import filters as filters_
from aico_lab.search import keyword, passages, tail
from aico_lab.search.passages import UNSEGMENTED, Passage, Passages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.index import VectorIndex
    from aico_lab.search.filters import SearchFilters
    from aico_lab.search.tail import TailPassage

Mode = Literal["semantic", "keyword", "hybrid"]
Source = Literal["conversations", "memories", "knowledge", "all"]

SOURCES: Final = {
    "conversations": (texts.SEGMENTS,),
    "memories": (texts.MEMORIES,),
    "knowledge": (texts.KNOWLEDGE,),
    "all": texts.COLLECTIONS,
}

RANK: Final = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""

DEPTH: Final = 100
"""The minimum number of items of each ranking that are fused, or weighted by their age."""

_DAY: Final = 86_400
Ranked = list[tuple[str, Found]]


def search(
    primary: Connection,
    index: VectorIndex,
    text: str,
    *,
    mode: Mode = "hybrid",
    source: Source = "conversations",
    filters: SearchFilters,
    k: int = 10,
    decay: float | None = None,
    around: int = passages.AROUND,
    content: bool = False,
) -> Passages:
    """Return the passages that fit a text best, the best first.

    Args:
        primary: The primary database.
        index: The index that searches by meaning.
        text: The text to search for; nothing is found for a blank one.
        mode: 'semantic', 'keyword', or 'hybrid', which fuses the ranks of both.
        source: 'conversations', 'memories', 'knowledge', or 'all'.
        filters: The filters.
        k: The maximum number of passages.
        decay: The age in days at which a score is halved, counted from the newest passage found;
            None for no decay.
        around: The number of messages before, and after, each passage.
        content: Whether a report shows the texts.

    Raises:
        InvalidValue: An argument is invalid.
        OtherModel: The index has vectors of another model.
    """
    _check(text, mode, source, k, decay)
    notes: list[str] = []
    if not text.strip() or not k:
        return Passages(text, mode, (), (), content)
    depth = k if mode != "hybrid" and decay is None else max(DEPTH, 5 * k)
    late: dict[str, TailPassage] = {}
    if texts.SEGMENTS in SOURCES[source]:
        found, left_out = tail.read(primary, filters)
        late = {f"{UNSEGMENTED}{one.rows[0][0].decode(errors='replace')}": one for one in found}
        if left_out:
            notes.append(
                f"{left_out:,} messages are in no segment yet and were not searched by meaning: "
                "run `aico-lab index`."
            )
    question = _Question(text, SOURCES[source], filters, depth, late)
    rankings = []
    if mode != "keyword":
        rankings.append(_semantic(primary, index, question))
    if mode != "semantic":
        rankings.append(_keyword(primary, question))
    ranked = _fused(rankings) if mode == "hybrid" else rankings[0]
    read = _read(primary, ranked[: depth if decay else k], late, 0 if decay else around)
    if decay is not None:
        weighted = _decayed(read, decay)[:k]
        chosen = [(_collection(one), Found(one.id, one.score)) for one in weighted]
        read = _read(primary, chosen, late, around)
    return Passages(text, mode, tuple(read), tuple(notes), content)


def _check(text: object, mode: str, source: str, k: object, decay: float | None) -> None:
    if not isinstance(text, str):
        raise InvalidValue(f"The text to search for must be a str, not {type(text).__name__}.")
    for name, value, known in (("mode", mode, get_args(Mode)), ("source", source, tuple(SOURCES))):
        filters_.check_choice(name, str(value), known)
    if type(k) is not int or k < 0:
        raise InvalidValue(f"k must be a whole number of passages, 0 or more, not {k!r}.")
    if decay is not None and not (decay > 0 and math.isfinite(decay)):
        raise InvalidValue(f"decay must be a number of days above 0, not {decay!r}.")


@dataclass(frozen=True, slots=True)
class _Question:
    """The part of a search that all its rankings have in common.

    Attributes:
        text: The text to search for.
        collections: The collections.
        filters: The filters.
        depth: The number of items of each ranking.
        late: Passages of messages in no segment, by id.
    """

    text: str
    collections: tuple[str, ...]
    filters: SearchFilters
    depth: int
    late: dict[str, TailPassage]


def _semantic(primary: Connection, index: VectorIndex, question: _Question) -> Ranked:
    text, filters, late = question.text, question.filters, question.late
    found: Ranked = []
    for collection in question.collections:
        keep = None
        if filters and collection == texts.SEGMENTS:

            def keep(items: Sequence[str]) -> set[str]:
                return filters_.passing(primary, texts.SEGMENTS, filters, items)

        among = filters_.candidates(primary, collection, filters)
        nearest = index.nearest(text, question.depth, collection, among=among, keep=keep)
        found += [(collection, one) for one in nearest]
    if late:
        scores = index.similarities(text, [one.text for one in late.values()])
        found += [
            (texts.SEGMENTS, Found(id_, score))
            for id_, score in zip(late, scores, strict=True)
            if not math.isnan(score)
        ]
    return _ordered(found)[: question.depth]


def _keyword(primary: Connection, question: _Question) -> Ranked:
    text, late, depth = question.text, question.late, question.depth
    found: Ranked = [
        (collection, one)
        for collection in question.collections
        for one in keyword.find(primary, text, depth, collection, question.filters)
    ]
    ids = list(late)
    scores = bm25_of_any(text, [one.passing for one in late.values()])
    found += [(texts.SEGMENTS, Found(ids[place], score)) for place, score in scores.items()]
    return _ordered(found)[:depth]


def _ordered(found: Ranked) -> Ranked:
    return sorted(found, key=lambda one: (-one[1].score, one[0], one[1].item_id))


def _fused(rankings: Sequence[Ranked]) -> Ranked:
    """Return the items of several rankings by the sum of their reciprocal ranks."""
    sums: dict[tuple[str, str], float] = {}
    for ranking in rankings:
        for rank, (collection, item) in enumerate(ranking, 1):
            key = collection, item.item_id
            sums[key] = sums.get(key, 0.0) + 1 / (RANK + rank)
    return _ordered([(name, Found(id_, score)) for (name, id_), score in sums.items()])


def _read(
    primary: Connection, ranked: Ranked, late: dict[str, TailPassage], around: int
) -> list[Passage]:
    stored = {
        (_collection(one), one.id): one
        for one in passages.read(
            primary, [one for one in ranked if one[1].item_id not in late], around
        )
    }
    found = []
    for collection, item in ranked:
        if item.item_id in late:
            rows = late[item.item_id].rows
            found.append(passages.of_messages(primary, rows, item.score, around))
        elif (collection, item.item_id) in stored:
            found.append(stored[collection, item.item_id])
    return found


def _collection(passage: Passage) -> str:
    return SOURCES[passage.source][0]


def _decayed(found: Sequence[Passage], days: float) -> list[Passage]:
    """Return passages whose scores are halved for each `days` of age, the best first."""
    times = [_time(one) for one in found]
    newest = max((time for time in times if time is not None), default=0.0)
    weighted = [
        replace(
            one,
            score=max(one.score, 0.0)
            * 0.5 ** min(1_000, (newest - (newest if time is None else time)) / _DAY / days),
        )
        for one, time in zip(found, times, strict=True)
    ]
    return sorted(weighted, key=lambda one: (-one.score, one.id))


def _time(passage: Passage) -> float | None:
    """Return the time of a passage in seconds since 1970, or None for a document."""
    written = passage.metadata.get("ended_at") or passage.metadata.get("created_at")
    try:
        return datetime.fromisoformat(str(written)).timestamp()
    except ValueError:
        return None
