"""Search by meaning, by words, or by both."""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, get_args

from aico_lab.embeddings import text_index, texts
from aico_lab.embeddings.known_texts import Found
from aico_lab.errors import InvalidValue
from aico_lab.messages.simulated import SENTENCE, is_simulated
from aico_lab.search import filters as filters_
from aico_lab.search import keyword, passages, tail
from aico_lab.search.keyword import NewText
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
"""The minimum number of items of each ranking that are fused."""

WEIGHTED: Final = {"semantic": 10_000, "keyword": 500}
"""The minimum number of items of each ranking whose scores are weighted by their age."""

LARGEST: Final = 1_000_000
"""The maximum of `k` and of `around`."""

TRIES: Final = 5
"""The maximum number of times that a search is repeated while another program changes what it
finds."""

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
        decay: The age in days at which a score is halved, counted from the newest passage found
            that is not in the future; None for no decay. The 10,000 nearest passages, and the 500
            with the highest scores by words, are weighted, or 5 `k` if that is more.
        around: The number of messages before, and after, each passage.
        content: Whether a report shows the texts.

    Raises:
        InvalidValue: An argument is invalid.
        OtherModel: The index has vectors of another model.
    """
    _check(text, mode, source)
    _check_numbers(k, around, decay)
    if not text.strip() or not k:
        return Passages(text, mode, (), (), content)
    if mode != "semantic":
        keyword.prepare(primary, SOURCES[source])
    before: Ranked = []
    for _ in range(TRIES):
        with contextlib.nullcontext() if primary.in_transaction else primary.snapshot():
            ranked, late, notes = _ranked(
                primary, index, text, mode=mode, source=source, filters=filters, k=k, decay=decay
            )
            read = _read(primary, ranked, late, around)
        # The index, which has its own connection, may have read a later state.
        if len(read) == len(ranked) or ranked == before:
            break
        before = ranked
    if is_simulated(primary):
        notes.append(SENTENCE)
    return Passages(text, mode, tuple(read), tuple(notes), content)


def _ranked(
    primary: Connection,
    index: VectorIndex,
    text: str,
    *,
    mode: Mode,
    source: Source,
    filters: SearchFilters,
    k: int,
    decay: float | None,
) -> tuple[Ranked, dict[str, TailPassage], list[str]]:
    """Return the best items, the passages of messages in no segment by id, and remarks.

    The arguments are those of `search`.
    """
    notes: list[str] = []
    late: dict[str, TailPassage] = {}
    if texts.SEGMENTS in SOURCES[source]:
        found, left_out = tail.read(primary, filters)
        late = {f"{UNSEGMENTED}{one.rows[0][0].decode(errors='replace')}": one for one in found}
        if left_out:
            notes.append(
                f"{left_out:,} messages are in no segment yet and were not searched: "
                "run `aico-lab index`."
            )
    question = _Question(text, SOURCES[source], filters, late)
    rankings = []
    for one, rank in _RANKINGS.items():
        if mode in (one, "hybrid"):
            depth = k if mode != "hybrid" and decay is None else max(DEPTH, 5 * k)
            depth = depth if decay is None else max(depth, WEIGHTED[one])
            rankings.append(rank(primary, index, question, depth))
    if mode != "keyword":
        notes += _lacking(index, SOURCES[source])
    ranked = _fused(rankings) if mode == "hybrid" else rankings[0]
    if decay is not None:
        ranked = _decayed(ranked, _times(primary, ranked, late), decay)
    return ranked[:k], late, notes


def _check(text: object, mode: object, source: object) -> None:
    if not isinstance(text, str):
        raise InvalidValue(f"The text to search for must be a str, not {type(text).__name__}.")
    if not _is_unicode(text):
        raise InvalidValue(
            "The text to search for has half of a surrogate pair, which is no character: remove it."
        )
    for name, value, known in (("mode", mode, get_args(Mode)), ("source", source, tuple(SOURCES))):
        filters_.check_choice(name, str(value), known)


def _check_numbers(k: object, around: object, decay: object) -> None:
    for name, number, what in (("k", k, "passages"), ("around", around, "messages")):
        if type(number) is not int or not 0 <= number <= LARGEST:
            raise InvalidValue(
                f"{name} must be a whole number of {what}, 0 to {LARGEST:,}, not {number!r}."
            )
    is_number = isinstance(decay, int | float) and not isinstance(decay, bool)
    if decay is not None and not (is_number and 0 < decay < math.inf):  # type: ignore[operator]
        raise InvalidValue(f"decay must be a number of days above 0, not {decay!r}.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Question:
    """The part of a search that all its rankings have in common.

    Attributes:
        text: The text to search for.
        collections: The collections.
        filters: The filters.
        late: Passages of messages in no segment, by id.
    """

    text: str
    collections: tuple[str, ...]
    filters: SearchFilters
    late: dict[str, TailPassage]


def _semantic(primary: Connection, index: VectorIndex, question: _Question, depth: int) -> Ranked:
    text, filters, late = question.text, question.filters, question.late
    found: Ranked = []
    for collection in question.collections:
        keep = None
        if filters and collection == texts.SEGMENTS:

            def keep(items: Sequence[str]) -> set[str]:
                return filters_.passing(primary, texts.SEGMENTS, filters, items)

        among = filters_.candidates(primary, collection, filters)
        nearest = index.nearest(text, depth, collection, among=among, keep=keep)
        found += [(collection, one) for one in nearest]
    if late:
        scores = index.similarities(text, [one.text for one in late.values()])
        found += [
            (texts.SEGMENTS, Found(id_, score))
            for id_, score in zip(late, scores, strict=True)
            if not math.isnan(score)
        ]
    return _ordered(found)[:depth]


def _keyword(primary: Connection, _: VectorIndex, question: _Question, depth: int) -> Ranked:
    new = [NewText(id_, one.text, one.passing) for id_, one in question.late.items()]
    return keyword.find(
        primary, question.text, depth, question.collections, filters=question.filters, new=new
    )


_RANKINGS: Final = {"semantic": _semantic, "keyword": _keyword}


def _lacking(index: VectorIndex, collections: Sequence[str]) -> list[str]:
    """Return a sentence if texts were not searched by meaning, as nobody knows their vectors."""
    lacking = sum(index.lacking(name) for name in collections)
    if not lacking:
        return []
    said = f"{lacking:,} texts have no readable vector and were not searched by meaning: "
    return [f"{said}{text_index.REPAIR}."]


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


def _times(
    primary: Connection, ranked: Ranked, late: dict[str, TailPassage]
) -> dict[tuple[str, str], float]:
    """Return the times at which passages end, and memories were made, in seconds since 1970.

    Documents have none.
    """
    stored = [(id_, one.rows[-1][4]) for id_, one in late.items()]
    found = {(texts.SEGMENTS, id_): time_ for id_, time_ in stored}
    for collection, query in _TIMES.items():
        ids = [one.item_id for name, one in ranked if name == collection]
        rows = primary.fetch_all(query, [json.dumps(ids)]) if ids else []
        found |= {(collection, id_.decode(errors="replace")): time_ for id_, time_ in rows}
    times = {}
    for key, written in found.items():
        try:
            times[key] = datetime.fromisoformat(written.decode()).timestamp()
        except (ValueError, AttributeError, OverflowError):  # another program wrote it
            continue
    return times


_TIMES: Final = {
    texts.SEGMENTS: "SELECT CAST(s.segment_id AS BLOB), CAST(s.ended_at AS BLOB) FROM json_each(?) "
    "AS hit CROSS JOIN conversation_segments AS s ON s.segment_id = hit.value",
    texts.MEMORIES: "SELECT CAST(m.memory_id AS BLOB), CAST(m.created_at AS BLOB) "
    "FROM json_each(?) AS hit CROSS JOIN memories AS m ON m.memory_id = hit.value",
}


def _decayed(ranked: Ranked, times: dict[tuple[str, str], float], days: float) -> Ranked:
    """Return items whose scores are halved for each `days` of age, the best first.

    The age is counted from the newest item that is not in the future. Newer ones, and those without
    a time, have none.
    """
    now = time.time()
    newest = max((one for one in times.values() if one <= now), default=now)
    weighted = []
    for collection, (id_, score) in ranked:
        halvings = max(newest - times.get((collection, id_), newest), 0.0) / _DAY / days
        # Ordered by the logarithm, because the product of a very old one is 0.
        order = math.log2(score) - halvings if score > 0 else -math.inf
        found = Found(id_, max(score, 0.0) * 0.5**halvings)
        weighted.append((-order, collection, id_, found))
    return [(collection, found) for _, collection, _, found in sorted(weighted)]
