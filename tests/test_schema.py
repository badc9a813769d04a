"""Schema versions, migrations, and the change feed that they set up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.errors import InvalidValue, MigrationFailed, SchemaTampered, SchemaTooNew
from aico_lab.schema import feed
from aico_lab.schema.core import CORE
from aico_lab.schema.drift import Drift
from aico_lab.schema.registry import SchemaRegistry, SchemaVersion
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters import libsql

CORE_TABLES = {
    "users", "user_profiles", "preferences", "preference_changes", "relationships", "channels",
    "messages",
    "conversation_segments", "segment_messages", "embeddings", "memories", "devices",
    "personality_profiles", "personality_decisions", "personality_policies",
    "personality_changes", "feedback_events", "system_state", "change_log", "outbox",
    "report_runs", "pipeline_runs", "schema_metadata", "schema_migration_history",
}  # fmt: skip
TIME = "2018-05-02T19:38:15.000000Z"


@pytest.fixture
def connection(tmp_path) -> Iterator[libsql.Connection]:
    with LibSQLAdapter(tmp_path / "a.db", None).connect() as opened:
        yield opened


def version(number: int, *statements: str, **options) -> SchemaVersion:
    return SchemaVersion(number, f"v{number}", "", list(statements), [], **options)


def registry(*versions: SchemaVersion, system: bool = True) -> SchemaRegistry:
    made = SchemaRegistry()
    if system:
        core = next(schema for schema in CORE if schema.name == "system")
        made.register("system", "core", core.versions, priority=0)
    made.register("s", "core", {v.version: v for v in versions})
    return made


def tables(connection: libsql.Connection) -> set[str]:
    rows = connection.fetch_all("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in rows if not name.startswith("sqlite_")}


def test_the_core_schemas_make_every_table_of_the_design(connection):
    """They are applied once; a second call changes nothing."""
    newest = {schema.name: schema.newest for schema in CORE}
    assert CORE.apply_core_schemas(connection) == newest
    assert tables(connection) >= CORE_TABLES | {"feed_tables", "feed_consumers"}
    assert CORE.apply_core_schemas(connection) == {}
    assert CORE.pending(connection) == {}
    recorded = connection.fetch_one("SELECT count(*), sum(direction = 'apply') FROM "
                                    "schema_migration_history")  # fmt: skip
    assert recorded == (sum(newest.values()), sum(newest.values()))


def test_a_damaged_definition_is_a_change(tmp_path, capfd):
    """Also one that is no UTF-8 any more, which the driver cannot read as text."""
    path = tmp_path / "a.db"
    schemas = registry(version(1, "CREATE TABLE s_money (sign TEXT DEFAULT '₺')"))
    with LibSQLAdapter(path, None).connect() as connection:
        schemas.apply_core_schemas(connection)
        assert schemas.drift(connection) == Drift()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    assert "₺".encode() in whole
    path.write_bytes(whole.replace("₺".encode(), b"\xe2\x28\xba"))
    with LibSQLAdapter(path, None).connect() as connection:
        assert schemas.drift(connection) == Drift(changed=("table s_money",))
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.slow
def test_every_rollback_undoes_its_version(connection):
    """In reverse order, nothing of the core tables remains."""
    CORE.apply_core_schemas(connection)
    connection.execute("PRAGMA foreign_keys = OFF")
    for schema in reversed(list(CORE)):
        for version in reversed(schema.versions.values()):
            for statement in version.rollback_statements:
                connection.execute(statement)
    assert tables(connection) & (CORE_TABLES - {"change_log"}) == {
        "schema_metadata", "schema_migration_history",
    }  # fmt: skip


def test_later_versions_are_applied_to_what_is_there(connection):
    """Only the missing versions are applied, in order."""
    first = version(1, "CREATE TABLE t (a TEXT)")
    registry(first).apply_core_schemas(connection)
    second = version(2, "ALTER TABLE t ADD COLUMN b TEXT", "CREATE TABLE u (a TEXT)")
    both = registry(first, second)
    assert both.pending(connection) == {"s": 1}
    assert both.apply_core_schemas(connection) == {"s": 2}
    connection.execute("INSERT INTO t (a, b) VALUES (1, 2)")


def test_a_failing_version_is_rolled_back_whole(connection):
    """Its first statement is undone, too, and no version is recorded."""
    first = version(1, "CREATE TABLE t (a TEXT)")
    broken = version(2, "CREATE TABLE u (a TEXT)", "CREATE TABL oops")
    with pytest.raises(MigrationFailed, match="Version 2 of the schema 's' was rolled back"):
        registry(first, broken).apply_core_schemas(connection)
    assert "t" in tables(connection)
    assert "u" not in tables(connection)
    assert connection.fetch_one("SELECT version FROM schema_metadata WHERE schema_name = 's'") == (
        1,
    )


def test_an_edited_version_is_found_out(connection):
    """By its checksum."""
    registry(version(1, "CREATE TABLE t (a TEXT)")).apply_core_schemas(connection)
    with pytest.raises(SchemaTampered):
        registry(version(1, "CREATE TABLE t (a TEXT, b TEXT)")).apply_core_schemas(connection)


def test_a_version_that_was_only_laid_out_anew_is_the_same(connection):
    """The checksum ignores blanks and comments."""
    registry(version(1, "CREATE TABLE t (a TEXT)")).apply_core_schemas(connection)
    laid_out = registry(version(1, "CREATE TABLE t (\n    a TEXT -- what it is\n)"))
    assert laid_out.apply_core_schemas(connection) == {}


def test_a_database_of_a_later_program_is_left_alone(connection):
    """Opening it raises, so that nothing is misread."""
    first, second = version(1, "CREATE TABLE t (a)"), version(2, "CREATE TABLE u (a)")
    registry(first, second).apply_core_schemas(connection)
    with pytest.raises(SchemaTooNew, match="install a newer"):
        registry(first).apply_core_schemas(connection)


def test_names_are_unique_and_versions_have_no_gap():
    """A programmer's mistake is an error at import."""
    made = registry(version(1, "CREATE TABLE t (a)"))
    with pytest.raises(InvalidValue, match="registered already"):
        made.register("s", "core", {1: version(1, "CREATE TABLE t (a)")})
    for versions in ({}, {2: version(2, "x")}, {1: version(2, "x")}):
        with pytest.raises(InvalidValue, match="numbered"):
            made.register("x", "core", versions)


