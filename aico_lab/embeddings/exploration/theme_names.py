"""Name themes by the words that distinguish them from all other themes."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from aico_lab.messages.function_words import FUNCTION_WORDS
from aico_lab.messages.log_odds import Odds, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

PRIOR: Final = 500.0
"""The weight of the prior, in words, as in the metric `distinguishing_words`."""

MIN_PEOPLE: Final = 5
"""The minimum number of people who use a word that names a theme: rare words reveal who wrote."""

NAMED, KEPT = 4, 12
"""The number of words in a name, and of words kept with a theme."""

CLEAR: Final = 3.0
"""The minimum log-odds ratio, in standard errors, of a word that distinguishes a theme."""

_ADDRESS: Final = r"(?i)\b(?:[a-z][a-z0-9+.-]*://|www\.)\S+|\S+@\S+\.\S+"
_WORD: Final = r"\p{L}[\p{L}\p{M}]*(?:'[\p{L}\p{M}]+)*"
_FUNCTION_WORDS: Final = frozenset(FUNCTION_WORDS)
_STRETCHED: Final = re.compile(r"(\w{2,3}?)(?:\1)+(\w{0,2})")
_REPEATED: Final = re.compile(r"(\w)\1{2,}")


@dataclass(frozen=True, slots=True)
class Word:
    """A word that distinguishes a theme.

    Attributes:
        word: The word, in lower case.
        z: Its log-odds ratio, compared with all other themes, in standard errors.
        uses: Its uses in the theme.
        people: The people in whose passages of the theme it occurs.
    """

    word: str
    z: float
    uses: int
    people: int


@dataclass(frozen=True, eq=False)
class Words:
    """The words of passages: for each passage, person and word, one entry in each array.

    Attributes:
        vocabulary: The distinct words.
        passage: The number of the passage.
        person: The number of the person, from 0; -1 if unknown.
        word: The place of the word in the vocabulary.
        uses: Uses of the word by that person in that passage.
    """

    vocabulary: Sequence[str]
    passage: Numbers
    person: Numbers
    word: Numbers
    uses: Numbers


def words_of(messages: pl.DataFrame) -> Words:
    """Count the words of passages, without addresses.

    Stretched spellings are one word: "hahahaha" and "hahaha" are "haha", and "sooo" is "soo".

    Args:
        messages: A row for each message: `passage` (its number), `person` (an id, or None if
            unknown) and `content`.
    """
    text = pl.col("content").str.to_lowercase().str.replace_all("[‘’＇]", "'")  # noqa: RUF001
    tokens = (
        messages.select(
            pl.col("passage").cast(pl.Int64),
            # Ranks, since encoding would number people in the order of the rows.
            person=pl.col("person").rank("dense").cast(pl.Int64).fill_null(0) - 1,
            word=text.str.replace_all(_ADDRESS, " ").str.extract_all(_WORD),
        )
        .explode("word")
        .drop_nulls("word")
    )
    spellings, spelling = _numbered(tokens["word"])
    vocabulary, plain = np.unique([_plain(one) for one in spellings], return_inverse=True)
    people = int(tokens["person"].max() or 0) + 2  # type: ignore[arg-type]
    word = plain[spelling] if len(spelling) else np.empty(0, np.int64)
    place = tokens["passage"].to_numpy() * people + tokens["person"].to_numpy() + 1
    entries, uses = np.unique(place * max(len(vocabulary), 1) + word, return_counts=True)
    place, word = np.divmod(entries, max(len(vocabulary), 1))
    passage, person = np.divmod(place, people)
    return Words(vocabulary.tolist(), passage, person - 1, word, uses)


def _numbered(words: pl.Series) -> tuple[list[str], Numbers]:
    """Return the distinct words in order, and the place of each word among them."""
    encoded = words.to_arrow().dictionary_encode()  # faster than sorting all texts
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _plain(word: str) -> str:
    """Return a word without stretches: a repeated syllable twice, a letter at most twice."""
    repeated = _STRETCHED.fullmatch(word)
    if repeated and repeated[1].startswith(repeated[2]):
        return repeated[1] * 2
    return _REPEATED.sub(r"\1\1", word)


def distinguishing(
    words: Words,
    themes: Numbers,
    number: int,
    *,
    min_people: int = MIN_PEOPLE,
    prior: float = PRIOR,
) -> list[list[Word]]:
    """Return the words of each theme that distinguish it, the most distinguishing first.

    Args:
        words: The words of the passages.
        themes: The theme of each passage, from 0.
        number: The number of themes.
        min_people: The minimum number of people in whose passages of the theme a word occurs. All
            unknown people count as one.
        prior: The weight of the prior, in words.
    """
    size = max(len(words.vocabulary), 1)
    cell = themes[words.passage] * size + words.word
    counted = np.bincount(cell, words.uses, number * size).astype(np.float64)
    uses = counted.reshape(number, size)
    everywhere, in_theme = uses.sum(axis=0), uses.sum(axis=1, keepdims=True)
    several = int(words.person.max(initial=0)) + 2
    held = np.unique(cell * several + words.person + 1) // several
    people = np.bincount(held, minlength=number * size).reshape(number, size)
    share = everywhere / max(everywhere.sum(), 1)
    here = Odds.of(uses, in_theme, share, prior)
    elsewhere = Odds.of(everywhere - uses, everywhere.sum() - in_theme, share, prior)
    found, variance = difference(here, elsewhere)
    with np.errstate(invalid="ignore"):  # if there is one theme, or one word
        z = found / np.sqrt(variance)
    may = np.array([len(one) > 1 and one not in _FUNCTION_WORDS for one in words.vocabulary], bool)
    shown = (people >= min_people) & (uses > 0) & np.isfinite(z) & (z >= CLEAR)
    result = []
    for theme in range(number):
        at = np.flatnonzero(shown[theme][: len(may)] & may)
        at = at[np.argsort(-z[theme, at], kind="stable")][:KEPT]
        result.append(
            [
                Word(
                    words.vocabulary[word],
                    float(z[theme, word]),
                    int(uses[theme, word]),
                    int(people[theme, word]),
                )
                for word in at.tolist()
            ]
        )
    return result


def alike(words: Sequence[Sequence[Word]]) -> list[tuple[int, int]]:
    """Return the pairs of themes with nearly the same first words.

    The first word of each is among the first two words of the other. So five themes that begin with
    "hello" or "hi" become one.
    """
    first = [[word.word for word in of_theme[:2]] for of_theme in words]
    return [
        (one, other)
        for one, other in itertools.combinations(range(len(words)), 2)
        if first[one]
        and first[other]
        and first[one][0] in first[other]
        and first[other][0] in first[one]
    ]


def name_themes(words: Iterable[Sequence[Word]]) -> list[str]:
    """Return a name for each theme: its first words, or "Theme 7" if no word distinguishes 7."""
    return [
        ", ".join(word.word for word in of_theme[:NAMED]) or f"Theme {number}"
        for number, of_theme in enumerate(words)
    ]
