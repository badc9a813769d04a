"""The methods of `lab.embeddings` that explore what conversations are about."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from math import isnan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from aico_lab.constants import MS_PER_HOUR
from aico_lab.domain.values import now, to_timestamp
from aico_lab.embeddings.exploration import charts, stored, tables
from aico_lab.embeddings.exploration.captions import caption, few, how_chosen, only
from aico_lab.embeddings.exploration.passages import ExploredPassages, read_passages
from aico_lab.embeddings.exploration.selection import (
    NOTHING,
    People,
    Selection,
    recent_ms,
    select,
)
from aico_lab.embeddings.exploration.themes import ThemeParameters, find_themes, nearest_theme
from aico_lab.embeddings.exploration.views import TEXT, View
from aico_lab.errors import InvalidValue, NeverExplored, NeverSynced, NotPermitted
from aico_lab.home.files import private_files
from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.intervals import FEWEST
from aico_lab.period import start_of
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.encoders import Encoder
    from aico_lab.embeddings.exploration.clusters import Vectors
    from aico_lab.embeddings.exploration.stored import Exploration
    from aico_lab.period import Moment
    from aico_lab.storage import Storage

    Progress = Callable[[str, int, int | None], None]

_SHOWN = 8
"""The number of themes that `over_time` shows by default."""

_LEFT = 0.5
"""An exploration of whose passages a smaller share is left unchanged is not shown any more."""

_GONE = (
    "Most of the explored passages are gone or have changed: call "
    "lab.embeddings.explore(renew=True) to find the themes of the present ones."
)
_TWO_DAYS = 2 * 24 * MS_PER_HOUR
_MAINLY = 0.5
"""A change is mainly one person's if without that person less than this share of it is left."""


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
        passages are placed into it, unless less than half of its passages are left. The exploration
        becomes the current one, which all other methods and `mart` show. Call `update()` before, so
        that new messages are in a passage, and `lab.sync()` after, so that SQL sees the themes.

        Args:
            parameters: All parameters; None for the default ones.
            themes: The number of themes before similar ones are merged; by default it is chosen
                by stability.
            seed: The seed of the random numbers.
            min_people: The minimum number of people who use a word that names a theme; by default
                5. In a home of fewer people, all of them use it.
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
        primary = self._storage.primary
        known = stored.find_alike(primary, encoder.model, chosen)
        gone = known is not None and self._place_new(known, passages, vectors) is None
        if known is None or gone or (renew and known != exploration_id):
            remember_name(primary, encoder)
            found = find_themes(vectors, words_of(passages.messages), chosen)
            coordinates = map_layout.lay_out(found.space.place(vectors), seed=chosen.seed)
            stored.write(
                primary, exploration_id, created_at=to_timestamp(now()), model=encoder.model,
                parameters=chosen, generation=self._generation(), passages=passages, themes=found,
                coordinates=coordinates,
            )  # fmt: skip
            known = exploration_id
        with contextlib.suppress(NotPermitted):  # a home that is only read keeps its current one
            stored.choose(primary, known, to_timestamp(now()))
        return self.themes(exploration_id=known)

    def themes(
        self,
        *,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Return the themes of the current exploration, the largest first.

        Args:
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            exploration_id: Another exploration than the current one.

        Raises:
            NeverExplored: There is no exploration, or most of its passages are gone.
            InvalidValue: A bound is not a time, or the period ends before it begins.
            UnknownName: There is no such person.
        """
        found = self._exploration(exploration_id)
        rows, chosen = self._rows(found, user=user, since=since, until=until)
        table = tables.of_themes(found, rows, whole=not chosen.said)
        outliers = int(rows["is_outlier"].sum())
        finding = NOTHING
        if rows.height:
            share = f"{100 * outliers / rows.height:.0f} %"
            are = "is an outlier" if outliers == 1 else "are outliers"
            finding = (
                f"{counted(table.height, 'themes')} in {counted(rows.height, 'passages')}; "
                f"{share if outliers != 1 else 'one'} of them {are}."
            )
        people = found.notes.get("min_people", found.parameters.get("min_people", 0))
        return View(
            "What are the conversations about?",
            finding,
            f"{caption(found, chosen)}; {how_chosen(found)}; an outlier is no nearer to any theme "
            "than the median random direction; a word names a theme if at least "
            f"{counted(people, 'people')} used it there{few(found, people)}.",
            table,
            {
                "theme": "Theme", "name": "Words", "passages": "Passages", "people": "People",
                "most": "Of one person (%)", "words": "More words", "outliers": "Outliers",
                "distance": "Mean distance",
            },
            _draw=charts.themes,
            exploration_id=found.exploration_id,
        )  # fmt: skip

    def picture(
        self,
        *,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        content: bool | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Return the map of passages.

        If the chart shows texts, dragging over a region lists its first passages. It draws at most
        5,000 passages; with the extra `scatter`, `.widget()` draws all of them in JupyterLab.

        Args:
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            content: Whether texts, and times of day, are shown; None shows them except in reports.
            exploration_id: Another exploration than the current one.

        Raises:
            NeverExplored: There is no exploration, or most of its passages are gone.
            InvalidValue: A bound is not a time, or the period ends before it begins.
            UnknownName: There is no such person.
        """
        found = self._exploration(exploration_id)
        rows, chosen = self._rows(found, user=user, since=since, until=until)
        finding = NOTHING
        if rows.height:
            shown = min(rows.height, charts.MOST_POINTS)
            some = f", {shown:,} of them drawn" if shown < rows.height else ""
            near = ": near ones are about similar things" if rows.height > 1 else ""
            finding = f"{counted(rows.height, 'passages')} on a map{some}{near}."
        return View(
            "Which passages are alike?",
            finding,
            f"{caption(found, chosen)}; times of {self._storage.timezone}.",
            rows.drop("writers", "moment"),
            {"name": "Theme", "started": "Time", "x": "x", "y": "y", TEXT: "Text"},
            content,
            charts.picture,
            _scatter=charts.scatter if rows.height > charts.MOST_POINTS else None,
        )

    def over_time(
        self,
        *,
        by: Literal["week", "month"] = "month",
        themes: Sequence[int] | None = None,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Return the shares of themes in each week or month, with 95 % intervals over people.

        Args:
            by: 'week' or 'month', in the lab's time zone.
            themes: The numbers of the themes; by default the largest eight.
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            exploration_id: Another exploration than the current one.

        Raises:
            NeverExplored: There is no exploration, or most of its passages are gone.
            InvalidValue: `by` or the number of a theme is invalid, a bound is not a time, or the
                period ends before it begins.
            UnknownName: There is no such person.
        """
        if by not in ("week", "month"):
            raise InvalidValue(f"by must be 'week' or 'month', not {by!r}.")
        found = self._exploration(exploration_id)
        rows, chosen = self._rows(found, user=user, since=since, until=until)
        number = len(found.names)
        largest = rows.group_by("theme").len().sort("len", "theme", descending=[True, False])
        shown = list(themes) if themes is not None else largest["theme"].head(_SHOWN).to_list()
        if themes is not None and not shown:
            raise InvalidValue("themes is empty: leave it out for the largest ones.")
        if any(not 0 <= one < number for one in shown):
            raise InvalidValue(f"Themes have numbers from 0 to {number - 1}.")
        table = tables.of_shares(rows, found.names, shown, by)
        periods = table["period"].n_unique()
        return View(
            "How do themes move over time?",
            f"The {'share' if len(shown) == 1 else 'shares'} of {counted(len(shown), 'themes')} in "
            f"{counted(periods, f'{by}s')}."
            if periods
            else NOTHING,
            f"{caption(found, chosen)}; {by}s of {self._storage.timezone}; 95 % intervals over "
            f"people, none below {FEWEST} people; a passage of several people counts in parts.",
            table,
            {
                "period": by.capitalize(), "name": "Theme", "share": "Share (%)",
                "share_low": "Low (%)", "share_high": "High (%)", "n": "Passages",
                "people": "People",
            },
            _draw=charts.over_time,
        )  # fmt: skip

    def by_person(
        self,
        *,
        top: int = 20,
        names: bool = False,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Return the share of each theme in the passages of the people with the most passages.

        Args:
            top: The maximum number of people.
            names: Whether people are called by their names rather than pseudonyms.
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            exploration_id: Another exploration than the current one.

        Raises:
            NeverExplored: There is no exploration, or most of its passages are gone.
            InvalidValue: `top` is below 1, a bound is not a time, or the period ends before it
                begins.
            UnknownName: There is no such person.
        """
        if top < 1:
            raise InvalidValue("top must be at least 1.")
        found = self._exploration(exploration_id)
        rows, chosen = self._rows(found, user=user, since=since, until=until)
        people = People(self._storage.primary)
        table = tables.of_people(rows, people, chosen.people, top=top, names=names)
        shown = table["number"].n_unique()
        finding = f"Themes of the {counted(shown, 'people')} with the most passages."
        if not shown:
            finding = "Nobody wrote in these passages." if rows.height else NOTHING
        if shown == 1:
            first = table.row(0, named=True)
            finding = f"Themes of {counted(first['n'], 'passages')} of {first['person']}."
        return View(
            "Who writes about what?",
            finding,
            f"{caption(found, chosen)}; a passage counts for everybody who wrote in it.",
            table,
            {
                "person": "Person", "name": "Theme", "passages": "Passages",
                "share": "Share of the person's passages (%)", "n": "All passages",
            },
            _draw=charts.by_person,
        )  # fmt: skip

    @private_files()
    def place_new(self, *, exploration_id: str | None = None) -> int:
        """Place new and edited passages into the stored exploration, and return their number.

        The themes, their centres, and the coordinates of all other passages stay.

        Raises:
            NeverExplored: There is no exploration, or most of its passages are gone.
            ModelMissing: Its model is not on this machine.
        """
        found = self._exploration(exploration_id)
        _, passages, vectors = self._passages(self._encoder_of(found), None)
        number = self._place_new(found.exploration_id, passages, vectors)
        if number is None:
            raise NeverExplored(_GONE)
        return number

    def _place_new(
        self, exploration_id: str, passages: ExploredPassages, vectors: Vectors
    ) -> int | None:
        """Place new and edited passages; None, without a change, if too few others are left."""
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
        if len(old) < _LEFT * found.explored:
            return None
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
        self,
        text: str,
        *,
        k: int = 10,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        content: bool | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Return the passages that are nearest to a text, by the exploration's model.

        Args:
            text: Any text; or the id of a passage, which is then left out of the result.
            k: The number of passages.
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            content: Whether texts, and times of day, are shown; None shows them except in reports.
            exploration_id: Another exploration than the current one.

        Raises:
            NeverExplored: There is no exploration.
            InvalidValue: The text is blank, `k` is below 1, a bound is not a time, or the period
                ends before it begins.
            UnknownName: There is no such person.
        """
        from aico_lab.embeddings.exploration.neighbours import nearest

        if not isinstance(text, str):
            raise InvalidValue(f"The text must be a str, not {type(text).__name__}.")
        if type(k) is not int or k < 1:
            raise InvalidValue(f"k must be a whole number of at least 1, not {k!r}.")
        found = self._exploration(exploration_id)
        encoder, passages, vectors = self._passages(self._encoder_of(found), None)
        chosen = self._select(passages, user=user, since=since, until=until)
        place = {segment: at for at, segment in enumerate(passages.ids)}
        asked = np.array([place[text]]) if text in place else None
        query = vectors[asked] if asked is not None else encoder.encode_usable([text])[0]
        if not len(query):
            raise InvalidValue("The text is blank: write what to look for.")
        own = None if asked is None else np.flatnonzero(chosen.places == asked)
        places, cosines = nearest(
            query, vectors[chosen.places], k, own=own if own is not None and len(own) else None
        )
        zone = self._storage.timezone
        rows = tables.of_neighbours(found, chosen.passages, places[0], cosines[0], zone)
        among = counted(len(chosen.passages), "passages")
        nearest_ones = f"The {rows.height} nearest of" if rows.height > 1 else "The nearest of"
        return View(
            "Which passages are nearest?",
            f"{nearest_ones} {among}." if rows.height else NOTHING,
            f"{only(chosen)}Cosine of the vectors of {found.model}, compared with all of them.",
            rows,
            {
                "cosine": "Cosine", "started": f"Time ({zone})", "name": "Theme", TEXT: "Text",
                "segment_id": "Passage",
            },
            content,
        )  # fmt: skip

    @private_files()
    def duplicates(
        self,
        *,
        near: float = 0.95,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        content: bool | None = None,
        model: str | None = None,
    ) -> View:
        """Return groups of passages with the same text, or with nearly the same.

        Args:
            near: The minimum cosine of near duplicates with the first text of their group; above 1
                for exact ones only.
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            content: Whether texts are shown; None shows them except in reports.
            model: The model, by default the home's; see `aico_lab.embeddings.encoders`.

        Raises:
            NeverExplored: There are no passages.
            InvalidValue: `near` is not a number, a bound is not a time, or the period ends before
                it begins.
            UnknownName: There is no such person, or no such kind of model.
            ModelMissing: The model is not on this machine.
        """
        from aico_lab.embeddings.exploration.duplicates import find_duplicates

        if not isinstance(near, int | float) or isnan(near):
            raise InvalidValue(f"near must be a number such as 0.95, not {near!r}.")
        encoder, passages, vectors = self._passages(self._encoder(model), None)
        chosen = self._select(passages, user=user, since=since, until=until)
        some = chosen.passages
        found = find_duplicates(some.texts, vectors[chosen.places], near=near)
        copies = sum(len(one.passages) - 1 for one in found)
        groups = f"{counted(len(found), 'groups')} of duplicates"
        finding = (
            f"{groups}; {copies:,} of {counted(len(some), 'passages')} "
            f"{'repeats' if copies == 1 else 'repeat'} another."
            if copies
            else f"None of {counted(len(some), 'passages')} repeats another."
        )
        return View(
            "Which passages are there several times?",
            finding if len(some) else NOTHING,
            f"{only(chosen)}{encoder.model}, cosine of at least {near:g} with the group's first "
            "text; texts that differ only in case and spaces are the same, with a cosine of 1.",
            tables.of_duplicates(found, some),
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
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Compare two periods, or, if a model is given, two models.

        Args:
            at: The beginning of the later period: a day or moment, or a span back from the last
                passage, such as '30d'; by default each period has about half of the passages.
            model: The model to compare with that of the exploration; `at` is then ignored.
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            exploration_id: Another exploration than the current one.

        Raises:
            NeverExplored: There is no exploration, or most of its passages are gone.
            InvalidValue: One of the periods that begin or end `at` a time has no passages, a bound
                is not a time, or the period ends before it begins.
            UnknownName: There is no such person, or no such kind of model.
            ModelMissing: A model is not on this machine.
        """
        found = self._exploration(exploration_id)
        if model is not None:
            return self._between_models(found, model, user=user, since=since, until=until)
        return self._between_periods(found, at, user=user, since=since, until=until)

    def _between_models(self, found: Exploration, model: str, **filters: Any) -> View:
        from aico_lab.embeddings.exploration.drift import between_models

        _, passages, one = self._passages(self._encoder_of(found), None)
        encoder, others, other = self._passages(self._encoder(model), None)
        chosen = self._select(passages, **filters)
        both = set(chosen.passages.ids) & set(others.ids)
        kept = [
            [at for at, segment in enumerate(side.ids) if segment in both]
            for side in (passages, others)
        ]
        question = "How much do two models differ?"
        compared = f"{only(chosen)}{found.model} and {encoder.model}"
        if len(both) < 2:  # noqa: PLR2004 - a pair
            few = "Two models are compared by at least two passages."
            return View(question, few if both else NOTHING, f"{compared}.", pl.DataFrame(), {})
        drift = between_models(one[kept[0]], other[kept[1]])
        rows = pl.DataFrame(
            {
                "what": ["shared nearest passages", "by chance", "Procrustes distance"],
                "value": [drift.overlap, drift.by_chance, drift.procrustes],
            }
        )
        near = f"{drift.neighbours} passages" if drift.neighbours > 1 else "passage"
        return View(
            question,
            f"Of the {near} nearest to a passage, {100 * drift.overlap:.0f} % are the same in both "
            "models.",
            f"{compared}, {drift.passages:,} passages; a Procrustes distance of 0 is a rotation, 1 "
            "is unrelated.",
            rows,
            {"what": "Measure", "value": "Value"},
        )

    def _between_periods(self, found: Exploration, at: Moment | None, **filters: Any) -> View:
        from aico_lab.embeddings.exploration.drift import between_periods

        _, passages, vectors = self._passages(self._encoder_of(found), None)
        rows, chosen = self._rows(found, passages, **filters)
        rows = rows.sort("moment", "segment_id")
        question, about = "What changed between two periods?", caption(found, chosen)
        times = rows.select(tables.MOMENT_MS).to_series().to_numpy()
        zone = self._storage.timezone
        cut = _middle(times) if at is None else start_of(at, zone, recent_ms(times))
        if cut is None:
            same = "All passages begin at the same moment: there are no two periods."
            finding = same if rows.height else NOTHING
            return View(question, finding, f"{about}.", pl.DataFrame(), {})
        place = {segment: number for number, segment in enumerate(passages.ids)}
        drift = between_periods(
            rows["theme"].to_numpy(),
            len(found.names),
            vectors[[place[one] for one in rows["segment_id"]]],
            times >= cut,
            rows["writers"].to_list(),
        )
        table = tables.of_changes(found.names, drift)
        people = counted(drift.people, "people")
        if drift.people < FEWEST:
            said = f"with {people} it cannot be told whether themes changed; {FEWEST} are needed"
            chance = f"the mean vectors are {drift.shift:.4f} apart"
        else:
            clear = table.filter("is_clear")
            one = clear.filter(pl.col("without") / pl.col("change") < _MAINLY).height
            mainly = f", {one} of these mainly by one person" if one else ""
            number = clear.height or "none"
            shares, differ = ("share", "differs") if clear.height == 1 else ("shares", "differ")
            themes = counted(table.height, "themes")
            said = f"the {shares} of {number} of {themes} {differ} clearly from before{mainly}"
            chance = (
                "if nothing had changed, no interval would exclude 0 in 95 % of cases (signs of "
                f"people's contributions are flipped); the mean vectors are {drift.shift:.4f} "
                f"apart, and would be up to {drift.by_chance:.4f} in 95 % of cases (periods of "
                "people are swapped)"
            )
        before = int((times < cut).sum())
        begins = to_local(cut, get_zone(zone))
        day = "%Y-%m-%d" if at is not None or np.ptp(times) >= _TWO_DAYS else "%Y-%m-%d %H:%M"
        return View(
            question,
            f"From {begins:{day}} on, {said}.",
            f"{about}; {counted(before, 'passages')} before, {len(times) - before:,} after, "
            f"{people}; {chance}.",
            table,
            {
                "name": "Theme", "before": "Before (%)", "after": "After (%)",
                "change": "Change (points)", "low": "Low", "high": "High", "people": "People",
                "without": "Change without one person (points)",
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

    def _select(self, passages: ExploredPassages, **filters: Any) -> Selection:
        """Return the passages that filters choose; see `selection.select`."""
        return select(self._storage.primary, self._storage.timezone, passages, **filters)

    def _rows(
        self, found: Exploration, passages: ExploredPassages | None = None, **filters: Any
    ) -> tuple[pl.DataFrame, Selection]:
        """Return the explored passages that filters choose, and the selection.

        Raises:
            NeverExplored: Most of the explored passages are gone.
        """
        if passages is None:
            passages = read_passages(self._storage.primary)
        if found.places["segment_id"].is_in(passages.ids).sum() < _LEFT * found.explored:
            raise NeverExplored(_GONE)
        chosen = self._select(passages, **filters)
        return tables.of_passages(found, chosen.passages, self._storage.timezone), chosen


def _middle(times: NDArray[np.int64]) -> int | None:
    """Return the time that divides sorted times into halves as equal as possible, if one does."""
    starts = np.unique(times)[1:]
    if not len(starts):
        return None
    return int(starts[np.abs(np.searchsorted(times, starts) - len(times) / 2).argmin()])