def log(connection: libsql.Connection) -> list[tuple[str, str]]:
    return connection.fetch_all("SELECT op, row_key FROM change_log ORDER BY seq")


TRACKED = version(
    1,
    "CREATE TABLE t (a TEXT, b INTEGER, c TEXT, PRIMARY KEY (a, b))",
    "CREATE TABLE one (k TEXT PRIMARY KEY NOT NULL, v TEXT UNIQUE)",
    tracked={"t": ("a", "b"), "one": ("k",)},
)


def test_the_feed_names_every_change_in_order(connection):
    """Changing a key is a deletion of one row and an update of another."""
    registry(TRACKED).apply_core_schemas(connection)
    connection.execute("INSERT INTO t VALUES ('x', 1, 'c'), ('x', 2, 'c')")
    connection.execute("UPDATE t SET c = 'd' WHERE b = 1")
    connection.execute("UPDATE t SET b = 3 WHERE b = 2")
    connection.execute("DELETE FROM t")
    assert log(connection) == [
        ("insert", '["x",1]'), ("insert", '["x",2]'), ("update", '["x",1]'),
        ("delete", '["x",2]'), ("update", '["x",3]'), ("delete", '["x",1]'), ("delete", '["x",3]'),
    ]  # fmt: skip
    assert feed.tracked_tables(connection) == {"one": ("k",), "t": ("a", "b")}


