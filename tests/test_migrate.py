"""Migrations: verified before, rolled back whole, backed up if rows are lost, one at a time."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from aico_lab.adapters.encrypted import EncryptedLibSQLConnection
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.errors import (
    CorruptDatabase,
    DowngradeImpossible,
    HomeNotWritable,
    InvalidValue,
    KeyMissing,
    MigrationBusy,
    MigrationFailed,
    SchemaTampered,
    UnknownName,
    WrongKey,
)
from aico_lab.schema import (
    CORE,
    SchemaRegistry,
    SchemaVersion,
    backup,
    feed,
    migrate,
    register_schema,
)
from aico_lab.schema.drift import Drift
from aico_lab.schema.status import read_status, verify_schema
from tests.conftest import plain_text_files
from tests.messages import START, add, message
from tests.test_plugins import KEY, everything, master

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection

pytestmark = pytest.mark.slow

SECRET = "the time I felt homesick"
NOTES = SchemaVersion(
    1,
    "Notes",
    "",
    [
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, colour TEXT)",
        "CREATE INDEX notes_by_text ON notes (text)",
    ],
    ["DROP INDEX notes_by_text", "DROP TABLE notes"],
    {"notes": ("id",)},
)


def version(number: int, *statements: str, undo: tuple[str, ...] = ()) -> SchemaVersion:
    return SchemaVersion(number, f"v{number}", "", list(statements), list(undo))


def registry(*versions: SchemaVersion) -> SchemaRegistry:
    """The core schemas and a schema named `notes`."""
    made = SchemaRegistry()
    for schema in CORE:
        made.register(schema.name, schema.kind, schema.versions, priority=schema.priority)
    made.register("notes", "core", {v.version: v for v in (NOTES, *versions)})
    return made


@pytest.fixture
def connection(tmp_path) -> Iterator[Connection]:
    """An encrypted database at version 1 of everything."""
    with LibSQLAdapter(tmp_path / "a.db", KEY).connect() as opened:
        registry().apply_core_schemas(opened)
        yield opened


def fill(connection: Connection) -> None:
    add(connection, *[message(number) for number in range(10)])
    connection.execute("INSERT INTO notes VALUES (1, ?, 'red'), (2, 'b', 'red')", [SECRET])


def test_drift_is_reported_by_name(connection):
    """Added, missing and changed objects."""
    notes = registry()
    assert notes.drift(connection) == Drift()
    connection.execute("CREATE TRIGGER spy AFTER INSERT ON messages BEGIN SELECT 1; END")
    connection.execute("CREATE TABLE mine (a)")
    connection.execute("DROP INDEX messages_by_user")
    connection.execute("DROP VIEW conversations")
    connection.execute("CREATE VIEW conversations AS SELECT * FROM messages")
    connection.execute("ALTER TABLE notes ADD COLUMN spy TEXT")
    drift = notes.drift(connection)
    assert drift.added == ("table mine", "trigger spy")
    assert drift.missing == ("index messages_by_user", "trigger conversations_insert")
    assert drift.changed == ("table notes", "view conversations")
    assert not verify_schema(notes, connection).ok


def test_the_same_definition_written_otherwise_is_no_drift(connection):
    """Blanks, comments and the case of words do not count; literals do."""
    connection.execute("DROP INDEX notes_by_text")
    connection.execute("create  INDEX notes_by_text /* a comment */ on NOTES(\n text ) -- another")
    assert registry().drift(connection) == Drift()
    connection.execute("DROP INDEX notes_by_text")
    connection.execute("CREATE INDEX notes_by_text ON notes (text) WHERE text <> 'A'")
    assert registry().drift(connection).changed == ("index notes_by_text",)


def test_nothing_is_migrated_on_top_of_a_schema_that_was_tampered_with(connection):
    """Added objects do not prevent a migration."""
    notes = registry(version(2, "CREATE TABLE more (a)"))
    connection.execute("DROP INDEX messages_by_user")
    before = everything(connection)
    with pytest.raises(SchemaTampered, match="index messages_by_user is missing"):
        notes.apply_core_schemas(connection)
    assert everything(connection) == before
    connection.execute("CREATE INDEX messages_by_user ON messages (user_id, timestamp)")
    connection.execute("CREATE TABLE mine (a)")
    assert notes.apply_core_schemas(connection) == {"notes": 2}


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (("CREATE TABLE more (a)", "SELECT oops"), "no such column"),
        (("CREATE TABLE more (a)", "DROP TABLE messages"), "no such table: main.messages"),
        (("ALTER TABLE notes RENAME text TO words", "CREATE VIEW v AS SELECT text FROM notes"),
         "view v cannot be used"),
        (("CREATE UNIQUE INDEX one_colour ON notes (colour)",), "UNIQUE constraint failed"),
        (("CREATE TABLE more (m TEXT REFERENCES messages (message_id))",
          "INSERT INTO more SELECT id FROM notes"), "refer to missing rows"),
        (("DELETE FROM users",), "refer to missing rows"),
        (("COMMIT",), "cannot commit"),
    ],
)  # fmt: skip
def test_a_version_that_fails_leaves_nothing(statements, reason, connection):
    """However late it fails, it is rolled back and nothing else happens."""
    fill(connection)
    before = everything(connection)
    for dry_run in (True, False):
        with pytest.raises(MigrationFailed, match=reason):
            registry(version(2, *statements)).upgrade(connection, dry_run=dry_run)
        assert everything(connection) == before
        assert not connection.in_transaction
        assert connection.fetch_all("PRAGMA foreign_keys") == [(1,)]


def test_a_database_that_is_not_sound_is_not_migrated(connection):
    """Otherwise a broken reference would be blamed on the migration."""
    fill(connection)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("DELETE FROM users")
    connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(CorruptDatabase, match=r"10 rows of a\.db refer to .* messages"):
        registry(version(2, "CREATE TABLE more (a)")).apply_core_schemas(connection)


def test_a_dry_run_executes_everything_and_changes_nothing(connection, tmp_path):
    """Neither the visible file, nor backups, nor versions change."""
    fill(connection)
    notes = registry(
        version(2, "ALTER TABLE notes DROP COLUMN colour"), version(3, "CREATE TABLE more (a)")
    )
    before = everything(connection)
    steps = notes.upgrade(connection, dry_run=True)
    assert [(step.schema, step.version, step.statements, step.backup) for step in steps] == [
        ("notes", 2, ("ALTER TABLE notes DROP COLUMN colour",), None),
        ("notes", 3, ("CREATE TABLE more (a)",), None),
    ]
    assert everything(connection) == before
    assert not (tmp_path / "backups").exists()
    with LibSQLAdapter(tmp_path / "empty.db", KEY).connect() as empty:
        assert len(CORE.upgrade(empty, dry_run=True)) == sum(schema.newest for schema in CORE)
        assert master(empty) == []


def test_rows_that_are_lost_are_in_a_backup(connection, tmp_path):
    """It has the same key, is private to its owner, and includes the write-ahead log."""
    fill(connection)
    log = tmp_path / "a.db-wal"
    assert log.stat().st_size  # the rows are not in the file itself
    before = everything(connection)
    drops = version(2, "ALTER TABLE notes DROP COLUMN colour")
    (step,) = registry(drops).upgrade(connection)
    assert step.backup is not None
    assert [path.name for path in (tmp_path / "backups").iterdir()] == [step.backup.name]
    assert step.backup.name.endswith("before-notes-2.db")
    if sys.platform != "win32":
        assert step.backup.stat().st_mode & 0o077 == 0
        assert step.backup.parent.stat().st_mode & 0o077 == 0
    assert plain_text_files(tmp_path, "homesick") == []
    with LibSQLAdapter(step.backup, KEY, create=False).connect() as copy:
        assert everything(copy) == before
        assert registry().apply_core_schemas(copy) == {}
    assert connection.fetch_all("SELECT * FROM notes") == [(1, SECRET), (2, "b")]


@pytest.mark.parametrize(
    ("statements", "lost"),
    [
        (("DROP TABLE notes",), True),
        (('DROP /**/ TABLE IF EXISTS main."NOTES"',), True),
        (("alter table notes drop colour",), True),
        (('DROP TABLE "main"."notes"',), True),
        (("DELETE FROM notes",), True),
        (
            ("WITH odd AS (SELECT 1 AS id) DELETE FROM notes WHERE id IN (SELECT id FROM odd)",),
            True,
        ),
        (("UPDATE notes SET colour = NULL",), True),
        (
            (
                "ALTER TABLE notes RENAME TO old",
                "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, colour TEXT)",
                "INSERT INTO notes SELECT * FROM old WHERE id = 1",
                "DROP TABLE old",
                "CREATE INDEX notes_by_text ON notes (text)",
            ),
            True,
        ),
        (
            (
                "CREATE VIEW v AS SELECT id FROM notes",
                "CREATE TRIGGER w INSTEAD OF DELETE ON v BEGIN DELETE FROM notes; END",
                "DELETE FROM v WHERE id = 1",
            ),
            True,
        ),
        (("ALTER TABLE notes ADD COLUMN size INTEGER",), False),
        (("DROP INDEX notes_by_text",), False),
        (("DROP TABLE relationships",), False),
        (
            ("CREATE TABLE t (a)", "INSERT INTO t VALUES ('DROP TABLE notes')", "DROP TABLE t"),
            False,
        ),
    ],
)
def test_a_backup_is_made_only_where_rows_are_lost(statements, lost, connection):
    """Not for an empty table, an index, or an object that the version itself made."""
    fill(connection)
    (step,) = registry(version(2, *statements)).upgrade(connection)
    assert bool(step.backup) == lost


def let_copy(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shell script stand in for the process that copies the file `$5` to `$6`."""
    program = tmp_path / "copy"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


