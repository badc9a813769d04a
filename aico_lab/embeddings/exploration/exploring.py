"""The methods of `lab.embeddings` that explore what conversations are about."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from aico_lab.domain.values import now, to_timestamp
from aico_lab.embeddings.exploration import charts, stored, tables
from aico_lab.embeddings.exploration.passages import ExploredPassages, read_passages
from aico_lab.embeddings.exploration.themes import ThemeParameters, find_themes, nearest_theme
from aico_lab.embeddings.exploration.views import TEXT, View
from aico_lab.errors import InvalidValue, NeverExplored, NeverSynced
from aico_lab.home.files import private_files
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aico_lab.embeddings.encoders import Encoder
    from aico_lab.embeddings.exploration.clusters import Vectors
    from aico_lab.embeddings.exploration.stored import Exploration
    from aico_lab.period import Moment
    from aico_lab.storage import Storage

    Progress = Callable[[str, int, int | None], None]

_NAMES = {"theme": "Theme", "name": "Words", "passages": "Passages"}
_SHOWN = 8
"""The number of themes that `over_time` shows by default."""


class Explorer:
    """Finds the themes of passages, draws a map of them, and compares periods and models.

    A passage is a segment of a conversation.
    """

    _storage: Storage

    @private_files()
    def explore(
        self,
        parameters: ThemeParameters | None = None,
        *,
        themes: int | None = None,
        seed: int | None = None,
        min_people: int | None = None,
        model: str | None = None,
        renew: bool = False,
        progress: Progress | None = None,
    ) -> View:
        """Find the themes of all passages, draw the map of them, and store both.

        If an exploration of the same model and parameters is stored, its themes stay, and new
        passages are placed into it. Call `update()` before, so that new messages are in a passage,
        and `lab.sync()` after, so that SQL sees the themes.

        Args:
            parameters: All parameters; None for the default ones.
            themes: The number of themes before similar ones are merged; by default it is chosen
                by stability.
            seed: The seed of the random numbers.
            min_people: The minimum number of people who use a word that names a theme; by default
                5.
            model: The model, by default the home's; see `aico_lab.embeddings.encoders`.
            renew: Find themes again if passages were added, edited or removed.
            progress: Called with "texts", the number of encoded texts, and their total.

        Raises:
            NeverExplored: There are no passages.
            InvalidValue: A parameter is out of range.
            UnknownName: There is no such kind of model.
            ModelMissing: The model is not on this machine.
        """
        from aico_lab.embeddings.exploration import map_layout
        from aico_lab.embeddings.exploration.theme_names import words_of
        from aico_lab.embeddings.home_model import remember_name

        given: dict[str, Any] = {"themes": themes, "seed": seed, "min_people": min_people}
        chosen = replace(
            parameters or ThemeParameters(), **{k: v for k, v in given.items() if v is not None}
        )
        encoder, passages, vectors = self._passages(self._encoder(model), progress)
        exploration_id = stored.id_of(encoder.model, chosen, passages)
        known = stored.find_alike(self._storage.primary, encoder.model, chosen)
        if known and not renew:
            self._place_new(known, passages, vectors)
            return self.themes(exploration_id=known)
        if known != exploration_id:
            remember_name(self._storage.primary, encoder)
            found = find_themes(vectors, words_of(passages.messages), chosen)
            coordinates = map_layout.lay_out(found.space.place(vectors), seed=chosen.seed)
            stored.write(
                self._storage.primary, exploration_id, created_at=to_timestamp(now()),
                model=encoder.model, parameters=chosen,
                generation=self._generation(), passages=passages, themes=found,
                coordinates=coordinates,
            )  # fmt: skip
        return self.themes(exploration_id=exploration_id)

    def themes(self, *, exploration_id: str | None = None) -> View:
        """Return the themes of the newest exploration, the largest first.

        Args:
            exploration_id: Another exploration than the newest one.

        Raises:
            NeverExplored: There is no exploration.
        """
        found = self._exploration(exploration_id)
        rows = tables.of_themes(found)
        total = found.places.height
        outliers = int(found.places["is_outlier"].sum())
        share = f"{100 * outliers / total:.0f} %" if total else "none"
        stable = "" if found.stability is None else f", stability {found.stability:.2f}"
        finding = f"{len(found.names)} themes in {total:,} passages; {share} of them are outliers."
        return View(
            "What are the conversations about?",
            finding,
            f"{_caption(found)}{stable} (adjusted Rand index between samples), {_chosen(found)}; "
            "an outlier is no nearer to any theme than the median random direction.",
            rows,
            {
                **_NAMES, "words": "More words", "outliers": "Outliers",
                "distance": "Mean distance",
            },
            _draw=charts.themes,
            exploration_id=found.exploration_id,
        )  # fmt: skip

    def picture(
        self,
        *,
        user: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        content: bool = False,
        exploration_id: str | None = None,
    ) -> View:
        """Return the map of passages.

        If the chart shows texts, dragging over a region lists its first passages.

        Args:
            user: Only passages of this person, by id.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            content: Whether a report shows the texts.
            exploration_id: Another exploration than the newest one.

        Raises:
            NeverExplored: There is no exploration.
            InvalidValue: A bound is not a time, or the period ends before it begins.
            UnknownName: The person has no passage.
        """
        found = self._exploration(exploration_id)
        rows = self._rows(found, user=user, since=since, until=until)
        shown = min(rows.height, charts.MOST_POINTS)
        some = f", {shown:,} of them drawn" if shown < rows.height else ""
        return View(
            "Which passages are alike?",
            f"{rows.height:,} passages on a map{some}: near ones are about similar things.",
            f"{_caption(found)}; distances across the map mean little.",
            rows,
            {"name": "Theme", "started": "Time", "x": "x", "y": "y", TEXT: "Text"},
            content,
            charts.picture,
        )

    def over_time(
        self,
        *,
        by: Literal["week", "month"] = "month",
        themes: Sequence[int] | None = None,
        user: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Return the shares of themes in each week or month, with 95 % intervals over people.

        Args:
            by: 'week' or 'month', in the lab's time zone.
            themes: The numbers of the themes; by default the largest eight.
            user: Only passages of this person, by id; there is no interval then.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            exploration_id: Another exploration than the newest one.

        Raises:
            NeverExplored: There is no exploration.
            InvalidValue: `by` or the number of a theme is invalid, a bound is not a time, or the
                period ends before it begins.
            UnknownName: The person has no passage.
        """
        if by not in ("week", "month"):
            raise InvalidValue(f"by must be 'week' or 'month', not {by!r}.")
        found = self._exploration(exploration_id)
        rows = self._rows(found, user=user, since=since, until=until)
        number = len(found.names)
        largest = rows.group_by("theme").len().sort("len", "theme", descending=[True, False])
        chosen = list(themes) if themes is not None else largest["theme"].head(_SHOWN).to_list()
        if any(not 0 <= one < number for one in chosen):
            raise InvalidValue(f"Themes have numbers from 0 to {number - 1}.")
        table = tables.of_shares(rows, found.names, chosen, by)
        periods = table["period"].n_unique()
        return View(
            "How do themes move over time?",
            f"The share of {len(chosen)} themes in {periods} {by}s.",
            f"{_caption(found)}, {by}s of {self._storage.timezone}, 95 % intervals by resampling "
            "people, none below 10 people.",
            table,
            {
                "period": by.capitalize(), "name": "Theme", "share": "Share (%)",
                "share_low": "Low (%)", "share_high": "High (%)", "n": "Passages",
                "people": "People",
            },
            _draw=charts.over_time,
        )  # fmt: skip

    @private_files()
    def place_new(self, *, exploration_id: str | None = None) -> int:
        """Place new and edited passages into the stored exploration, and return their number.

        The themes, their centres, and the coordinates of all other passages stay.

        Raises:
            NeverExplored: There is no exploration.
            ModelMissing: Its model is not on this machine.
        """
        found = self._exploration(exploration_id)
        _, passages, vectors = self._passages(self._encoder_of(found), None)
        return self._place_new(found.exploration_id, passages, vectors)

    def _place_new(self, exploration_id: str, passages: ExploredPassages, vectors: Vectors) -> int:
        from aico_lab.embeddings.exploration import map_layout

        found = self._exploration(exploration_id)
        points = found.space.place(vectors)
        theme, distance = nearest_theme(points, found.centres)
        before = {row[0]: row for row in found.places.iter_rows()}
        is_new = np.array(
            [
                segment not in before or abs(before[segment][2] - far) > 1e-4  # noqa: PLR2004
                for segment, far in zip(passages.ids, distance.tolist(), strict=True)
            ],
            bool,
        )
        new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
        if not len(new):
            return 0
        coordinates = np.array(
            [before[passages.ids[at]][4:6] for at in old.tolist()], np.float32
        ).reshape(-1, 2)
        stored.write_places(
            self._storage.primary, found.exploration_id, [passages.ids[at] for at in new.tolist()],
            theme[new], distance[new], distance[new] >= found.far,
            map_layout.place_among(points[new], points[old], coordinates),
        )  # fmt: skip
        return len(new)

    @private_files()
    def neighbours(
        self, text: str, *, k: int = 10, content: bool = False, exploration_id: str | None = None
    ) -> View:
        """Return the passages that are nearest to a text, by the exploration's model.

        Args:
            text: Any text; or the id of a passage, which is then left out of the result.
            k: The number of passages.
            content: Whether a report shows the texts.
            exploration_id: Another exploration than the newest one.

        Raises:
            NeverExplored: There is no exploration.
            InvalidValue: The text is blank, or `k` is below 1.
        """
        from aico_lab.embeddings.exploration.neighbours import nearest

        if not isinstance(text, str):
            raise InvalidValue(f"The text must be a str, not {type(text).__name__}.")
        if type(k) is not int or k < 1:
            raise InvalidValue(f"k must be a whole number of at least 1, not {k!r}.")
        found = self._exploration(exploration_id)
        encoder, passages, vectors = self._passages(self._encoder_of(found), None)
        place = {segment: at for at, segment in enumerate(passages.ids)}
        own = np.array([place[text]]) if text in place else None
        query = vectors[own] if own is not None else encoder.encode_usable([text])[0]
        if not len(query):
            raise InvalidValue("The text is blank: write what to look for.")
        places, cosines = nearest(query, vectors, k, own=own)
        rows = tables.of_neighbours(found, passages, places[0], cosines[0])
        return View(
            "Which passages are nearest?",
            f"The {rows.height} nearest of {len(passages):,} passages.",
            f"Cosine of the vectors of {found.model}, compared with all passages.",
            rows,
            {
                "cosine": "Cosine", "started": "Time (UTC)", "name": "Theme", TEXT: "Text",
                "segment_id": "Passage",
            },
            content,
        )  # fmt: skip

    @private_files()
    def duplicates(
        self, *, near: float = 0.95, content: bool = False, model: str | None = None
    ) -> View:
        """Return groups of passages with the same text, or with nearly the same.

        Args:
            near: The minimum cosine of near duplicates; above 1 for exact ones only.
            content: Whether a report shows the texts.
            model: The model, by default the home's; see `aico_lab.embeddings.encoders`.

        Raises:
            NeverExplored: There are no passages.
            UnknownName: There is no such kind of model.
            ModelMissing: The model is not on this machine.
        """
        from aico_lab.embeddings.exploration.duplicates import find_duplicates

        encoder, passages, vectors = self._passages(self._encoder(model), None)
        found = find_duplicates(passages.texts, vectors, near=near)
        rows = tables.of_duplicates(found, passages)
        copies = sum(len(one.passages) - 1 for one in found)
        return View(
            "Which passages are there several times?",
            f"{len(found):,} groups of duplicates; {copies:,} of {len(passages):,} passages repeat "
            "another.",
            f"{encoder.model}; each passage of a group has a cosine of at least {near:g} with "
            "another one of it, and the least one with the first is shown; exact apart from case "
            "and spaces.",
            rows,
            {
                "passages": "Passages", "is_exact": "Exact", "cosine": "Least cosine",
                TEXT: "First text",
            },
            content,
        )  # fmt: skip

    @private_files()
    def drift(
        self,
        *,
        at: Moment | None = None,
        model: str | None = None,
        user: str | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Compare two periods, or, if a model is given, two models.

        Args:
            at: The beginning of the later period: a day or moment, or a span back from the last
                passage, such as '30d'; by default the time of the middle passage.
            model: The model to compare with that of the exploration; `at` and `user` are then
                ignored.
            user: Only passages of this person, by id; there is no interval then.
            exploration_id: Another exploration than the newest one.

        Raises:
            NeverExplored: There is no exploration.
            InvalidValue: One of the periods has no passages, or `at` is not a time.
            UnknownName: The person has no passage, or there is no such kind of model.
            ModelMissing: A model is not on this machine.
        """
        found = self._exploration(exploration_id)
        if model is not None:
            return self._between_models(found, model)
        return self._between_periods(found, at, user)

    def _between_models(self, found: Exploration, model: str) -> View:
        from aico_lab.embeddings.exploration.drift import between_models

        _, passages, one = self._passages(self._encoder_of(found), None)
        encoder, others, other = self._passages(self._encoder(model), None)
        both = set(passages.ids) & set(others.ids)
        kept = [
            [at for at, segment in enumerate(side.ids) if segment in both]
            for side in (passages, others)
        ]
        drift = between_models(one[kept[0]], other[kept[1]])
        rows = pl.DataFrame(
            {
                "what": ["shared nearest passages", "by chance", "Procrustes distance"],
                "value": [drift.overlap, drift.by_chance, drift.procrustes],
            }
        )
        return View(
            "How much do two models differ?",
            f"Of the {drift.neighbours} passages nearest to a passage, {100 * drift.overlap:.0f} % "
            "are the same in both models.",
            f"{found.model} and {encoder.model}, {drift.passages:,} passages; a Procrustes "
            "distance of 0 is a rotation, 1 is unrelated.",
            rows,
            {"what": "Measure", "value": "Value"},
        )

    def _between_periods(self, found: Exploration, at: Moment | None, user: str | None) -> View:
        from aico_lab.embeddings.exploration.drift import NO_PERIOD, between_periods

        rows = self._rows(found, user=user).sort("moment", "segment_id")
        if rows.is_empty():
            raise InvalidValue(NO_PERIOD)
        zone, times = self._storage.timezone, rows.select(tables.MOMENT_MS).to_series()
        cut = tables.start_of(at, rows, zone) if at else times[rows.height // 2]
        _, passages, vectors = self._passages(self._encoder_of(found), None)
        place = {segment: number for number, segment in enumerate(passages.ids)}
        rows = rows.filter(pl.col("segment_id").is_in(passages.ids))
        drift = between_periods(
            rows["theme"].to_numpy(),
            len(found.names),
            vectors[[place[one] for one in rows["segment_id"]]],
            (rows.select(tables.MOMENT_MS).to_series() >= cut).to_numpy(),
            rows["person"].to_list(),
        )
        table = tables.of_changes(found.names, drift)
        clear = table.filter((pl.col("low") > 0) | (pl.col("high") < 0)).height
        return View(
            "What changed between two periods?",
            f"From {to_local(cut, get_zone(zone)):%Y-%m-%d} on, the shares of {clear} of "
            f"{table.height} themes differ clearly from before.",
            f"{_caption(found)}, {drift.people:,} people, 95 % intervals by resampling people; the "
            f"mean vectors are {drift.shift:.4f} apart, by chance up to {drift.by_chance:.4f}.",
            table,
            {
                "name": "Theme", "before": "Before (%)", "after": "After (%)",
                "change": "Change (points)", "low": "Low", "high": "High",
            },
            _draw=charts.change,
        )  # fmt: skip

    def _exploration(self, exploration_id: str | None) -> Exploration:
        primary = self._storage.primary
        return stored.read(primary, exploration_id or stored.find(primary))

    def _generation(self) -> int | None:
        """Return the generation of the newest snapshot, or None if there is none."""
        try:
            return self._storage.reader.generation
        except NeverSynced:
            return None

    def _encoder(self, model: str | None) -> Encoder:
        """Return the encoder of a model; by default that of the home's model."""
        from aico_lab.embeddings.home_model import open_home_encoder

        return open_home_encoder(self._storage.primary, model)

    def _encoder_of(self, found: Exploration) -> Encoder:
        """Return the encoder with which an exploration was made."""
        from aico_lab.embeddings.home_model import reopen_encoder

        return reopen_encoder(self._storage.primary, found.model)

    def _passages(
        self, encoder: Encoder, progress: Progress | None
    ) -> tuple[Encoder, ExploredPassages, Vectors]:
        """Return an encoder, the passages that have a vector, and their vectors."""
        from aico_lab.embeddings.stored_vectors import StoredVectors

        primary = self._storage.primary
        passages = read_passages(primary)
        told = None if progress is None else lambda done, total: progress("texts", done, total)
        vectors, usable = StoredVectors(primary, encoder).of(passages.texts, told)
        if not all(usable):
            passages = passages.only([at for at, use in enumerate(usable) if use])
        if not len(passages):
            raise NeverExplored(
                "There are no passages: import messages, and call lab.embeddings.update() first."
            )
        return encoder, passages, vectors

    def _rows(
        self,
        found: Exploration,
        *,
        user: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> pl.DataFrame:
        """Return the explored passages that still exist; see `tables.of_passages`."""
        return tables.of_passages(
            found, read_passages(self._storage.primary), self._storage.timezone,
            user=user, since=since, until=until,
        )  # fmt: skip


def _caption(found: Exploration) -> str:
    explored = f"{found.model}, explored {found.created_at[:10]}, {found.explored:,} passages"
    return f"{explored}, seed {found.parameters.get('seed', 0)}"


def _chosen(found: Exploration) -> str:
    """Return a phrase that tells how the number of themes was chosen."""
    number, by_number = found.notes.get("clusters"), found.notes.get("stability_by_number", {})
    merged = sum(len(names) - 1 for names in found.notes.get("merged", []))
    equal = f", {merged} of them merged into others" if merged else ""
    if found.parameters.get("themes") or not by_number:
        return f"{number} groups as asked{equal}"
    among = ", ".join(f"{one} ({mean:.2f})" for one, (mean, _) in by_number.items())
    return f"{number} groups chosen by stability among {among}{equal}"
