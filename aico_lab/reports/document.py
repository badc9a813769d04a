"""`report.json`: the figures, findings and tables of a report, for other programs.

A notebook's outputs carry these data in their metadata, next to the HTML that shows them, so that
the page and the file have one source, and nothing is computed for the file. The data lose secrets
with the outputs, before they are collected. The format is described in the README.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import WrongUse
from aico_lab.metrics.engine.metric import N
from aico_lab.results import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import nbformat

    from aico_lab.embeddings.exploration.views import View
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.reports.first_screen import Tile

NAME: Final = "report.json"

FORMAT: Final = 1
"""The version of the format: the number changes when a name is removed or changes its meaning."""

KEY: Final = "aico_lab"
"""The name of the data in the metadata of an output, below `text/html`."""

_PACKAGES: Final = ("aico-lab", "altair", "duckdb", "ibis-framework", "polars", "scipy")

_HEADLINE: Final = 3
"""The number of figures in a summary."""


@dataclass(frozen=True)
class ReportFacts:
    """The facts about a run that its outputs do not contain.

    Attributes:
        run_id: The id of the run.
        report: The name of the notebook.
        notebook_sha256: The digest of the notebook.
        started_at: The start, in UTC, ISO 8601.
        generation: The generation of the snapshot.
        given: The parameters that were given.
        resolved: All parameters, without periods that count back from another day.
        repeats: The id of the run that this one repeats; None for none.
    """

    run_id: str
    report: str
    notebook_sha256: str
    started_at: str
    generation: int
    given: Mapping[str, object]
    resolved: Mapping[str, object]
    repeats: str | None = None


def marked(part: str, data: object) -> dict[str, Any]:
    """Return data of a part of a report, as the metadata of the HTML that shows it.

    Args:
        part: 'data', 'figures', 'answer' or 'left_out'.
        data: The data; of 'answer' one, or a list.
    """
    return {KEY: {part: json.loads(json_text(data))}}


def of_tiles(shown: Sequence[Tile]) -> dict[str, Any]:
    """Return figures without those of a period before, as the metadata of their HTML."""
    return marked("figures", {"tiles": [of_tile(tile, None) for tile in shown], "note": ""})


def of_tile(tile: Tile, before: Tile | None) -> dict[str, Any]:
    """Return the data of a figure, and of the same figure of the period before."""
    return {
        "key": re.sub(r"\W+", "_", tile.key or tile.label),
        "label": tile.label,
        **_figure(tile),
        "before": None if before is None else _figure(before),
    }


def _figure(tile: Tile) -> dict[str, Any]:
    return {
        "text": tile.value,
        "value": None if tile.value is None else tile.number,
        "unit": tile.unit,
        "interval": None if tile.value is None else tile.interval,
        "n": tile.n,
        "note": f"{tile.more}{tile.also}",
    }


def of_answer(answer: Answer, section: str) -> dict[str, Any]:
    """Return the finding, the estimates and the rows of an answer.

    Args:
        answer: The answer.
        section: The heading of its section.
    """
    metric = answer.metric
    usual = {one.name: one.default for one in metric.parameters}
    chosen = {name: one for name, one in answer.parameters.items() if one != usual[name]}
    chosen.pop("names", None)  # the same question
    told = ",".join(f"{name}={value}" for name, value in chosen.items())
    return {
        "key": f"{metric.name}({told})" if told else metric.name,
        "section": section,
        "question": metric.question,
        "sentence": answer.finding,
        "caption": answer.caption,
        "parameters": answer.parameters,
        "estimates": list(_estimates(answer)),
        "columns": [
            {"name": one.name, "type": one.type, "unit": one.unit, "meaning": one.meaning}
            for one in metric.columns
        ],
        "rows": answer.pl().rows(),
    }


def _estimates(answer: Answer) -> Iterator[dict[str, Any]]:
    """Yield the values with intervals, of answers whose rows are no course over time.

    The columns before the number of observations say what a row is about.
    """
    columns = {one.name: one for one in answer.metric.columns}
    about = list(columns)[: list(columns).index(N)]
    if any(columns[name].type == "date" for name in about):
        return
    about = [name for name in about if columns[name].type != "number"]
    for row in answer.pl().iter_rows(named=True):
        for name, column in columns.items():
            if f"{name}_low" in columns:
                yield {
                    "name": name,
                    "of": {one: row[one] for one in about},
                    "meaning": column.meaning,
                    "value": row[name],
                    "unit": column.unit,
                    "interval": _interval(row[f"{name}_low"], row[f"{name}_high"]),
                    "n": row[N],
                }


def _interval(low: float | None, high: float | None) -> list[float] | None:
    return None if low is None or high is None else [low, high]


def of_view(view: View, section: str) -> dict[str, Any]:
    """Return the finding and the displayed columns of a result of an exploration.

    Args:
        view: The result.
        section: The heading of its section.
    """
    rows = view.pl()
    rows = rows.select(name for name in view.headings if name in rows.columns)
    return {
        "key": _key(view.question),
        "section": section,
        "question": view.question,
        "sentence": view.finding,
        "caption": view.caption,
        "parameters": {},
        "estimates": [],
        "columns": [
            {"name": name, "type": _type(dtype), "unit": "", "meaning": view.headings[name]}
            for name, dtype in rows.schema.items()
        ],
        "rows": rows.rows(),
    }


def of_section(
    heading: str,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[object]],
    *,
    name: str | None = None,
    sentence: str = "",
) -> dict[str, Any]:
    """Return the sentence and the rows of a section that is not an answer of a metric.

    Args:
        heading: The heading of the section.
        columns: The types of the columns, by name.
        rows: The values of each row, in the order of the columns.
        name: The name of the table; by default the heading.
        sentence: The sentence above the rows; empty for none.
    """
    return {
        "key": _key(name or heading),
        "section": heading,
        "question": "",
        "sentence": sentence,
        "caption": "",
        "parameters": {},
        "estimates": [],
        "columns": [
            {"name": column, "type": kind, "unit": "", "meaning": column}
            for column, kind in columns.items()
        ],
        "rows": [list(row) for row in rows],
    }


def _key(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower()).strip("_")


def _type(dtype: Any) -> str:
    if dtype.is_integer():
        return "integer"
    return "number" if dtype.is_numeric() else str(dtype).lower().replace("string", "text")


def collected(
    node: nbformat.NotebookNode, facts: ReportFacts, *, seconds: float, error: str | None
) -> dict[str, Any]:
    """Return the content of `report.json`.

    Args:
        node: The executed notebook, without secrets.
        facts: The facts about its run.
        seconds: The duration of the run in seconds.
        error: The reason of a failure; None for none.
    """
    parts: dict[str, list[Any]] = {"data": [], "figures": [], "answer": [], "left_out": []}
    for cell in node.cells:
        for output in cell.get("outputs", []):
            found = output.get("metadata", {}).get("text/html", {})
            found = found.get(KEY) if isinstance(found, dict) else None
            for part, value in found.items() if isinstance(found, dict) else ():
                if part in parts:
                    parts[part].append(value)
    listed = (one if isinstance(one, list) else [one] for one in parts["answer"])
    answers = _with_own_keys([answer for part in listed for answer in part])
    finding = ("key", "section", "question", "sentence", "caption", "parameters", "estimates")
    table = ("key", "columns", "rows")
    figures = parts["figures"][0] if parts["figures"] else {"tiles": [], "note": ""}
    return {
        "format": FORMAT,
        "run": {
            "id": facts.run_id,
            "report": facts.report,
            "status": "succeeded" if error is None else "failed",
            "error": error,
            "started_at": facts.started_at,
            "seconds": round(seconds, 3),
            "repeats": facts.repeats,
        },
        "notebook": {"name": f"{facts.report}.ipynb", "sha256": facts.notebook_sha256},
        "parameters": {"given": dict(facts.given), "resolved": dict(facts.resolved)},
        "snapshot": facts.generation,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        "data": parts["data"][0] if parts["data"] else None,
        "tiles": figures["tiles"],
        "tiles_note": figures["note"],
        "findings": [{name: one[name] for name in finding} for one in answers],
        "tables": [{name: one[name] for name in table} for one in answers],
        "left_out": [one for listed in parts["left_out"] for one in listed],
    }


def _with_own_keys(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers, with numbered keys where a notebook shows the same question again."""
    seen: dict[str, int] = {}
    made = []
    for answer in answers:
        number = seen[answer["key"]] = seen.get(answer["key"], 0) + 1
        made.append(answer if number == 1 else answer | {"key": f"{answer['key']}#{number}"})
    return made


def read_document(path: Path) -> dict[str, Any]:
    """Return the content of a `report.json`.

    Raises:
        WrongUse: The file cannot be read, or is not of this format.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise WrongUse(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, RecursionError) as error:
        raise WrongUse(f"{path} is not the {NAME} of a report: it is not JSON.") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise WrongUse(f"{path} is not the {NAME} of a report: it has no “format”.")
    if content["format"] != FORMAT:
        raise WrongUse(
            f"{path} has format {content['format']}, and this version of aico_lab reads {FORMAT}: "
            "use the version that wrote it."
        )
    return content


def summary(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what a list of runs shows of a report: whose conversations, when, and how many."""
    data = document["data"]
    figures = [one for one in document["tiles"] if one["text"] is not None][:_HEADLINE]
    return {
        "about": "" if data is None else data["about"],
        "headline": ", ".join(f"{one['text']} {one['label']}" for one in figures),
    }


def utc(ms: int | None) -> str | None:
    """Return a moment in UTC milliseconds as ISO 8601; None for None or a year after 9999."""
    try:
        return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()
    except (OverflowError, ValueError):
        return None
