"""Plugins: activated, upgraded, removed without a trace, and confined to their own tables."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.config import Settings
from aico_lab.errors import (
    InvalidValue,
    SchemaChanged,
    SchemaError,
    StatementForbidden,
    UnknownName,
)
from aico_lab.health import diagnose
from aico_lab.lab import Lab
from aico_lab.schema import CORE, SchemaRegistry, SchemaVersion, feed, register_schema
from aico_lab.schema.discovery import discover
from aico_lab.schema.drift import Drift
from tests.databases import with_core_schemas
from tests.messages import add, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

KEY = "k" * 32
EVENTS = "CREATE TABLE calendar_events (id INTEGER PRIMARY KEY, user_id TEXT, title TEXT)"


def version(number: int, *statements: str, undo: tuple[str, ...] = (), **options) -> SchemaVersion:
    return SchemaVersion(number, f"v{number}", "", list(statements), list(undo), **options)


def plugin(*versions: SchemaVersion, name: str = "calendar") -> SchemaRegistry:
    """A registry with the core schemas and one plugin."""
    made = SchemaRegistry()
    for schema in CORE:
        made.register(schema.name, schema.kind, schema.versions, priority=schema.priority)
    made.register(name, "plugin", {v.version: v for v in versions})
    return made


@pytest.fixture
def connection(tmp_path) -> Iterator[Connection]:
    """An encrypted database with the core schemas and a message."""
    with with_core_schemas(tmp_path / "a.db", KEY).connect() as opened:
        add(opened, message(1))
        yield opened


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory) -> Iterator[Connection]:
    """One database for all attempts, because each must leave it unchanged."""
    with with_core_schemas(tmp_path_factory.mktemp("unharmed") / "a.db", KEY).connect() as opened:
        add(opened, message(1))
        yield opened


def everything(connection: Connection) -> dict[str, list[Any]]:
    """Return every definition and every row."""
    master = connection.fetch_all("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 2")
    return {"": master} | {
        name: connection.fetch_all(f'SELECT * FROM "{name}"')
        for kind, name, *_ in master
        if kind == "table"
    }


def master(connection: Connection) -> list[Any]:
    return everything(connection)[""]


CALENDAR = (
    version(
        1,
        EVENTS,
        "CREATE INDEX idx_events_user_id ON calendar_events(user_id)",
        undo=("DROP INDEX idx_events_user_id", "DROP TABLE calendar_events"),
        tracked={"calendar_events": ("id",)},
    ),
    version(
        2,
        "ALTER TABLE calendar_events ADD COLUMN place TEXT",
        "CREATE VIEW calendar_titles AS SELECT title FROM calendar_events",
        "CREATE TABLE calendar_log (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT)",
        "CREATE TRIGGER calendar_added AFTER INSERT ON calendar_events "
        "BEGIN INSERT INTO calendar_log (title) VALUES (NEW.title); END",
        "INSERT INTO calendar_events (title) VALUES ('seed')",
        undo=(
            "DROP TRIGGER calendar_added",
            "DROP TABLE calendar_log",
            "DROP VIEW calendar_titles",
            "ALTER TABLE calendar_events DROP COLUMN place",
        ),
    ),
)


@pytest.mark.slow
def test_a_plugin_is_activated_upgraded_and_removed_without_a_trace(connection):
    """Tables, index, view, triggers, feed and metadata are removed; only the history remains."""
    before = everything(connection)
    assert plugin(CALENDAR[0]).apply_plugin_schema("calendar", connection) == 1
    registry = plugin(*CALENDAR)
    assert registry.apply_plugin_schema("calendar", connection) == 2
    assert registry.apply_plugin_schema("calendar", connection) == 2  # again: nothing
    assert connection.fetch_all("SELECT title FROM calendar_log") == [("seed",)]
    assert feed.tracked_tables(connection)["calendar_events"] == ("id",)
    assert registry.drift(connection) == Drift()
    backup = registry.remove_plugin_schema("calendar", connection)
    after = everything(connection)
    assert after[""] == before[""]
    history = after.pop("schema_migration_history")[len(before.pop("schema_migration_history")) :]
    assert [row[1:4] for row in history] == [
        ("calendar", 1, "apply"), ("calendar", 2, "apply"),
        ("calendar", 2, "rollback"), ("calendar", 1, "rollback"),
    ]  # fmt: skip
    log = after.pop("change_log")[len(before.pop("change_log")) :]
    assert {(row[1], row[2]) for row in log} == {("calendar_events", ""), ("feed_tables", "")}
    for volatile in ("sqlite_sequence",):
        after.pop(volatile)
        before.pop(volatile)
    assert after == before
    assert backup is not None
    with LibSQLAdapter(backup, KEY, create=False).connect() as copy:
        assert copy.fetch_all("SELECT title FROM calendar_events") == [("seed",)]
    assert registry.apply_plugin_schema("calendar", connection) == 2  # and it may come back


def test_a_plugin_that_is_not_installed_any_more_can_be_removed(connection):
    """By its prefix, with a vector index, and without a backup if it has no rows."""
    before = master(connection)
    plugin(
        version(
            1,
            "CREATE TABLE calendar_vectors (id INTEGER PRIMARY KEY, v F32_BLOB(3))",
            "CREATE INDEX idx_near ON calendar_vectors (libsql_vector_idx(v))",
            "CREATE INDEX calendar_near ON calendar_vectors (libsql_vector_idx(v))",
        )
    ).apply_plugin_schema("calendar", connection)
    assert CORE.drift(connection).added[-1:] in ((), ("table libsql_vector_meta_shadow",))
    assert CORE.remove_plugin_schema("calendar", connection) is None
    assert master(connection) == before
    with pytest.raises(UnknownName, match="active"):
        CORE.remove_plugin_schema("calendar", connection)
    with pytest.raises(UnknownName, match="active"):
        CORE.remove_plugin_schema("conversations", connection)


@pytest.mark.slow
def test_vectors_of_a_plugin_can_be_searched_and_upgraded(connection):
    """The vector functions of libSQL pass the sandbox, which is SQLite."""
    first = version(
        1,
        "CREATE TABLE calendar_vectors (id INTEGER PRIMARY KEY, v F32_BLOB(3))",
        "CREATE INDEX calendar_near ON calendar_vectors (libsql_vector_idx(v))",
        "INSERT INTO calendar_vectors VALUES (7, vector('[1,2,3]'))",
        undo=("DROP TABLE calendar_vectors",),
    )
    plugin(first).apply_plugin_schema("calendar", connection)
    found = connection.fetch_all("SELECT id FROM vector_top_k('calendar_near', '[1,2,3]', 1)")
    assert found == [(7,)]
    second = version(
        2, "ALTER TABLE calendar_vectors ADD COLUMN t", undo=("DROP INDEX calendar_near",)
    )
    with pytest.raises(StatementForbidden, match="does not restore"):
        plugin(first, second).apply_plugin_schema("calendar", connection)
    good = version(2, "CREATE TABLE calendar_more (a)", undo=("DROP TABLE calendar_more",))
    registry = plugin(first, good)
    assert registry.apply_plugin_schema("calendar", connection) == 2
    assert registry.drift(connection) == Drift()
    registry.rollback("calendar", 0, connection)


@pytest.mark.slow
def test_a_removed_plugins_rows_leave_the_warehouse(lab: Lab):
    """The next sync removes them without a question, since a person asked for it."""
    registry = plugin(*CALENDAR)
    registry.apply_plugin_schema("calendar", lab.primary)
    lab.sync()
    assert lab.sql("SELECT title FROM raw.calendar_events").fetchall() == [("seed",)]
    registry.remove_plugin_schema("calendar", lab.primary)
    said = {one.check: one.detail for one in diagnose(Settings.resolve(home=lab.home.path))}
    assert said["warehouse"] == "snapshot 1 opens; `aico-lab sync` will bring it up to date"
    assert lab.sync().mode == "full"
    tables = lab.sql("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw'").fetchall()
    assert ("calendar_events",) not in tables
    assert ("messages",) in tables


@pytest.mark.slow
def test_a_plugin_that_is_activated_again_or_rolled_back_is_followed(lab: Lab):
    """Only what its own statements removed is lost; other tables are asked about as before."""
    first = version(1, EVENTS, undo=("DROP TABLE calendar_events",),
                    tracked={"calendar_events": ("id",)})  # fmt: skip
    wider = version(2, "ALTER TABLE calendar_events ADD COLUMN place TEXT",
                    undo=("ALTER TABLE calendar_events DROP COLUMN place",))  # fmt: skip
    registry = plugin(first, wider)
    registry.apply_plugin_schema("calendar", lab.primary)
    lab.primary.execute("INSERT INTO calendar_events VALUES (1, 'ada', 'old', 'here')")
    lab.sync()
    registry.rollback("calendar", 1, lab.primary)
    lab.sync()
    assert lab.sql("FROM raw.calendar_events").columns == ["id", "user_id", "title"]
    registry.remove_plugin_schema("calendar", lab.primary)
    registry.apply_plugin_schema("calendar", lab.primary)
    lab.sync()
    assert lab.sql("FROM raw.calendar_events").fetchall() == []
    with lab.primary.transaction():
        lab.primary.execute("DROP TABLE calendar_events")
        feed.untrack(lab.primary, "calendar_events")
    said = {one.check: one.detail for one in diagnose(Settings.resolve(home=lab.home.path))}
    assert "no longer has the table calendar_events" in said["warehouse"]
    with pytest.raises(SchemaChanged, match="calendar_events"):
        lab.sync()


REBUILD = (
    "CREATE TABLE calendar_new (id INTEGER PRIMARY KEY, title TEXT NOT NULL)",
    "INSERT INTO calendar_new SELECT id, upper(title) FROM calendar_events",
    "DROP TABLE calendar_events",
    "ALTER TABLE calendar_new RENAME TO calendar_events",
)


@pytest.mark.slow
def test_a_rebuilt_table_stays_in_the_feed_and_consumers_start_anew(connection):
    """Dropping a table silently drops its triggers."""
    first = version(1, EVENTS, tracked={"calendar_events": ("id",)})
    plugin(first).apply_plugin_schema("calendar", connection)
    connection.execute("INSERT INTO calendar_events (id, title) VALUES (1, 'a')")
    cursor = feed.head(connection)
    plugin(first, version(2, *REBUILD)).apply_plugin_schema("calendar", connection)
    assert connection.fetch_all("SELECT * FROM calendar_events") == [(1, "A")]
    assert not feed.continues(connection, cursor)
    now = feed.head(connection)
    assert feed.continues(connection, now)
    connection.execute("UPDATE calendar_events SET title = 'b'")
    assert feed.head(connection).seq == now.seq + 1
    assert feed.continues(connection, now)


def test_rows_that_were_there_before_a_table_was_tracked_are_in_the_feed(connection):
    """They are logged as inserted."""
    first = version(1, EVENTS, "INSERT INTO calendar_events (id) VALUES (5)")
    plugin(first).apply_plugin_schema("calendar", connection)
    before = feed.head(connection).seq
    second = version(2, tracked={"calendar_events": ("id",)})
    plugin(first, second).apply_plugin_schema("calendar", connection)
    assert connection.fetch_all(
        "SELECT table_name, row_key, op FROM change_log WHERE seq > ?", [before]
    ) == [("calendar_events", b"typed i5", "insert")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "tracked"),
    [
        ("ALTER TABLE calendar_events RENAME COLUMN id TO key", {}),
        ("ALTER TABLE calendar_events RENAME TO calendar_dates", {}),
        ("ALTER TABLE calendar_events RENAME TO calendar_dates", {"calendar_events": ("id",)}),
    ],
)
def test_a_version_cannot_lose_a_table_out_of_the_feed(statement, tracked, connection):
    """Otherwise every later sync would fail, or rows would be missing unnoticed."""
    first = version(1, EVENTS, tracked={"calendar_events": ("id",)})
    plugin(first).apply_plugin_schema("calendar", connection)
    with pytest.raises(SchemaError, match="the change feed cannot follow calendar_events by id"):
        plugin(first, version(2, statement, tracked=tracked)).apply_plugin_schema(
            "calendar", connection
        )
    connection.execute("INSERT INTO calendar_events (id) VALUES (7)")
    assert last_change(connection) == ("calendar_events", b"typed i7")


@pytest.mark.slow
def test_what_is_renamed_with_its_tracking_stays_in_the_feed(connection):
    """A renamed key, its rollback, and a renamed table."""
    first = version(1, EVENTS, tracked={"calendar_events": ("id",)})
    renamed = version(
        2,
        "ALTER TABLE calendar_events RENAME COLUMN id TO key",
        undo=("ALTER TABLE calendar_events RENAME COLUMN key TO id",),
        tracked={"calendar_events": ("key",)},
    )
    moved = version(
        2,
        "ALTER TABLE calendar_events RENAME TO calendar_dates",
        tracked={"calendar_dates": ("id",)},
    )
    plugin(first, renamed).apply_plugin_schema("calendar", connection)
    connection.execute("INSERT INTO calendar_events (key) VALUES (7)")
    assert last_change(connection) == ("calendar_events", b"typed i7")
    plugin(first, renamed).rollback("calendar", 1, connection)
    connection.execute("INSERT INTO calendar_events (id) VALUES (8)")
    assert last_change(connection) == ("calendar_events", b"typed i8")
    plugin(first, moved).apply_plugin_schema("calendar", connection)
    connection.execute("INSERT INTO calendar_dates (id) VALUES (9)")
    assert last_change(connection) == ("calendar_dates", b"typed i9")
    assert "calendar_events" not in feed.tracked_tables(connection)


def last_change(connection: Connection) -> tuple[str, str | bytes]:
    return connection.fetch_all(
        "SELECT table_name, row_key FROM change_log ORDER BY seq DESC LIMIT 1"
    )[0]


OWN = "CREATE TABLE calendar_x (a TEXT, b TEXT)"
VIEW = "CREATE VIEW calendar_v AS SELECT a FROM calendar_x"

ATTEMPTS: dict[str, tuple[str, ...]] = {
    "reads in a view": ("CREATE VIEW calendar_v AS SELECT content FROM messages",),
    "reads in a view over a view": ("CREATE VIEW calendar_v AS SELECT content FROM conversations",),
    "counts only": ("CREATE VIEW calendar_v AS SELECT count(*) AS n FROM messages",),
    "copies a table": ("CREATE TABLE calendar_x AS SELECT * FROM messages",),
    "copies rows": (OWN, "INSERT INTO calendar_x SELECT content, '' FROM messages"),
    "hides it in a CTE": (
        OWN,
        ("WITH calendar_c AS (SELECT content FROM messages) "
        "INSERT INTO calendar_x SELECT content, '' FROM calendar_c"),
    ),
    "hides it in a subquery": (OWN, "DELETE FROM calendar_x WHERE a IN (SELECT name FROM users)"),
    "joins in an update": (OWN, "UPDATE calendar_x SET a = content FROM messages"),
    "returns": (OWN, "INSERT INTO calendar_x VALUES (1, 2) RETURNING (SELECT name FROM users)"),
    "an UPSERT": (
        "CREATE TABLE calendar_x (a UNIQUE)",
        "INSERT INTO calendar_x VALUES (1) ON CONFLICT DO UPDATE SET a = (SELECT 1 FROM users)",
    ),
    "writes a core table": ("UPDATE messages SET content = ''",),
    "inserts a message": ("INSERT INTO users (user_id, created_at) VALUES ('x', '')",),
    "forges the metadata": ("DELETE FROM schema_metadata",),
    "forges the feed": ("DELETE FROM change_log",),
    "resets numbers": ("DELETE FROM sqlite_sequence",),
    "drops a core table": ("DROP TABLE memories",),
    "drops, if it exists": ("DROP TABLE IF EXISTS memories",),
    "drops a core index, if it exists": ("DROP INDEX IF EXISTS messages_by_user",),
    "drops a core view": ("DROP VIEW IF EXISTS conversations",),
    "drops the feed's trigger": ("DROP TRIGGER IF EXISTS feed_messages_insert",),
    "alters a core table": ("ALTER TABLE messages ADD COLUMN spy TEXT",),
    "renames a core table": ("ALTER TABLE messages RENAME TO calendar_messages",),
    "renames out of its prefix": (OWN, "ALTER TABLE calendar_x RENAME TO stolen"),
    "renames to another plugin": (OWN, "ALTER TABLE calendar_x RENAME TO weather_x"),
    "another prefix": ("CREATE TABLE weather_x (a)",),
    "no prefix": ("CREATE TABLE events (a)",),
    "its name alone": ("CREATE TABLE calendar (a)",),
    "a letter that only looks like its own": ('CREATE TABLE "\u0441alendar_x" (a)',),
    "a letter that folds to its own": ('CREATE TABLE "calendar_\u212a" (a)',),
    "a quoted name": ('CREATE TABLE "calendar_x; DROP TABLE users" (a)',),
    "an index on a core table": ("CREATE INDEX calendar_i ON messages (content)",),
    "an index that takes a name": (OWN, "CREATE INDEX memories_by_time ON calendar_x (a)"),
    "a trigger on a core table": (
        OWN,
        ("CREATE TRIGGER calendar_t AFTER INSERT ON messages "
        "BEGIN INSERT INTO calendar_x VALUES (NEW.content, ''); END"),
    ),
    "a trigger of the feed's name": (
        OWN, "CREATE TRIGGER feed_calendar AFTER INSERT ON calendar_x BEGIN SELECT 1; END",
    ),
    "a trigger's body": (
        OWN, "CREATE TRIGGER calendar_t AFTER INSERT ON calendar_x BEGIN DELETE FROM users; END",
    ),
    "a trigger's condition": (
        OWN,
        ("CREATE TRIGGER calendar_t AFTER DELETE ON calendar_x "
        "WHEN (SELECT count(*) FROM users) > 1 BEGIN SELECT 1; END"),
    ),
    "a trigger of one column": (
        OWN,
        "CREATE TRIGGER calendar_t AFTER UPDATE OF b ON calendar_x BEGIN DELETE FROM users; END",
    ),
    "a trigger of the row's number": (
        OWN,
        ('CREATE TRIGGER calendar_t AFTER UPDATE /**/ OF a, "ROWID" ON calendar_x '
        "BEGIN SELECT 1; END"),
    ),
    "a trigger of a generated column": (
        "CREATE TABLE calendar_g (x, g AS (x || ''))",
        ("CREATE TRIGGER calendar_t AFTER UPDATE OF g ON calendar_g "
        "BEGIN UPDATE memories SET metadata = 'x'; END"),
    ),
    "a trigger of a stored generated column": (
        "CREATE TABLE calendar_g (x, g AS (x || '') STORED)",
        ("CREATE TRIGGER calendar_t AFTER UPDATE OF x, G ON calendar_g "
        "BEGIN UPDATE memories SET metadata = 'x'; END"),
    ),
    "a trigger of a trigger": (
        OWN,
        "CREATE TABLE calendar_y (a)",
        "CREATE TRIGGER calendar_t AFTER INSERT ON calendar_y BEGIN DELETE FROM users; END",
        ("CREATE TRIGGER calendar_u AFTER INSERT ON calendar_x "
        "BEGIN INSERT INTO calendar_y VALUES (1); END"),
    ),
    "a trigger of a view": (
        OWN, VIEW,
        "CREATE TRIGGER calendar_t INSTEAD OF DELETE ON calendar_v BEGIN DELETE FROM users; END",
    ),
    "a trigger of a core view": (
        "CREATE TRIGGER calendar_t INSTEAD OF INSERT ON conversations BEGIN SELECT 1; END",
    ),
    "a trigger behind an odd column": (
        'CREATE TABLE calendar_x ("a"" = NULL --" TEXT, b TEXT)',
        "CREATE TRIGGER calendar_t AFTER UPDATE OF b ON calendar_x BEGIN DELETE FROM users; END",
    ),
    "a table that does not exist yet": (
        OWN,
        "CREATE TRIGGER calendar_t AFTER INSERT ON calendar_x BEGIN DELETE FROM diaries; END",
    ),
    "a view of what does not exist yet": ("CREATE VIEW calendar_v AS SELECT * FROM diaries",),
    "a foreign key": ("CREATE TABLE calendar_x (u TEXT REFERENCES users ON DELETE CASCADE)",),
    "a temporary table": ("CREATE TEMP TABLE calendar_x (a)",),
    "a temporary table by its schema": ("CREATE TABLE temp.calendar_x (a)",),
    "a temporary trigger": (
        OWN, "CREATE TEMP TRIGGER calendar_t AFTER INSERT ON main.calendar_x BEGIN SELECT 1; END",
    ),
    "a virtual table": ("CREATE VIRTUAL TABLE calendar_x USING fts5(a, content='messages')",),
    "raw pages": ("CREATE VIRTUAL TABLE calendar_x USING sqlite_dbpage",),
    "raw pages in a view": ("CREATE VIEW calendar_v AS SELECT data FROM sqlite_dbpage",),
    "a pragma as a table": ("CREATE VIEW calendar_v AS SELECT * FROM pragma_table_info('users')",),
    "the list of tables": ("CREATE VIEW calendar_v AS SELECT sql FROM sqlite_master",),
    "the list of tables as a table": ("CREATE TABLE calendar_x AS SELECT * FROM sqlite_master",),
    "another name of that list": (OWN, "INSERT INTO calendar_x SELECT name, 1 FROM sqlite_schema"),
    "the writable list": ("PRAGMA writable_schema = ON",),
    "writes that list": ("UPDATE sqlite_master SET sql = ''",),
    "foreign keys off": ("PRAGMA foreign_keys = OFF",),
    "attaches a file": ("ATTACH 'stolen.db' AS calendar_x",),
    "copies the file in plain text": ("VACUUM INTO 'stolen.db'",),
    "loads code": (OWN, "INSERT INTO calendar_x SELECT load_extension('evil'), 1"),
    "commits": (OWN, "COMMIT"),
    "rolls back": ("ROLLBACK",),
    "releases a savepoint": ("RELEASE level_0",),
    "behind a comment": ("/* CREATE TABLE */ -- x\n PRAGMA writable_schema = ON",),
    "two statements": ("CREATE TABLE calendar_x (a); DROP TABLE users",),
    "behind a NUL": ("CREATE TABLE calendar_x (a)\0; DROP TABLE users",),
    "half a character": ("CREATE TABLE calendar_x (a DEFAULT '\ud800')",),
    "a bomb": (
        OWN,
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "INSERT INTO calendar_x SELECT i, i FROM n"),
    ),
    "a long value": (OWN, "INSERT INTO calendar_x VALUES (zeroblob(900000000), 1)"),
    "analyses": ("ANALYZE",),
    "no SQL": ("CREATE TABL calendar_x (a)",),
}  # fmt: skip


def assert_refused(registry: SchemaRegistry, connection: Connection) -> None:
    before = everything(connection)
    with pytest.raises(StatementForbidden, match="nothing was changed"):
        registry.apply_plugin_schema("calendar", connection)
    assert everything(connection) == before
    assert not connection.in_transaction


@pytest.mark.slow
@pytest.mark.parametrize("statements", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_a_plugin_cannot_reach_beyond_its_own_tables(statements, unharmed):
    """The version is refused, and nothing of it remains."""
    assert_refused(plugin(version(1, *statements)), unharmed)


@pytest.mark.parametrize("name", ["reads in a view", "a trigger's body", "drops a core table"])
def test_nor_in_a_later_version(name, connection):
    """The version before it stays."""
    first = version(1, "CREATE TABLE calendar_first (a)")
    plugin(first).apply_plugin_schema("calendar", connection)
    assert_refused(plugin(first, version(2, *ATTEMPTS[name])), connection)


@pytest.mark.parametrize(
    "undo",
    [
        ("DROP TABLE calendar_x", "DROP TABLE users"),
        ("DROP TABLE calendar_x", "PRAGMA writable_schema = ON"),
        ("DROP TABLE IF EXISTS calendar_other",),
    ],
)
def test_nor_when_it_is_rolled_back(undo, unharmed):
    """The rollback must also restore the schema."""
    assert_refused(plugin(version(1, OWN, undo=undo)), unharmed)


@pytest.mark.parametrize(
    "tracked",
    [
        {"messages": ("message_id",)},
        {"calendar_y": ("a",)},
        {"calendar_x": ()},
        {"calendar_x": ("c",)},
        {"calendar_x": ('o"d',)},
        {"calendar_X": ("a",)},
        {"calendar_x BEGIN DELETE FROM users; END --": ("a",)},
    ],
)
def test_nor_through_the_change_feed(tracked, unharmed):
    """The feed's triggers contain names that the plugin gives."""
    own = 'CREATE TABLE calendar_x (a TEXT, b TEXT, "o""d" TEXT)'
    assert_refused(plugin(version(1, own, tracked=tracked)), unharmed)


