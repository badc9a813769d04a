"""`aico-lab knowledge`: add, list and remove people's own documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import emit, note, say

knowledge = typer.Typer(
    help="Add, list and remove documents that search finds.", no_args_is_help=True
)


@knowledge.command("add")
def knowledge_add(
    paths: Annotated[
        list[Path],
        typer.Argument(help="A Markdown, text or PDF file, or a folder; may be repeated."),
    ],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Add documents, or replace those whose files changed."""
    with open_lab(home, key_file) as lab:
        done = lab.knowledge.add(*paths)
    if json:
        emit(done)
    for one in done:
        if one.error:
            note(one.error)
        elif not json:
            passages = "passage" if one.chunks == 1 else "passages"
            say(f"{one.outcome:<10} {Path(one.path).name}, {one.chunks:,} {passages}")
    if any(one.error for one in done):
        raise typer.Exit(1)


@knowledge.command("list")
def knowledge_list(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """List the documents."""
    with open_lab(home, key_file) as lab:
        documents = lab.knowledge.list()
    if json:
        emit(documents)
    elif not documents:
        say("There is no document: add one by `aico-lab knowledge add`.")
    else:
        for one in documents:
            say(f"{one.document_id}  {one.kind:<8} {one.chunks:>6,} passages  {one.name}")


@knowledge.command("remove")
def knowledge_remove(
    name: Annotated[str, typer.Argument(help="The document's name, path or id.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Remove a document."""
    with open_lab(home, key_file) as lab:
        removed = lab.knowledge.remove(name)
    if json:
        emit(removed)
    else:
        say(f"Removed {removed.name}; the next sync removes its vectors.")
