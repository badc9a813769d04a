"""Words of texts and of queries, as the full-text index of the primary database sees them.

A query comes from a person who knows no operators: it is taken apart at white space, and each
piece is something to find. Where there is no word in it at all, only the text itself can be found.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_PIECES: Final = 1_000
"""Of a longer query the first pieces count: the time of a search grows with the square of them."""

_WORD: Final = re.compile(r"[^\W_]+")
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

_K1, _B = 1.2, 0.75  # SQLite's parameters of BM25


def words(text: str) -> list[str]:
    """Give the words of a text in order, without case and accents (tokenizer `unicode61`)."""
    apart = unicodedata.normalize("NFD", text)
    plain = "".join(c for c in apart if not unicodedata.combining(c))
    return _WORD.findall(plain.lower())


def pieces(query: str) -> list[str]:
    """Take a query apart; white space, and what no stored text can hold, is between the pieces."""
    return list(dict.fromkeys(_UNSTORABLE.sub(" ", query).split()))[:MAX_PIECES]


def has_words(query: str) -> bool:
    """Say whether a query can be looked up in an index of words."""
    return any(words(piece) for piece in pieces(query))


def literal(query: str) -> str:
    """Give what to look for where a query has no words: the query itself, or nothing."""
    return _UNSTORABLE.sub(" ", query).strip()


def match_expression(query: str) -> str:
    """Write a query in the language of FTS5: all its pieces as strings, so nothing is an operator.

    Pieces side by side must all be found; those without a word are left out by FTS5 itself.
    """
    return " ".join('"{}"'.format(piece.replace('"', '""')) for piece in pieces(query))


def bm25(query: str, texts: Sequence[str]) -> dict[int, float]:
    """Score the texts that hold every piece of a query, by their positions; higher is better.

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


def _score(found: Iterable[int], weights: Iterable[float], length: float) -> float:
    return sum(
        weight * (count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * length)))
        for count, weight in zip(found, weights, strict=True)
    )


def _occurrences(phrase: Sequence[str], text: Sequence[str]) -> int:
    size = len(phrase)
    return sum(text[start : start + size] == phrase for start in range(len(text) - size + 1))
