"""Write a chart as an HTML figure, which a script of the page turns into an interactive chart.

Title, question and caption are text of the page: they wrap, can be selected, and are read where
neither scripts nor style sheets work, as in a notebook that is not trusted.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Final

from aico_lab.charts import theme
from aico_lab.charts.picture import data_uri, picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt

_QUEUE: Final = (
    "(window.aicoLabCharts = window.aicoLabCharts || []).push(document.currentScript.parentElement)"
)
_DIGITS: Final = 7
"""Significant digits of numbers in a page; more would be noise, and most of the page's size."""

_EXACT: Final = 1e9
"""Numbers from here on are times or ids, and keep their digits."""

_READABLE: Final = 0.85
"""The smallest scale at which a picture's labels can be read; in a narrower column, it scrolls."""

_NO_BREAK: Final = "\u00a0"
_PARTED: Final = re.compile(
    r"(?<=\d) (?=(?:%|s|min|h|days?|points?)(?![\w-]))|(?<=[=<>≥≤±]) (?=[-+−\d])"  # noqa: RUF001
    r"|(?<=\w) (?=[=<>≥≤] [-+−\d])"  # noqa: RUF001
    r"|(?<=\d) (?=(?:of|to) [-+−]?\d)|(?<=\d (?:of|to)) (?=[-+−]?\d)"  # noqa: RUF001
)
_WHOLE: Final = re.compile(r"\d{4}-\d\d(?:-\d\d)?|[-+−]\d[\d.,]*")  # noqa: RUF001
"""Dates, and numbers with a sign, which browsers break at the hyphen."""

_CODE: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Html:
    """A fragment of HTML that notebooks display."""

    text: str

    def __repr__(self) -> str:
        return in_a_sentence(self.text)

    def _repr_html_(self) -> str:
        return self.text


def in_a_sentence(text: str) -> str:
    """Return what is shown of HTML where only text can be, as in IPython in a terminal."""
    return f"<HTML of {len(text):,} characters: notebooks display it, and .text holds it>"


@dataclass(frozen=True)
class Details:
    """The parts of a figure that its reader opens, besides the table of its rows.

    Attributes:
        sections: Paragraphs by heading, such as a definition and a source; `code` is marked by
            backticks.
        columns: The headings of columns, by name. The table has only these columns if the chart's
            data have most of them.
    """

    sections: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


_DETAILS: Final[dict[str, Details]] = {}
"""The details of charts by their question, the first line of their subtitle.

Vega-Lite has no field for details that charts keep when they are put side by side.
"""


def describe(question: str, details: Details) -> None:
    """Show these details with every chart whose subtitle begins with the question."""
    _DETAILS[question] = details


def unbroken(text: str) -> str:
    """Return a text with no-break spaces where no line may end: between a number and its unit."""
    return _PARTED.sub(_NO_BREAK, text)


def figure(
    chart: alt.TopLevelMixin,
    *,
    title: str | None = None,
    question: str | None = None,
    caption: str | None = None,
    details: Details | None = None,
) -> Html:
    """Return an Altair chart as a figure that follows the width of its column.

    Args:
        chart: The chart.
        title: The chart's finding, in one sentence; by default its own title.
        question: The question that the chart answers.
        caption: Filters, sources and notes; by default the chart's own subtitle.
        details: Texts shown on demand, besides the table of the chart's rows.
    """
    specification = chart.to_dict()
    said = _said(specification)
    return Html(
        _figure(
            specification,
            title=said[0] if title is None else title,
            question=said[1] if question is None else question,
            caption=said[2] if caption is None else caption,
            details=_DETAILS.get(said[1]) if details is None else details,
        )
    )


def render(specification: dict[str, Any], **_options: Any) -> dict[str, str]:
    """Return the notebook output of a Vega-Lite specification, by MIME type."""
    title, question, caption = _said(specification)
    datasets = specification.get("datasets", {})
    if datasets and not any(datasets.values()):
        said = f"“{question}” has nothing to draw: {title}." if question else ""
        sentence = said or f"“{title}” has nothing to draw: no rows match."
        return {"text/plain": sentence, "text/html": f"<p><em>{escape(sentence)}</em></p>"}
    html = _figure(
        specification,
        title=title,
        question=question,
        caption=caption,
        details=_DETAILS.get(question),
    )
    return {"text/plain": f"Chart: {title}", "text/html": html}