@pytest.mark.slow
def test_what_a_plugin_may_do(connection):
    """Nearly everything is allowed on its own tables."""
    registry = plugin(
        version(
            1,
            EVENTS,
            "CREATE TABLE calendar_notes (n TEXT PRIMARY KEY, "
            "e INTEGER REFERENCES calendar_events ON DELETE CASCADE) WITHOUT ROWID",
            "CREATE UNIQUE INDEX calendar_by_title ON calendar_events (lower(title)) "
            "WHERE title IS NOT NULL",
            "CREATE TABLE calendar_sums (a INTEGER, b INTEGER GENERATED ALWAYS AS (a + 1))",
            "CREATE VIEW calendar_all AS SELECT e.title, n.n FROM calendar_events e "
            "JOIN calendar_notes n ON n.e = e.id",
            "CREATE TRIGGER calendar_add INSTEAD OF INSERT ON calendar_all "
            "BEGIN INSERT INTO calendar_events (title) VALUES (NEW.title); END",
            "CREATE TRIGGER calendar_count AFTER UPDATE OF title ON calendar_events "
            "BEGIN UPDATE calendar_sums SET a = (SELECT count(*) FROM calendar_events); END",
            "INSERT INTO calendar_sums (a) VALUES (1), (2)",
            "WITH calendar_c AS (SELECT 3 AS a) INSERT INTO calendar_sums (a) "
            "SELECT a FROM calendar_c",
            "UPDATE calendar_sums SET a = a + 1 WHERE a IN (SELECT a FROM calendar_sums)",
            "DELETE FROM calendar_sums WHERE a = 2",
            "ALTER TABLE calendar_sums RENAME COLUMN a TO c",
        ),
        version(2, "DROP TABLE calendar_sums", "DROP TRIGGER calendar_count"),
    )
    assert registry.apply_plugin_schema("calendar", connection) == 2
    connection.execute("INSERT INTO calendar_all (title) VALUES ('t')")
    assert connection.fetch_all("SELECT title FROM calendar_events") == [("t",)]
    assert registry.drift(connection) == Drift()


