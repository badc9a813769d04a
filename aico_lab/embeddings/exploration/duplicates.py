"""Find duplicates: passages with the same text, or with nearly the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration.neighbours import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.embeddings.exploration.clusters import Labels, Vectors

NEAR: Final = 0.95
"""Texts whose vectors have at least this cosine are nearly the same."""

_COMPARED: Final = 10
"""The number of neighbours of each text that are compared with it."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """A group of passages with the same text, or with nearly the same.

    Attributes:
        passages: The positions of the passages, in order.
        is_exact: Whether all have the same text, apart from case and spaces.
        cosine: The lowest cosine of a passage with the group's first one; 1 for exact duplicates.
    """

    passages: tuple[int, ...]
    is_exact: bool
    cosine: float


def find_duplicates(
    texts: Sequence[str], vectors: Vectors, *, near: float = NEAR
) -> list[Duplicates]:
    """Return the groups of two or more duplicates, the largest first.

    Args:
        texts: The texts of the passages.
        vectors: Their unit vectors, of shape (passages, dimensions).
        near: The minimum cosine of near duplicates; above 1 for exact duplicates only.
    """
    first_with: dict[str, int] = {}
    same = np.array(
        [
            first_with.setdefault(" ".join(text.lower().split()), at)
            for at, text in enumerate(texts)
        ],
        np.int64,
    )
    distinct = np.unique(same)
    root = _connect(vectors, distinct, near)[np.searchsorted(distinct, same)] if len(same) else same
    order = np.argsort(root, kind="stable")
    cuts = np.flatnonzero(np.diff(root[order])) + 1
    found = []
    for members in np.split(order, cuts):
        if len(members) > 1:
            exact = len(np.unique(same[members])) == 1
            least = float((vectors[members] @ vectors[members[0]]).min())
            found.append(Duplicates(tuple(members.tolist()), exact, 1.0 if exact else least))
    return sorted(found, key=lambda one: (-len(one.passages), one.passages))


def _connect(vectors: Vectors, distinct: Labels, near: float) -> Labels:
    """Return, for each distinct text, the first passage of its group."""
    from scipy import sparse

    chosen = vectors[distinct]
    if near > 1 or len(distinct) < 2:  # noqa: PLR2004 - a pair
        return distinct
    places, cosines = nearest(chosen, chosen, _COMPARED, own=np.arange(len(chosen)))
    rows, columns = np.nonzero(cosines >= near)
    graph = sparse.coo_array(
        (np.ones(len(rows), np.int8), (rows, places[rows, columns])),
        shape=(len(chosen), len(chosen)),
    )
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    _, first = np.unique(group, return_index=True)
    groups: Labels = distinct[first[group]]
    return groups