def _figure(
    specification: dict[str, Any],
    *,
    title: str,
    question: str,
    caption: str,
    details: Details | None,
) -> str:
    bare = {name: value for name, value in specification.items() if name != "title"}
    told = bare.pop("description", None) or title
    svg, width, height, is_whole = picture(bare)
    columns = dict(details.columns) if details else {}
    size = f'width="{width}" height="{height}" style="min-width:{_READABLE * width:.0f}px"'
    asked = f'<span class="aico-lab-question">{_prose(question)}</span>'
    noted = f'<small class="aico-lab-caption">{_prose(caption)}</small>'
    return (
        '<figure class="aico-lab-chart mathjax_ignore">'
        f"<figcaption><strong>{_prose(title)}</strong>{asked if question else ''}"
        "</figcaption>"
        f'<div class="aico-lab-plot"><img alt="{escape(told)}" src="{data_uri(svg)}"'
        f" {size}{'' if is_whole else ' data-thinned'}></div>"
        f"{noted if caption else ''}{_on_demand(details)}"
        f'<script type="application/json">{_json(_lean(bare, columns))}</script>'
        f"<script>{_QUEUE}</script></figure>"
    )


def _prose(text: str) -> str:
    """Return a sentence as HTML, whose numbers and dates are not broken."""
    return _WHOLE.sub(r'<span class="aico-lab-whole">\g<0></span>', escape(unbroken(text)))


def _on_demand(details: Details | None) -> str:
    if details is None or not details.sections:
        return ""
    paragraphs = [
        f"{f'<strong>{escape(heading)}.</strong> ' if first else ''}{_with_code(text)}"
        for heading, whole in details.sections.items()
        for first, text in _with_first(whole.split("\n\n"))
    ]
    names = ["Table", *(heading.lower() for heading in details.sections)]
    summary = f"{', '.join(names[:-1])} and {names[-1]}"
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f"{''.join(f'<p>{paragraph}</p>' for paragraph in paragraphs)}</details>"
    )


def _with_code(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text.strip()))


def _with_first(texts: Sequence[str]) -> list[tuple[bool, str]]:
    return [(place == 0, text) for place, text in enumerate(texts)]


def _lean(specification: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a specification without the theme, which the script has, and with short numbers."""
    own = {name: value for name, value in specification.items() if name != "$schema"}
    config = own.pop("config", {})
    if own_config := {n: value for n, value in config.items() if theme.CONFIG.get(n) != value}:
        own["config"] = own_config
    if datasets := own.get("datasets"):
        own["datasets"] = {name: _short(rows) for name, rows in datasets.items()}
        names = {name for rows in datasets.values() for row in rows[:1] for name in row}
        columns = {name: heading for name, heading in columns.items() if name in names}
    if columns:
        own["usermeta"] = {"columns": columns}
    return own


def _short(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: float(f"{value:.{_DIGITS}g}")
            if isinstance(value, float) and abs(value) < _EXACT
            else value
            for name, value in row.items()
        }
        for row in rows
    ]


def _said(specification: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the title, the question and the caption of a chart; empty if it has none."""
    title = specification.get("title", "Chart")
    text, subtitle = title, []
    if isinstance(title, dict):
        text, subtitle = title.get("text", "Chart"), title.get("subtitle", [])
    lines = [subtitle] if isinstance(subtitle, str) else list(subtitle)
    question = lines.pop(0) if lines and lines[0] in _DETAILS else ""
    return _joined(text), question, " ".join(lines)


def _joined(text: object) -> str:
    return " ".join(map(str, text)) if isinstance(text, list) else str(text)


def _json(value: object) -> str:
    """Return JSON without `<`, so that no text in it can close the script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
