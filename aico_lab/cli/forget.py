"""`aico-lab forget`: erase a person, a channel, a conversation, an import or a time."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import Bar, emit, note, say

if TYPE_CHECKING:
    from aico_lab.privacy.forgetting import ErasureResult


def forget(
    *,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="A person: their messages, answers to them, and all that is known of them.",
        ),
    ] = None,
    channel: Annotated[str | None, typer.Option(metavar="ID", help="A channel.")] = None,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="A conversation.")] = None,
    import_: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="ID",
            help="An import, as `aico-lab sources --imports` lists it: what it added goes, and "
            "what it replaced comes back.",
        ),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="The day or time in UTC before which all is forgotten."),
    ] = None,
    reports: Annotated[
        bool,
        typer.Option(
            "--reports", help="Also remove the outputs of notebooks in the home that name it."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be erased, and erase nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking.")] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Erase people, conversations or imports from every store.

    A signed receipt is kept. Nothing can be brought back.
    """
    from aico_lab.errors import WrongUse

    asked = not (yes or dry_run)
    if asked and (json or not sys.stdin.isatty()):
        raise WrongUse("What is erased cannot be brought back: add --yes, or try with --dry-run.")
    with open_lab(home, key_file) as lab:
        erase = partial(
            lab.privacy.forget,
            user=user,
            channel=channel,
            conversation=conversation,
            import_id=import_,
            before=before,
        )
        if asked:
            _say_rows(erase(dry_run=True), "would be erased")
            if not typer.confirm("Erase it from every store?", err=True):
                raise typer.Exit(1)
        with Bar("steps") as bar:
            result = erase(dry_run=dry_run, reports=reports, progress=bar.show)
    if json:
        emit(result)
        return
    _say_rows(result, "would be erased" if dry_run else "erased")
    for sentence in result.left:
        note(sentence)
    if result.receipt is not None:
        if result.mentioned:
            note(f"{result.mentioned:,} ids or texts are in texts of others, which stay.")
        say(
            f"Searched aico.db, the warehouse and the cache: nothing of it is left. "
            f"The receipt is {result.erasure_id}."
        )


def _say_rows(result: ErasureResult, done: str) -> None:
    from aico_lab.adapters.sql_text import shown

    counts = ", ".join(f"{shown(table)} {count:,}" for table, count in result.rows.items())
    say(f"Rows {done}: {counts or 'none'}.")