def test_a_plugins_prefix_is_nobody_elses(connection):
    """Objects of others are not removed with the plugin."""
    connection.execute("CREATE TABLE calendar_mine (a)")
    with pytest.raises(StatementForbidden, match="exists already"):
        plugin(version(1, OWN)).apply_plugin_schema("calendar", connection)
    for name in {name.partition("_")[0] for _, name, *_ in master(connection) if "_" in name}:
        if name != "calendar":
            with pytest.raises(InvalidValue, match="cannot name a plugin"):
                SchemaRegistry().register(name, "plugin", {1: version(1, OWN)})
    for name in ("sqlite", "feed", "schema", "a_b", "A", "", "1a", "a-b", "\u0441alendar"):
        with pytest.raises(InvalidValue, match="cannot name a plugin"):
            plugin(version(1, OWN), name=name)


def test_plugins_keep_out_of_each_other(connection):
    """No plugin can read, change or drop another's objects."""
    both = plugin(version(1, OWN))
    both.register("weather", "plugin", {1: version(1, "CREATE VIEW weather_v AS SELECT a "
                                                      "FROM calendar_x")})  # fmt: skip
    both.apply_plugin_schema("calendar", connection)
    with pytest.raises(StatementForbidden, match="accesses calendar_x, a"):
        both.apply_plugin_schema("weather", connection)


