"""Themes of passages: clusters of their vectors that are named, merged and free of outliers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aico_lab.embeddings.exploration import space as spaces
from aico_lab.embeddings.exploration.clusters import RESTARTS, assign, cluster
from aico_lab.embeddings.exploration.space import Space, reproducible
from aico_lab.embeddings.exploration.stability import RUNS, agreement, choose
from aico_lab.embeddings.exploration.theme_names import (
    MIN_PEOPLE,
    PRIOR,
    alike,
    distinguishing,
    name_themes,
)
from aico_lab.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.clusters import Labels, Vectors
    from aico_lab.embeddings.exploration.stability import Agreement
    from aico_lab.embeddings.exploration.theme_names import Word, Words

CANDIDATES: Final = (10, 20, 30, 40)
"""The numbers of themes to choose from."""

PASSAGES_A_THEME: Final = 20
"""A number of themes is a candidate if themes have at least this mean number of passages."""

SAME: Final = 0.8
"""Two themes are merged if the cosine of their centres is at least this."""

_RANDOM: Final = 20_000
"""The number of random directions that outliers are compared with."""


@dataclass(frozen=True, slots=True)
class ThemeParameters:
    """The parameters of an exploration, which are stored with it.

    Attributes:
        themes: The number of themes before similar ones are merged; None chooses by stability.
        seed: The seed of all random numbers.
        removed: The number of largest principal components that are subtracted.
        components: The number of components, after those, that are kept.
        candidates: The numbers of themes to choose from.
        runs: The number of samples with which stability is measured.
        restarts: The number of random initialisations of k-means, of which the best is kept.
        min_people: The minimum number of people who use a word that names a theme; if there are
            fewer people, all of them.
        prior: The weight of the prior of a word's log-odds, in words.
    """

    themes: int | None = None
    seed: int = 0
    removed: int = spaces.REMOVED
    components: int = spaces.COMPONENTS
    candidates: tuple[int, ...] = CANDIDATES
    runs: int = RUNS
    restarts: int = RESTARTS
    min_people: int = MIN_PEOPLE
    prior: float = PRIOR

    def __post_init__(self) -> None:
        least = {"removed": 0, "seed": 0, "prior": 0}
        for name, value in asdict(self).items():
            if name == "themes" and value is None:
                continue
            is_whole = name != "prior"
            for number in value if isinstance(value, tuple) else [value]:
                if isinstance(number, bool) or not isinstance(
                    number, int if is_whole else float | int
                ):
                    kind = "a whole number" if is_whole else "a number"
                    raise InvalidValue(f"{name} must be {kind}, not {number!r}.")
                if not number >= least.get(name, 1):
                    raise InvalidValue(f"{name} must be at least {least.get(name, 1)}.")
        if not self.candidates:
            raise InvalidValue("candidates must have at least one number of themes.")


@dataclass(frozen=True, eq=False)
class Theme:
    """A theme.

    Attributes:
        name: Its name.
        words: The words that distinguish it, the most distinguishing first.
        centres: Unit vectors of shape (centres, components): several if themes were merged.
    """

    name: str
    words: Sequence[Word]
    centres: Vectors


@dataclass(frozen=True, eq=False)
class Themes:
    """The themes of passages.

    Attributes:
        space: The space of the points.
        themes: The themes, the largest first; a passage's theme is an index of them.
        of_passage: The theme of each passage: the one with the nearest centre.
        distance: The cosine distance of each passage to that centre, 0 to 2.
        far: The distance from which on a passage is an outlier: the median distance of random
            directions to their nearest centre.
        agreements: The stability of each candidate number of themes.
        chosen: The number of clusters, before merging.
        merged: For each theme that was merged of several clusters, the names of these clusters.
        distinct: The number of distinct points.
        min_people: The minimum number of people who use a word that names a theme here.
    """

    space: Space
    themes: Sequence[Theme]
    of_passage: Labels
    distance: Vectors
    far: float
    agreements: Sequence[Agreement]
    chosen: int
    merged: Sequence[Sequence[str]]
    distinct: int
    min_people: int

    @property
    def is_outlier(self) -> NDArray[np.bool_]:
        """Whether each passage is far from every centre."""
        return self.distance >= self.far

    @property
    def stability(self) -> float:
        """The mean adjusted Rand index of the chosen number; NaN if it was not measured."""
        found = (one.mean for one in self.agreements if one.themes == self.chosen)
        return next(found, float("nan"))

    def place(self, points: Vectors) -> tuple[Labels, Vectors]:
        """Return for each point the theme with the nearest centre, and the distance to it."""
        return nearest_theme(points, [theme.centres for theme in self.themes])

    def notes(self) -> dict[str, Any]:
        """Return the facts that are stored with an exploration, as values of JSON."""
        return {
            "dimensions": len(self.space.mean),
            "clusters": self.chosen,
            "stability_by_number": {
                str(one.themes): [round(one.mean, 4), round(one.spread, 4)]
                for one in self.agreements
                if not isnan(one.mean)
            },
            "merged": [list(names) for names in self.merged],
            "outlier_distance": self.far,
            "variance_kept": round(self.space.share, 4),
            "distinct": self.distinct,
            "min_people": self.min_people,
        }


def find_themes(vectors: Vectors, words: Words, parameters: ThemeParameters) -> Themes:
    """Return the themes of passages, which are the same for the same input.

    Args:
        vectors: Vectors of a model, of shape (passages, dimensions).
        words: The words of the passages, as `words_of` returns them.
        parameters: The parameters.

    Raises:
        InvalidValue: There are no vectors, or a number is not finite.
    """
    space = Space.of(vectors, removed=parameters.removed, components=parameters.components)
    points = space.place(vectors)
    distinct = len(np.unique(points, axis=0))
    people = max(len(np.unique(words.person)), 1)
    parameters = replace(parameters, min_people=min(parameters.min_people, people))
    if parameters.themes:
        numbers = [min(parameters.themes, distinct)]
    else:
        most = max(distinct // PASSAGES_A_THEME, 1)
        numbers = [one for one in sorted(set(parameters.candidates)) if one <= most] or [most]
    agreements = [
        agreement(points, number, seed=parameters.seed, runs=parameters.runs) for number in numbers
    ]
    number = choose(agreements).themes
    found = cluster(points, number, seed=parameters.seed, restarts=parameters.restarts)
    group, merged, of_groups = _merge(found.labels, found.centres, words, parameters)
    sizes = np.bincount(group[found.labels], minlength=len(of_groups))
    order = np.argsort(-sizes, kind="stable")
    themes = [
        Theme(name, of_groups[at], found.centres[group == at])
        for name, at in zip(name_themes(of_groups[at] for at in order), order, strict=True)
    ]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return Themes(
        space=space,
        themes=themes,
        of_passage=rank[group[found.labels]],
        distance=(1 - found.similarity).astype(np.float32),
        far=_far(found.centres, parameters.seed),
        agreements=agreements,
        chosen=number,
        merged=merged,
        distinct=distinct,
        min_people=parameters.min_people,
    )


def nearest_theme(points: Vectors, centres: Sequence[Vectors]) -> tuple[Labels, Vectors]:
    """Return for each point the theme with the nearest centre, and the cosine distance to it.

    Args:
        points: Unit vectors, of shape (points, components).
        centres: The centres of each theme: unit vectors, of shape (centres, components).
    """
    theme = np.repeat(np.arange(len(centres)), [len(one) for one in centres])
    found = assign(points, np.vstack(list(centres)))
    return theme[found.labels], (1 - found.similarity).astype(np.float32)


def _merge(
    labels: Labels, centres: Vectors, words: Words, parameters: ThemeParameters
) -> tuple[Labels, list[list[str]], list[list[Word]]]:
    """Merge clusters with the same words, or with nearly the same centre, until none are left.

    Returns:
        The group of each cluster; for each group of several clusters, their names; and the words of
        each group.
    """

    def words_by(group: Labels, number: int) -> list[list[Word]]:
        return distinguishing(
            words,
            group[labels],
            number,
            min_people=parameters.min_people,
            prior=parameters.prior,
        )

    clusters = len(centres)
    group = np.arange(clusters)
    found = words_by(group, clusters)
    names = name_themes(found)
    close = np.argwhere(np.triu(centres @ centres.T >= SAME, 1))
    pairs = [*alike(found), *((int(one), int(other)) for one, other in close)]
    while pairs:
        for one, other in pairs:
            group[group == group[other]] = group[one]
        group = np.unique(group, return_inverse=True)[1]
        number = int(group.max()) + 1
        found = words_by(group, number)
        pairs = [
            (int(np.argmax(group == one)), int(np.argmax(group == other)))
            for one, other in alike(found)
        ]
    several = [np.flatnonzero(group == one) for one in range(len(found))]
    merged = [[names[at] for at in members] for members in several if len(members) > 1]
    return group, merged, found


@reproducible
def _far(centres: Vectors, seed: int) -> float:
    """Return the median distance of random directions to their nearest centre."""
    random = np.random.default_rng([seed, 2])
    directions = random.standard_normal((_RANDOM, centres.shape[1]), np.float32)
    nearest = (spaces.unit(directions) @ centres.T).max(axis=1)
    return float(1 - np.median(nearest))
