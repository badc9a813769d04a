"""Write a backup of an opened home, and check backups."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.age import new_identity, read_identities, recipient_of
from aico_lab.adapters.temporary_folders import give_back, own_folder, remove_left_over
from aico_lab.backup import records
from aico_lab.backup.container import (
    NAME_BEGIN,
    SUFFIX,
    heading_bytes,
    line_of,
    newest_in,
    numbered,
    opened,
    read_heading,
    write_container,
)
from aico_lab.backup.rebuilding import Rebuilt, pages_of, rebuild, row_counts
from aico_lab.errors import (
    AicoLabError,
    CorruptDatabase,
    DatabaseLocked,
    InvalidValue,
    SourceMissing,
)
from aico_lab.home.bech32 import bech32
from aico_lab.home.files import held, os_errors, private_files, sync_folder
from aico_lab.integrity.guard import check_pages
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys
    from aico_lab.storage import Storage

FOLDERS: Final = ("notebooks", "pipelines", "reports", "sources")
"""The folders of a home with files that nothing makes again."""

_HASH: Final = 16  # bytes of the hash of a page
_MOST_CHANGED: Final = 0.25
"""The share of changed pages above which a backup is a whole one again."""

_PARTIAL: Final = ".partial"


def back_up_home(storage: Storage, target: Path) -> records.BackupRecord:
    """Write a backup, check it, and record it in the home.

    Others can write meanwhile: the backup holds one state of the database. The file gets its name
    when it was decrypted, opened as a database, and compared with that state.

    Args:
        storage: The opened home.
        target: The file, which is replaced; or a folder, where a backup holds only the pages that
            changed since the last whole one, unless these are too many.

    Raises:
        InvalidValue: The target is inside the home, or nobody could open the backup.
        DatabaseLocked: Another backup of this home is being made.
        CorruptDatabase: The database is damaged.
        DiskFull: There is no room for the backup, or to check it.
    """
    home, primary = storage.home, storage.primary
    target = target.expanduser().absolute()
    if target.resolve().is_relative_to(home.path.resolve()):
        raise InvalidValue(f"{target} is inside the home, and would be lost with it: name another.")
    marker = home.read_marker()
    refuse_rotation(marker)
    check_pages(storage)
    known = records.recipients(primary)
    own = own_identity(storage.keys)
    if own is None and not known:
        raise InvalidValue(
            "This home has no key to encrypt a backup with: add `--recipient new`, which prints "
            "the key of its backups."
        )
    # A home without a key opens the backup only this once, to check it.
    opener = own or new_identity()[0]
    now = datetime.now(UTC)
    home_id = str(marker["home_id"])
    with _locked(home), private_files():
        base = None
        if target.is_dir():
            base = _last_whole(target, home_id, own) if own else None
            target = target / f"{_names(home_id)}{now:%Y%m%dT%H%M%S%f}Z{SUFFIX}"
        partial = target.with_name(f".{target.name}{_PARTIAL}")
        _sweep(target.parent, home_id, partial)
        heading = heading_bytes(home_id, now.isoformat(), marker)
        try:
            with os_errors(target), partial.open("xb") as file:
                with (
                    storage.open_primary() as connection,
                    contextlib.closing(
                        _content(connection, home, hashlib.sha256(heading).hexdigest(), base)
                    ) as content,
                ):
                    write_container(file, heading, content, [recipient_of(opener), *known])
                file.flush()
                os.fsync(file.fileno())
            found = _rebuilt(storage, partial, [opener])
            with os_errors(target):
                partial.replace(target)
                sync_folder(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    made = records.record_of(target, found)
    records.record(primary, made)
    return made


def check_backup_file(
    storage: Storage, backup: Path, identity_file: Path | None = None
) -> records.BackupRecord:
    """Decrypt a backup, open its database, compare it, and record the outcome in the home.

    Args:
        storage: The home that it is a backup of.
        backup: The file, or a folder for the newest one in it.
        identity_file: The identity of a recipient; by default the home's own key is used.

    Raises:
        InvalidValue: The backup is of another home.
        StorageError: The backup is damaged, or cannot be opened.
        WrongKey: The identity does not open it.
    """
    backup = newest_in(backup.expanduser().absolute())
    heading = read_heading(backup)
    if heading.home_id != str(storage.home.read_marker()["home_id"]):
        raise InvalidValue(
            f"{backup} is a backup of another home: name that one with --home, or restore it."
        )
    own = own_identity(storage.keys)
    identities = read_identities(identity_file) if identity_file else [own] if own else []
    if not identities:
        raise InvalidValue("This home has no key: name the identity of its backups by --identity.")
    try:
        with _locked(storage.home), private_files():
            found = _rebuilt(storage, backup, identities)
    except (CorruptDatabase, SourceMissing) as problem:
        records.failed(storage.primary, str(backup), datetime.now(UTC).isoformat(), str(problem))
        raise
    checked = records.record_of(backup, found)
    records.record(storage.primary, checked)
    return checked


def refuse_rotation(marker: Mapping[str, Any]) -> None:
    """Raise InvalidValue while the stores of a home have two keys."""
    if marker.get("rotation"):
        raise InvalidValue(
            "The rotation of the home's key is unfinished: run `aico-lab keys rotate` first."
        )


def own_identity(keys: Keys) -> str | None:
    """Return the age identity that opens all backups of a home, or None if it has no key."""
    key = keys.backup()
    return bech32("age-secret-key-", key).upper() if key else None


def _rebuilt(storage: Storage, backup: Path, identities: Collection[str]) -> Rebuilt:
    """Rebuild a backup's database in the home's folder for temporary files, and remove it."""
    remove_left_over(storage.home.temporary)
    folder = own_folder(storage.home.temporary)
    try:
        with os_errors(folder):
            folder.mkdir(mode=0o700)
        key = storage.keys.libsql()
        return rebuild(backup, folder / "aico.db", key, lambda _: identities)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        give_back(folder)


def _names(home_id: str) -> str:
    return f"{NAME_BEGIN}{home_id[:8]}-"


def _sweep(folder: Path, home_id: str, partial: Path) -> None:
    """Remove what backups of this home that were killed left in a folder."""
    for path in {partial, *folder.glob(f".{_names(home_id)}*{_PARTIAL}")}:
        with os_errors(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    def busy(who: str) -> DatabaseLocked:
        return DatabaseLocked(f"A backup of this home is being made or checked by {who}: wait.")

    with held(home.temporary / "backup.lock", 0, busy):
        yield


@dataclass(frozen=True, slots=True)
class _Whole:
    """The whole backup that one of changes continues.

    Attributes:
        name: The name of its file.
        heading: The digest of its heading.
        hashes: The hashes of its pages, in their order.
        files: The digests of the files that it holds.
    """

    name: str
    heading: str
    hashes: bytes
    files: frozenset[str]


def _last_whole(folder: Path, home_id: str, identity: str) -> _Whole | None:
    """Return the last whole backup of a home in a folder, unless it cannot be read."""
    for path in sorted(folder.glob(f"{_names(home_id)}*{SUFFIX}"), reverse=True):
        with contextlib.suppress(AicoLabError):
            heading = read_heading(path)
            with opened(path, heading, [identity]) as payload:
                if payload.facts["base"] is not None:
                    continue
                hashes = b"".join(_hash(page) for _, page in payload.pages())
                files = {str(facts.get("sha256")) for facts, _ in payload.files()}
            return _Whole(path.name, heading.digest, hashes, frozenset(files))
    return None


def _hash(page: bytes) -> bytes:
    return hashlib.blake2b(page, digest_size=_HASH).digest()


def _content(
    connection: Connection, home: Home, heading: str, base: _Whole | None
) -> Generator[bytes]:
    """Yield the bytes of the encrypted part of a backup."""
    digest = hashlib.sha256()

    def noted(piece: bytes) -> bytes:
        digest.update(piece)
        return piece

    with connection.snapshot():
        cursor = feed.head(connection)
        count, size = (
            int(connection.fetch_all(f"PRAGMA {name}")[0][0])
            for name in ("page_count", "page_size")
        )
        changed = None if base is None else _changed(connection, base)
        if changed is None or len(changed) > _MOST_CHANGED * count:
            base = changed = None
        facts = {
            "format": 1,
            "heading": heading,
            "version": version("aico-lab"),
            "page_size": size,
            "pages": count,
            "database_id": cursor.database_id,
            "seq": cursor.seq,
            "anchor": cursor.anchor,
            "base": base and {"name": base.name, "heading": base.heading},
        }
        yield noted(line_of(facts))
        pages = hashlib.sha256()
        for number, page in pages_of(connection):
            if number > 1:
                pages.update(page)
            if changed is None or number in changed:
                yield noted(numbered(number, page))
        yield noted(numbered(0))
        rows = row_counts(connection)
    for path in _files(home):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # removed meanwhile
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        stored = base is None or sha256 not in base.files
        name = path.relative_to(home.path).as_posix()
        yield noted(
            line_of({"path": name, "bytes": len(content), "sha256": sha256, "stored": stored})
        )
        if stored:
            yield noted(content)
    totals = {"rows": rows, "pages_sha256": pages.hexdigest(), "digest": digest.hexdigest()}
    yield line_of(totals)


def _changed(connection: Connection, base: _Whole) -> set[int]:
    known = base.hashes
    return {
        number
        for number, page in pages_of(connection)
        if known[(number - 1) * _HASH : number * _HASH] != _hash(page)
    }


def _files(home: Home) -> Iterator[Path]:
    """Yield the files of a home that nothing makes again, without hidden ones."""
    for name in FOLDERS:
        for path in sorted((home.path / name).rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(home.path).parts)
            if path.is_file() and not path.is_symlink() and not hidden:
                yield path
