"""Import the files of a watched folder, each again only when it has changed.

What was imported is noted in the primary database: the size and time of each file, by its path and
the answers with which it was imported.
"""

from __future__ import annotations

import glob
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.errors import SourceError, WrongUse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aico_lab.importing.importer import ImportResult
    from aico_lab.lab import Lab

_PREFIX: Final = "watched"
_UNFINISHED: Final = frozenset({".part", ".crdownload", ".download", ".partial", ".tmp"})
"""Suffixes of files that a browser is still writing."""


@dataclass(frozen=True, slots=True)
class WatchedFile:
    """A new or changed file of a watched folder.

    Attributes:
        path: The file, or a folder that is one export.
        result: The result of its import; None if it could not be read.
        error: The reason why it could not be read; empty if it was.
    """

    path: Path
    result: ImportResult | None
    error: str = ""


@dataclass(slots=True)
class WatchResult:
    """The result of importing a watched folder.

    Attributes:
        watched: The folder or pattern.
        files: The new and changed files, in the order of their import.
        unchanged: The number of files that were imported before and have not changed.
    """

    watched: Path
    files: list[WatchedFile] = field(default_factory=list)
    unchanged: int = 0

    @property
    def broken(self) -> list[WatchedFile]:
        """The files that could not be read."""
        return [one for one in self.files if one.result is None]


def is_pattern(path: Path) -> bool:
    """Return whether a path is a pattern such as `inbox/*.zip`."""
    return fixed_part(path) != path


def fixed_part(path: Path) -> Path:
    """Return the folder of a pattern before its first wildcard, or a path that is no pattern.

    Brackets in the name of a folder that exists, such as that of the pipeline, are no wildcard.
    """
    folder = Path()
    for part in path.parts:
        if glob.has_magic(part) and not (folder / part).exists():
            return folder
        folder /= part
    return folder


def import_watched(
    lab: Lab,
    watched: Path,
    take: Callable[[Path], ImportResult],
    *,
    answers: Mapping[str, Any],
    keep_going: bool,
) -> WatchResult:
    """Import the new and changed files of a folder or pattern, those with the oldest time first.

    A file that cannot be read is reported and tried again the next time; the others are imported.

    Args:
        lab: The home.
        watched: A folder, whose files and folders are one export each; or a pattern of such paths.
        take: Imports one file.
        answers: The options of the import; a file is taken again when they change.
        keep_going: Whether a file with invalid lines or parts counts as imported.

    Raises:
        AicoLabError: The home cannot be written.
    """
    result = WatchResult(watched)
    told = _digest(json.dumps(answers, sort_keys=True, default=str))[:16]
    for path in _found(watched):
        key = f"{_PREFIX}:{told}:{path.absolute()}"
        try:
            state = _state(path)
        except OSError as error:  # a file was removed meanwhile, or a folder cannot be read
            result.files.append(WatchedFile(path, None, f"{error.strerror}."))
            continue
        if lab.primary.fetch_all("SELECT value FROM system_state WHERE key = ?", [key]) == [
            (state,)
        ]:
            result.unchanged += 1
            continue
        try:
            done = take(path)
        except (SourceError, WrongUse) as error:  # the answers may not suit this file alone
            result.files.append(WatchedFile(path, None, str(error)))
            continue
        result.files.append(WatchedFile(path, done))
        if keep_going or not done.rejected:
            with lab.primary.transaction():
                lab.primary.execute(
                    f"INSERT INTO system_state VALUES (?, ?, {NOW}) ON CONFLICT (key) "
                    "DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                    [key, state],
                )
    return result


def _found(watched: Path) -> list[Path]:
    """Return the paths to import, by the time of their last change and then by name."""
    if watched.is_dir():
        paths = list(watched.iterdir())
    else:
        folder = fixed_part(watched)
        paths = list(folder.glob(str(watched.relative_to(folder))))
    kept = [
        path
        for path in paths
        if not path.name.startswith(".") and path.suffix.lower() not in _UNFINISHED
    ]
    return sorted(kept, key=lambda path: (_last_change(path), path.name))


def _last_change(path: Path) -> int:
    """Return the time of the last change in ns; 0 if it is unknown, as that of a dead link."""
    try:
        return path.stat().st_mtime_ns
    except OSError:  # the import of the file gives the reason
        return 0


def _state(path: Path) -> str:
    """Return the sizes and times of a file, or of all files of a folder, in short."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    facts = [
        (one.relative_to(path).as_posix(), one.stat().st_size, one.stat().st_mtime_ns)
        for one in files
        if one.is_file()
    ]
    return _digest(json.dumps(facts))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
