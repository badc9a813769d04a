"""Results of explorations, which notebooks display as a table and as a chart."""

from __future__ import annotations

import contextlib
import textwrap
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from aico_lab import charts
from aico_lab.results import in_cell
from aico_lab.runtime.report_kernel import is_report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import altair as alt

SHOWN: Final = 40
"""The maximum number of rows that are displayed."""

TEXT: Final = "text"
"""The column with the text of messages."""

_LONGEST: Final = 300


@dataclass(frozen=True, repr=False)
class View:
    """A result of an exploration: a table with a finding, a caption, and mostly a chart.

    Attributes:
        question: The question that the result answers.
        finding: The result in one sentence.
        caption: Model, parameters, filters and remarks.
        headings: The heading of each column that is displayed, by name.
        content: Whether the text of messages is shown; None shows it except in a report.
        exploration_id: The exploration whose themes these are; empty for other results.
    """

    question: str
    finding: str
    caption: str
    _rows: pl.DataFrame
    headings: Mapping[str, str]
    content: bool | None = None
    _draw: Callable[[View], alt.TopLevelMixin] | None = field(default=None)
    exploration_id: str = ""
    _scatter: Callable[[View], Any] | None = field(default=None)

    def pl(self) -> pl.DataFrame:
        """Return the rows; without the text of messages, and the time of day, if it is hidden."""
        if self.shows_text or TEXT not in self._rows.columns:
            return self._rows
        days = [pl.col("started").str.slice(0, 10)] if "started" in self._rows.columns else []
        return self._rows.drop(TEXT).with_columns(days)

    @property
    def shows_text(self) -> bool:
        """Whether the text of messages is shown."""
        return not is_report() if self.content is None else self.content

    def plot(self) -> alt.TopLevelMixin | None:
        """Return the chart; None if the result has no chart or no rows."""
        if self._draw is None or self._rows.is_empty():
            return None
        import altair as alt

        if alt.renderers.active != charts.NAME:
            charts.enable()
        charts.describe(self.question, charts.Details({}, dict(self.headings)))
        title = alt.Title(
            textwrap.wrap(self.finding, 75),
            subtitle=[self.question, *textwrap.wrap(self.caption, 100)],
        )
        return self._draw(self).properties(title=title)

    def widget(self) -> Any:
        """Return the map as a widget for JupyterLab that draws all passages, with WebGL.

        None if the chart draws all of them, in reports, and without jupyter-scatter, which the
        extra `scatter` installs.
        """
        if self._scatter is None or is_report():
            return None
        with contextlib.suppress(ImportError):
            return self._scatter(self)
        return None

    def __len__(self) -> int:
        return self._rows.height

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = self.pl()
        names = [name for name in self.headings if name in rows.columns]
        shown = rows.select(names).head(SHOWN).iter_rows()
        return [self.headings[name] for name in names], [list(map(_text, row)) for row in shown]

    def _more(self) -> str:
        left = self._rows.height - SHOWN
        if left <= 0:
            return ""
        return f"… and {left:,} more rows{'' if is_report() else '; .pl() returns all'}."

    def __repr__(self) -> str:
        headings, rows = self._table()
        lines = ["  ".join(headings), *("  ".join(row) for row in rows)] if rows else []
        return "\n".join(filter(None, [self.finding, self.caption, "", *lines, self._more()]))

    def table(self) -> charts.Html:
        """Return the table alone, to be shown below the chart."""
        headings, rows = self._table()
        left = 'style="text-align: left; white-space: pre-wrap;"'
        whole = 'style="text-align: left; overflow-wrap: normal;"'  # words, also in print
        heads = "".join(f"<th {whole}>{escape(one)}</th>" for one in headings)
        body = "".join(
            "<tr>" + "".join(f"<td {left}>{escape(one)}</td>" for one in row) + "</tr>"
            for row in rows
        )
        more = f"<p>{escape(self._more())}</p>" if self._more() else ""
        return charts.Html(
            '<div class="mathjax_ignore" style="overflow-x: auto;">'
            f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{more}</div>"
        )

    def _repr_html_(self) -> str:
        return (
            f"<p><strong>{escape(self.finding)}</strong><br>"
            f"<small>{escape(self.question)} {escape(self.caption)}</small></p>"
            f"{self.table().text if len(self) else ''}"
        )


def _text(value: object) -> str:
    text = in_cell(value, "{:.3g}".format)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
