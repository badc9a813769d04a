"""Compute MTLD, the measure of textual lexical diversity, word by word.

A separate module, imported on first use, since Numba takes a fifth of a second to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from aico_lab.runtime.machine_code import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTOR: Final = 0.72
"""The share of distinct words at which a factor ends, as in McCarthy and Jarvis."""


@compiled
def _factors(  # noqa: PLR0917 - Numba has no keywords
    words: NDArray[np.int32], start: int, stop: int, step: int, marks: NDArray[np.int64], mark: int
) -> tuple[float, int]:
    """Count the factors of a text, in one direction.

    Args:
        words: A number for each word; equal words have equal numbers.
        start: The index of the first word.
        stop: The index after the last word, in the direction of `step`.
        step: 1 for forward, -1 for backward.
        marks: For each distinct word, the number of the last factor that contained it.
        mark: The number of the first factor, greater than all numbers in `marks`.

    Returns:
        The number of factors, and the next unused factor number.
    """
    factors = 0.0
    tokens = types = 0
    for place in range(start, stop, step):
        tokens += 1
        if marks[words[place]] != mark:
            marks[words[place]] = mark
            types += 1
        if types / tokens <= FACTOR:
            factors += 1
            tokens = types = 0
            mark += 1
    if tokens:
        factors += (1 - types / tokens) / (1 - FACTOR)
    return factors, mark + 1


@compiled
def _mtld(
    words: NDArray[np.int32], starts: NDArray[np.int64], different: int
) -> NDArray[np.float64]:
    """Return MTLD of each text; NaN if no word is repeated.

    Args:
        words: The words of all texts, concatenated.
        starts: The index of the first word of each text, then the end of the last one.
        different: The number of distinct words; words are numbered from 0.
    """
    marks = np.zeros(different, np.int64)
    mark = 1
    found = np.full(len(starts) - 1, np.nan)
    for text in range(len(found)):
        first, last = starts[text], starts[text + 1]
        forward, mark = _factors(words, first, last, 1, marks, mark)
        backward, mark = _factors(words, last - 1, first - 1, -1, marks, mark)
        if forward > 0 and backward > 0:
            found[text] = (last - first) * (1 / forward + 1 / backward) / 2
    return found


def mtld(rows: pl.DataFrame) -> pl.DataFrame:
    """Return MTLD for each side of each person.

    Args:
        rows: One row for each word, in any order: `side`, a number for each side of each person,
            `message`, numbered from 0 in order, `position`, from 0 in each message, and `word`, any
            number.

    Returns:
        `side`, `words` (their number) and `mtld`, which is null if no word is repeated.
    """
    message = rows["message"].to_numpy()
    lengths = np.bincount(message)
    # Each word is written to its computed place, which is faster than sorting millions.
    place = (np.cumsum(lengths) - lengths)[message] + rows["position"].to_numpy()
    numbers = rows["word"].to_arrow().dictionary_encode()
    words, sides = np.empty(len(message), np.int32), np.empty(len(message), np.int32)
    # Through polars, since Arrow's own way to NumPy imports pandas, which takes half a second.
    words[place] = pl.Series(numbers.indices).to_numpy()
    sides[place] = rows["side"].to_numpy()
    starts = np.append(np.flatnonzero(np.diff(sides, prepend=-1)), len(sides))
    return pl.DataFrame(
        {
            "side": sides[starts[:-1]],
            "words": np.diff(starts),
            "mtld": _mtld(words, starts, len(numbers.dictionary)),
        }
    ).with_columns(pl.col("mtld").fill_nan(None))
