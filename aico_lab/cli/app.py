"""The commands of `aico-lab`; each imports its slow dependencies when it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from typer.core import TyperGroup

from aico_lab.cli.backup import backup, restore
from aico_lab.cli.bench import bench
from aico_lab.cli.cache import cache
from aico_lab.cli.common import (
    HomeOption,
    JsonOption,
    KeyFileOption,
    ask_passphrase,
    needs_passphrase,
    new_passphrase,
    open_lab,
)
from aico_lab.cli.device import device
from aico_lab.cli.export import export
from aico_lab.cli.federate import federate
from aico_lab.cli.forget import forget
from aico_lab.cli.import_command import import_, sources
from aico_lab.cli.index import index
from aico_lab.cli.keyring import keyring
from aico_lab.cli.keys import keys
from aico_lab.cli.knowledge import knowledge
from aico_lab.cli.lab import open_jupyterlab
from aico_lab.cli.metrics import metrics
from aico_lab.cli.output import Bar, emit, note, say
from aico_lab.cli.personality import personality
from aico_lab.cli.pipeline import pipeline
from aico_lab.cli.report import report
from aico_lab.cli.schedule import schedule
from aico_lab.cli.schema import schema
from aico_lab.cli.search import search
from aico_lab.cli.sql import sql

if TYPE_CHECKING:
    from aico_lab.etl.sync import SyncResult
    from aico_lab.etl.verify import TableProof
    from aico_lab.home.credentials import Protection

ORDER: Final = (
    "demo",
    "init",
    "import",
    "sync",
    "sql",
    "search",
    "metrics",
    "report",
    "lab",
    "sources",
    "load",
    "index",
    "knowledge",
    "personality",
    "pipeline",
    "schedule",
    "device",
    "federate",
    "keys",
    "keyring",
    "export",
    "backup",
    "restore",
    "rescore",
    "forget",
    "info",
    "doctor",
    "cache",
    "verify",
    "schema",
    "bench",
)
"""The commands as a new user needs them: first steps, answers, further data, then care."""


class OrderedCommands(TyperGroup):
    """Lists the commands in the order of `ORDER`; Typer would list all groups last."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: D102
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=OrderedCommands,
    help="Study conversations with a local-first AI companion.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(report, name="report")
app.add_typer(schema, name="schema")
app.add_typer(pipeline, name="pipeline")
app.add_typer(schedule, name="schedule")
app.add_typer(keys, name="keys")
app.add_typer(keyring, name="keyring")
app.add_typer(bench, name="bench")
app.add_typer(cache, name="cache")
app.add_typer(metrics, name="metrics")
app.add_typer(knowledge, name="knowledge")
app.add_typer(personality, name="personality")
app.add_typer(device, name="device")
app.add_typer(federate, name="federate")
app.command("lab")(open_jupyterlab)
app.command("sql")(sql)
app.command("search")(search)
app.command("import")(import_)
app.command("sources")(sources)
app.command("index")(index)
app.command("export")(export)
app.command("backup")(backup)
app.command("restore")(restore)
app.command("forget")(forget)

DEMO_HOME = "aico-lab-demo"
PERSONALITY_HOME = "aico-lab-demo-personality"


def _say_version(wanted: bool) -> None:  # noqa: FBT001 - as Typer calls it
    from aico_lab import __version__

    if wanted:
        say(f"aico-lab {__version__}")
        raise typer.Exit


def _dump_no_memory() -> None:
    """Let no crash write the memory of this process, or of its children, to disk: it has keys."""
    try:
        import resource
    except ImportError:  # as on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
) -> None:
    """Study conversations with a local-first AI companion."""
    del version, debug  # handled by the callback, and by main() wherever the option stands
    os.umask(0o077)  # for files that libraries, kernels and servers create at any time
    _dump_no_memory()


