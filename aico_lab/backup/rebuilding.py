"""Write the pages of a backup into a new database file, and compare the file with the backup."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import BUSY_TIMEOUT, Connection, LibSQLAdapter
from aico_lab.adapters.libsql_errors import SHOWN, on_one_line
from aico_lab.adapters.sql_text import quoted
from aico_lab.backup.container import Heading, Payload, opened, read_heading
from aico_lab.errors import CorruptDatabase, SourceMissing
from aico_lab.home.files import os_errors, private_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

_AT_ONCE: Final = 256  # pages
_LOCK_BYTE: Final = 1 << 30
"""The offset of the page that SQLite keeps free for its locks, and neither reads nor writes."""

_FILLER: Final = 1000  # pages that one row of the filler takes


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A backup whose database was written, opened and compared.

    Attributes:
        heading: The heading of the backup.
        facts: The facts at the beginning of its encrypted part.
        totals: The digests and counts at its end.
    """

    heading: Heading
    facts: dict[str, Any]
    totals: dict[str, Any]

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(self.totals["rows"].values())


def rebuild(
    backup: Path,
    target: Path,
    key: str | None,
    identities: Callable[[Heading], Collection[str]],
    *,
    keep: Callable[[str, bytes], None] | None = None,
) -> Rebuilt:
    """Write the database of a backup into a new file, and check it.

    Args:
        backup: The backup; one of changes needs the whole one beside it.
        target: The new file, which is removed after an error.
        key: The key that the new file gets, or None for plain text.
        identities: Returns the identities that may open a backup with this heading.
        keep: Called with the path and the content of each file that the backup holds.

    Raises:
        SourceMissing: The backup, or the whole one that it needs, does not exist.
        WrongKey: The identities do not open the backup.
        CorruptDatabase: The backup is damaged, or the new file differs from it.
        DiskFull: There is no room for the new file.
    """
    try:
        with private_files(), os_errors(target.parent):
            done = _write(backup, target, key, identities, keep)
            _sync(target)
            _compare(target, key, done, backup.name)
    except BaseException:
        remove_database(target)
        raise
    return done


