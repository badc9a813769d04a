"""Import a file, in the way that its content, its name or a saved import tells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aico_lab.errors import WrongUse
from aico_lab.importing.companions import StoredMessages
from aico_lab.importing.importer import check_on_conflict, import_batches
from aico_lab.importing.saved import completed, load_saved, no_source, saved_names
from aico_lab.importing.stored_before import with_stored
from aico_lab.sources import SOURCES, Source, recognise
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.tables.older import NOTE, older_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.importing.importer import ImportResult, OnConflict
    from aico_lab.messages.records import Batch


class ChosenSource(NamedTuple):
    """The source and the answers with which a file is read.

    Attributes:
        source: The source.
        path: The file, or None for a source that needs none.
        options: The answers, completed by saved ones.
        why: The evidence for a recognised format; empty if the format was named.
    """

    source: Source
    path: Path | None
    options: Options
    why: str = ""


def choose(home: Home, what: Path | str, path: Path | str | None, options: Options) -> ChosenSource:
    """Return how to read a file.

    Args:
        home: The home, in which answers may be saved.
        what: The file; or, before a file, the name of a source or of a saved import.
        path: The file, after such a name.
        options: The answers of the user.

    Raises:
        WrongUse: Two files are named, or a saved name without a file.
        UnknownName: There is no such source, and nothing was saved under that name.
        SourceMissing: The file does not exist.
        SourceUnreadable: No format or more than one fits, or the file cannot be read.
    """
    name = str(what)
    if not (name and (path is None or str(path))):  # as a variable of a shell that is not set
        raise WrongUse("The name of the file is empty: name the file to import.")
    if path is None and name in SOURCES:
        return ChosenSource(SOURCES[name], None, options)
    if path is None:
        file = Path(what).expanduser()
        is_name = isinstance(what, str) and not file.suffix and "/" not in name
        if is_name and not file.exists():
            raise no_source(home, name)
        found = recognise(file, options)
        return ChosenSource(SOURCES[found.name], file, options, found.why)
    file = Path(path).expanduser()
    if name in SOURCES:
        return ChosenSource(SOURCES[name], file, options)
    saved = load_saved(home, name)
    if saved is None and name not in saved_names(home) and Path(what).expanduser().exists():
        raise WrongUse(f"Import one file at a time: `aico-lab import {name}`, then {path}.")
    if saved is None:
        raise no_source(home, name, is_alone=False)
    options = completed(saved.options, options)
    return ChosenSource(SOURCES[saved.format or recognise(file, options).name], file, options)


def import_from(
    connection: Connection,
    chosen: ChosenSource,
    *,
    limit: int | None,
    on_conflict: OnConflict | None,
    dry_run: bool,
    deletions: bool,
    progress: Callable[[Batch], None] | None,
) -> ImportResult:
    """Import the messages of a chosen source; see `Lab.import_from`.

    A file that `import csv` or `import jsonl` read before is read by that source again, so that
    nothing is added twice.
    """
    source, path, options, _ = chosen
    older = None
    if source.table and path is not None and path.exists():
        older = older_reader(path, options, lambda *message: _is_stored(connection, *message))
    if older is not None:
        source, options = older, Options()
    source.check_options(options, deletions=deletions)
    on_conflict = on_conflict or source.on_conflict_in(path, options)
    check_on_conflict(on_conflict)
    stored = StoredMessages(connection)
    options = with_stored(connection, source, path, options)
    result = import_batches(
        connection,
        source.read(path, limit=limit, options=options, stored=stored),
        source=source.name,
        on_conflict=on_conflict,
        dry_run=dry_run,
        deletions=deletions,
        progress=progress,
    )
    if older is not None:
        result.notes.append(NOTE.format(name=older.name))
    return result


def _is_stored(connection: Connection, conversation_id: str, message_id: str) -> bool:
    found = connection.fetch_all(
        "SELECT 1 FROM messages WHERE message_id = ? AND conversation_id = ?",
        (message_id, conversation_id),
    )
    return bool(found)