@app.command()
def demo(
    *,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home", help="The demo's home; by default a folder of its own, not AICO_LAB_HOME."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The maximum number of messages to import.")
    ] = None,
    personality: Annotated[
        bool,
        typer.Option(
            "--personality",
            help="Simulate conversations for the tuning of a personality instead, in a home of "
            "their own.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Import real conversations, analyse them, and write a report."""
    from aico_lab.cli.demo import run_demo, run_personality_demo
    from aico_lab.config import Settings, usual_home
    from aico_lab.errors import HomeMissing, WrongUse
    from aico_lab.lab import Lab

    # Ignore the home of the environment: the demo's messages would mix with the user's own. Ignore
    # its passphrase too, unless the demo's home is protected by one.
    if personality and limit is not None:
        raise WrongUse("--limit is for real conversations, and --personality simulates others.")
    folder = home or usual_home(PERSONALITY_HOME if personality else DEMO_HOME)
    try:
        needed = needs_passphrase(Settings.resolve(home=folder))
        secret = ask_passphrase(folder) if needed else ""
        lab = Lab.open(folder, passphrase=secret)
    except HomeMissing:
        lab = Lab.create(folder, passphrase="")
    with lab:
        if personality:
            run_personality_demo(lab, json=json)
        else:
            run_demo(lab, limit=limit, json=json)


@app.command()
def init(
    *,
    home: HomeOption = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="The home's key file, created if it does not exist; by default AICO_LAB_KEY_FILE, "
            "or else a file in the platform's configuration folder."
        ),
    ] = None,
    passphrase: Annotated[
        bool,
        typer.Option("--passphrase", help="Protect the home by a passphrase, not by a key file."),
    ] = False,
    no_encryption: Annotated[
        bool, typer.Option("--no-encryption", help="Do not encrypt the databases.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Create a home: an encrypted database and its key."""
    from aico_lab.config import Settings, usual_key_file
    from aico_lab.errors import InvalidValue
    from aico_lab.home.folder import Home
    from aico_lab.lab import Lab

    if sum((passphrase, no_encryption, key_file is not None)) > 1:
        raise InvalidValue("Use only one of --passphrase, --key-file and --no-encryption.")
    secret = None
    if passphrase:
        settings = Settings.resolve(home=home)
        Home(settings.home).refuse_lab()
        secret = settings.passphrase or new_passphrase()
    protection: Protection = "passphrase" if passphrase else "none" if no_encryption else "key-file"
    named = Settings.resolve(key_file=key_file).key_file
    with Lab.create(home, protection=protection, key_file=key_file, passphrase=secret) as lab:
        file = str(named or usual_key_file(lab.home_id)) if protection == "key-file" else None
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
        say("Its databases are not encrypted.")
        return
    say("`aico-lab keys add recovery` prints a recovery key, in case it is lost.")


@app.command()
def sync(
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    only: Annotated[
        Literal["warehouse", "vectors", "cache"] | None,
        typer.Option(help="The only store to bring up to date."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read all tables completely, and rebuild damaged files.")
    ] = False,
    on_change: Annotated[
        Literal["evolve", "freeze", "ignore"] | None,
        typer.Option(
            help="The treatment of a table, column or type that the database lost: evolve drops it "
            "from the warehouse, ignore keeps it, freeze leaves its table unchanged. By default "
            "the sync stops."
        ),
    ] = None,
    acknowledge: Annotated[
        bool,
        typer.Option(
            "--acknowledge", help="Accept rows that ceased to fit without a recorded change."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring the warehouse up to date and publish a snapshot of it."""
    from aico_lab.cli.import_results import note_unexplained

    if only in ("vectors", "cache"):
        from aico_lab.errors import InvalidValue

        if on_change or acknowledge:
            raise InvalidValue(f"--on-change and --acknowledge mean nothing with --only {only}.")
        _sync_beside(only, home, key_file, full=full, json=json)
        return
    with open_lab(home, key_file) as lab, Bar("rows") as bar:
        result = lab.sync(
            only="warehouse" if only else None,
            full=full,
            on_change=on_change,
            acknowledge=acknowledge,
            progress=bar.show,
        )
    note_unexplained(result)
    if json:
        emit(result)
    else:
        _say_synced(result)
    for problem in result.problems:
        note(problem)
    if result.problems or result.unexplained:
        raise typer.Exit(1)


def _sync_beside(
    store: str, home: Path | None, key_file: Path | None, *, full: bool, json: bool
) -> None:
    """Bring the vectors or the cache up to date, and print the result."""
    with open_lab(home, key_file) as lab, Bar("texts") as bar:
        done = (
            lab.sync_vectors(full=full, progress=bar.show)
            if store == "vectors"
            else lab.sync_cache(full=full)
        )
    if json:
        emit(done)
    elif done.mode == "nothing":
        say(f"Nothing changed; the {store} {'is' if store == 'cache' else 'are'} up to date.")
    else:
        if done.rebuilt:
            was = "was" if store == "cache" else "were"
            say(f"The {store} {was} damaged and {was} rebuilt.")
        say(
            f"{store.capitalize()}: {done.written:,} entries written, {done.deleted:,} removed, "
            f"in {done.seconds:.1f} s."
        )


def _say_synced(result: SyncResult) -> None:
    if result.mode == "nothing":
        say(f"Nothing changed; snapshot {result.generation} is up to date.")
        return
    if result.rebuilt:
        say(
            "The warehouse was damaged and was rebuilt; "
            "run `aico-lab load` again for tables of other files."
        )
    say(
        f"Snapshot {result.generation}: {sum(result.rows.values()):,} rows written, "
        f"{sum(result.deleted.values()):,} removed, in {result.seconds:.1f} s."
    )
    if misfits := sum(result.quarantined.values()):
        say(f"{misfits:,} rows do not fit: see `aico-lab sql 'FROM quarantine.misfits'`.")


@app.command()
def rescore(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Score messages that have no score, or an outdated one.

    Scores that were imported stay.
    """
    with open_lab(home, key_file) as lab, Bar("messages") as bar:
        result = lab.rescore(progress=bar.show)
    if json:
        emit(result)
    elif not result.rescored:
        say("All scores are up to date.")
    else:
        say(
            f"{result.rescored:,} messages rescored, {result.unscored:,} of them without a "
            "score now, because they are in another language; run `aico-lab sync` next."
        )


@app.command()
def verify(
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Check also every page of the database against its seal, and read every store.",
        ),
    ] = False,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="With --deep: seal the database as it is now, whatever was changed in it, and "
            "record that.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare every value of a snapshot with the primary database.

    The newest snapshot is compared; differences are listed.
    """
    if deep or accept:
        _verify_deep(home, key_file, deep=deep, accept=accept, json=json)
        return
    with open_lab(home, key_file) as lab, Bar("tables") as bar:
        proof = lab.verify(progress=bar.show)
    if json:
        emit(proof)
    else:
        _say_compared(proof.tables)
        say(f"Snapshot {proof.generation} {'equals' if proof.ok else 'DIFFERS from'} the database.")
    if not proof.ok:
        raise typer.Exit(1)


def _say_compared(tables: dict[str, TableProof]) -> None:
    from aico_lab.adapters.sql_text import shown

    for table, one in tables.items():
        say(f"{'ok  ' if one.ok else 'FAIL'} {shown(table):<24} {one.describe()}")
        for difference in one.differences:
            say(f"       {difference.describe()}")


def _verify_deep(
    home: Path | None, key_file: Path | None, *, deep: bool, accept: bool, json: bool
) -> None:
    """Check everything, or seal the database as it is; print the result."""
    from aico_lab.deep_verify import verify_deep
    from aico_lab.errors import InvalidValue
    from aico_lab.integrity.guard import reseal

    if not deep:
        raise InvalidValue("--accept needs --deep: look first at what `verify --deep` says.")
    with open_lab(home, key_file) as lab, Bar("tables") as bar:
        if accept:
            if not lab.encrypted:
                raise InvalidValue("This home has no key, and so no seal: nothing is to accept.")
            reseal(lab.storage, "accepted by a person")
            if json:
                emit({"ok": True, "accepted": True})
            else:
                say("The database was sealed as it is now; run `aico-lab sync` next.")
            return
        proof = verify_deep(lab, progress=bar.show)
    if json:
        emit(proof)
    else:
        for finding in proof.findings:
            say(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check:<24} {finding.detail}")
        _say_compared(proof.tables)
        if not proof.ok:
            say("Something is DAMAGED: see above.")
        elif proof.uncompared:
            say(
                f"No damage was found, but there was nothing to compare with for what was changed "
                f"outside aico_lab: {proof.uncompared}."
            )
        else:
            say("No damage was found.")
    if not proof.ok:
        raise typer.Exit(1)


@app.command()
def load(
    path: Annotated[Path, typer.Argument(help="A SQLite or libSQL file, which is only read.")],
    *,
    table: Annotated[str, typer.Option(help="The table or view to load.")],
    name: Annotated[
        str | None,
        typer.Option(help="The schema of the copy; by default made from the file's name."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="A column that identifies rows; may be repeated. By default the primary key, or "
            "else the row id."
        ),
    ] = None,
    watermark: Annotated[
        str,
        typer.Option(help="The column of numbers or times that grows with every row, or rowid."),
    ] = "rowid",
    lag: Annotated[
        float,
        typer.Option(
            min=0,
            help="The distance below the watermark from which rows are read again: in seconds for "
            "times, otherwise in the unit of the column.",
        ),
    ] = 0,
    deletes: Annotated[
        bool, typer.Option("--deletes", help="Remove rows that were deleted from the table.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read the whole table, and replace all rows.")
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a table of another program into the warehouse.

    The variable AICO_LAB_SOURCE_KEY holds the key of an encrypted file.
    """
    from aico_lab.cli.import_results import note_load, say_loaded

    with open_lab(home, key_file) as lab, Bar("rows") as bar:
        result = lab.load(
            path,
            table,
            name=name,
            key=key,
            watermark=watermark,
            lag=lag,
            deletes=deletes,
            full=full,
            progress=bar.show,
        )
    note_load(result)
    if json:
        emit(result)
    else:
        say_loaded(result)


@app.command()
def info(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Show versions, sizes, counts and the warehouse's state."""
    from aico_lab.health import describe

    with open_lab(home, key_file) as lab:
        facts = describe(lab)
    if json:
        emit(facts)
        return
    for section, values in facts.items():
        say(section)
        for name, value in values.items():
            shown = f"{value:,}" if isinstance(value, int) else "none" if value is None else value
            say(f"  {name:<24} {shown}")


@app.command()
def doctor(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Check the home, its key and every store."""
    import contextlib

    from aico_lab.config import Settings
    from aico_lab.errors import HomeError
    from aico_lab.health import diagnose

    passphrase = None
    with contextlib.suppress(HomeError):  # `diagnose` will report it
        passphrase = ask_passphrase(home, key_file=key_file)
    settings = Settings.resolve(home=home, key_file=key_file, passphrase=passphrase)
    findings = diagnose(settings)
    if json:
        emit(findings)
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check:<22} {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