def test_an_update_of_computed_columns_alone_is_not_in_the_feed(connection):
    """Columns that a later version adds are in it, and after a rollback the computed ones."""
    later = [
        SchemaVersion(
            number, f"v{number}", "", [f"ALTER TABLE t ADD COLUMN {column} TEXT"],
            [f"ALTER TABLE t DROP COLUMN {column}"], computed=computed,
        )
        for number, column, computed in [(2, "d", {"t": ("c",)}), (3, "e", {})]
    ]  # fmt: skip
    all_three = registry(TRACKED, *later)
    all_three.apply_core_schemas(connection)
    assert all_three.drift(connection) == Drift()
    connection.execute("INSERT INTO t (a, b) VALUES ('x', 1)")
    connection.execute("UPDATE t SET c = 'no'")
    connection.execute("UPDATE t SET e = 'logged'")
    connection.execute("UPDATE t SET c = 'with', d = 'another'")
    assert [op for op, _ in log(connection)] == ["insert", "update", "update"]
    all_three.rollback("s", 1, connection)
    connection.execute("UPDATE t SET c = 'not computed'")
    assert [op for op, _ in log(connection)][3:] == ["update"]
    assert all_three.drift(connection) == Drift()


def test_a_computed_column_must_exist(connection):
    """And so must its table."""
    wrong = registry(replace(TRACKED, computed={"t": ("z",)}))
    with pytest.raises(MigrationFailed, match="cannot follow t by a, b, z"):
        wrong.apply_core_schemas(connection)


def test_rows_and_feed_commit_together(connection):
    """A rollback removes both, and leaves no gap in the numbers."""
    registry(TRACKED).apply_core_schemas(connection)
    with pytest.raises(ZeroDivisionError), connection.transaction():
        connection.execute("INSERT INTO one VALUES ('a', 'b')")
        1 / 0  # noqa: B018
    assert feed.head(connection).seq == 0
    connection.execute("INSERT INTO one VALUES ('a', 'b')")
    assert feed.head(connection).seq == 1


def test_a_row_that_a_replacement_pushes_out_is_in_the_feed(connection):
    """SQLite fires its trigger only with recursive triggers on."""
    registry(TRACKED).apply_core_schemas(connection)
    connection.execute("INSERT INTO one VALUES ('a', 'same')")
    connection.execute("INSERT OR REPLACE INTO one VALUES ('b', 'same')")
    assert log(connection)[1:] == [("delete", "a"), ("insert", "b")]


def test_rows_that_a_cascade_deletes_are_in_the_feed(connection):
    """A deleted person's messages are removed from every projection."""
    CORE.apply_core_schemas(connection)
    connection.execute("INSERT INTO users VALUES ('u', NULL, ?, NULL)", [TIME])
    connection.execute("INSERT INTO memories VALUES ('m', 'u', 'c', 't', 1, ?, NULL)", [TIME])
    connection.execute("DELETE FROM users")
    assert ("delete", "m") in log(connection)


def test_the_log_is_pruned_behind_the_slowest_consumer(connection):
    """A consumer behind the pruned changes has to start again."""
    registry(TRACKED).apply_core_schemas(connection)
    for i in range(10):
        if feed.head(connection).seq == 5:
            fifth = feed.head(connection)
        connection.execute("INSERT INTO one VALUES (?, NULL)", [str(i)])
    head = feed.head(connection)
    assert feed.continues(connection, fifth)
    feed.acknowledge(connection, "slow", 3)
    feed.acknowledge(connection, "fast", 10)
    assert [row[0] for row in connection.fetch_all("SELECT seq FROM change_log")] == [*range(3, 11)]
    assert feed.continues(connection, fifth)
    feed.acknowledge(connection, "slow", 10)
    assert not feed.continues(connection, fifth)
    assert feed.continues(connection, head)
    assert feed.head(connection) == head
    feed.acknowledge(connection, "slow", 2)  # an old acknowledgement moves nothing back
    assert feed.continues(connection, head)


