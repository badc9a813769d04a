"""Find duplicates: passages with the same text, or with nearly the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration.space import reproducible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.embeddings.exploration.clusters import Labels, Vectors

NEAR: Final = 0.95
"""Texts whose vectors have at least this cosine are nearly the same."""

_AT_ONCE: Final = 512
"""The number of texts that are compared with all representatives at a time."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """A group of passages with the same text, or with nearly the same as its representative.

    Texts that differ only in case and spaces are the same.

    Attributes:
        passages: The positions of the passages: first the representative, then the others in order.
        is_exact: Whether all have the same text.
        cosine: The lowest cosine of a text with the representative's; 1 for exact duplicates.
    """

    passages: tuple[int, ...]
    is_exact: bool
    cosine: float


def find_duplicates(
    texts: Sequence[str], vectors: Vectors, *, near: float = NEAR
) -> list[Duplicates]:
    """Return the groups of two or more duplicates, the largest first.

    A text represents a group if it is near no representative before it; texts that occur more often
    come first. Each other text joins the group of the nearest representative before it. Texts that
    differ only in case and spaces are the same, with the vector of the first passage that has it.

    Args:
        texts: The texts of the passages.
        vectors: Their unit vectors, of shape (passages, dimensions).
        near: The minimum cosine of near duplicates with the representative of their group; above 1
            for exact duplicates only.
    """
    first_with: dict[str, int] = {}
    same = np.array(
        [
            first_with.setdefault(" ".join(text.lower().split()), at)
            for at, text in enumerate(texts)
        ],
        np.int64,
    )
    distinct, text_of, copies = np.unique(same, return_inverse=True, return_counts=True)
    order = np.argsort(-copies, kind="stable")
    represented_by = np.arange(len(distinct))
    if near <= 1:
        represented_by[order] = order[_represent(vectors[distinct[order]], near)]
    group = represented_by[text_of]
    by_group = np.argsort(group, kind="stable")
    found = []
    for members in np.split(by_group, np.flatnonzero(np.diff(group[by_group])) + 1):
        if len(members) > 1:
            first = distinct[group[members[0]]]
            others = members[members != first]
            nearly = np.setdiff1d(same[members], first)
            least = float((vectors[nearly] @ vectors[first]).min()) if len(nearly) else 1.0
            found.append(Duplicates((int(first), *others.tolist()), not len(nearly), least))
    return sorted(found, key=lambda one: (-len(one.passages), one.passages))


@reproducible
def _represent(vectors: Vectors, near: float) -> Labels:
    """Return the position of the representative of each vector, its own for a representative."""
    found = np.arange(len(vectors))
    representatives = np.empty_like(vectors)
    places = np.empty(len(vectors), np.int64)
    number = 0
    for start in range(0, len(vectors), _AT_ONCE):
        part = vectors[start : start + _AT_ONCE]
        known, best = np.full(len(part), -np.inf, np.float32), np.zeros(len(part), np.int64)
        if number:
            scores = part @ representatives[:number].T
            best = places[scores.argmax(axis=1)]
            known = scores.max(axis=1)
        among = part @ part.T
        for at in range(len(part)):
            if known[at] >= near:
                found[start + at] = best[at]
                continue
            representatives[number], places[number] = part[at], start + at
            number += 1
            nearer = among[at, at + 1 :] > known[at + 1 :]
            known[at + 1 :][nearer] = among[at, at + 1 :][nearer]
            best[at + 1 :][nearer] = start + at
    return found