def remove_database(path: Path) -> None:
    """Remove a database file and the logs beside it; its seal first, which counts without it."""
    for suffix in (".seal", "", "-wal", "-shm", "-journal", ".tail"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _write(
    backup: Path,
    target: Path,
    key: str | None,
    identities: Callable[[Heading], Collection[str]],
    keep: Callable[[str, bytes], None] | None,
) -> Rebuilt:
    heading = read_heading(backup)
    with opened(backup, heading, identities(heading)) as payload, contextlib.ExitStack() as more:
        base = None
        if payload.facts["base"] is not None:
            base = more.enter_context(_base_of(backup, payload.facts["base"], identities))
        with _new_database(target, key, payload.facts) as connection:
            sources = [payload] if base is None else [base, payload]
            pages = itertools.chain.from_iterable(source.pages() for source in sources)
            _fill(connection, payload.facts, pages)
        totals, elsewhere = _keep_files(payload, keep)
        if base is not None:
            _, missing = _keep_files(base, keep, elsewhere)
            if missing:
                raise CorruptDatabase(f"{backup.name} is damaged: use another backup.")
        return Rebuilt(heading, payload.facts, totals)


@contextlib.contextmanager
def _base_of(
    backup: Path, base: dict[str, str], identities: Callable[[Heading], Collection[str]]
) -> Iterator[Payload]:
    path = backup.with_name(base["name"])
    try:
        heading = read_heading(path)
    except SourceMissing as missing:
        raise SourceMissing(
            f"{backup.name} holds only changes since {path.name}, which is not beside it: put that "
            "backup into the same folder."
        ) from missing
    if heading.digest != base["heading"]:
        raise CorruptDatabase(f"{path.name} is not the backup that {backup.name} continues.")
    with opened(path, heading, identities(heading)) as payload:
        yield payload


def _keep_files(
    payload: Payload,
    keep: Callable[[str, bytes], None] | None,
    wanted: dict[str, list[str]] | None = None,
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Check the files that a backup holds, and keep them.

    Args:
        payload: The backup, whose pages were read.
        keep: Called with the path and the content of each file.
        wanted: The paths of the only files to keep, by their digests.

    Returns:
        The totals, and the paths, by digest, of files that only the base holds.
    """
    elsewhere: dict[str, list[str]] = {} if wanted is None else dict(wanted)
    for facts, content in payload.files():
        if "path" not in facts:
            return facts, elsewhere
        sha256 = facts["sha256"]
        if content is None:
            elsewhere.setdefault(sha256, []).append(facts["path"])
            continue
        paths = [facts["path"]] if wanted is None else elsewhere.pop(sha256, [])
        for path in paths:
            if keep is not None:
                keep(path, content)
    raise AssertionError("the totals end the files")


@contextlib.contextmanager
def _new_database(target: Path, key: str | None, facts: dict[str, Any]) -> Iterator[Connection]:
    """Yield a connection to a new file that has as many pages as the backup.

    The pages are those of a table, since SQLite overwrites single pages but adds none.
    """
    size, count = int(facts["page_size"]), int(facts["pages"])
    remove_database(target)
    with Connection(target, key, busy_timeout=BUSY_TIMEOUT) as connection:
        # Half a file is never used, so that there is nothing to roll back.
        connection.fetch_all("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA page_size = {size}")
        connection.execute("CREATE TABLE filler (x)")
        while (missing := count - _pages(connection)) > 0:
            room = min(missing, _FILLER) * (size - 4) - size // 2
            connection.execute("INSERT INTO filler VALUES (zeroblob(?))", [max(room, size // 2)])
        yield connection


def _pages(connection: Connection) -> int:
    return int(connection.fetch_all("PRAGMA page_count")[0][0])


def _fill(
    connection: Connection, facts: dict[str, Any], pages: Iterable[tuple[int, bytes]]
) -> None:
    """Overwrite pages, the first one last: it has the schema, which SQLite would read again."""
    count, untouched = int(facts["pages"]), _LOCK_BYTE // int(facts["page_size"]) + 1
    first = b""
    write = "UPDATE sqlite_dbpage SET data = ? WHERE pgno = ?"
    with connection.transaction():
        held: list[tuple[bytes, int]] = []
        for number, page in pages:
            if number == 1:
                first = page
            elif number <= count and number != untouched:
                held.append((page, number))
            if len(held) == _AT_ONCE:
                connection.execute_many(write, held)
                held.clear()
        connection.execute_many(write, [*held, (first, 1)])


def _sync(target: Path) -> None:
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _compare(target: Path, key: str | None, done: Rebuilt, name: str) -> None:
    """Raise CorruptDatabase if the new file is no sound database, or differs from the backup."""
    with LibSQLAdapter(target, key, create=False).connect() as connection:
        found = connection.fetch_all("PRAGMA integrity_check")
        if found != [("ok",)]:
            raise CorruptDatabase(
                f"The database in {name} is damaged ({on_one_line(found[0][0])[:SHOWN]}): check "
                "the home with `aico-lab doctor`, or use an earlier backup."
            )
        if row_counts(connection) != done.totals["rows"] or (
            digest_of(connection) != done.totals["pages_sha256"]
        ):
            raise CorruptDatabase(f"The database in {name} differs from the home's: try again.")


def row_counts(connection: Connection) -> dict[str, int]:
    """Return the number of rows of each table."""
    tables = connection.fetch_all(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
    )
    return {
        name: connection.fetch_all(f"SELECT count(*) FROM {quoted(name)}")[0][0]
        for (name,) in tables
    }


def digest_of(connection: Connection) -> str:
    """Return the SHA-256 of all pages but the first, whose counter every commit changes."""
    digest = hashlib.sha256()
    for number, page in pages_of(connection):
        if number > 1:
            digest.update(page)
    return digest.hexdigest()


def pages_of(connection: Connection) -> Iterator[tuple[int, bytes]]:
    """Yield the pages of a database in their order, decrypted."""
    rows = connection.fetch_batches("SELECT pgno, data FROM sqlite_dbpage", size=_AT_ONCE)
    for batch in rows:
        yield from batch
