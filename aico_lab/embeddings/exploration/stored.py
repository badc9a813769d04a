"""Write explorations to the primary database, read them, and add passages that come later."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from aico_lab.embeddings.exploration.space import Space, unit
from aico_lab.embeddings.stored_vectors import text_sha256
from aico_lab.errors import NeverExplored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.exploration.clusters import Labels, Vectors
    from aico_lab.embeddings.exploration.passages import ExploredPassages
    from aico_lab.embeddings.exploration.themes import ThemeParameters, Themes

_EXPLORE: Final = "call lab.embeddings.explore() first."
_PLACES: Final = ("segment_id", "theme", "distance", "is_outlier", "x", "y")


@dataclass(frozen=True, eq=False)
class Exploration:
    """A stored exploration.

    Attributes:
        exploration_id: Its id, derived from passages, model and parameters.
        created_at: When it was made, as the database stores it.
        model: The model that made the vectors.
        parameters: Its parameters, by name.
        generation: The newest snapshot when it was made, or None if there was none.
        explored: The number of passages that it was made of.
        stability: The agreement of themes between samples; None if it was not measured.
        notes: Facts by name; see `aico_lab.embeddings.exploration.themes.Themes.notes`.
        names: The name of each theme.
        words: The words of each theme, the most distinguishing first.
        centres: The centres of each theme: unit vectors of the space, of shape (centres,
            components).
        space: The space in which passages and centres are compared.
        places: A row for each passage, also those placed later: `segment_id`, `theme`, `distance`
            (cosine distance to the nearest centre, 0 to 2), `is_outlier`, `x` and `y` on the map.
    """

    exploration_id: str
    created_at: str
    model: str
    parameters: dict[str, Any]
    generation: int | None
    explored: int
    stability: float | None
    notes: dict[str, Any]
    names: Sequence[str]
    words: Sequence[Sequence[str]]
    centres: Sequence[Vectors]
    space: Space
    places: pl.DataFrame

    @property
    def far(self) -> float:
        """The cosine distance from which on a passage is an outlier."""
        return float(self.notes.get("outlier_distance", np.inf))


def id_of(model: str, parameters: ThemeParameters, passages: ExploredPassages) -> str:
    """Return the id of an exploration, which depends on model, parameters, passages and texts."""
    digest = hashlib.sha256(json.dumps([model, asdict(parameters)], sort_keys=True).encode())
    for segment, text in zip(passages.ids, passages.texts, strict=True):
        digest.update(b"\0" + segment.encode(errors="replace") + text_sha256(text))
    return digest.hexdigest()[:32]


def write(
    connection: Connection,
    exploration_id: str,
    *,
    created_at: str,
    model: str,
    parameters: ThemeParameters,
    generation: int | None,
    passages: ExploredPassages,
    themes: Themes,
    coordinates: Vectors,
) -> None:
    """Write an exploration in one transaction, in place of that of its model and parameters.

    Args:
        connection: The primary database.
        exploration_id: The id.
        created_at: The time, as the database stores it.
        model: The model that made the vectors.
        parameters: The parameters.
        generation: The newest snapshot, if there is one.
        passages: The passages.
        themes: Their themes.
        coordinates: Their coordinates on the map, of shape (passages, 2).
    """
    stored = to_json(parameters)
    sizes = np.bincount(themes.of_passage, minlength=len(themes.themes)).tolist()
    stability = None if np.isnan(themes.stability) else themes.stability
    with connection.transaction():
        connection.execute(
            "DELETE FROM explorations WHERE exploration_id = ? OR (model = ? AND parameters = ?)",
            [exploration_id, model, stored],
        )
        connection.execute(
            "INSERT INTO explorations (exploration_id, created_at, model, parameters, seed, "
            "generation, passages, stability, notes, space, chosen_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                exploration_id, created_at, model, stored, parameters.seed, generation,
                len(passages), stability, json.dumps(themes.notes()), themes.space.pack(),
                created_at,
            ],
        )  # fmt: skip
        connection.execute_many(
            "INSERT INTO themes (exploration_id, theme, name, words, passages, centre) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [
                [
                    exploration_id, number, theme.name,
                    json.dumps([word.word for word in theme.words]), sizes[number],
                    themes.space.back(theme.centres).astype("<f4").tobytes(),
                ]
                for number, theme in enumerate(themes.themes)
            ],
        )  # fmt: skip
        write_places(
            connection, exploration_id, passages.ids, themes.of_passage, themes.distance,
            themes.is_outlier, coordinates,
        )  # fmt: skip


def write_places(  # noqa: PLR0917 - the columns
    connection: Connection,
    exploration_id: str,
    ids: Sequence[str],
    themes: Labels,
    distance: Vectors,
    is_outlier: NDArray[np.bool_],
    coordinates: Vectors,
) -> None:
    """Write the themes and coordinates of passages, in place of those that they have."""
    columns = (
        themes.tolist(),
        [round(one, 6) for one in distance.tolist()],
        is_outlier.astype(int).tolist(),
        *([round(one, 4) for one in coordinates[:, axis].tolist()] for axis in (0, 1)),
    )
    connection.insert_many(
        "passage_themes",
        ("exploration_id", *_PLACES),
        [(exploration_id, *row) for row in zip(ids, *columns, strict=True)],
        on_conflict="ON CONFLICT (exploration_id, segment_id) DO UPDATE SET theme = excluded.theme,"
        " distance = excluded.distance, is_outlier = excluded.is_outlier, x = excluded.x,"
        " y = excluded.y",
    )


def find(connection: Connection) -> str:
    """Return the id of the current exploration, the one that was asked for last.

    Raises:
        NeverExplored: There is none.
    """
    found = connection.fetch_one(
        "SELECT exploration_id FROM explorations "
        "ORDER BY coalesce(chosen_at, created_at) DESC, exploration_id LIMIT 1"
    )
    if found is None:
        raise NeverExplored(f"There is no exploration yet: {_EXPLORE}")
    return str(found[0])


def choose(connection: Connection, exploration_id: str, at: str) -> None:
    """Make a stored exploration the current one.

    Args:
        connection: The primary database.
        exploration_id: The exploration.
        at: The time now, as the database stores it.
    """
    if find(connection) != exploration_id:
        with connection.transaction():
            connection.execute(
                "UPDATE explorations SET chosen_at = ? WHERE exploration_id = ?",
                [at, exploration_id],
            )


def find_alike(connection: Connection, model: str, parameters: ThemeParameters) -> str | None:
    """Return the id of the exploration of a model and parameters, or None if there is none."""
    found = connection.fetch_one(
        "SELECT exploration_id FROM explorations WHERE model = ? AND parameters = ?",
        [model, to_json(parameters)],
    )
    return None if found is None else str(found[0])


def to_json(parameters: ThemeParameters) -> str:
    """Return the parameters as the JSON text that is stored."""
    return json.dumps(asdict(parameters), sort_keys=True)


def read(connection: Connection, exploration_id: str) -> Exploration:
    """Return a stored exploration.

    Raises:
        NeverExplored: There is no such exploration.
        InvalidValue: Its space is damaged.
    """
    head = connection.fetch_one(
        "SELECT created_at, model, parameters, generation, passages, stability, notes, space "
        "FROM explorations WHERE exploration_id = ?",
        [exploration_id],
    )
    if head is None:
        raise NeverExplored(f"There is no exploration {exploration_id!r}: {_EXPLORE}")
    created_at, model, parameters, generation, explored, stability, notes, packed = head
    rows = connection.fetch_all(
        "SELECT name, words, centre FROM themes WHERE exploration_id = ? ORDER BY theme",
        [exploration_id],
    )
    notes = json.loads(notes or "{}")
    space = Space.unpack(packed or b"", notes.get("dimensions", 0), notes.get("variance_kept", 1.0))
    centres = [
        unit(np.frombuffer(centre, "<f4").reshape(-1, len(space.mean)) @ space.components.T)
        for _, _, centre in rows
    ]
    places = connection.fetch_all(
        f"SELECT {', '.join(_PLACES)} FROM passage_themes WHERE exploration_id = ? "
        "ORDER BY segment_id",
        [exploration_id],
    )
    return Exploration(
        exploration_id, created_at, model, json.loads(parameters), generation, explored, stability,
        notes, [name for name, *_ in rows], [json.loads(words) for _, words, _ in rows], centres,
        space,
        pl.DataFrame(
            places,
            schema={
                "segment_id": pl.String(), "theme": pl.Int64(), "distance": pl.Float64(),
                "is_outlier": pl.Int64(), "x": pl.Float64(), "y": pl.Float64(),
            },
            orient="row",
        ).with_columns(pl.col("is_outlier").cast(pl.Boolean)),
    )  # fmt: skip
