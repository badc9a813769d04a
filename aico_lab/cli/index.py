"""`aico-lab index`: group messages into segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import Bar, emit, say

if TYPE_CHECKING:
    from aico_lab.embeddings.segmenting import Segmented


def index(
    *,
    pause: Annotated[
        float | None,
        typer.Option(help="The seconds of silence after which a segment ends.", show_default="600"),
    ] = None,
    smallest: Annotated[
        int | None,
        typer.Option(
            help="The least messages of a segment that a change of subject ends.", show_default="4"
        ),
    ] = None,
    largest: Annotated[
        int | None, typer.Option(help="The most messages of a segment.", show_default="24")
    ] = None,
    depth: Annotated[
        float | None,
        typer.Option(
            help="The least drop in coherence at which a segment ends, 0 to 2.",
            show_default="0.45",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model that makes vectors from now on: wordllama, onnx:FOLDER, or "
            "sentence-transformers:FOLDER.",
            show_default="the home's",
        ),
    ] = None,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Group messages into segments, and index them for search.

    Segments end at pauses, and where the subject changes. If an option is given, the others have
    their defaults, and all segments are made again if any differs from before.
    """
    from aico_lab.embeddings.segmenting import SegmentParameters

    given = {
        name: value
        for name, value in (
            ("pause", pause), ("smallest", smallest), ("largest", largest), ("depth", depth),
        )
        if value is not None
    }  # fmt: skip
    parameters = SegmentParameters(**given) if given else None  # type: ignore[arg-type]
    with open_lab(home, key_file) as lab, Bar("messages") as bar:
        is_other = model is not None and lab.embeddings.use_model(model)
        result = lab.embeddings.update(parameters, progress=bar.show)
        lab.sync_vectors(full=is_other, progress=bar.show)
        now = lab.memories.index.model if is_other else None
    if json:
        emit(result)
    else:
        _say(result, now)


def _say(result: Segmented, model: str | None) -> None:
    """Print the result of an update, and the model if it is another one than before."""
    segments = "segment" if result.segments == 1 else "segments"
    if model:
        say(f"All vectors are now made with the model {model}.")
    if not result.written and not result.removed:
        said = (
            f"{result.segments:,} {segments} {'is' if result.segments == 1 else 'are'} up to date"
        )
        say(f"{said}." if model else f"Nothing changed; {said}.")
        return
    messages = "message" if result.messages == 1 else "messages"
    say(
        f"{result.segments:,} {segments}: {result.written:,} written, {result.removed:,} removed, "
        f"{result.messages:,} {messages} read; run `aico-lab sync` next."
    )
