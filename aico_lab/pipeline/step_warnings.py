"""Sentences about the result of a step that an operator should read."""

from __future__ import annotations

from aico_lab.importing.importer import ImportResult
from aico_lab.pipeline.watching import WatchResult


def warnings_of(result: object) -> list[str]:
    """Return the warnings of a step's result."""
    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import SyncResult

    match result:
        case ImportResult():
            return _of_import(result)
        case WatchResult():
            return [
                f"{one.path.name}: {said}"
                for one in result.files
                for said in ([one.error] if one.result is None else _of_import(one.result))
            ]
        case SyncResult():
            found = [*result.warnings, *result.problems]
            return found + _misfits(sum(result.quarantined.values()))
        case LoadResult():
            return [*result.warnings, *_misfits(result.quarantined)]
    return []


def _of_import(result: ImportResult) -> list[str]:
    found = [*result.notes]
    if result.rejected:
        found.append(f"{result.rejected:,} invalid lines or parts were left out.")
    if result.uncompared:
        found.append(uncompared(result))
    return found


def uncompared(result: ImportResult) -> str:
    """Return the sentence about conversations that an import did not compare."""
    were = "conversation was" if result.uncompared == 1 else "conversations were"
    return (
        f"{result.uncompared:,} {were} not compared with the stored messages: a part is damaged, "
        "or was not read."
    )


def _misfits(count: int) -> list[str]:
    return [f"{count:,} rows do not fit their columns and were set aside."] if count else []
