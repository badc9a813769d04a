"""Immutable copies of the warehouse for readers, one for each generation.

While a process writes a DuckDB file, no other process can open it, so readers never open the
writer's file. A snapshot is written under another name and renamed, never changed, and removed some
generations later; a reader that has it open can go on reading it.

Small changes stay in the writer's write-ahead log and leave the writer's file as it was. The next
snapshot is then a hard link to the file of the snapshot before, with a copy of the log. No damaged
file is published: before a link its checksum is compared, and a copy is read whole.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from aico_lab.errors import CorruptDatabase, NeverSynced, UnknownName
from aico_lab.etl import writer_file
from aico_lab.etl.pins import pinned
from aico_lab.etl.soundness import checksum, read_checksums, write_checksums
from aico_lab.etl.writer_file import WriterFile
from aico_lab.home.files import os_errors, remove_whole, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

KEPT = 3
"""The number of generations that are kept, besides pinned ones."""

CHECKSUMS = "checksums"
"""The file, beside the folder of snapshots, with the checksums of their files."""

ANSWERS = "answers"
"""The folder, beside that of the snapshots, of answers that were computed from them."""

NOTE = "published"
"""The file that describes the newest snapshot, by which a sync notices that nothing changed."""


def published(folder: Path) -> dict[int, Path]:
    """Return the files of the published snapshots by generation, oldest first."""
    found = {
        generation: path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (generation := _generation(path.name)) and path.is_file()
    }
    return dict(sorted(found.items()))


def _generation(name: str) -> int:
    """Return the generation of a snapshot's file name, or 0 for another name."""
    match = re.fullmatch(r"(\d{8,})\.duckdb", name)
    return int(match[1]) if match else 0


def newest(folder: Path) -> int:
    """Return the newest generation that was published, also if its file is missing; 0 for none.

    Both records are written after the file has its name. If they differ, one of them is damaged,
    and the lower number is believed.
    """
    noted = filter(None, map(_generation, read_checksums(folder.with_name(CHECKSUMS))))
    records = [max(noted, default=0)]
    with contextlib.suppress(OSError, ValueError):
        records.append(int(folder.with_name(NOTE).read_bytes().partition(b" ")[0]))
    recorded = min(filter(None, records), default=0)
    return max([recorded, *published(folder)])


def find(folder: Path, generation: int | None = None) -> tuple[int, Path]:
    """Return a generation and its file; by default, the newest.

    Raises:
        NeverSynced: There is no snapshot at all.
        UnknownName: The generation is not kept.
        CorruptDatabase: The newest snapshot's file is missing.
    """
    last = newest(folder)
    snapshots = published(folder)  # afterwards, since a sync may publish another one meanwhile
    if not last:
        raise NeverSynced("There is no snapshot to read yet: run `aico-lab sync` first.")
    if generation is None:
        generation = max([last, *snapshots])
        if generation not in snapshots:
            raise CorruptDatabase(
                f"The file of snapshot {last}, the newest, is missing: run `aico-lab sync`, which "
                "publishes it again."
            )
    if generation not in snapshots:
        kept = ", ".join(map(str, snapshots))
        raise UnknownName(f"Snapshot {generation} is not kept; these snapshots are: {kept}.")
    return generation, snapshots[generation]


def publish(
    writer: Path,
    folder: Path,
    generation: int,
    *,
    read: Callable[[Path], None],
    link: bool = True,
) -> Path:
    """Publish the writer's closed files as a new generation, and remove old generations.

    Args:
        writer: The writer's file; its write-ahead log, if there is one, lies beside it.
        folder: The folder of snapshots.
        generation: The number of the new generation.
        read: A function that reads a file whole, and raises StorageError if the file is damaged.
        link: Whether the new snapshot may share the file of an earlier one.

    Returns:
        The new snapshot's file.

    Raises:
        StorageError: The copy cannot be read; nothing was published.
    """
    target = folder / f"{generation:08d}.duckdb"
    partial = folder / f".{target.name}.partial"
    with os_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        _clear_up(folder)
        noted = read_checksums(folder.with_name(CHECKSUMS))
        file = WriterFile(writer)
        same = _sound_copy(file, folder, noted) if link else None
        try:
            if log(writer).exists():
                writer_file.copy(log(writer), log(partial))
            file.copy(partial, same_as=same)
            if same is None:
                read(partial)
            known = noted[same.name] if same and partial.samefile(same) else checksum(partial)
            for one, name in ((log(partial), log(target)), (partial, target)):
                if one.exists():
                    one.replace(name)
        except BaseException:
            _clear_up(folder)
            raise
        sync_folder(folder)
        _record(target, noted, known)
        _remove_unsound(folder, except_for=target)
        _remove_old(folder)
        _remove_answers(folder)
    return target


def is_sound(folder: Path, generation: int) -> bool:
    """Return whether a snapshot's files have their recorded checksums; False if there are none."""
    noted = read_checksums(folder.with_name(CHECKSUMS))
    snapshot = published(folder).get(generation)
    return snapshot is not None and _is_as_noted(snapshot, noted)