def test_without_a_backup_nothing_is_lost(connection, tmp_path, monkeypatch):
    """An unwritable folder or a failed copy stops the version."""
    fill(connection)
    drops = registry(version(2, "DROP TABLE notes"))
    (tmp_path / "backups").write_text("in the way")
    before = everything(connection)
    with pytest.raises(HomeNotWritable, match="backups cannot be used"):
        drops.upgrade(connection)
    (tmp_path / "backups").unlink()
    let_copy("exit 1", tmp_path, monkeypatch)
    with pytest.raises(MigrationFailed, match="No copy could be written"):
        drops.upgrade(connection)
    assert everything(connection) == before


def test_a_backup_that_is_not_equal_is_none(connection, tmp_path, monkeypatch):
    """It is opened and its rows counted; a bad one is removed and stops the version."""
    fill(connection)
    before = everything(connection)
    other = tmp_path / "other.db"
    with LibSQLAdapter(other, KEY).connect() as fewer:
        registry().apply_core_schemas(fewer)
        fill(fewer)
        fewer.execute("DELETE FROM notes WHERE id = 2")
        fewer.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    for script in (f'cp {shlex.quote(str(other))} "$6"', 'head -c 50000 "$5" > "$6"'):
        let_copy(script, tmp_path, monkeypatch)
        with pytest.raises(MigrationFailed, match="was rolled back"):
            registry(version(2, "DROP TABLE notes")).upgrade(connection)
        assert everything(connection) == before
        assert list((tmp_path / "backups").iterdir()) == []


