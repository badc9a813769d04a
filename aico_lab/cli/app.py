"""The commands. What is slow to import is imported by the command that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli.output import Bar, emit, say

if TYPE_CHECKING:
    from aico_lab.keys import Protection
    from aico_lab.lab import Lab

app = typer.Typer(
    help="Study conversations with a local-first AI companion.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
report = typer.Typer(help="Run notebooks as reports.", no_args_is_help=True)
app.add_typer(report, name="report")
pipeline = typer.Typer(help="Run several steps as one job.", no_args_is_help=True)
app.add_typer(pipeline, name="pipeline")

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The lab's folder; else AICO_LAB_HOME, else the usual one."),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(help="The key file; else AICO_LAB_KEY_FILE, else the home's usual one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]

DEMO_HOME = "aico-lab-demo"


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Study conversations with a local-first AI companion."""
    del debug  # read by main(), so that it may stand anywhere


@app.command()
def demo(
    *,
    home: HomeOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many messages, for a quick look.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Import real conversations, analyse them, and write a report."""
    from aico_lab.cli.demo import run_demo
    from aico_lab.errors import HomeMissing
    from aico_lab.lab import Lab

    try:
        lab = Lab.open(home, passphrase=_ask(home, DEMO_HOME), default_home=DEMO_HOME)
    except HomeMissing:
        lab = Lab.create(home, default_home=DEMO_HOME)
    with lab:
        run_demo(lab, limit=limit, json=json)


@app.command()
def init(
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Protect the home by a passphrase.")
    ] = False,
    no_encryption: Annotated[
        bool, typer.Option("--no-encryption", help="Leave every database in plain text.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Create a home: an encrypted database and the key that opens it."""
    from aico_lab.config import Settings, usual_key_file
    from aico_lab.errors import InvalidValue
    from aico_lab.lab import Lab

    if sum((passphrase, no_encryption, key_file is not None)) > 1:
        raise InvalidValue("Give only one of --passphrase, --key-file and --no-encryption.")
    secret = None
    if passphrase:
        secret = Settings.resolve().passphrase or typer.prompt(
            "Passphrase", hide_input=True, confirmation_prompt=True, err=True
        )
    protection: Protection = "passphrase" if passphrase else "none" if no_encryption else "key-file"
    with Lab.create(home, protection=protection, key_file=key_file, passphrase=secret) as lab:
        file = str(key_file or usual_key_file(lab.home_id)) if protection == "key-file" else None
        result = {"home": str(lab.home.path), "protection": protection, "key_file": file}
    if json:
        emit(result)
        return
    say(f"Created {result['home']}.")
    if file:
        say(f"Its key is {file}: back it up, without it nobody can read the home.")
    elif secret:
        say("Without the passphrase nobody can read the home.")
    else:
        say("Nothing in it is encrypted.")


@app.command(name="import")
def import_(
    source: Annotated[str, typer.Argument(help="chitchat, jsonl or csv")],
    path: Annotated[Path | None, typer.Argument(help="The file, for jsonl and csv.")] = None,
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many messages.")] = None,
    json: JsonOption = False,
) -> None:
    """Add the messages of a file or a data set; the same ones twice add nothing."""
    from aico_lab.cli.imports import import_with_progress

    with _open(home, key_file) as lab:
        result = import_with_progress(lab, source, path, limit=limit)
    if json:
        emit(result)
    else:
        say(f"{result.added:,} messages added, {result.known:,} were there already.")
    if result.read == 0 and result.rejected:
        raise typer.Exit(1)


@app.command()
def sync(
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    full: Annotated[bool, typer.Option("--full", help="Read every table whole.")] = False,
    json: JsonOption = False,
) -> None:
    """Bring the warehouse up to date and publish a snapshot of it."""
    with _open(home, key_file) as lab, Bar("rows") as bar:
        result = lab.sync(full=full, progress=bar.show)
    if json:
        emit(result)
        return
    if result.mode == "nothing":
        say(f"Nothing changed; snapshot {result.generation} is up to date.")
        return
    say(
        f"Snapshot {result.generation}: {sum(result.rows.values()):,} rows written, "
        f"{sum(result.deleted.values()):,} removed, in {result.seconds:.1f} s."
    )
    if misfits := sum(result.quarantined.values()):
        say(f"{misfits:,} rows do not fit: see `aico-lab sql 'FROM quarantine.misfits'`.")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="DuckDB's SQL, on the newest snapshot.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    timezone: Annotated[str, typer.Option(help="IANA name, for days and hours.")] = "UTC",
    json: JsonOption = False,
) -> None:
    """Ask the newest snapshot."""
    from aico_lab.adapters.duckdb import translated

    with _open(home, key_file, timezone=timezone) as lab:
        relation = lab.sql(query)
        if relation is None:  # a statement without a result, such as SET
            say("[]" if json else "Done.")
            return
        with translated("The snapshot"):
            if json:
                emit([dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()])
            else:
                say(str(relation))


