"""`aico-lab report`: run notebooks as reports; list, open, compare and repeat the runs."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli import completion
from aico_lab.cli.common import (
    HomeOption,
    JsonOption,
    KeyFileOption,
    ParameterOption,
    open_lab,
    read_pairs,
)
from aico_lab.cli.output import Bar, emit, note, say

if TYPE_CHECKING:
    from aico_lab.lab import Lab
    from aico_lab.reports import RunResult

report = typer.Typer(
    help="Run notebooks as reports; list, open and compare the runs.", no_args_is_help=True
)

TimeoutOption = Annotated[
    float, typer.Option(min=1, help="The maximum duration of the run, in seconds.")
]
EncryptOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RECIPIENT",
        help="A recipient of age, who alone can open the report; repeatable.",
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The id of a run, the name of a report, for its newest run, latest, or previous.",
    ),
]
ComparedRun = "The id of a run, the name of a report, latest, previous, or a report.json."


@report.command("run")
def report_run(
    name: Annotated[
        str,
        typer.Argument(
            help="The name of a notebook, such as pattern_analysis, or the path of an .ipynb file.",
            autocompletion=completion.reports,
        ),
    ],
    *,
    parameter: ParameterOption = None,
    timeout: TimeoutOption = 600,
    encrypt: EncryptOption = None,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Run a notebook as a report.

    The executed notebook and an HTML page are stored in the home's reports folder.
    """
    from aico_lab.reports.lab_reports import find_notebook, is_own

    parameters = read_pairs(parameter)
    with open_lab(home, key_file) as lab, Bar("cells") as bar:
        if is_own(notebook := find_notebook(name, lab.home)):
            note(f"Notebook: {notebook}")
        result = lab.reports.run(
            name,
            parameters,
            timeout=timeout,
            encrypt=encrypt or (),
            on_cell=lambda done, all_: bar.show(notebook.stem, done, all_),
        )
        _show_result(lab, result, json=json)


@report.command("rerun")
def report_rerun(
    run: RunName,
    *,
    timeout: TimeoutOption = 600,
    encrypt: EncryptOption = None,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Run a report again, on the same days and snapshot.

    Notebook and parameters are the same, too. A snapshot that is not kept any more is replaced by
    the newest one.
    """
    with open_lab(home, key_file) as lab, Bar("cells") as bar:
        result = lab.reports.rerun(
            run,
            timeout=timeout,
            encrypt=encrypt or (),
            on_cell=lambda done, all_: bar.show(run, done, all_),
        )
        _show_result(lab, result, json=json)


def _show_result(lab: Lab, result: RunResult, *, json: bool) -> None:
    run_id = result.notebook.parent.name  # since another run may be newer
    last = next(run for run in lab.reports.list() if run.run_id == run_id)
    if json:
        emit(
            {
                "status": last.status,
                "notebook": result.notebook,
                "html": result.html,
                "json": result.json,
                "generation": last.generation,
                "seconds": result.seconds,
                "repeats": result.repeats,
                "notes": result.notes,
            }
        )
        return
    if result.repeats is not None:
        say(f"Repeats: {result.repeats}")
    for difference in result.notes:
        say(difference)
    say(f"Report: {result.html}")


@report.command("list")
def report_list(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """List the available reports and past runs."""
    from aico_lab.reports.lab_reports import is_own, notebooks

    with open_lab(home, key_file) as lab:
        runs, reports = lab.reports.list(), notebooks(lab.home)
    if json:
        emit({"reports": list(reports), "runs": runs})
        return
    say(f"Reports: {', '.join(reports)}")
    for notebook in filter(is_own, reports.values()):
        say(f"Your own: {notebook}")
    for run in runs:
        start = datetime.fromisoformat(run.started_at)
        say(
            f"{run.run_id}  {start:%Y-%m-%d %H:%M} UTC  {run.status:<11}  {run.report}  "
            f"snapshot {run.generation}"
        )


@report.command("show")
def report_show(
    name: RunName,
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show the parameters, the status and the page of a run."""
    with open_lab(home, key_file) as lab:
        run = lab.reports.show(name)
    facts = {
        "run": run.run_id,
        "report": run.report,
        "status": run.status,
        "started": run.started_at,
        "finished": run.finished_at,
        "snapshot": run.generation,
        "parameters": run.parameters,
        "repeats": run.repeats,
        "error": run.error,
        "html": run.html,
        "json": run.json,
    }
    if json:
        emit(facts)
        return
    for fact, value in facts.items():
        say(f"{fact:<12} {'' if value is None else value}")


@report.command("open")
def report_open(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="The id of a run, or the name of a report, for its newest run. By default the "
            "newest run of all.",
            show_default=False,
        ),
    ] = None,
    *,
    identity: Annotated[
        Path | None,
        typer.Option(help="The identity file of age of a recipient, for a sealed page."),
    ] = None,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Open the page of a run in the browser, and print its path.

    A sealed page is opened in a temporary folder, and removed when you press Enter.
    """
    from aico_lab.reports.browser import open_page
    from aico_lab.reports.sealing import opened_page

    with open_lab(home, key_file) as lab:
        found = lab.reports.find_page(run)
    with opened_page(found, identity) as page:
        is_open = open_page(page)
        if json:
            emit({"html": page, "opened": is_open})
        else:
            say(str(page))
        if not is_open:
            note("No browser could be started here: open the file yourself.")
        if page != found:
            note("Press Enter when you have read it: the decrypted page is removed then.")
            sys.stdin.readline()


@report.command("diff")
def report_diff(
    first: Annotated[str, typer.Argument(help=ComparedRun)],
    second: Annotated[str, typer.Argument(help="The same, of the report to compare with it.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show what changed in the figures from one report to another.

    Where the periods do not overlap, the difference of two values with intervals is compared with
    what the intervals allow.
    """
    with open_lab(home, key_file) as lab:
        diff = lab.reports.diff(first, second)
    if json:
        emit(diff)
    else:
        say(repr(diff))