def test_a_backup_has_its_name_only_when_it_was_proved(connection, tmp_path):
    """The partial copy of a killed process does not count as a backup."""
    fill(connection)
    folder = tmp_path / "backups"
    script = (
        "import os, sys\n"
        "from aico_lab.adapters.libsql import LibSQLAdapter\n"
        "from aico_lab.schema import backup\n"
        "backup._verify = lambda *_: os.kill(os.getpid(), 9)\n"
        "with LibSQLAdapter(sys.argv[1], sys.argv[2]).connect() as connection:\n"
        "    with connection.transaction():\n"
        "        backup.back_up(connection, 'before-notes-2')\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(connection.path), KEY], check=False, timeout=60
    )
    left = [path.name for path in folder.iterdir()]
    assert left
    assert all(".partial" in name for name in left)
    assert backup.backups_of(connection.path) == []
    (step,) = registry(version(2, "ALTER TABLE notes DROP COLUMN colour")).upgrade(connection)
    assert list(folder.iterdir()) == backup.backups_of(connection.path) == [step.backup]


def test_the_newest_backups_are_kept(connection, tmp_path):
    """Nothing else in the folder is touched, nor any backup of another database."""
    fill(connection)
    others = ["mine.db", "a-notes.db", "b-20240101T000000000000Z-before-notes-1.db"]
    (tmp_path / "backups").mkdir()
    for name in others:
        (tmp_path / "backups" / name).write_text("mine")
    made = []
    for _ in range(backup.KEPT + 2):
        with connection.transaction():
            made.append(backup.back_up(connection, "before-notes-2"))
    assert backup.backups_of(connection.path) == made[-backup.KEPT :]
    names = {path.name for path in (tmp_path / "backups").iterdir()}
    assert names == {*others, *(path.name for path in made[-backup.KEPT :])}