@pytest.mark.slow
def test_what_another_schema_made_is_not_the_plugins(connection):
    """Even if it was made later, and its name begins with the plugin's prefix."""
    seed = "INSERT INTO calendar_shared VALUES (1)"

    def registry(*versions: SchemaVersion) -> SchemaRegistry:
        made = plugin(*versions)
        made.register(
            "dates", "core", {1: version(1, "CREATE TABLE calendar_shared (a INTEGER)", seed)}
        )
        return made

    first = version(1, OWN)
    registry(first).apply_plugin_schema("calendar", connection)
    registry(first).apply_core_schemas(connection)
    for reach in ("UPDATE calendar_shared SET a = 2", "DROP TABLE Calendar_Shared"):
        assert_refused(registry(first, version(2, reach)), connection)


def test_the_sandbox_asks_about_everything_that_sqlite_can_do():
    """Only known actions are allowed, so a newer library's actions are denied."""
    from aico_lab.schema.authorizer import Guard

    guard = Guard("calendar")
    passing = {
        action
        for action in range(200)
        for verb in ("create", "drop", "alter", "insert", "explain")
        if setattr(guard, "verb", (verb,)) is None
        and guard.allow(action, "messages", "users", "main", None) == sqlite3.SQLITE_OK
    }
    assert passing == {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_REINDEX}


