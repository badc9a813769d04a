"""Words of texts and queries, tokenised as in the full-text index of the primary database.

A query has no operators: it is split at white space, and a text must contain each piece. A query
without any word is searched for literally.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql import Connection
from aico_lab.schema.core.search import TOKENIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_PIECES: Final = 1_000
"""The pieces of a query that count: the time of a search grows with the square of their number."""

_WORD: Final = re.compile(r"[^\W_]+")  # of ASCII
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

_K1, _B = 1.2, 0.75  # SQLite's parameters of BM25


class _Tokenizer(dict[int, str]):
    """A table for `str.translate` with what the tokenizer makes of each character.

    A letter is folded, an accent is removed, and anything else becomes a blank. Python knows other
    versions of Unicode than SQLite, and other accents, so FTS5 is asked.
    """

    def __missing__(self, code: int) -> str:
        start = code - code % _BLOCK
        codes = range(start, start + _BLOCK)
        made: dict[int, list[str]] = {}
        with Connection(Path(":memory:"), None, busy_timeout=0) as fts5:
            fts5.execute(f"CREATE VIRTUAL TABLE asked USING fts5 (content, {TOKENIZE})")
            fts5.execute("CREATE VIRTUAL TABLE terms USING fts5vocab (asked, instance)")
            fts5.execute(
                "INSERT INTO asked (rowid, content) SELECT value, 'a' || char(value) || 'a' "
                "FROM json_each(?)",
                [json.dumps(list(codes))],
            )
            for row, term in fts5.fetch_all("SELECT doc, term FROM terms"):
                made.setdefault(row, []).append(term)
        for one in codes:
            self[one] = made[one][0][1:-1] if len(made[one]) == 1 else " "
        return self[code]


_BLOCK: Final = 256
_TOKENIZER: Final = _Tokenizer()


def words(text: str) -> list[str]:
    """Return the words of a text in order, exactly as the full-text indexes have them."""
    if text.isascii():
        return _WORD.findall(text.lower())
    return text.translate(_TOKENIZER).split()


def pieces(query: str) -> list[str]:
    """Split a query at white space and at characters that cannot be stored; drop duplicates."""
    return list(dict.fromkeys(_UNSTORABLE.sub(" ", query).split()))[:MAX_PIECES]


def has_words(query: str) -> bool:
    """Return whether a query contains a word, so that the full-text index can answer it."""
    return any(words(piece) for piece in pieces(query))


def literal(query: str) -> str:
    """Return the text to search for literally if a query has no words; it may be empty."""
    return _UNSTORABLE.sub(" ", query).strip()


def match_expression(query: str) -> str:
    """Return a query as an FTS5 expression: every piece quoted, so that none is an operator.

    FTS5 requires all pieces to match, and ignores pieces without a word.
    """
    return " ".join('"{}"'.format(piece.replace('"', '""')) for piece in pieces(query))


def bm25(query: str, texts: Sequence[str]) -> dict[int, float]:
    """Return the scores of the texts that contain every piece of a query; higher is better.

    The keys are positions in `texts`. Pieces without a word are ignored.

    Source: the function `bm25` of SQLite's FTS5.
    """
    phrases = [phrase for piece in pieces(query) if (phrase := words(piece))]
    read = [words(text) for text in texts]
    average = sum(map(len, read)) / max(1, len(read))
    counts = [[_occurrences(phrase, text) for phrase in phrases] for text in read]
    held = [sum(1 for found in column if found) for column in zip(*counts, strict=True)]
    weights = [max(math.log((len(read) - n + 0.5) / (n + 0.5)), 1e-6) for n in held]
    return {
        position: _score(found, weights, len(read[position]) / average)
        for position, found in enumerate(counts)
        if found and all(found)
    }


def bm25_of_any(weights: Mapping[str, float], texts: Sequence[str]) -> dict[int, float]:
    """Return the scores of the texts that contain any of some words; higher is better.

    The keys are positions in `texts`.

    Args:
        weights: The weight of each word.
        texts: The texts.
    """
    read = [words(text) for text in texts]
    average = sum(map(len, read)) / max(1, len(read)) or 1
    scores = {}
    for position, text in enumerate(read):
        counts = Counter(text)
        if found := sorted(weights.keys() & counts.keys()):  # always summed in the same order
            scores[position] = _score(
                [counts[word] for word in found],
                [weights[word] for word in found],
                len(text) / average,
            )
    return scores


def _score(found: Iterable[int], weights: Iterable[float], length: float) -> float:
    return sum(
        weight * (count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * length)))
        for count, weight in zip(found, weights, strict=True)
    )


def _occurrences(phrase: Sequence[str], text: Sequence[str]) -> int:
    size = len(phrase)
    return sum(text[start : start + size] == phrase for start in range(len(text) - size + 1))