def test_a_restored_or_replaced_database_does_not_continue_a_cursor(tmp_path, connection):
    """The same sequence numbers belong to other changes there."""
    registry(TRACKED).apply_core_schemas(connection)
    connection.execute("INSERT INTO one VALUES ('a', NULL)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = (tmp_path / "a.db").read_bytes()
    connection.execute("INSERT INTO one VALUES ('b', NULL)")
    cursor = feed.head(connection)
    (tmp_path / "b.db").write_bytes(backup)
    with LibSQLAdapter(tmp_path / "b.db", None, create=False).connect() as restored:
        assert not feed.continues(restored, cursor)
        restored.execute("INSERT INTO one VALUES ('c', NULL)")
        assert feed.head(restored).seq == cursor.seq
        assert not feed.continues(restored, cursor)
    with LibSQLAdapter(tmp_path / "c.db", None).connect() as other:
        registry(TRACKED).apply_core_schemas(other)
        assert not feed.continues(other, cursor)


@pytest.mark.parametrize("key", [b"\xff\x00", "CAST(x'ff' AS TEXT)"], ids=["bytes", "bad text"])
def test_a_key_that_is_no_text_stops_no_consumer(connection, key):
    """Another program wrote it last."""
    registry(TRACKED).apply_core_schemas(connection)
    if isinstance(key, bytes):
        connection.execute("INSERT INTO one VALUES (?, NULL)", [key])
    else:
        connection.execute(f"INSERT INTO one VALUES ({key}, NULL)")
    cursor = feed.head(connection)
    assert feed.continues(connection, cursor)
    connection.execute("UPDATE change_log SET row_key = 'another' WHERE seq = ?", [cursor.seq])
    assert not feed.continues(connection, cursor)


KEYS = st.sampled_from("abcde")


class FeedMachine(RuleBasedStateMachine):
    """A consumer that only follows the feed has the table's rows after any changes."""

    @initialize(tmp=st.just(None))
    def start(self, tmp: None) -> None:
        del tmp
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.connection = LibSQLAdapter(Path(self.folder.name) / "a.db", None).connect()
        self.connection.execute("PRAGMA synchronous = OFF")
        registry(TRACKED).apply_core_schemas(self.connection)
        self.copy: dict[str, str | None] = {}
        self.seq = 0

    @rule(key=KEYS, value=st.none() | st.sampled_from("xyz"))
    def put(self, key: str, value: str | None) -> None:
        self.connection.execute("INSERT OR REPLACE INTO one VALUES (?, ?)", [key, value])

    @rule(key=KEYS, to=KEYS)
    def rename(self, key: str, to: str) -> None:
        self.connection.execute("UPDATE OR REPLACE one SET k = ? WHERE k = ?", [to, key])

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.connection.execute("DELETE FROM one WHERE k = ?", [key])

    @rule()
    def clear(self) -> None:
        self.connection.execute("DELETE FROM one")

    @rule()
    def prune(self) -> None:
        self.follow()
        feed.acknowledge(self.connection, "copy", self.seq)

    @rule()
    def follow(self) -> None:
        for seq, key in self.connection.fetch_all(
            "SELECT seq, row_key FROM change_log WHERE seq > ? ORDER BY seq", [self.seq]
        ):
            row = self.connection.fetch_one("SELECT v FROM one WHERE k = ?", [key])
            self.copy.pop(key, None)
            if row is not None:
                self.copy[key] = row[0]
            self.seq = seq

    @invariant()
    def numbers_have_no_gap(self) -> None:
        seqs = [seq for (seq,) in self.connection.fetch_all("SELECT seq FROM change_log")]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True

    def teardown(self) -> None:
        self.follow()
        assert self.copy == dict(self.connection.fetch_all("SELECT k, v FROM one"))
        self.connection.close()
        self.folder.cleanup()


TestFeedMachine = FeedMachine.TestCase
TestFeedMachine.settings = settings(max_examples=examples(40), stateful_step_count=25)
