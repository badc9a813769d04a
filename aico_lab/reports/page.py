"""`Page`: a report about some conversations, from its first screen to the unanswered questions.

::

    page = Page(Lab.open(), "My report", since="90d")
    page.header()
    page.tiles()
    page.section("Mood", "**Sentiment** is …", page.ask("sentiment"))
    page.left_out()

An answer without rows is not drawn. A section of such answers is left out, heading and text too,
and the last cell names the questions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.days import written_moment
from aico_lab.metrics.engine.metric import N, RoleFilter
from aico_lab.reports import document, first_screen
from aico_lab.reports.explorer import explorer
from aico_lab.reports.period_before import period_before, read_times
from aico_lab.runtime.report_kernel import is_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.charts import Html
    from aico_lab.lab import Lab
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.reports.first_screen import Fragment, Tile
    from aico_lab.reports.period_before import Times


@dataclass(frozen=True)
class NotAsked:
    """A question that cannot be asked under the filters of its page.

    Attributes:
        question: The question.
        finding: Why it was not asked.
    """

    question: str
    finding: str


class Page:
    """A report about the conversations that some filters choose.

    Attributes:
        lab: The opened lab.
        name: The name of the report.
        names: Whether people and channels are called by their names rather than pseudonyms.
        filters: The filters of all its answers; see `aico_lab.metrics.lab_metrics.FILTERS`.
    """

    def __init__(self, lab: Lab, name: str, *, names: bool = False, **filters: Any) -> None:
        self.lab = lab
        self.name = name
        self.names = names
        self.filters = filters
        self._left_out: dict[str, str] = {}
        self._answers: dict[tuple[object, ...], Answer] = {}

    def ask(self, name: str, /, **parameters: object) -> Answer | NotAsked:
        """Return the answer to a question of the catalogue under the page's filters.

        Args:
            name: The name of the metric.
            parameters: Its parameters, and filters that replace those of the page.

        Returns:
            The answer; a `NotAsked` if the filters choose a side and the metric is about both.
        """
        metric = CATALOGUE[name]
        if self.filters.get("role") and metric.role is RoleFilter.REFUSED:
            return NotAsked(metric.question, "The question is about both sides at once.")
        return self._answer(name, **parameters)

    def header(self, note: str = "") -> Fragment:
        """Return the header: people or channels, period, filters and snapshot.

        Args:
            note: A sentence about the data; empty for none.
        """
        usual = self._answer("overview", **self._usual) if self._usual else None
        return first_screen.header(self.name, self._overview, self._times, note, usual=usual)

    def tiles(self) -> Fragment:
        """Return the figures at a glance, with those of the period of the same length before."""
        shown = self._of_period(**self._usual)
        answers, now = [*shown], first_screen.figures(*shown)
        if not now:
            return first_screen.tiles(now)
        before: Sequence[Tile] = ()
        far = f"Without {first_screen.far_messages(self._overview)}." if self._usual else ""
        period = period_before(self._overview.filters, self._times)
        if isinstance(period, str):
            compared = period
        else:
            earlier = self._of_period(since=period[0], until=period[1])
            found = first_screen.figures(*earlier)
            before = first_screen.figures_before(now, found, earlier[0])
            answers += earlier
            zone = self._overview.filters.timezone
            since, until = (written_moment(end, zone) for end in period)
            what = "as many hours"
            if "T" not in period[0]:
                same = ", the last day only up to this time" if "T" in period[1] else ""
                what = f"as many days{same}"
            else:  # hours of one day may lie in two
                before = [tile for tile in before if tile.key != first_screen.DAYS]
            compared = f"Before: {what}, from {since} to {until}."
        dashes = first_screen.dashes([*now, *before], answers)
        note = " ".join(filter(None, (far, compared, dashes)))
        return first_screen.tiles(now, before, note)

    def explorer(self, *, names: bool | None = None) -> Html | None:
        """Return charts that the page can filter; see `reports.explorer`.

        None without messages.

        Args:
            names: Whether people and channels are called by their names; by default as in the rest
                of the page.
        """
        if not len(self._overview):
            return None
        names = self.names if names is None else names
        return explorer(self.lab, names=names, **self.filters)

    def section(self, heading: str, *parts: object) -> None:
        """Display a section of the page: texts, and the answers that they explain.

        A text is displayed if any part between that text and the next one is displayed, and the
        heading if any part of the section is. Answers without rows are left out; `left_out` names
        them.

        Args:
            heading: The title of the section.
            parts: Texts in Markdown, answers, and other objects that a notebook can display; None
                is skipped.
        """
        from IPython.display import Markdown, display

        from aico_lab.charts import unbroken

        title, text = f"## {heading}", ""
        for part in parts:
            if isinstance(part, str):
                text = part
                continue
            shown = self._shown(part)
            if shown is None:
                continue
            above = "\n\n".join(filter(None, (title, unbroken(text))))
            if above:
                display(Markdown(above))  # type: ignore[no-untyped-call]
            title = text = ""
            display(shown, metadata=_data(part, heading))  # type: ignore[no-untyped-call]

    def left_out(self) -> Fragment | None:
        """Return the questions without an answer here, and why; None if there are none.

        Without any message the result is None too, since the header says so.
        """
        if not self._left_out or not len(self._overview):
            return None
        return first_screen.nothing_to_show(self._left_out)

    def _shown(self, part: Any) -> Any:
        """Return what is displayed of a part of a section; if nothing, note the question."""
        if isinstance(part, NotAsked):
            self._left_out[part.question] = part.finding
            return None
        if not hasattr(part, "metric"):
            chart = part.plot() if hasattr(part, "plot") else None
            return part if chart is None else chart
        chart = None if _is_empty(part) else part.plot()
        if chart is None or not _draws_rows(chart):
            self._left_out[part.metric.question] = part.finding
            return None
        return chart

    def _answer(self, name: str, **parameters: object) -> Answer:
        """Return an answer, computed once: tiles and charts share some."""
        key = (name, *sorted(parameters.items()))
        if key not in self._answers:
            given = self.filters | parameters
            if any(one.name == "names" for one in CATALOGUE[name].parameters):
                given = {"names": self.names, **given}
            answer = self.lab.metrics[name](**given)
            self._answers[key] = replace(answer, names=answer.names or self.names)
        return self._answers[key]

    @cached_property
    def _overview(self) -> Answer:
        return self._answer("overview")

    @cached_property
    def _times(self) -> Times:
        return read_times(self.lab, self._overview.filters)

    @cached_property
    def _usual(self) -> dict[str, str]:
        """Bounds that leave out messages before 1990 and in the future.

        Empty without such messages, or if there are no others that may be shown. Calendars and
        records leave them out, too, unless the filters ask for these times.
        """
        if not self._overview.far:
            return {}
        ends = {"since": "1990-01-01T00:00+00:00", "until": datetime.now(UTC).isoformat()}
        usual = {name: end for name, end in ends.items() if not self.filters.get(name)}
        return usual if len(self._answer("overview", **usual)) else {}

    def _of_period(self, **period: str) -> tuple[Answer, Answer, Answer | None]:
        """Return the answers for the figures of the page's period, or of another one."""
        overview, latency = (self._answer(name, **period) for name in ("overview", "reply_latency"))
        records = None if self.filters.get("role") else self._answer("extremes", **period)
        return overview, latency, records


def _data(part: Any, heading: str) -> dict[str, Any] | None:
    """Return the data of a displayed part, for the metadata of its output in a report.

    Outside of reports nobody collects them.
    """
    if not is_report():
        return None
    if hasattr(part, "metric"):
        return {"text/html": document.marked("answer", document.of_answer(part, heading))}
    if hasattr(part, "exploration_id"):
        return {"text/html": document.marked("answer", document.of_view(part, heading))}
    return None


def _is_empty(answer: Answer) -> bool:
    """Return whether an answer has no rows, or only rows without observations."""
    if "active" in answer.pl().columns:  # a cohort has people even if none of them is active
        return not answer.pl()["active"].sum()
    return answer.pl().filter(pl.col(N).is_null() | (pl.col(N) > 0)).is_empty()


def _draws_rows(chart: Any) -> bool:
    """Return whether a chart or a part of it has any rows, such as those of a known language."""
    import altair as alt

    parts = [part for name in ("layer", "vconcat", "hconcat") for part in getattr(chart, name, ())]
    own = getattr(chart, "data", alt.Undefined)
    if own is not alt.Undefined and (not hasattr(own, "__len__") or len(own)):
        return True
    return any(map(_draws_rows, parts))