def is_changed(snapshot: Path) -> bool:
    """Return whether a snapshot's files differ from their checksums; False if there are none."""
    noted = read_checksums(snapshot.parent.with_name(CHECKSUMS))
    return snapshot.name in noted and not _is_as_noted(snapshot, noted)


def is_log_sound(writer: Path, folder: Path) -> bool:
    """Return whether the writer's log begins with the log that was published last.

    DuckDB may take a damaged log for one that a crash cut off, and silently skip the damaged part.
    """
    noted = read_checksums(folder.with_name(CHECKSUMS))
    newest = next(reversed(published(folder).values()), None)
    if newest is None or not writer.exists() or not WriterFile(writer).is_same_as(newest):
        return True  # nothing to compare with: after a checkpoint, or another file
    if not log(newest).is_file() or noted.get(log(newest).name) != checksum(log(newest)):
        return True
    try:
        before = log(newest).read_bytes()
        return log(writer).read_bytes()[: len(before)] == before
    except OSError:
        return False


def _is_as_noted(
    snapshot: Path, noted: Mapping[str, str], known: dict[tuple[int, int], str] | None = None
) -> bool:
    """Return whether a snapshot's files have their checksums.

    Args:
        snapshot: The file; its log, if there is one, lies beside it.
        noted: The recorded checksums.
        known: The checksums of files that were read already, by device and inode; others are added.
    """
    known = {} if known is None else known
    files = [path for path in (snapshot, log(snapshot)) if path.exists() or path.name in noted]
    try:
        for path in files:
            if _inode(path) not in known:
                known[_inode(path)] = checksum(path)
        return snapshot.name in noted and all(
            noted.get(path.name) == known[_inode(path)] for path in files
        )
    except OSError:  # a file is missing, or the disk cannot read it
        return False


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _sound_copy(writer: WriterFile, folder: Path, noted: Mapping[str, str]) -> Path | None:
    """Return the newest undamaged snapshot whose file is the same as the writer's, or None."""
    for path in reversed(published(folder).values()):
        if writer.is_same_as(path) and noted.get(path.name) == checksum(path):
            return path
    return None


def _record(snapshot: Path, noted: Mapping[str, str], known: str) -> None:
    """Record the checksums of a new snapshot, which makes it the newest one for readers.

    Args:
        snapshot: The file; its log, if there is one, lies beside it.
        noted: The recorded checksums of all earlier files.
        known: The checksum of the file.
    """
    others = [path for path in published(snapshot.parent).values() if path != snapshot]
    kept = {path.name for other in others for path in (other, log(other))}
    new = {name: value for name, value in noted.items() if name in kept} | {snapshot.name: known}
    if log(snapshot).exists():
        new[log(snapshot).name] = checksum(log(snapshot))
    write_checksums(snapshot.parent.with_name(CHECKSUMS), new)


def _remove_unsound(folder: Path, *, except_for: Path) -> None:
    """Remove snapshots that differ from their checksums, or that have none and are not pinned."""
    noted = read_checksums(folder.with_name(CHECKSUMS))
    read = pinned(folder)
    known = {_inode(except_for): noted.get(except_for.name, "")}
    for generation, path in published(folder).items():
        vouched_for = _is_as_noted(path, noted, known)
        if not vouched_for and (path.name in noted or generation not in read):
            _remove(path)


def _remove_old(folder: Path) -> None:
    read = pinned(folder)
    for generation, path in list(published(folder).items())[:-KEPT]:
        if generation not in read:
            _remove(path)


def remove_others(folder: Path, generation: int) -> list[int]:
    """Remove all snapshots but one, also pinned ones; return their generations.

    A process that has one open can go on reading it, where the system allows to remove open files.

    Raises:
        HomeNotWritable: A file cannot be removed, since a process has it open.
    """
    with os_errors(folder):
        others = {found: path for found, path in published(folder).items() if found != generation}
        for path in others.values():
            path.unlink(missing_ok=True)
            log(path).unlink(missing_ok=True)
        sync_folder(folder)
    return list(others)


def _remove_answers(folder: Path) -> None:
    """Remove the answers that were computed from snapshots that are gone, if it is possible.

    The new snapshot is there already; answers that are left over are in nobody's way.
    """
    kept = {path.stem for path in published(folder).values()}
    with contextlib.suppress(OSError):
        for answers in folder.with_name(ANSWERS).iterdir():
            if answers.name not in kept:
                remove_whole(answers)


def _remove(snapshot: Path) -> None:
    try:
        snapshot.unlink(missing_ok=True)
        log(snapshot).unlink(missing_ok=True)
    except PermissionError:  # Windows cannot remove an open file: try again next time
        return


def log(database: Path) -> Path:
    """Return the path of the write-ahead log of a DuckDB file."""
    return database.with_name(f"{database.name}.wal")


def _clear_up(folder: Path) -> None:
    """Remove the files of a publication that failed or was killed."""
    for partial in folder.glob(".*.partial*"):
        partial.unlink(missing_ok=True)
    for alone in folder.glob("*.wal"):
        if not alone.with_suffix("").exists():
            alone.unlink(missing_ok=True)