def test_what_was_half_copied_has_no_backups_name_and_goes(connection, tmp_path):
    """A killed run leaves it; the next backup removes it."""
    fill(connection)
    folder = tmp_path / "backups"
    folder.mkdir()
    for name in ("a-x.db.partial", "a-x.db.partial-wal"):
        (folder / name).write_bytes(b"half")
    (step,) = registry(version(2, "DROP TABLE notes")).upgrade(connection)
    assert list(folder.iterdir()) == [step.backup]


def test_a_few_backups_are_kept_and_files_of_others_stay(connection, tmp_path):
    """All backups of the run itself are kept, because its result names them."""
    fill(connection)
    folder = tmp_path / "backups"
    folder.mkdir()
    old = [folder / f"a-2020010{day}T000000000000Z-before-x-1.db" for day in range(1, 6)]
    mine = folder / "my own copy.db"
    for path in (*old, mine):
        path.write_bytes(b"old")
    steps = registry(
        *[version(number, f"DELETE FROM notes WHERE id = {number}") for number in range(2, 7)]
    ).upgrade(connection)
    made = [step.backup for step in steps]
    assert all(made)
    assert sorted(folder.iterdir()) == sorted([*made, mine])


def test_why_the_backup_is_no_vacuum(connection, tmp_path):
    """The driver's `VACUUM INTO` writes an encrypted database as plain text."""
    fill(connection)
    connection.execute(f"VACUUM INTO '{tmp_path / 'plain.db'}'")
    assert plain_text_files(tmp_path, "homesick") == [tmp_path / "plain.db"]


def test_a_schema_goes_back_a_version_and_the_history_says_so(connection):
    """The feed's rows are rolled back, too, and lost rows are in a backup."""
    fill(connection)
    notes = registry(version(2, "CREATE TABLE more (a)", undo=("DROP TABLE more",)))
    notes.apply_core_schemas(connection)
    (back,) = notes.rollback("notes", 1, connection)
    assert (back.version, back.direction, back.backup) == (2, "rollback", None)
    assert registry().drift(connection) == Drift()
    assert notes.apply_core_schemas(connection) == {"notes": 2}
    second, first = notes.rollback("notes", 0, connection)
    assert (second.backup, first.backup is None) == (None, False)
    assert CORE.drift(connection) == Drift()
    assert "notes" not in feed.tracked_tables(connection)
    history = connection.fetch_all(
        "SELECT version, direction FROM schema_migration_history WHERE schema_name = 'notes'"
    )
    assert history == [(1, "apply"), (2, "apply"), (2, "rollback"), (2, "apply"),
                       (2, "rollback"), (1, "rollback")]  # fmt: skip
    status = {one.name: one for one in read_status(notes, connection)}
    assert (status["notes"].version, status["notes"].state) == (0, "behind")


