"""Import with a progress bar, and print the results of imports, loads and syncs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.cli.output import Bar, note, say

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import SyncResult
    from aico_lab.importer import ImportResult, OnConflict
    from aico_lab.lab import Lab
    from aico_lab.sources.records import Batch

LINES_SHOWN = 5


def import_with_progress(
    lab: Lab,
    source: str,
    path: Path | None,
    *,
    limit: int | None,
    on_conflict: OnConflict = "keep",
) -> ImportResult:
    """Import a source with a progress bar, then print notes about its lines."""
    from aico_lab.sources import SOURCES

    total = SOURCES[source].total(path, limit)
    done = 0
    with Bar(SOURCES[source].unit) as bar:

        def advance(batch: Batch) -> None:
            nonlocal done
            done += batch.progress
            bar.show(f"import {source}", done, total)

        result = lab.import_from(
            source, path, limit=limit, on_conflict=on_conflict, progress=advance
        )
    note_rejected(result)
    note_conflicts(result, on_conflict)
    note_assumptions(result)
    return result


def note_rejected(result: ImportResult) -> None:
    """Print the first invalid lines and their number."""
    if not result.rejected:
        return
    noun = "line" if result.rejected == 1 else "lines"
    note(f"{result.rejected:,} invalid {noun} left out:")
    for rejected in result.examples[:LINES_SHOWN]:
        note(f"  line {rejected.line}: {rejected.reason}")
    _note_more(result.rejected)


def note_conflicts(result: ImportResult, on_conflict: OnConflict) -> None:
    """Print the first messages in conflict with another one of the same conversation and id."""
    if not result.conflicts:
        return
    done = (
        "updated"
        if on_conflict == "replace"
        else "left out; --on-conflict replace updates the stored message"
    )
    note(f"In conflict with another message of the same conversation and id ({done}):")
    for one in result.conflict_examples[:LINES_SHOWN]:
        note(f"  message {one.message_id}" if one.line is None else f"  line {one.line}")
    _note_more(result.conflicts)


def note_assumptions(result: ImportResult) -> None:
    """Print assumptions of the import that the user may want to correct."""
    if result.assumed_me:
        note(
            f"The file names no user: {_messages(result.assumed_me)} assigned to the user 'me'; "
            "add user_id if there are several people."
        )
    if result.qualified:
        note(
            f"{_messages(result.qualified)} stored as <conversation_id>:<message_id>, since "
            "another conversation has a message with the same id."
        )
    if result.far_times:
        lines = ", ".join(map(str, result.far_lines[:LINES_SHOWN]))
        more = ", …" if result.far_times > LINES_SHOWN else ""
        noun = "line" if result.far_times == 1 else "lines"
        note(
            f"{_messages(result.far_times)} from before 1990 or after tomorrow, stored as given"
            f"{f' ({noun} {lines}{more})' if lines else ''}: check the timestamps."
        )


def say_imported(result: ImportResult, on_conflict: OnConflict) -> None:
    """Print the result of an import."""
    conflicts = ""
    if result.conflicts:
        done = "replaced" if on_conflict == "replace" else "left unchanged"
        conflicts = f", {result.conflicts:,} in conflict {done}"
    noun = "message" if result.added == 1 else "messages"
    say(f"{result.added:,} {noun} added, {result.known:,} stored already{conflicts}.")


def _note_more(count: int) -> None:
    if count > LINES_SHOWN:
        note(f"  … and {count - LINES_SHOWN:,} more (--json lists up to 1,000)")


def _messages(count: int) -> str:
    return "1 message is" if count == 1 else f"{count:,} messages are"


def note_unexplained(result: SyncResult) -> None:
    """Print the warnings of a sync, and the numbers of rows that no longer fit."""
    for warning in result.warnings:
        note(warning)
    for table, count in result.unexplained.items():
        note(
            f"{count:,} rows of {table} no longer fit their columns, although no change of them "
            "was recorded: the primary database may be damaged. Restore a backup, or run "
            "`aico-lab sync --acknowledge` if the rows are correct."
        )


def say_loaded(result: LoadResult) -> None:
    """Print the result of a load."""
    for warning in result.warnings:
        note(warning)
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
