"""`aico-lab search`: find passages by meaning, by words, or by both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import Bar, emit, note, say, show

if TYPE_CHECKING:
    from aico_lab.search.passages import Passages


def search(
    text: Annotated[str, typer.Argument(help="The text to search for.")],
    *,
    mode: Annotated[
        Literal["semantic", "keyword", "hybrid"],
        typer.Option(help="The way to search: by meaning, by words, or by both."),
    ] = "hybrid",
    source: Annotated[
        Literal["conversations", "memories", "knowledge", "all"],
        typer.Option(help="The texts to search; knowledge is documents."),
    ] = "conversations",
    user: Annotated[
        list[str] | None,
        typer.Option(help="A person who wrote a message of the passage; may be repeated."),
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="A channel of the passages; may be repeated.")
    ] = None,
    role: Annotated[
        Literal["user", "assistant", "system"] | None,
        typer.Option(help="The side that wrote a message of the passage."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="The first day or moment, or how far back: 30d, 4w, 12h.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The last day, which is included, or a moment.")
    ] = None,
    sentiment: Annotated[
        Literal["positive", "neutral", "negative"] | None,
        typer.Option(help="The sentiment of a message of the passage."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=0, help="The maximum number of passages.")] = 10,
    decay: Annotated[
        float | None,
        typer.Option(help="The age in days at which the score of a passage is halved."),
    ] = None,
    timezone: Annotated[str, typer.Option(help="The IANA time zone of days.")] = "UTC",
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Search conversations, memories and documents.

    Segments are brought up to date first, if the home can be written.
    """
    with open_lab(home, key_file, timezone=timezone) as lab:
        with Bar("messages") as bar:
            lab.embeddings.refresh(progress=bar.show)
        found = lab.search(
            text,
            mode=mode,
            source=source,
            user=user or None,
            channel=channel or None,
            role=role,
            since=since,
            until=until,
            sentiment=sentiment,
            k=k,
            decay=decay,
        )
    if json:
        emit(found.objects())
    else:
        _show(found)
    for remark in found.notes:
        note(remark)


def _show(found: Passages) -> None:
    if not found:
        say("Nothing was found.")
    for number, passage in enumerate(found):
        if number:
            say("")
        show(repr(passage))
