"""Sentences about the result of a step that an operator should read."""

from __future__ import annotations

from aico_lab.etl.foreign import LoadResult
from aico_lab.etl.sync import SyncResult
from aico_lab.importing.importer import ImportResult
from aico_lab.pipeline.watching import WatchResult


def warnings_of(result: object) -> list[str]:
    """Return the warnings of a step's result."""
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
    left = f"{result.rejected:,} invalid lines or parts were left out."
    return [*result.notes, *([left] if result.rejected else [])]


def _misfits(count: int) -> list[str]:
    return [f"{count:,} rows do not fit their columns and were set aside."] if count else []
