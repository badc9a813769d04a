"""Import with a progress bar; say what came in, and what could not be taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.cli.output import Bar, note, say

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.etl.foreign import LoadResult
    from aico_lab.importer import ImportResult
    from aico_lab.lab import Lab
    from aico_lab.sources.records import Batch

LINES_SHOWN = 5


def import_with_progress(
    lab: Lab, source: str, path: Path | None, *, limit: int | None
) -> ImportResult:
    """Import a source; show how far it is, and then the lines that were rejected."""
    from aico_lab.sources import get_source

    total = get_source(source).total(path, limit)
    done = 0
    with Bar(get_source(source).unit) as bar:

        def advance(batch: Batch) -> None:
            nonlocal done
            done += batch.progress
            bar.show(f"import {source}", done, total)

        result = lab.import_from(source, path, limit=limit, progress=advance)
    if result.rejected:
        note(f"{result.rejected:,} lines could not be taken:")
        for rejected in result.examples[:LINES_SHOWN]:
            note(f"  line {rejected.line}: {rejected.reason}")
        if result.rejected > LINES_SHOWN:
            note(f"  … and {result.rejected - LINES_SHOWN:,} more (--json lists up to 1,000)")
    return result


def say_loaded(result: LoadResult) -> None:
    """Say what a load did."""
    if result.mode == "nothing":
        say(f"Nothing new in {result.table}; snapshot {result.generation} is up to date.")
    else:
        say(
            f"Snapshot {result.generation}: {result.rows:,} rows of {result.table} written, "
            f"{result.deleted:,} removed, in {result.seconds:.1f} s."
        )
    if result.quarantined:
        say(
            f"{result.quarantined:,} rows do not fit: see `aico-lab sql 'FROM quarantine.misfits'`."
        )