@app.command()
def info(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Show versions, sizes, row counts and how far the warehouse has come."""
    from aico_lab.health import describe

    with _open(home, key_file) as lab:
        facts = describe(lab)
    if json:
        emit(facts)
        return
    for section, values in facts.items():
        say(section)
        for name, value in values.items():
            say(f"  {name:<24} {value:,}" if isinstance(value, int) else f"  {name:<24} {value}")


@app.command()
def doctor(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Check the home, its key, every store and what reads them."""
    from aico_lab.config import Settings
    from aico_lab.health import diagnose

    settings = Settings.resolve(home=home, key_file=key_file)
    findings = diagnose(settings)
    if json:
        emit(findings)
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check:<22} {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@report.command("run")
def report_run(
    name: Annotated[str, typer.Argument(help="A notebook, such as pattern_analysis.")],
    *,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, as often as needed.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which it stops.")] = 600,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Execute a notebook and write it, with one HTML file, into the home's reports."""
    from aico_lab.errors import InvalidValue

    parameters: dict[str, object] = {}
    for pair in parameter or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidValue(f"-p takes NAME=VALUE, and {pair!r} has no '='.")
        parameters[key.strip()] = value
    with _open(home, key_file) as lab, Bar("cells") as bar:
        result = lab.run_report(
            name,
            parameters,
            timeout=timeout,
            on_cell=lambda done, all_: bar.show(name, done, all_),
        )
        last = lab.report_runs(name)[0]
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
    """Show the reports that can be run and the runs there were."""
    from aico_lab.reports.runs import notebooks

    with _open(home, key_file) as lab:
        runs = lab.report_runs()
    if json:
        emit({"reports": list(notebooks()), "runs": runs})
        return
    say(f"Reports: {', '.join(notebooks())}")
    for run in runs:
        say(f"{run.run_id}  {run.status:<9}  {run.report}  snapshot {run.generation}")


@report.command("show")
def report_show(
    name: Annotated[str, typer.Argument(help="A report, or the name of one of its runs.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show a run of a report, the newest by default: its parameters, its end, its files."""
    from aico_lab.errors import UnknownName

    with _open(home, key_file) as lab:
        runs = [run for run in lab.report_runs() if name in (run.report, run.run_id)]
        if not runs:
            raise UnknownName(f"Nothing named {name!r} ran yet: see `aico-lab report list`.")
        run, html = runs[0], lab.report_file(runs[0])
    facts = {
        "run": run.run_id,
        "report": run.report,
        "status": run.status,
        "started": run.started_at,
        "finished": run.finished_at,
        "snapshot": run.generation,
        "parameters": run.parameters,
        "error": run.error,
        "html": html,
    }
    if json:
        emit(facts)
        return
    for fact, value in facts.items():
        say(f"{fact:<12} {'' if value is None else value}")


@pipeline.command("run")
def pipeline_run(
    name: Annotated[str, typer.Argument(help="A pipeline of the package, or a .toml file.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Run the steps of a pipeline; the first that fails ends it."""
    from aico_lab.pipeline import load_pipeline, run_pipeline

    steps = load_pipeline(name)
    with _open(home, key_file) as lab, Bar("steps") as bar:
        results = run_pipeline(lab, steps, on_step=bar.show)
    if json:
        emit(results)
        return
    for result in results:
        say(f"{result.run:<8} done in {result.seconds:.1f} s")


@pipeline.command("list")
def pipeline_list(*, json: JsonOption = False) -> None:
    """Show the pipelines that come with the package."""
    from aico_lab.pipeline import load_pipeline
    from aico_lab.shipped import shipped

    pipelines = {name: load_pipeline(name) for name in shipped("pipelines", ".toml")}
    if json:
        emit(pipelines)
        return
    for name, steps in pipelines.items():
        say(f"{name:<12} {steps.description}")


bench = typer.Typer(help="Compare with the best peers on the same data.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("etl")
def bench_etl(
    *,
    rows: Annotated[
        int, typer.Option(min=1000, help="Messages, repeated from real ones.")
    ] = 250_000,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each; medians are quoted.")] = 3,
    json: JsonOption = False,
) -> None:
    """Time loading the warehouse, and peers doing the same job in plain text."""
    from aico_lab.bench.etl import run_bench

    with Bar("runs") as bar:
        outcome = run_bench(rows, repeat, bar.show)
    if json:
        emit(outcome)
    else:
        say(outcome.describe())


def _open(home: Path | None, key_file: Path | None, *, timezone: str = "UTC") -> Lab:
    from aico_lab.lab import Lab

    return Lab.open(home, key_file=key_file, passphrase=_ask(home), timezone=timezone)


def _ask(home: Path | None, default_home: str = "aico-lab") -> str | None:
    """Ask for the passphrase of a home that needs one, where somebody is there to answer."""
    import sys

    from aico_lab.config import Settings
    from aico_lab.home import Home
    from aico_lab.keys import protection_of

    settings = Settings.resolve(home=home, default_home=default_home)
    if settings.passphrase or not sys.stdin.isatty() or not Home(settings.home).marker.exists():
        return settings.passphrase
    if protection_of(Home(settings.home).read_marker()) != "passphrase":
        return None
    return str(typer.prompt("Passphrase", hide_input=True, err=True))
