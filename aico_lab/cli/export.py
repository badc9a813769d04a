"""`aico-lab export`: conversations as files for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import emit, say


def export(
    *,
    to: Annotated[Path, typer.Option(help="The new folder for the files.")],
    content: Annotated[
        Literal["none", "redacted", "full"],
        typer.Option(help="The texts: left out, without names and numbers, or as they are."),
    ] = "redacted",
    pseudonymise: Annotated[
        bool, typer.Option("--pseudonymise", help="Replace the ids of people and of all else.")
    ] = False,
    study: Annotated[
        str, typer.Option(help="The study within which pseudonyms stay the same.")
    ] = "default",
    shift_times: Annotated[
        bool, typer.Option("--shift-times", help="Shift the times of each person by weeks.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="The first day or moment, or a span back: 30d, 4w.")
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="A person to export, by id or name; may be repeated.")
    ] = None,
    min_people: Annotated[
        int, typer.Option(min=1, help="The fewest people of a count by day.")
    ] = 5,
    encrypt: Annotated[
        list[str] | None,
        typer.Option(help="An age recipient for whom the files are encrypted; may be repeated."),
    ] = None,
    timezone: Annotated[str, typer.Option(help="The IANA time zone of --since.")] = "UTC",
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Export conversations into files to share them.

    The files are Parquet and ConvoKit's corpus format, with counts and a data sheet.
    """
    with open_lab(home, key_file, timezone=timezone) as lab:
        done = lab.privacy.share(
            to,
            content=content,
            pseudonymise=pseudonymise,
            study=study,
            shift_times=shift_times,
            since=since,
            user=user,
            min_people=min_people,
            encrypt=encrypt or (),
        )
    if json:
        emit(done)
        return
    say(
        f"{done.folder}: {done.messages:,} messages of {done.people:,} people; "
        f"{done.left_out:,} messages left out. Read data_sheet.md before you pass it on."
    )
