"""Import with a progress bar, and print the results of imports, loads and syncs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from aico_lab.cli.output import Bar, note, say
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import SyncResult
    from aico_lab.importing.importer import ImportResult, OnConflict
    from aico_lab.lab import Lab
    from aico_lab.messages.records import Batch
    from aico_lab.sources import Source
    from aico_lab.sources.exports.engine.conversation import Options

LINES_SHOWN = 5
REPORT = "pattern_analysis"


def import_with_progress(
    lab: Lab,
    source: Source,
    path: Path | None,
    *,
    limit: int | None,
    on_conflict: OnConflict | None = None,
    dry_run: bool = False,
    deletions: bool = False,
    options: Options | None = None,
    ask: Callable[[list[str]], str] | None = None,
) -> ImportResult:
    """Import a source with a progress bar, then print notes about its lines.

    Args:
        lab: The home.
        source: The source.
        path: Its file.
        limit: The most messages to read.
        on_conflict: See `Lab.import_from`.
        dry_run: See `Lab.import_from`.
        deletions: See `Lab.import_from`.
        options: See `Lab.import_from`.
        ask: Returns the companion among the authors of an export; None stops instead of asking.
    """
    from aico_lab.errors import WhoIsWho

    def run(options: Options | None) -> ImportResult:
        total = source.total(path, limit)
        done = 0
        with Bar(source.unit) as bar:

            def advance(batch: Batch) -> None:
                nonlocal done
                done += batch.progress
                bar.show(f"import {source.name}", done, total)

            return lab.import_from(
                source.name, path, limit=limit, on_conflict=on_conflict, dry_run=dry_run,
                deletions=deletions, options=options, progress=advance,
            )  # fmt: skip

    try:
        result = run(options)
    except WhoIsWho as question:
        if ask is None or options is None:
            raise
        # The bar is gone by now: while it is drawn, nothing can be asked at the terminal.
        result = run(replace(options, companion=(ask(question.authors),)))
    note_import(result)
    return result


def note_import(result: ImportResult) -> None:
    """Print notes about an import: invalid lines, conflicts, and assumptions."""
    for said in result.notes:
        note(said)
    _note_rejected(result)
    if result.uncompared:
        from aico_lab.pipeline.step_warnings import uncompared

        note(uncompared(result))
    _note_conflicts(result)
    _note_assumptions(result)


def _note_rejected(result: ImportResult) -> None:
    """Print the first invalid lines and their number."""
    if not result.rejected:
        return
    kind = "part" if result.examples[0].where else "line"
    note(f"{result.rejected:,} invalid {kind}{'' if result.rejected == 1 else 's'} left out:")
    for rejected in result.examples[:LINES_SHOWN]:
        note(f"  {rejected.where or f'line {rejected.line}'}: {rejected.reason}")
    _note_more(result.rejected)


def _note_conflicts(result: ImportResult) -> None:
    """Print the first messages in conflict with another one of the same conversation and id."""
    if not result.conflicts:
        return
    if result.on_conflict == "replace" and result.conflict_examples[0].line is None:
        return  # an export has edited messages every time, and no lines to look at
    done = (
        "updated"
        if result.on_conflict == "replace"
        else "left out; `aico-lab import --on-conflict replace` updates the stored message"
    )
    note(f"In conflict with another message of the same conversation and id ({done}):")
    for one in result.conflict_examples[:LINES_SHOWN]:
        note(f"  message {one.message_id}" if one.line is None else f"  line {one.line}")
    _note_more(result.conflicts)


def _note_assumptions(result: ImportResult) -> None:
    """Print assumptions of the import that the user may want to correct."""
    if result.assumed_me:
        note(
            f"The file names no user: {_messages(result.assumed_me)} assigned to the user 'me'; "
            "add user_id if there are several people."
        )
    if result.zoneless:
        was = "was" if result.zoneless == 1 else "were"
        note(
            f"{_counted(result.zoneless, 'time')} without a zone {was} read as UTC: "
            "import with --timezone, such as --timezone Europe/Berlin, if that is wrong."
        )
    if result.estimated:
        note(
            f"{_messages(result.estimated)} marked with timestamp_estimated: the time in the file "
            "is missing, is only a date, is that of an import, or lies in an hour that came twice "
            f"or never in its zone. Reply times leave {'it' if result.estimated == 1 else 'them'} "
            "out."
        )
    if result.qualified:
        note(
            f"{_messages(result.qualified)} stored as <conversation_id>:<message_id>, since "
            "another conversation has a message with the same id."
        )
    if result.dangling:
        is_one = result.dangling == 1
        note(
            f"{_counted(result.dangling, 'reply', 'replies')} {'is' if is_one else 'are'} to a "
            f"message that is not stored: {'its' if is_one else 'their'} reply_to stays, and leads "
            "to it once it is imported."
        )
    if result.far_times:
        lines = ", ".join(map(str, result.far_lines[:LINES_SHOWN]))
        more = ", …" if result.far_times > LINES_SHOWN else ""
        noun = "line" if result.far_times == 1 else "lines"
        note(
            f"{_messages(result.far_times)} from before 1990 or after tomorrow, stored as given"
            f"{f' ({noun} {lines}{more})' if lines else ''}: check the timestamps."
        )


def report_on(lab: Lab, result: ImportResult, zone: str) -> Path:
    """Sync, write the report on what an import brought, and return the path of its page.

    The report is about the channel of the import, or about the whole home if it has several.
    """
    with Bar("rows") as bar:
        synced = lab.sync(progress=lambda table, rows, all_: bar.show(f"sync {table}", rows, all_))
    note_unexplained(synced)
    parameters: dict[str, object] = {"timezone": zone}
    if len(result.channels) == 1:
        parameters["channel"] = result.channels[0]
    else:
        note("The file has several channels, so the report is on all messages of the home.")
    with Bar("cells") as bar:
        return lab.reports.run(
            REPORT,
            parameters,
            on_cell=lambda done, all_: bar.show(f"report {REPORT}", done, all_),
        ).html


def say_imported(
    result: ImportResult,
    *,
    source: str,
    zone: str,
    dry_run: bool = False,
    page: Path | None = None,
) -> None:
    """Print the result of an import.

    Args:
        result: The result.
        source: The name of the source or format.
        zone: The name of the zone of times without one.
        dry_run: Whether nothing was written.
        page: The report on the import, or None.
    """
    conflicts = ""
    if result.conflicts:
        done = "updated" if result.on_conflict == "replace" else "in conflict left unchanged"
        conflicts = f", {result.conflicts:,} {done}"
    noun = "message" if result.added == 1 else "messages"
    said = f"{result.added:,} {noun} added, {result.known:,} stored already{conflicts}."
    say(f"Nothing was written; it would be: {said}" if dry_run else said)
    if result.first and result.last:
        people = f"{_counted(result.people, 'person', 'people')} in " if result.people else ""
        say(
            f"{people}{_counted(result.conversations, 'conversation')}, as {source}, from "
            f"{_day(result.first, zone)} to {_day(result.last, zone)} ({zone})."
        )
    if result.local and not result.zoneless:  # of which a note tells
        say(f"{_counted(result.local, 'time')} without a zone read as those of {zone}.")
    for number, noun in (
        (result.feedback, "rating"), (result.memories, "memory"),
        (result.decisions, "decision on a style"),
    ):  # fmt: skip
        if number:
            plural = {
                "memory": "memories", "decision on a style": "decisions on styles",
            }.get(noun, f"{noun}s")  # fmt: skip
            say(f"With {_counted(number, noun, plural)}.")
    if result.missing:
        are = "message is" if result.missing == 1 else "messages are"
        done = "would be marked" if dry_run else "marked"
        say(
            f"{result.missing:,} stored {are} no longer in the export, or left by the path of the "
            f"conversation: {done} with missing_since, and left out of metrics."
        )
    if result.returned:
        say(f"{_messages(result.returned)} back, after missing from another export.")
    if result.skipped:
        counted = ", ".join(
            f"{reason} ({count:,})"
            for reason, count in sorted(result.skipped.items(), key=lambda one: -one[1])
        )
        say(f"Not said, hence no messages: {counted}.")
    say(f"Report: {page}" if page else _next(result, dry_run=dry_run))


def _day(stamp: str, zone: str) -> str:
    """Return the day of a stored time in a zone."""
    try:
        time = datetime.fromisoformat(stamp).astimezone(get_zone(zone))
    except OverflowError:  # at an end of the years that have four digits
        return stamp[:10]
    return f"{time:%Y-%m-%d}".zfill(10)


def _next(result: ImportResult, *, dry_run: bool) -> str:
    """Return a sentence with the next command."""
    if not result.read:
        return "Nothing was read: `aico-lab sources` says how to get each export."
    if dry_run:
        return "Next: the same command without --dry-run."
    if result.added or result.updated or result.missing or result.returned:
        return "Next: `aico-lab sync`, then `aico-lab report run pattern_analysis`."
    if result.conflicts:
        return (
            "Nothing was changed: `aico-lab import --on-conflict replace` takes the messages of "
            "the file that are in conflict."
        )
    return "Nothing is new: next time, import a newer export."


def _counted(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def _note_more(count: int) -> None:
    if count > LINES_SHOWN:
        note(f"  … and {count - LINES_SHOWN:,} more (--json lists up to 1,000)")


def _messages(count: int) -> str:
    return "1 message is" if count == 1 else f"{count:,} messages are"


def note_unexplained(result: SyncResult) -> None:
    """Print the warnings of a sync, and the numbers of rows that no longer fit."""
    for warning in result.warnings:
        note(warning)
    for sentence in result.damage():
        note(sentence)


def note_load(result: LoadResult) -> None:
    """Print the warnings of a load."""
    for warning in result.warnings:
        note(warning)


def say_loaded(result: LoadResult) -> None:
    """Print the result of a load."""
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
