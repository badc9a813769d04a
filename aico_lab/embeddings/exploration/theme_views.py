"""The methods of `lab.embeddings` that show themes: their words, map, times and people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from aico_lab.embeddings.exploration import charts, tables
from aico_lab.embeddings.exploration.arguments import checked
from aico_lab.embeddings.exploration.captions import caption, few, how_chosen
from aico_lab.embeddings.exploration.reading import PassageReader
from aico_lab.embeddings.exploration.selection import NOTHING, People
from aico_lab.embeddings.exploration.views import TEXT, View
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.intervals import FEWEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.period import Moment

_SHOWN: Final = 8
"""The number of themes that `over_time` shows by default."""


class ThemeViews(PassageReader):
    """Shows the themes of the current exploration, or of another one."""

    @checked
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
        found, rows, chosen = self._explored(exploration_id, user=user, since=since, until=until)
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

    @checked
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
        found, rows, chosen = self._explored(exploration_id, user=user, since=since, until=until)
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

    @checked
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
        found, rows, chosen = self._explored(exploration_id, user=user, since=since, until=until)
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

    @checked
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
        found, rows, chosen = self._explored(exploration_id, user=user, since=since, until=until)
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
