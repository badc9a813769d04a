"""The commands `%report` and `%reports` of notebooks: run the open one as a report, list the runs.

In the kernel of a report, where a notebook with such a cell is executed, both do nothing.
"""

from __future__ import annotations

import os
import shlex
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from IPython.core.error import UsageError
from IPython.display import DisplayHandle

from aico_lab.charts.figure import Html
from aico_lab.errors import AicoLabError, InvalidValue
from aico_lab.reports.records import SEALED
from aico_lab.runtime.report_kernel import is_report

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from aico_lab.reports.records import ReportRun

PAGES: Final = "AICO_LAB_PAGES"
"""The environment variable with the address at which `aico-lab lab` serves the home's reports."""

_OPEN: Final = "JPY_SESSION_NAME"
"""The environment variable with the path of the notebook for which Jupyter started the kernel."""

_LISTED: Final = 20
"""The largest number of runs that `%reports` lists."""

_NO_NOTEBOOK: Final = (
    "The open notebook is not known here: name one, as in `%report pattern_analysis`, or open "
    "JupyterLab with `aico-lab lab`."
)


def register(shell: InteractiveShell) -> None:
    """Add both commands to a shell."""
    for name, command in (("report", run_report), ("reports", list_runs)):
        shell.magics_manager.register_function(command, magic_name=name)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add both commands to the kernel of a report, where they do nothing."""
    register(shell)


def run_report(line: str) -> None:
    """Run a notebook as a report: `%report [NOTEBOOK] [NAME=VALUE ...]`.

    Without a name, the open notebook is run as it was last saved, with the values of its
    parameters cell. Each NAME=VALUE replaces one of them, as in `%report since=30d`.
    """
    if is_report():
        return
    from aico_lab.lab import Lab

    shown = DisplayHandle()  # type: ignore[no-untyped-call]
    shown.display(Html(""))  # type: ignore[no-untyped-call]

    def show(text: str) -> None:
        html = Html(f'<div class="mathjax_ignore">{text}</div>')
        shown.update(html)  # type: ignore[no-untyped-call]

    try:
        notebook, parameters = _arguments(line)
        name = escape(Path(notebook).stem)
        with Lab.open() as lab:
            result = lab.reports.run(
                notebook,
                parameters,
                on_cell=lambda done, total: show(f"{name}: {done} of {total} cells"),
            )
            run = lab.reports.show(result.notebook.parent.name)
    except AicoLabError as error:
        show("No page was made.")
        raise UsageError(str(error)) from None
    show(f"{name} took {result.seconds:.0f} s, on snapshot {run.generation}. {_link(run)}")


def list_runs(line: str) -> Html | None:
    """List the newest runs of all reports, or of one: `%reports [NAME]`."""
    if is_report():
        return None
    from aico_lab.lab import Lab

    try:
        with Lab.open() as lab:
            runs = lab.reports.list(line.strip() or None)
    except AicoLabError as error:
        raise UsageError(str(error)) from None
    if not runs:
        return Html("No report was run yet: <code>%report</code> runs the open notebook as one.")
    rows = "".join(map(_row, runs[:_LISTED]))
    more = f"<p>… and {len(runs) - _LISTED:,} older runs.</p>" if len(runs) > _LISTED else ""
    return Html(
        '<div class="mathjax_ignore" style="overflow-x: auto;"><table><thead><tr>'
        "<th>Started (UTC)</th><th>Report</th><th>Page</th>"
        "<th>Outcome</th><th>Snapshot</th><th>Parameters</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{more}</div>"
    )


def _arguments(line: str) -> tuple[str, dict[str, str]]:
    """Return the notebook to run, and the values of its parameters.

    Raises:
        InvalidValue: The line is not one of this command, or the open notebook is not known.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidValue(f"%report cannot read its line ({error}): close the quotes.") from None
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise InvalidValue(
            f"%report runs one notebook, and {names[1]!r} is a second word without '=': write "
            "%report [NOTEBOOK] [NAME=VALUE ...]."
        )
    parameters = dict(word.split("=", 1) for word in words if "=" in word)
    if names:
        return names[0], parameters
    opened = os.environ.get(_OPEN, "")
    if not opened.endswith(".ipynb"):
        raise InvalidValue(_NO_NOTEBOOK)
    if not Path(opened).is_file():
        raise InvalidValue(
            f"{Path(opened).name} is no longer where this kernel was started: save the notebook, "
            "and restart its kernel."
        )
    return opened, parameters


def _row(run: ReportRun) -> str:
    start = datetime.fromisoformat(run.started_at)
    given = ", ".join(f"{name}={value}" for name, value in run.parameters.items() if value)
    texts = (run.error or run.status, str(run.generation), given)
    cells = (f"{start:%Y-%m-%d %H:%M}", escape(run.report), _link(run), *map(escape, texts))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _link(run: ReportRun) -> str:
    """Return a link to the page of a run, or its path where no server of ours shows it."""
    if run.html is None or not run.html.is_file():
        return "removed" if run.status == "succeeded" else "none"
    if run.html.suffix == SEALED:
        return f"sealed: <code>aico-lab report open {escape(run.run_id)} --identity FILE</code>"
    address = os.environ.get(PAGES)
    if address is None:
        return f"<code>{escape(str(run.html))}</code>"
    path = f"{address}{run.report}/{run.run_id}/{run.html.name}"
    return f'<a href="{escape(path)}" target="_blank">Open the page</a>'