def test_a_schema_cannot_go_where_there_is_nothing(connection):
    """Below 0, to the current version, forward, or past a version without rollback."""
    notes = registry(version(2, "CREATE TABLE more (a)"))
    notes.apply_core_schemas(connection)
    for to in (-1, 2, 3):
        with pytest.raises(DowngradeImpossible, match=r"at version 2: it can go back to 0 … 1"):
            notes.rollback("notes", to, connection)
    with pytest.raises(DowngradeImpossible, match="has no rollback statements"):
        notes.rollback("notes", 0, connection)
    with pytest.raises(UnknownName):
        notes.rollback("nothing", 0, connection)
    with pytest.raises(InvalidValue, match="Leave the transaction"), connection.transaction():
        notes.rollback("notes", 1, connection)


def test_a_schema_that_others_need_stays(connection):
    """Dropping `users` would break references, and so every write."""
    fill(connection)
    before = everything(connection)
    with pytest.raises(DowngradeImpossible, match="is needed by others"):
        registry().rollback("users", 0, connection)
    assert everything(connection) == before


def test_the_core_goes_back_to_nothing(connection):
    """In reverse order, with rows; only the tables of the registry and the feed remain."""
    fill(connection)
    notes = registry()
    for schema in reversed(list(notes)):
        notes.rollback(schema.name, 0, connection)
    with LibSQLAdapter(connection.path.with_name("b.db"), KEY).connect() as other:
        from aico_lab.schema.versions import prepare

        prepare(other)
        assert [row[:2] for row in master(connection)] == [row[:2] for row in master(other)]
    assert feed.tracked_tables(connection) == {}
    notes.apply_core_schemas(connection)
    assert notes.drift(connection) == Drift()


def test_a_rollback_that_forgets_something_is_undone(connection):
    """The error names the remaining object."""
    notes = registry(
        version(2, "CREATE TABLE more (a)", "CREATE TABLE yet (a)", undo=("DROP TABLE more",))
    )
    notes.apply_core_schemas(connection)
    before = everything(connection)
    with pytest.raises(MigrationFailed, match=r"was not undone .*table yet is left"):
        notes.rollback("notes", 1, connection)
    assert everything(connection) == before


def test_nothing_that_refers_to_a_dropped_table_is_deleted_with_it(connection):
    """Foreign keys are off while tables are rebuilt."""
    fill(connection)
    number = 1 + next(one.newest for one in CORE if one.name == "users")
    rebuilt = version(
        number,
        "DROP TRIGGER preferences_delete",  # which looks into the table
        "CREATE TABLE users_new (user_id TEXT PRIMARY KEY NOT NULL, name TEXT, "
        "created_at TIMESTAMP TEXT NOT NULL, metadata JSON TEXT)",
        "INSERT INTO users_new SELECT * FROM users",
        "DROP TABLE users",
        "ALTER TABLE users_new RENAME TO users",
    )
    made = SchemaRegistry()
    for schema in registry():
        added = {number: rebuilt} if schema.name == "users" else {}
        versions = dict(schema.versions) | added
        made.register(schema.name, schema.kind, versions, priority=schema.priority)
    cursor = feed.head(connection)
    assert made.apply_core_schemas(connection) == {"users": number}
    assert connection.fetch_all("SELECT count(*) FROM messages") == [(10,)]
    assert not feed.continues(connection, cursor)  # nobody knows what the rebuilding changed
    connection.execute("DELETE FROM users")
    assert connection.fetch_all("SELECT count(*) FROM messages") == [(0,)]


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from aico_lab.adapters.libsql import LibSQLAdapter
from tests.test_migrate import KEY, exclusive, registry, version
with LibSQLAdapter(Path({path!r}), KEY).connect() as connection:
    {action}
