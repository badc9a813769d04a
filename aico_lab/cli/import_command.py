"""`aico-lab import` and `aico-lab sources`: take messages in, as other programs export them."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aico_lab.cli import completion
from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, home_of, open_lab, read_pairs
from aico_lab.cli.output import emit, note, say

if TYPE_CHECKING:
    from aico_lab.home.folder import Home
    from aico_lab.sources import Source
    from aico_lab.sources.exports.engine.conversation import Options


def import_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The file, folder or zip as it was downloaded, or the name of a source "
            "(see `aico-lab sources`) before the file.",
            autocompletion=completion.sources,
        ),
    ],
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The file, after the name of a source.")
    ] = None,
    *,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="FORMAT",
            help="The format of the file; by default it is recognised by its content.",
            autocompletion=completion.sources,
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="The zone of times that have none in the file; by default UTC.",
            autocompletion=completion.timezones,
        ),
    ] = None,
    me: Annotated[
        str | None, typer.Option(metavar="NAME", help="The person whose conversations these are.")
    ] = None,
    companion: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="The companion, where the file does not say it; may be repeated."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="The time of the first message of a file without any times."
        ),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="The seconds between two messages of such a file."
        ),
    ] = None,
    day_first: Annotated[
        bool | None,
        typer.Option(
            "--day-first/--month-first",
            help="Read 3/4 as 3 April, or as 4 March, where the file leaves it open.",
        ),
    ] = None,
    trust_times: Annotated[
        bool,
        typer.Option(
            "--trust-times", help="Accept times that are all the same, as those of an import are."
        ),
    ] = False,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN",
            help="The column of a field of a table, such as content=Text or timestamp=Date+Time; "
            "may be repeated.",
        ),
    ] = None,
    role_map: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE=ROLE",
            help="The role (user, assistant, system) that a value of a table means; may be "
            "repeated.",
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A name under which to keep the format and the answers, for `aico-lab import NAME "
            "FILE`.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The maximum number of messages to read.")
    ] = None,
    on_conflict: Annotated[
        Literal["keep", "replace"] | None,
        typer.Option(
            help="The treatment of a stored message whose content, role or timestamp differs under "
            "the same conversation and id: keep leaves it unchanged, replace updates it. By "
            "default an export, or a table without a column of ids, replaces, and any other source "
            "keeps."
        ),
    ] = None,
    deletions: Annotated[
        bool,
        typer.Option(
            "--deletions",
            help="Mark the stored messages that an export no longer has, in conversations that it "
            "holds whole; metrics leave them out.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be imported, and write nothing.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Sync, and write the report pattern_analysis on the file's messages."
        ),
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Import the messages of a file or a data set.

    Messages that are stored already are not added a second time.
    """
    from aico_lab.cli.import_results import import_with_progress, report_on, say_imported
    from aico_lab.errors import WrongUse
    from aico_lab.sources.exports.engine.conversation import Options

    if report and dry_run:
        raise WrongUse("A dry run writes nothing: leave out --report or --dry-run.")
    options = Options.read(
        timezone=timezone,
        me=me,
        companion=companion or (),
        start=start,
        step=step,
        day_first=day_first,
        trust_times=trust_times,
        map=read_pairs(map_, "--map"),
        role_map=read_pairs(role_map, "--role-map"),
    )
    source, file, options = _chosen(what, path, as_, options, home_of(home))
    if save is not None:
        _check_save(save, source)
    answers: list[str] = []

    def ask(authors: list[str]) -> str:
        answers.append(_ask_companion(authors))
        return answers[-1]

    with open_lab(home, key_file) as lab:
        result = import_with_progress(
            lab,
            source,
            file,
            limit=limit,
            on_conflict=on_conflict,
            dry_run=dry_run,
            deletions=deletions,
            options=options,
            ask=ask if sys.stdin.isatty() and not json else None,
        )
        zone = "UTC" if options.zone is None else options.zone.key
        page = report_on(lab, result, zone) if report and result.read else None
    if save is not None and not dry_run:
        answered = replace(options, companion=tuple(answers)) if answers else options
        _save(home_of(home), save, source, file, answered)
    elif save is not None:
        note(f"{save} was not saved, as a dry run writes nothing.")
    if json:
        written = {"report": page} if report else {}
        emit({"format": source.name, "timezone": zone, **asdict(result), **written})
    else:
        say_imported(
            result,
            source=source.name,
            zone=zone,
            dry_run=dry_run,
            page=page,
        )
    if result.read == 0 and result.rejected:
        raise typer.Exit(1)


