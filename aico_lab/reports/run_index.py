"""`reports/index.html`: the list of all runs, with links to their pages.

Every run writes it anew from the database, which holds a summary of each report. So the page needs
neither the network nor a script, and to write it takes no longer than to look for each page.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aico_lab.errors import AicoLabError, HomeNotWritable
from aico_lab.home.files import held, os_errors, private_files, write_atomically
from aico_lab.metrics.engine.claims import counted, isolated
from aico_lab.metrics.engine.durations import duration
from aico_lab.reports.records import (
    INDEX,
    SEALED,
    UP_TO_THERE,
    page_of,
    read_runs,
    read_summaries,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.reports.records import ReportRun

_LOCK: Final = ".index.lock"

_WAITING: Final = 10
"""Seconds to wait for another run that is writing the page."""

_STYLE: Final = Path(__file__).with_name("run_index.css").read_text(encoding="utf-8")

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Reports</title>
<style>{style}</style>
</head>
<body>
<h1>Reports</h1>
<p>{said}</p>
{table}
</body>
</html>
"""

_SUMMARY: Final = ("about", "headline")

_HEADS: Final = ("Started (UTC)", "Report", "State", "Took", "Contents")


def write_index(connection: Connection, home: Home) -> None:
    """Write the list of all runs; leave the old one where that fails, since no run depends on it.

    Args:
        connection: The primary database.
        home: The lab's folder.
    """
    busy = HomeNotWritable("Another run is writing the list of reports.")
    with (
        contextlib.suppress(AicoLabError),
        private_files(),
        os_errors(home.reports),
        # Else a run that reads the database earlier might write its list later.
        held(home.reports / _LOCK, _WAITING, lambda _holder: busy),
    ):
        page = _page(home, read_runs(connection), read_summaries(connection))
        write_atomically(home.reports / INDEX, page.encode())


def _page(home: Home, runs: list[ReportRun], summaries: Mapping[str, Mapping[str, str]]) -> str:
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    rows = "\n".join(_row(home, run, summaries.get(run.run_id, {})) for run in runs)
    table = f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    said = f"{counted(len(runs), 'runs')}, the newest first." if runs else "There are no runs yet."
    return _PAGE.format(policy=_POLICY, style=_STYLE, said=said, table=table if runs else "")


def _row(home: Home, run: ReportRun, summary: Mapping[str, str]) -> str:
    page = page_of(home, run)
    title = escape(run.report.replace("_", " "))
    if page.suffix == SEALED:
        contents = ["sealed"]  # as an error may be, too
    elif not page.parent.is_dir() or (run.status == "succeeded" and not page.is_file()):
        contents = ["removed"]
    else:
        contents = [escape(isolated(summary[name])) for name in _SUMMARY if summary.get(name)]
        if page.is_file():
            title = f'<a href="{_link(home, page)}">{title}</a>'
        contents += _failure(home, run, page.with_suffix(".ipynb"))
    repeats = f"<small>repeats {escape(run.repeats)}</small>" if run.repeats else ""
    first, *others = contents or [""]
    return (
        f'<tr><td class="when">{run.started_at[:16].replace("T", " ")}</td>'
        f'<td class="report">{title}<small>{escape(run.run_id)}</small>'
        f"<small>snapshot {run.generation}</small>{repeats}</td>"
        f'<td class="state {run.status}">{run.status}</td><td class="took">{_took(run)}</td>'
        f'<td class="found">{first}{"".join(f"<small>{one}</small>" for one in others)}</td></tr>'
    )


def _failure(home: Home, run: ReportRun, partial: Path) -> Iterator[str]:
    """Yield the reason of a failure, and a link to the partial notebook if it is there."""
    if run.error is None:
        return
    told = run.error.partition(UP_TO_THERE)[0]  # without the path, for which there is a link
    yield f'<span class="error">{escape(isolated(told))}</span>'
    if partial.is_file():
        yield f'<a href="{_link(home, partial)}">the notebook up to there</a>'


def _link(home: Home, file: Path) -> str:
    """Return the address of a file relative to the list; its first folder may contain a colon."""
    return escape(f"./{quote(file.relative_to(home.reports).as_posix())}")


def _took(run: ReportRun) -> str:
    if run.finished_at is None:
        return ""
    ended, began = map(datetime.fromisoformat, (run.finished_at, run.started_at))
    return duration(round((ended - began).total_seconds()))