"""


def exclusive(connection: Connection) -> Any:
    return migrate.exclusive(connection)


def child(path: Path, action: str) -> subprocess.Popen[str]:
    from pathlib import Path as RealPath

    root = RealPath(__file__).parents[1]
    source = CHILD.format(root=str(root), path=str(path), action=action)
    return subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_second_migrator_is_told_of_the_first(connection, monkeypatch):
    """It continues when the first has ended, even if that was killed."""
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.05)
    notes = registry(version(2, "CREATE TABLE more (a)", undo=("DROP TABLE more",)))
    action = "with exclusive(connection): print('ready', flush=True); sys.stdin.read()"
    with child(connection.path, action) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        for attempt in (
            lambda: notes.apply_core_schemas(connection),
            lambda: notes.upgrade(connection, dry_run=True),
            lambda: notes.rollback("notes", 0, connection),
            lambda: notes.remove_plugin_schema("calendar", connection),
        ):
            with pytest.raises(MigrationBusy, match=f"by process {other.pid}"):
                attempt()
        assert registry().apply_core_schemas(connection) == {}  # nothing to do: nothing to wait for
        other.kill()
        other.wait()
    assert notes.apply_core_schemas(connection) == {"notes": 2}
    assert not connection.path.with_name("a.db.migration").exists()


def test_a_migrator_that_is_done_meanwhile_has_no_name(connection, monkeypatch):
    """Its lock's note disappears between two reads; that is not an error of permissions."""
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr(Path, "exists", lambda _: True)
    more = registry(version(2, "CREATE TABLE more (a)"))
    busy = pytest.raises(MigrationBusy, match="by another program")
    with FileLock(f"{connection.path}.migration.lock"), busy:
        more.apply_core_schemas(connection)


