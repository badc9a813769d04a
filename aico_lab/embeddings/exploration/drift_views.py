"""The method of `lab.embeddings` that compares two periods, or two models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from aico_lab.constants import MS_PER_HOUR
from aico_lab.embeddings.exploration import charts, tables
from aico_lab.embeddings.exploration.arguments import checked
from aico_lab.embeddings.exploration.captions import caption, only
from aico_lab.embeddings.exploration.reading import PassageReader
from aico_lab.embeddings.exploration.selection import NOTHING, recent_ms
from aico_lab.embeddings.exploration.views import View
from aico_lab.home.files import private_files
from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.intervals import FEWEST
from aico_lab.period import start_of
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.drift import PeriodDrift
    from aico_lab.embeddings.exploration.stored import Exploration
    from aico_lab.period import Moment

_TWO_DAYS: Final = 2 * 24 * MS_PER_HOUR
_MAINLY: Final = 0.5
"""A change is mainly one person's if without that person less than this share of it is left."""


class DriftViews(PassageReader):
    """Compares what passages are about in two periods, or in two models."""

    @private_files()
    @checked
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

        encoder = self._encoder(model)
        passages, one = self._passages(self._encoder_of(found))
        others, other = self._passages(encoder)
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

        passages, vectors = self._passages(self._encoder_of(found))
        rows, chosen = self._rows(found, passages, **filters)
        rows = rows.sort("moment", "segment_id")
        question, about = "What changed between two periods?", caption(found, chosen)
        times = rows.select(tables.MOMENT_MS).to_series().to_numpy()
        zone = self._storage.timezone
        cut = _middle(times) if at is None else start_of(at, zone, recent_ms(times), name="at")
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
        said, chance = _compared(drift, table)
        before = int((times < cut).sum())
        begins = to_local(cut, get_zone(zone))
        day = "%Y-%m-%d" if at is not None or np.ptp(times) >= _TWO_DAYS else "%Y-%m-%d %H:%M"
        return View(
            question,
            f"From {begins:{day}} on, {said}.",
            f"{about}; {counted(before, 'passages')} before, {len(times) - before:,} after, "
            f"{counted(drift.people, 'people')}; {chance}.",
            table,
            {
                "name": "Theme", "before": "Before (%)", "after": "After (%)",
                "change": "Change (points)", "low": "Low", "high": "High", "people": "People",
                "without": "Change without one person (points)",
            },
            _draw=charts.change,
        )  # fmt: skip


def _compared(drift: PeriodDrift, table: pl.DataFrame) -> tuple[str, str]:
    """Return which changes are clear, and how that was judged, as parts of sentences."""
    apart = f"the mean vectors are {drift.shift:.4f} apart"
    if drift.people < FEWEST:
        people = counted(drift.people, "people")
        said = f"with {people} it cannot be told whether themes changed; {FEWEST} are needed"
        return said, apart
    clear = table.filter("is_clear")
    one = clear.filter(pl.col("without") / pl.col("change") < _MAINLY).height
    mainly = f", {one} of these mainly by one person" if one else ""
    shares, differ = ("share", "differs") if clear.height == 1 else ("shares", "differ")
    number, themes = clear.height or "none", counted(table.height, "themes")
    chance = (
        "if nothing had changed, no interval would exclude 0 in 95 % of cases (signs of people's "
        f"contributions are flipped); {apart}, and would be up to {drift.by_chance:.4f} in 95 % of "
        "cases (periods of people are swapped)"
    )
    return f"the {shares} of {number} of {themes} {differ} clearly from before{mainly}", chance


def _middle(times: NDArray[np.int64]) -> int | None:
    """Return the time that divides sorted times into halves as equal as possible, if one does."""
    starts = np.unique(times)[1:]
    if not len(starts):
        return None
    return int(starts[np.abs(np.searchsorted(times, starts) - len(times) / 2).argmin()])
