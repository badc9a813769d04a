"""`aico-lab report`: run notebooks as reports, and list the runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

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

report = typer.Typer(help="Run notebooks as reports, and list the runs.", no_args_is_help=True)


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
    timeout: Annotated[
        float, typer.Option(min=1, help="The maximum duration of the run, in seconds.")
    ] = 600,
    encrypt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RECIPIENT",
            help="A recipient of age, who alone can open the report; repeatable.",
        ),
    ] = None,
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
        run_id = result.notebook.parent.name  # since another run may be newer
        last = next(run for run in lab.reports.list(notebook.stem) if run.run_id == run_id)
    if json:
        emit(
            {
                "status": last.status,
                "notebook": result.notebook,
                "html": result.html,
                "generation": last.generation,
                "seconds": result.seconds,
            }
        )
    else:
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
    name: Annotated[
        str, typer.Argument(help="The name of a report, for its newest run; or the id of a run.")
    ],
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
        "error": run.error,
        "html": run.html,
    }
    if json:
        emit(facts)
        return
    for fact, value in facts.items():
        say(f"{fact:<12} {'' if value is None else value}")