def test_two_migrators_at_once_apply_every_version_once(tmp_path):
    """Both succeed, and neither repeats a step of the other."""
    path = tmp_path / "both.db"
    LibSQLAdapter(path, KEY).connect().close()
    action = "print('ready', flush=True); sys.stdin.readline(); print(len(registry()."
    action += "apply_core_schemas(connection)))"
    processes = [child(path, action) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    results = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        results.append(int(out))
    assert sorted(results) == [0, len(list(registry()))]
    with LibSQLAdapter(path, KEY).connect() as connection:
        assert registry().drift(connection) == Drift()
        twice = connection.fetch_all(
            "SELECT schema_name FROM schema_migration_history GROUP BY 1, version "
            "HAVING count(*) > 1"
        )
        assert twice == []


def test_a_migrator_that_is_killed_leaves_the_version_before(connection):
    """The next migrator applies the version."""
    action = """with exclusive(connection), connection.transaction():
        connection.execute("CREATE TABLE half (a)")
        print('ready', flush=True)
        sys.stdin.read()"""
    before = everything(connection)
    with child(connection.path, action) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.kill()
        other.wait()
    assert everything(connection) == before
    notes = registry(version(2, "CREATE TABLE half (a)"))
    assert notes.apply_core_schemas(connection) == {"notes": 2}
    assert notes.drift(connection) == Drift()


@pytest.fixture
def _behind(lab, monkeypatch) -> None:
    """Make a home whose database lacks a registered version."""
    add(lab.primary, message(1))
    lab.close()
    restored = ("ALTER TABLE notes ADD COLUMN colour TEXT",)
    second = version(2, "ALTER TABLE notes DROP COLUMN colour", undo=restored)
    made = registry(second)
    monkeypatch.setattr(SchemaRegistry, "default", made)


@pytest.mark.usefixtures("_behind")
def test_the_command_line_shows_applies_and_takes_back(cli):
    """Status changes nothing; each step reports its result."""

    def answer(*arguments: str) -> Any:
        done = cli("schema", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def at() -> tuple[int, str]:
        (found,) = [one for one in answer("status") if one["name"] == "notes"]
        return found["version"], found["state"]

    assert at() == (0, "behind")
    planned = answer("migrate", "--dry-run")
    assert planned["dry_run"]
    assert [step["version"] for step in planned["steps"]] == [1, 2]
    assert at() == (0, "behind")
    assert answer("verify")["pending"] == {"notes": 2}
    applied = answer("migrate")["steps"]
    assert [step["statements"] for step in applied] == [
        step["statements"] for step in planned["steps"]
    ]
    assert at() == (2, "up to date")
    assert answer("verify") == {
        "ok": True, "pending": {}, "problems": [],
        "drift": {"added": [], "missing": [], "changed": []},
    }  # fmt: skip
    assert answer("migrate")["steps"] == []
    assert answer("rollback", "notes", "--to", "1")["steps"][0]["version"] == 2
    assert at() == (1, "behind")


@pytest.mark.usefixtures("_behind")
def test_the_command_line_says_it_in_words(cli, home):
    """The statements of a dry run, the problems, and the path of the backup."""
    assert "notes" in cli("schema", "status").stdout
    planned = cli("schema", "migrate", "--dry-run").stdout
    assert "Would apply version 1 of notes: Notes" in planned
    assert "CREATE INDEX notes_by_text ON notes (text);" in planned
    assert "Applied version 2 of notes: v2" in cli("schema", "migrate").stdout
    assert cli("schema", "migrate").stdout == "Every schema is up to date.\n"
    assert cli("schema", "verify").stdout.startswith("ok ")
    from aico_lab.lab import Lab

    with Lab.open(home) as lab, lab.storage.adapter.connect() as connection:
        connection.execute("INSERT INTO notes VALUES (1, 'a')")
        connection.execute("CREATE TABLE mine (a)")
    wrong = cli("schema", "verify")
    assert (wrong.returncode, wrong.stdout) == (
        1,
        "FAIL table mine does not belong to any schema\n",
    )
    back = cli("schema", "rollback", "notes", "--to", "0")
    assert "Rolled back version 1 of notes" in back.stdout
    assert f"Backup: {home / 'backups'}" in back.stdout
    assert "will migrate the schema again" in back.stderr
    refused = cli("schema", "rollback", "users", "--to", "0")
    assert refused.returncode == 1
    assert "is needed by others" in refused.stderr
    assert cli("schema", "rollback", "nothing", "--to", "0").returncode == 2


def test_the_example_of_the_design_document(tmp_path, monkeypatch):
    """Core schemas are applied on an encrypted connection, through the class."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    said: list[str] = []

    class logger:  # noqa: N801 - as it is printed
        info = said.append

    def get_master_password() -> str:
        return "correct horse battery staple"

    def initialize_database():
        conn = EncryptedLibSQLConnection(
            db_path="~/.aico/user.db",
            master_password=get_master_password()
        )  # fmt: skip

        # Automatically applies all registered core schemas in priority order
        applied_versions = SchemaRegistry.apply_core_schemas(conn)

        logger.info(f"Applied {len(applied_versions)} core schemas: {applied_versions}")
        return conn

    with initialize_database() as conn:
        add(conn, message(1))
    with initialize_database() as conn:
        assert conn.fetch_all("SELECT count(*) FROM conversations") == [(1,)]
    assert said[0].startswith(f"Applied {len(list(CORE))} core schemas: {{'system': 3, 'users'")
    assert said[1] == "Applied 0 core schemas: {}"
    assert plain_text_files(tmp_path / ".aico", "homesick") == []


CONVERSATION_SCHEMA = {
    1: SchemaVersion(
        version=1,
        name="Conversation System",
        description="Core conversation storage and retrieval",
        sql_statements=[
            "CREATE TABLE conversations (conversation_id TEXT PRIMARY KEY, user_id TEXT)",
            "CREATE INDEX idx_conversations_user_id ON conversations(user_id)",
        ],
        rollback_statements=[
            "DROP INDEX IF EXISTS idx_conversations_user_id",
            "DROP TABLE IF EXISTS conversations",
        ],
    )
}


def test_the_other_example_of_the_design_document(tmp_path):
    """An application with its own core schema uses its own registry."""
    own = SchemaRegistry()
    register_schema("conversations", "core", priority=1, registry=own)(CONVERSATION_SCHEMA)
    with LibSQLAdapter(tmp_path / "own.db", None).connect() as connection:
        assert own.apply_core_schemas(connection) == {"conversations": 1}
        assert own.drift(connection) == Drift()
        own.rollback("conversations", 0, connection)


def test_only_the_master_password_opens_the_file(tmp_path):
    """With the salt beside it; without either the file cannot be opened, and nothing is created."""
    path = tmp_path / "user.db"
    with EncryptedLibSQLConnection(path, master_password="correct horse") as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (?)", [f"{SECRET} {START}"])
    slot = tmp_path / "user.db.key.json"
    assert set(json.loads(slot.read_text())["slots"][0]) >= {"salt", "time_cost", "memory_cost"}
    with pytest.raises(WrongKey, match="does not open"):
        EncryptedLibSQLConnection(path, master_password="wrong horse")
    with pytest.raises(KeyMissing):
        EncryptedLibSQLConnection(path, master_password="")
    with pytest.raises(InvalidValue, match="8 characters"):
        EncryptedLibSQLConnection(tmp_path / "new.db", master_password="short")
    kept = slot.read_text()
    slot.write_text("{")
    with pytest.raises(KeyMissing, match="damaged"):
        EncryptedLibSQLConnection(path, master_password="correct horse")
    slot.unlink()
    with pytest.raises(KeyMissing, match="restore it"):
        EncryptedLibSQLConnection(path, master_password="correct horse")
    slot.write_text(kept)
    with EncryptedLibSQLConnection(path, master_password="correct horse") as connection:
        assert connection.fetch_all("SELECT count(*) FROM t") == [(1,)]
    assert plain_text_files(tmp_path, "homesick") == []


@pytest.mark.parametrize("slot", ['{"kind": "none"}', '{"kind": "key-file"}', "[]", "null"])
def test_a_file_without_encryption_is_not_taken_for_the_one_with_the_password(tmp_path, slot):
    """An attacker who replaced both files could read all later writes."""
    path = tmp_path / "user.db"
    LibSQLAdapter(path, None).connect().close()
    for marker in (f'{{"home_id": "x", "key": {slot}}}', slot):
        (tmp_path / "user.db.key.json").write_text(marker)
        with pytest.raises(KeyMissing, match="damaged"):
            EncryptedLibSQLConnection(path, master_password="correct horse")


def profiles(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.fetch_all("SELECT profile_id, stability FROM personality_profiles")


def test_rows_from_before_an_added_default_are_no_damage(connection):
    """SQLite's check takes the default for NULL until the rows are written again."""
    schemas = registry()
    schemas.rollback("personality", 1, connection)
    connection.execute(
        "INSERT INTO personality_profiles VALUES ('p', NULL, 1, '{}', '2024-03-01T00:00:00Z', NULL)"
    )
    for _ in range(2):
        schemas.apply_core_schemas(connection)
        assert profiles(connection) == [("p", 0.8)]
        assert connection.fetch_all("PRAGMA integrity_check") == [("ok",)]
        schemas.rollback("personality", 1, connection)


def test_a_database_that_shows_the_false_alarm_is_repaired(connection, monkeypatch):
    """It was upgraded by a program whose check raised none; the next migration repairs it."""
    schemas = registry()
    schemas.rollback("personality", 1, connection)
    connection.execute(
        "INSERT INTO personality_profiles VALUES ('p', NULL, 1, '{}', '2024-03-01T00:00:00Z', NULL)"
    )
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "write_out_defaults", lambda _: None)
        patch.setattr(migrate, "check_sound", lambda _: None)
        schemas.apply_core_schemas(connection)
    assert connection.fetch_all("PRAGMA quick_check") != [("ok",)]
    assert profiles(connection) == [("p", 0.8)]
    schemas.rollback("personality", 1, connection)
    schemas.apply_core_schemas(connection)
    assert connection.fetch_all("PRAGMA quick_check") == [("ok",)]
    assert profiles(connection) == [("p", 0.8)]