CALENDAR_EXAMPLE = {
    1: SchemaVersion(
        version=1,
        name="Calendar Plugin",
        description="Calendar events and scheduling",
        sql_statements=[
            "CREATE TABLE calendar_events (event_id TEXT PRIMARY KEY, user_id TEXT)",
            "CREATE INDEX idx_events_user_id ON calendar_events(user_id)",
        ],
        rollback_statements=[
            "DROP INDEX IF EXISTS idx_events_user_id",
            "DROP TABLE IF EXISTS calendar_events",
        ],
    )
}


def test_the_example_of_the_design_document(connection, monkeypatch):
    """A plugin is registered, activated and deactivated through the class."""
    monkeypatch.setattr(SchemaRegistry, "default", plugin(version(1, OWN), name="other"))
    assert register_schema("calendar", "plugin")(CALENDAR_EXAMPLE) is CALENDAR_EXAMPLE
    said: list[str] = []

    class logger:  # noqa: N801 - as it is printed
        info = said.append

    def activate_plugin(plugin_name: str, connection):
        # Automatically finds and applies registered plugin schema
        version = SchemaRegistry.apply_plugin_schema(plugin_name, connection)
        logger.info(f"Plugin {plugin_name} activated at schema version {version}")

    def deactivate_plugin(plugin_name: str, connection):
        # Automatically removes plugin schema
        SchemaRegistry.remove_plugin_schema(plugin_name, connection)
        logger.info(f"Plugin {plugin_name} schema removed")

    before = master(connection)
    activate_plugin("calendar", connection)
    assert master(connection) != before
    deactivate_plugin("calendar", connection)
    assert master(connection) == before
    assert said == ["Plugin calendar activated at schema version 1",
                    "Plugin calendar schema removed"]  # fmt: skip


