"""The folder of a lab: what lies where, and the small file that makes a folder a lab."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final

from filelock import FileLock, Timeout

from aico_lab.errors import DiskFull, HomeExists, HomeMissing, HomeNotWritable, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aico_lab.errors import AicoLabError

FORMAT = 1
MAKING_SECONDS = 30
"""How long to wait for another program that makes the same home."""

RESULTS: Final = (".csv", ".parquet", ".json")
"""The endings of files to which results are written."""


@dataclass(frozen=True, slots=True)
class Home:
    """A lab's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def marker(self) -> Path:
        """The file that makes the folder a lab: its identity and how its key is wrapped."""
        return self.path / "lab.json"

    @property
    def unfinished(self) -> Path:
        """The marker of a home that is being made; it becomes `lab.json` by its last step."""
        return self.path / "lab.json.unfinished"

    @property
    def primary(self) -> Path:
        """The libSQL database: the only source of truth."""
        return self.path / "aico.db"

    @property
    def warehouse(self) -> Path:
        """The folder of the DuckDB projection."""
        return self.path / "warehouse"

    @property
    def writer(self) -> Path:
        """The DuckDB file that a sync writes; nobody else opens it."""
        return self.warehouse / "writer.duckdb"

    @property
    def snapshots(self) -> Path:
        """The copies of it that are read, one file per generation."""
        return self.warehouse / "snapshots"

    @property
    def vectors(self) -> Path:
        """The ChromaDB projection: this folder, or one encrypted file beside it."""
        return self.path / "vectors"

    @property
    def cache(self) -> Path:
        """The RocksDB cache."""
        return self.path / "cache"

    @property
    def temporary(self) -> Path:
        """Where databases may spill; what lands here is encrypted."""
        return self.path / "tmp"

    @property
    def reports(self) -> Path:
        """One folder per report that ran."""
        return self.path / "reports"

    def read_marker(self) -> dict[str, object]:
        """Read `lab.json`.

        Raises:
            HomeMissing: There is no lab here, or the file that says so is damaged.
            HomeNotWritable: The folder cannot be read.
        """
        try:
            marker = json.loads(self.marker.read_text(encoding="utf-8"))
            if not isinstance(marker, dict) or marker.get("format") != FORMAT:
                raise ValueError(f"format {marker!r}"[:60])
        except (FileNotFoundError, NotADirectoryError) as missing:
            raise HomeMissing(
                f"There is no lab in {self.path}: run `aico-lab init` or `aico-lab demo`, "
                "or name another folder with --home."
            ) from missing
        except OSError as refused:
            raise HomeNotWritable(
                f"{self.marker} cannot be read ({refused.strerror}): check its permissions."
            ) from refused
        except ValueError as damaged:
            raise HomeMissing(
                f"{self.marker} is damaged or of another version: restore it from a backup; "
                "without it the home's key cannot be unwrapped."
            ) from damaged
        return marker

    def prepare(self, home_id: str) -> None:
        """Make what a home consists of, with an empty file as the primary database.

        Before that file, a note is written: the next try can tell by it an unfinished home from one
        whose `lab.json` was lost.

        Raises:
            HomeExists: There is a lab in it already, or the remains of one.
            HomeNotWritable: The folder cannot be written.
        """
        with os_errors(self.path), private_files():
            if self.marker.exists():
                raise HomeExists(f"There is a lab in {self.path} already: use it, or name another.")
            if self.primary.exists():
                raise HomeExists(
                    f"{self.primary} lies there without the lab.json that opens it: "
                    "restore that file, or name another folder with --home."
                )
            for half_written in self.path.glob(f".{self.unfinished.name}.*"):
                half_written.unlink(missing_ok=True)
            write_atomically(self.unfinished, json.dumps({"home_id": home_id}).encode())
            for folder in (self.warehouse, self.temporary, self.reports):
                folder.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self.primary, os.O_CREAT | os.O_EXCL, 0o600))

    @contextlib.contextmanager
    def being_made(self) -> Iterator[None]:
        """Keep other programs from making the same home, while this one does.

        Raises:
            HomeExists: Another one is at it, or something else lies in the folder.
            HomeNotWritable: The folder cannot be made or written.
        """
        with os_errors(self.path), private_files():
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.marker.exists():
                self._refuse_others()
                self.path.chmod(0o700)
            self.temporary.mkdir(mode=0o700, exist_ok=True)
        lock = self.temporary / "init.lock"
        with held(lock, MAKING_SECONDS, self._is_made):
            yield
        lock.unlink(missing_ok=True)  # whoever waits for it finds that the home is made

    def _refuse_others(self) -> None:
        """Raise HomeExists where something lies in the folder that no unfinished home has.

        It would be hidden from others, and may have a name that a home uses.
        """
        own = {path.name for path in (self.warehouse, self.temporary, self.reports)}
        for there in sorted(path.name for path in self.path.iterdir()):
            ours = there.lstrip(".").startswith((self.primary.name, self.unfinished.name))
            if there not in own and not ours:
                raise HomeExists(
                    f"{self.path} is not empty ({there!r} lies there): name a new or an empty "
                    "folder with --home."
                )

    def _is_made(self, who: str) -> HomeExists:
        return HomeExists(f"The lab in {self.path} is being made by {who}: use that one.")

    def abandoned(self) -> str | None:
        """Return the id of a home that was begun here and never finished, or None."""
        if self.marker.exists():
            return None
        try:
            begun = json.loads(self.unfinished.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return str(begun.get("home_id")) if isinstance(begun, dict) else None

    def discard(self) -> None:
        """Remove the primary database of a home that was not finished: nothing is in it."""
        for suffix in ("", "-wal", "-shm"):
            self.primary.with_name(f"{self.primary.name}{suffix}").unlink(missing_ok=True)
        for path in (self.unfinished, *self.path.glob(f".{self.unfinished.name}.*")):
            path.unlink(missing_ok=True)

    def write_marker(self, marker: Mapping[str, object]) -> None:
        """Write `lab.json`; from now on the folder is a lab."""
        with os_errors(self.path):
            content = json.dumps({"format": FORMAT, **marker}, indent=2)
            write_atomically(self.unfinished, content.encode() + b"\n")
            self.unfinished.replace(self.marker)
            sync_folder(self.path)


_umask_lock = threading.Lock()
_umask_users = 0
_umask_before = 0


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Let what is made inside be for its owner alone, also by libraries, whatever the umask.

    The umask is the whole process's: what other threads make meanwhile is private, too.
    """
    global _umask_users, _umask_before  # noqa: PLW0603 - as the umask itself
    with _umask_lock:
        _umask_users += 1
        if _umask_users == 1:
            _umask_before = os.umask(0o077)
    try:
        yield
    finally:
        with _umask_lock:
            _umask_users -= 1
            if _umask_users == 0:
                os.umask(_umask_before)


def make_private(folder: Path) -> None:
    """Let the owner of a folder's files use them, and nobody else."""
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it went away just now
            if file.stat().st_mode & 0o777 != 0o600:  # noqa: PLR2004
                file.chmod(0o600)


def remove_whole(path: Path) -> None:
    """Remove a file, or a folder with all that lies in it; nothing where there is neither."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(NotADirectoryError):  # a folder above it is a file
            path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all, and durable on return."""
    with open_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Write a file in pieces; it takes its place, durably, when the block ends without an error."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def results_file(path: Path) -> Iterator[Path]:
    """Give the name under which to write results; the file takes its place if nothing failed.

    Args:
        path: The file that is wanted. Only its owner can read it, since it holds private text.

    Raises:
        InvalidValue: It has none of the endings `RESULTS`, there is no such folder, or that is a
            home's, where `lab.json` might be replaced.
        HomeNotWritable: It cannot be written there.
    """
    path = path.expanduser().absolute()
    if path.suffix not in RESULTS:
        raise InvalidValue(f"{path.name!r} does not end in {' or '.join(RESULTS)}.")
    if not path.parent.is_dir():
        raise InvalidValue(f"There is no folder {path.parent}: make it, or name another file.")
    for folder in path.resolve().parents:
        notebooks = (folder / "notebooks") in path.resolve().parents
        if Home(folder).marker.exists() and not notebooks:
            raise InvalidValue(f"{path} lies in the home {folder}: name a file elsewhere.")
    beside = path.with_name(f".{secrets.token_hex(4)}.{path.name}")  # with its ending
    with os_errors(path):
        try:
            with private_files():
                yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut, where the platform can say so."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def held(lock: Path, seconds: float, busy: Callable[[str], AicoLabError]) -> Iterator[None]:
    """Hold a lock for which other programs wait; a file beside it says who has it.

    Args:
        lock: The lock's file, which has an ending; the holder's has none.
        seconds: How long to wait.
        busy: Gives the error for having waited in vain, from words for the holder.
    """
    waiting, holder = FileLock(lock, timeout=seconds), lock.with_suffix("")
    with os_errors(lock.parent):
        for file in (lock, holder):
            if file.is_dir():  # which nothing of ours has made
                remove_whole(file)
        try:
            waiting.acquire()
        except Timeout as timeout:
            who = ""
            with contextlib.suppress(FileNotFoundError):  # it is done just now
                who = holder.read_text(encoding="ascii", errors="replace")
            raise busy(who or "another program") from timeout
    try:
        with os_errors(lock.parent):
            now = datetime.now(UTC)
            holder.write_text(
                f"process {os.getpid()} since {now:%Y-%m-%d %H:%M:%S} UTC", encoding="ascii"
            )
        yield
    finally:
        holder.unlink(missing_ok=True)
        waiting.release()


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below `path` into one sentence."""
    try:
        yield
    except OSError as refused:
        if refused.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk that holds {path} is full: free some space.") from refused
        raise HomeNotWritable(
            f"{refused.filename or path} cannot be used ({refused.strerror}): "
            "check its permissions or name another folder with --home."
        ) from refused
