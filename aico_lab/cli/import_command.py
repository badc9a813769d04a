"""`aico-lab import` and `aico-lab sources`: take messages in, as other programs export them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aico_lab.cli import completion
from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import emit, note, say

if TYPE_CHECKING:
    from aico_lab.sources import Source


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
    limit: Annotated[
        int | None, typer.Option(min=1, help="The maximum number of messages to read.")
    ] = None,
    on_conflict: Annotated[
        Literal["keep", "replace"] | None,
        typer.Option(
            help="The treatment of a stored message whose content, role or timestamp differs under "
            "the same conversation and id: keep leaves it unchanged, replace updates it. By "
            "default an export replaces, and any other source keeps."
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
    from aico_lab.cli.imports import import_with_progress, report_on, say_imported
    from aico_lab.errors import WrongUse
    from aico_lab.sources.exports.engine.conversation import Options

    if report and dry_run:
        raise WrongUse("A dry run writes nothing: leave out --report or --dry-run.")
    source, file = _chosen(what, path, as_)
    options = Options.read(
        timezone=timezone,
        me=me,
        companion=companion or (),
        start=start,
        step=step,
        day_first=day_first,
        trust_times=trust_times,
    )
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
            ask=_ask_companion if sys.stdin.isatty() and not json else None,
        )
        zone = "UTC" if options.zone is None else options.zone.key
        page = report_on(lab, result, zone) if report and result.read else None
    if json:
        written = {"report": page} if report else {}
        emit({"format": source.name, "timezone": zone, **asdict(result), **written})
    else:
        say_imported(
            result,
            on_conflict or source.on_conflict,
            source=source.name,
            zone=zone,
            dry_run=dry_run,
            page=page,
        )
    if result.read == 0 and result.rejected:
        raise typer.Exit(1)


def sources(*, json: JsonOption = False) -> None:
    """List the formats of imports, and how to get each export."""
    from aico_lab.sources import SOURCES

    if json:
        emit(
            {
                name: {"description": one.description, "how": one.how}
                for name, one in SOURCES.items()
            }
        )
        return
    for name, one in SOURCES.items():
        say(f"{name:<14} {one.description}")
        for line in one.how.splitlines():
            say(f"{'':<14}   {line}")


def _chosen(what: str, path: Path | None, format_name: str | None) -> tuple[Source, Path | None]:
    """Return the source and the file that the arguments name."""
    from aico_lab.errors import WrongUse
    from aico_lab.sources import SOURCES, recognise

    if format_name is not None:
        if path is not None:
            raise WrongUse(f"Name the file alone with --as: `aico-lab import {path} --as …`.")
        return SOURCES[format_name], Path(what)
    if path is not None or (what in SOURCES and not Path(what).exists()):
        return SOURCES[what], path
    if not Path(what).expanduser().exists() and not Path(what).suffix and "/" not in what:
        return SOURCES[what], path  # raises with the names of the sources
    found = recognise(what)
    note(f"{Path(what).name} is in the format {found.name}: {found.why}.")
    return SOURCES[found.name], Path(what)


def _ask_companion(authors: list[str]) -> str:
    """Ask at the terminal which author is the companion."""
    note("Who is the companion?")
    for number, author in enumerate(authors[:20], 1):
        note(f"  {number}  {author}")
    chosen = str(typer.prompt("Number or name", err=True)).strip()
    if chosen.isdecimal() and 0 < int(chosen) <= len(authors):
        return authors[int(chosen) - 1]
    return chosen