def test_versions_are_registered_by_call_function_or_class():
    """Each returns its argument; missing versions and repeated names are refused."""
    registry = SchemaRegistry()

    @register_schema("weather", "plugin", registry=registry)
    def weather() -> dict[int, SchemaVersion]:
        return {1: version(1, "CREATE TABLE weather_x (a)")}

    @register_schema("notes", "plugin", priority=1, registry=registry)
    class Notes:
        versions = {1: version(1, "CREATE TABLE notes_x (a)")}  # noqa: RUF012

    register_schema("calendar", "plugin", registry=registry)(CALENDAR_EXAMPLE)
    assert [schema.name for schema in registry] == ["notes", "calendar", "weather"]
    assert list(weather()) == list(Notes.versions) == [1]
    with pytest.raises(InvalidValue, match="registered already"):
        register_schema("calendar", "plugin", registry=registry)(CALENDAR_EXAMPLE)
    with pytest.raises(InvalidValue, match="no versions"):
        register_schema("empty", "plugin", registry=registry)(Notes())
    with pytest.raises(InvalidValue, match="not 'user'"):
        register_schema("kind", "user", registry=registry)(CALENDAR_EXAMPLE)


PLUGIN_MODULE = """
from aico_lab.schema import SchemaVersion, register_schema

register_schema("tides", "plugin")({
    1: SchemaVersion(1, "Tides", "High and low", ["CREATE TABLE tides_x (a)"],
                     ["DROP TABLE tides_x"]),
})
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path, and a default registry that is restored afterwards."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(SchemaRegistry, "default", plugin(version(1, OWN)))
    return folder


def install(folder: Path, module: str, source: str) -> None:
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[aico_lab.schemas]\n{module} = {module}\n")


def test_installed_plugins_are_found_by_their_entry_points(packages, connection):
    """A second discovery finds the same."""
    install(packages, "tides_by_entry", PLUGIN_MODULE)
    assert "tides_by_entry" in discover()
    assert "tides_by_entry" in discover()
    assert SchemaRegistry.apply_plugin_schema("tides", connection) == 1


def test_a_module_can_be_named(packages, connection):
    """The module needs no installed package."""
    (packages / "tides_by_name.py").write_text(PLUGIN_MODULE)
    assert discover("tides_by_name") == ["tides_by_name"]
    assert SchemaRegistry.apply_plugin_schema("tides", connection) == 1


def test_a_broken_plugin_is_named(packages):
    """The error says what to do."""
    install(packages, "tides_broken", "1 / 0")
    with pytest.raises(SchemaError, match="'tides_broken' cannot be imported"):
        discover()
    with pytest.raises(SchemaError, match="'tides_nowhere' cannot be imported"):
        discover("tides_nowhere")


@pytest.mark.slow
def test_the_command_line_activates_and_deactivates_a_plugin(packages, lab, cli):
    """By its name; removed rows are in a backup, and an unknown plugin is refused."""
    install(packages, "tides_by_command", PLUGIN_MODULE)
    lab.close()
    first = cli("schema", "activate", "tides")
    assert first.stdout == "The plugin tides is active, at version 1.\n"
    again = cli("schema", "activate", "tides", "--json")
    assert json.loads(again.stdout) == {"plugin": "tides", "version": 1}
    with Lab.open(lab.home.path) as opened:
        names = opened.primary.fetch_all("SELECT name FROM sqlite_master WHERE name GLOB 'tides_*'")
        assert names
        (table,) = names[0]
        opened.primary.execute(f"INSERT INTO {table} DEFAULT VALUES")
    gone = cli("schema", "deactivate", "tides")
    assert gone.stdout.startswith("The plugin tides was deactivated.\n  Backup: ")
    with Lab.open(lab.home.path) as opened:
        assert not opened.primary.fetch_all(
            "SELECT name FROM sqlite_master WHERE name GLOB 'tides_*'"
        )
    for command, name in (("activate", "users"), ("activate", "x"), ("deactivate", "tides")):
        refused = cli("schema", command, name)
        assert (refused.returncode, refused.stdout) == (2, "")