def sources(
    *,
    imports: Annotated[
        bool,
        typer.Option(
            "--imports", help="List the imports of the home instead, which `forget` can undo."
        ),
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """List formats, how to get each export, and saved imports."""
    if imports:
        _list_imports(home, key_file, json=json)
        return
    from aico_lab.importing.saved import described
    from aico_lab.sources import SOURCES

    saved = described(home_of(home))
    if json:
        emit(
            {
                name: {"description": one.description, "how": one.how}
                for name, one in SOURCES.items()
            }
            | saved
        )
        return
    for name, one in SOURCES.items():
        say(f"{name:<14} {one.description}")
        for line in one.how.splitlines():
            say(f"{'':<14}   {line}")
    for name, words in saved.items():
        say(f"{name:<14} {words['description']}")
        if "how" in words:
            say(f"{'':<14}   {words['how']}")


def _list_imports(home: Path | None, key_file: Path | None, *, json: bool) -> None:
    from aico_lab.importing.import_log import read_imports

    with open_lab(home, key_file) as lab:
        found = read_imports(lab.primary)
    if json:
        emit(found)
        return
    for one in found:
        end = "" if one.finished_at else ", interrupted"
        say(
            f"{one.import_id}  {one.source:<12} {one.added:,} messages added, "
            f"{one.updated:,} updated{end}"
        )


def _chosen(
    what: str, path: Path | None, format_name: str | None, options: Options, home: Home
) -> tuple[Source, Path | None, Options]:
    """Return the source and the file that the arguments name, and the answers with saved ones."""
    from aico_lab.errors import WrongUse
    from aico_lab.importing.from_file import choose

    if format_name is not None:
        if path is not None:
            raise WrongUse(f"Name the file alone with --as: `aico-lab import {path} --as …`.")
        what, path = format_name, Path(what)
    source, file, options, why = choose(home, what, path, options)
    if source.table and file is not None:
        from aico_lab.sources.tables.reading import described

        note(f"{described(file, options)}.")
    elif why and file is not None:
        own = f"{file.name} "
        reason = f"it {why.removeprefix(own)}" if why.startswith(own) else why
        note(f"{file.name} is in the format {source.name}: {reason}.")
    return source, file, options


def _check_save(name: str, source: Source) -> None:
    from aico_lab.errors import WrongUse
    from aico_lab.importing.saved import check_name

    check_name(name)
    if not (source.export or source.table):
        raise WrongUse(f"The source {source.name} takes no answers that could be saved.")


def _save(home: Home, name: str, source: Source, file: Path | None, options: Options) -> None:
    """Keep the source and the answers, with the columns that were recognised."""
    from aico_lab.importing.saved import save, saved_names

    if source.table and file is not None:
        from aico_lab.sources.tables.reading import fields_of

        options = replace(options, columns=fields_of(file, options))
    is_there = name in saved_names(home)
    path = save(home, name, source.name, options)
    instead = ", in place of the import saved under that name before" if is_there else ""
    note(
        f"Saved in {path}{instead}: `aico-lab import {name} FILE` imports the next file in this "
        "way."
    )


def _ask_companion(authors: list[str]) -> str:
    """Ask at the terminal which author is the companion."""
    note("Who is the companion?")
    for number, author in enumerate(authors[:20], 1):
        note(f"  {number}  {author}")
    chosen = str(typer.prompt("Number or name", err=True)).strip()
    if chosen.isdecimal() and 0 < int(chosen) <= len(authors):
        return authors[int(chosen) - 1]
    return chosen
