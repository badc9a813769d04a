"""Keys of every storage class: told apart by the change feed, the quarantine and the warehouse."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.bus import HandlerRegistry, Relay
from aico_lab.dal import DataAccessLayer
from aico_lab.errors import SchemaChanged
from aico_lab.etl.changes import changed_keys
from aico_lab.etl.contract import ColumnContract, Contract, Kind
from aico_lab.etl.extract import extract_keys
from aico_lab.etl.misfits import row_key
from aico_lab.lab import Lab
from aico_lab.schema import CORE, feed, feed_keys
from aico_lab.schema.feed_keys import Part
from tests.databases import with_core_schemas
from tests.effort import examples
from tests.messages import START, add, message
from tests.test_quarantine import track

MISFITS = "SELECT row_key, column_name, value FROM quarantine.misfits ORDER BY ALL"
MEMORY = "INSERT INTO memories VALUES ({}, 'u', '{}', 'fact', 0.5, '{}', NULL)"


@pytest.fixture
def shop(tmp_path):
    """Another program's file, not made yet."""
    return tmp_path / "shop.db"


def write(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def add_person(lab):
    lab.primary.execute("INSERT INTO users VALUES ('u', NULL, ?, NULL)", [START])


@pytest.mark.slow
def test_a_blob_and_the_text_of_its_bytes_are_two_memories(lab):
    """Whatever becomes of one leaves the other, in the warehouse and among the vectors."""
    add_person(lab)
    lab.primary.execute(MEMORY.format("'ok'", "tea", START))
    lab.primary.execute(MEMORY.format("x'6f6b'", "soup", START))
    lab.sync()
    assert lab.sql(MISFITS).fetchall() == [("x'6f6b'", "memory_id", "x'6f6b'")]
    assert lab.verify().ok
    for statement in (
        "UPDATE memories SET content = 'leek soup' WHERE memory_id = x'6f6b'",
        "DELETE FROM memories WHERE memory_id = x'6f6b'",
    ):
        lab.primary.execute(statement)
        assert lab.verify().ok
        lab.sync()
        assert lab.sql("SELECT memory_id, content FROM raw.memories").fetchall() == [("ok", "tea")]
        assert lab.verify().ok
        assert [memory_id for memory_id, _ in lab.memories.index.query("tea", 5)] == ["ok"]
    assert lab.sql(MISFITS).fetchall() == []


KEYS = ["x'6f6b'", "x'ff00'", "NULL", "1.5", "9e999", "CAST(x'ff' AS TEXT)"]


@pytest.mark.slow
def test_no_key_of_another_program_is_refused(lab):
    """Nor does it stop anybody who follows the feed."""
    tables = {f"{kind}{number}": key for number, key in enumerate(KEYS)
              for kind in ("pairs", "things")}  # fmt: skip
    for table in tables:
        if table.startswith("pairs"):
            track(lab, table, "a, b TEXT, n INTEGER, PRIMARY KEY (a, b)", ("a", "b"))
        else:
            track(lab, table, "a PRIMARY KEY, b TEXT, n INTEGER", ("a",))
    lab.sync()
    for table, key in tables.items():
        lab.primary.execute(f"INSERT INTO {table} VALUES ({key}, 'b', 1), ('x', 'b', 2)")
    for statement in ("", "UPDATE {} SET n = 3 WHERE n = 1", "DELETE FROM {} WHERE n = 3"):
        for table in tables if statement else ():
            lab.primary.execute(statement.format(table))
        pending = lab.verify()
        assert pending.ok, pending
        lab.sync()
        proof = lab.verify()
        assert proof.ok, proof
    for table in tables:
        assert lab.sql(f"SELECT a, n FROM raw.{table}").fetchall() == [("x", 2)]


def test_a_preference_of_a_blob_is_stored(lab):
    """Its own rule keeps a history of it, which the feed follows too."""
    add_person(lab)
    lab.primary.execute("INSERT INTO preferences VALUES ('u', x'6f6b', '1', ?)", [START])
    lab.primary.execute("INSERT INTO preferences VALUES ('u', 'ok', '2', ?)", [START])
    lab.sync()
    lab.primary.execute("DELETE FROM preferences WHERE preference_key = x'6f6b'")
    lab.sync()
    found = lab.sql("SELECT preference_key, value FROM raw.preferences").fetchall()
    assert found == [("ok", "2")]
    assert lab.verify().ok


def test_case_tells_keys_apart_though_the_column_does_not(lab):
    """Its new spelling is another key; its twin is not read along with it."""
    track(lab, "things", "a TEXT COLLATE NOCASE, n INTEGER", ("a",))
    lab.primary.execute("INSERT INTO things VALUES ('a', 1), ('A', 2), ('b', 3)")
    lab.sync()
    lab.primary.execute("UPDATE things SET n = 4 WHERE n = 1")
    lab.primary.execute("UPDATE things SET a = 'B' WHERE n = 3")
    lab.sync()
    found = lab.sql("SELECT a, n FROM raw.things ORDER BY n").fetchall()
    assert found == [("A", 2), ("B", 3), ("a", 4)]
    assert lab.verify().ok


async def test_subscribers_are_told_of_any_key(tmp_path):
    """As text, as it was; other types as literals of SQL."""
    adapter = with_core_schemas(tmp_path / "a.db")
    registry, heard = HandlerRegistry(), []

    @registry.subscribe("data.memories.*")
    async def remember(told):
        heard.append(told.payload["key"])

    with adapter.connect() as connection:
        connection.execute("INSERT INTO users VALUES ('u', NULL, ?, NULL)", [START])
        for key in ("'ok'", "x'6f6b'", "CAST(x'ff' AS TEXT)"):
            connection.execute(MEMORY.format(key, "tea", START))
    async with DataAccessLayer(adapter) as dal:
        relay = Relay(dal, registry)
        while await relay.run_once():
            pass
    assert heard == ["ok", "x'6f6b'", "\ufffd"]


def write_former_triggers(lab, expression):
    CORE.rollback("conversations", 2, lab.primary)
    CORE.rollback("system", 1, lab.primary)
    for table, keys in feed.tracked_tables(lab.primary).items():
        for name, sql in feed.triggers(table, keys, expression).items():
            lab.primary.execute(f"DROP TRIGGER {name}")
            lab.primary.execute(sql)


@pytest.mark.slow
@pytest.mark.parametrize("expression", feed_keys.FORMER)
@pytest.mark.parametrize("type_", ["", "INTEGER", "TEXT", "NUMERIC"])
def test_numbers_in_a_former_log_are_followed(homes, home, type_, expression):
    """It did not say whether they are numbers or texts."""
    with homes.open(home, "none", synced=True) as lab:
        track(lab, "things", f"k {type_} UNIQUE, n INTEGER", ("k",))
        write_former_triggers(lab, expression)
        lab.primary.execute("INSERT INTO things VALUES (1, 0), ('1x', 0), (-7, 0)")
        lab.sync(on_change="evolve")  # earlier tables had fewer columns
        lab.primary.execute("UPDATE things SET n = 1 WHERE k IN (1, '1')")
        lab.primary.execute("DELETE FROM things WHERE k IN (-7, '-7')")
    with Lab.open(home) as lab:
        CORE.apply_core_schemas(lab.primary)
        lab.sync()
        found = lab.sql("SELECT n FROM raw.things WHERE k::VARCHAR <> '1x'").fetchall()
        assert found == [(1,)]
        assert lab.verify().ok


@pytest.mark.slow
def test_a_former_log_is_read_and_brought_forward(homes, home):
    """Its triggers are written again, and a row that it names by a blob is followed."""
    with homes.open(home, "none", synced=True) as lab:
        add_person(lab)
        lab.sync()
        write_former_triggers(lab, feed_keys.FORMER[0])
        lab.primary.execute(MEMORY.format("'ok'", "tea", START))
        lab.primary.execute(MEMORY.format("x'6f6b'", "soup", START))
        lab.sync(on_change="evolve")  # earlier tables had fewer columns
        lab.primary.execute("UPDATE memories SET content = 'pie' WHERE memory_id = x'6f6b'")
        lab.sync()
        assert lab.verify().ok
        lab.primary.execute("DELETE FROM memories WHERE memory_id = x'6f6b'")
    with Lab.open(home) as lab:
        CORE.apply_core_schemas(lab.primary)
        sql = "SELECT sql FROM sqlite_master WHERE name = 'feed_memories_delete'"
        assert lab.primary.fetch_one(sql) == (
            feed.triggers("memories", ("memory_id",))["feed_memories_delete"],
        )
        with pytest.raises(SchemaChanged, match=r"run `aico-lab sync` first"):
            lab.verify()  # the entry of the log that the snapshot ends with has another key now
        lab.sync()
        assert lab.sql("SELECT memory_id FROM raw.memories").fetchall() == [("ok",)]
        assert lab.sql(MISFITS).fetchall() == []
        assert lab.verify().ok


VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_subnormal=False)
    | st.binary(max_size=4)
    | st.text("ax'\x00é/,\"\\", max_size=4)
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A database with tables whose columns may hold anything, in the feed."""
    path = tmp_path_factory.mktemp("keys") / "a.db"
    with LibSQLAdapter(path, None).connect() as connection:
        CORE.apply_core_schemas(connection)
        for table, columns in (("one", ("a",)), ("two", ("a", "b"))):
            connection.execute(f"CREATE TABLE {table} (a, b)")
            feed.track(connection, table, columns)
    return path


@given(values=st.tuples(VALUES, VALUES))
@settings(
    max_examples=examples(100),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("table", ["one", "two"])
def test_the_log_names_every_key_exactly(keys, table, values):
    """With the SQLite of another program, too."""
    with closing(sqlite3.connect(keys)) as other, other:
        other.execute(f"INSERT INTO {table} VALUES (?, ?)", values)
        logged, kind = other.execute(
            "SELECT CAST(row_key AS BLOB), typeof(row_key) FROM change_log ORDER BY seq DESC"
        ).fetchone()
    count = 1 if table == "one" else 2
    expected = [
        Part(value.encode() if isinstance(value, str) else value, isinstance(value, bytes))
        for value in values[:count]
    ]
    found = list(feed_keys.read(logged, is_blob=kind == "blob", columns=count))
    assert found == expected
    assert [type(part.value) for part in found] == [type(part.value) for part in expected]


@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=4))
@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("table", ["one", "two"])
def test_a_row_has_one_name_whatever_types_its_key_columns_have(keys, table, rows):
    """In the log as in the table, and no other row has that name."""
    columns = ("a", "b")[: 1 if table == "one" else 2]
    with LibSQLAdapter(keys, None).connect() as connection:
        connection.execute(f"DELETE FROM {table}")
        since = feed.head(connection).seq
        with closing(sqlite3.connect(keys)) as other, other:
            other.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
        found = {
            repr(key): row_key(key)
            for row in rows
            for key in [
                tuple(
                    Part(value.encode() if isinstance(value, str) else value,
                         isinstance(value, bytes))
                    for value in (value + 0.0 if isinstance(value, float) else value
                                  for value in row[: len(columns)])
                )
            ]
        }  # fmt: skip
        assert len({*found.values()}) == len(found)
        for kind in get_args(Kind):
            contract = Contract(
                table, tuple(ColumnContract(name, kind) for name in columns), columns
            )
            with connection.snapshot():
                named = {
                    name
                    for _, names in extract_keys(connection, contract, "1", [])
                    for name in names.to_pylist()
                }
                assert named == {*found.values()}, kind
                logged = changed_keys(
                    connection, contract, since=since, until=feed.head(connection).seq
                )
                assert {*logged["row_key"].to_pylist()} == named, kind


@pytest.mark.slow
def test_a_row_keeps_its_name_when_the_type_of_its_key_column_changes(lab):
    """So it is not reported as damaged."""
    track(lab, "things", "k UNIQUE, n INTEGER", ("k",))
    lab.primary.execute("INSERT INTO things VALUES ('1', 'bad'), ('a', 'bad'), ('b', 1)")
    lab.sync()
    names = lab.sql("SELECT row_key FROM quarantine.misfits ORDER BY 1").fetchall()
    lab.primary.execute("INSERT INTO things VALUES (1, 2)")
    for full in (False, True):
        assert lab.sync(full=full).unexplained == {}
        found = lab.sql("SELECT row_key FROM quarantine.misfits ORDER BY 1").fetchall()
        assert found == names
        assert lab.verify().ok
    lab.primary.execute("UPDATE things SET n = 3 WHERE k = '1'")
    lab.sync()
    assert lab.sql("SELECT row_key FROM quarantine.misfits").fetchall() == [("a",)]


# What is loaded from other programs


def test_numbers_in_a_column_of_times_are_named_with_all_their_digits(lab, shop):
    """Two that differ in the last digit are two rows."""
    lab.sync()
    keys = [0.1 + 0.2, 0.3]
    write(
        shop,
        "CREATE TABLE t (k TIMESTAMP PRIMARY KEY, n INTEGER)",
        "INSERT INTO t VALUES ('2024-05-01T10:00:00Z', 1)",
        *[f"INSERT INTO t VALUES ({key!r}, 'bad')" for key in keys],
    )
    lab.load(shop, "t")
    named = "SELECT DISTINCT row_key FROM quarantine.misfits ORDER BY 1"
    assert lab.sql(named).fetchall() == [("0.3",), ("0.30000000000000004",)]
    track(lab, "things", "k TIMESTAMP PRIMARY KEY, n INTEGER", ("k",))
    for key in keys:
        lab.primary.execute("INSERT INTO things VALUES (?, 'bad')", [key])
    lab.sync()
    lab.primary.execute("DELETE FROM things WHERE k = ?", [keys[1]])
    lab.sync()
    of_things = "SELECT row_key FROM quarantine.misfits WHERE table_name = 'things'"
    assert {*lab.sql(of_things).fetchall()} == {("0.30000000000000004",)}
    assert lab.verify().ok


TWINS = [
    ("k", ["NULL", "'NULL'", "'None'"]),
    ("k", ["x'ff'", "'x''ff'''", "CAST(x'ff' AS TEXT)"]),
    ("k", ["1", "'1'"]),
    ("k", ["x'6f6b'", "'ok'"]),
    ("k BLOB", ["x'31'", "'1'", "1", "1.5"]),
    ("k TEXT", ["x'6f6b'", "'ok'", "'''ok'''", "NULL"]),
    ("k INTEGER", ["x'31'", "1", "'x'", "'x''31'''"]),
]


@pytest.mark.parametrize(
    ("column", "keys"), [TWINS[3], *(pytest.param(*t, marks=pytest.mark.slow) for t in
                                     (*TWINS[:3], *TWINS[4:]))]
)  # fmt: skip
def test_each_row_in_quarantine_has_its_own_name(lab, shop, column, keys):
    """Mending one loses none of the others, nor does it bring one back."""
    lab.sync()
    write(
        shop,
        f"CREATE TABLE t ({column} UNIQUE, n INTEGER)",
        *[f"INSERT INTO t VALUES ({key}, 'bad {i}')" for i, key in enumerate(keys)],
    )
    names = "SELECT count(DISTINCT row_key) FROM quarantine.misfits WHERE column_name = 'n'"
    lab.load(shop, "t", key=["k"], lag=100)
    assert lab.sql(names).fetchone() == (len(keys),)
    for mended in range(len(keys)):
        write(shop, f"UPDATE t SET n = {mended} WHERE n = 'bad {mended}'")
        lab.load(shop, "t", key=["k"], lag=100, deletes=True)
        assert lab.sql(names).fetchone() == (len(keys) - mended - 1,)
    there = lab.sql("SELECT count(*) FROM shop.t").fetchone()[0]
    aside = lab.sql("SELECT count(DISTINCT row_key) FROM quarantine.misfits").fetchone()[0]
    assert there + aside == len(keys)
    write(shop, f"UPDATE t SET n = 77 WHERE k IS {keys[0]}")
    lab.load(shop, "t", key=["k"], lag=100)
    found = lab.sql("SELECT count(*) FROM shop.t").fetchone()[0]
    assert found == there


def test_a_key_of_several_columns_is_named_by_the_values_of_each(lab, shop):
    """As a JSON array."""
    lab.sync()
    write(
        shop,
        "CREATE TABLE t (a TEXT, b BLOB, n INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "INSERT INTO t VALUES ('x', x'31', 'bad'), (x'78', x'31', 'bad'), ('y', x'31', 1)",
    )
    lab.load(shop, "t", watermark="n")
    found = {tuple(json.loads(name)) for name, *_ in lab.sql(MISFITS).fetchall()}
    assert found == {("x", "x'31'"), ("x'78'", "x'31'")}


@pytest.mark.slow
def test_names_of_an_earlier_version_are_replaced(lab, monkeypatch):
    """And are no damage."""
    add_person(lab)
    add(lab.primary, message(0))
    lab.primary.execute(MEMORY.format("x'6f6b'", "soup", START))
    with monkeypatch.context() as patch:
        patch.setattr("aico_lab.etl.views.NAMING", "texts")
        patch.setattr("aico_lab.etl.extract.row_key", lambda parts: parts[0].value.decode())
        lab.sync(full=True)
        assert lab.sql("SELECT row_key FROM quarantine.misfits").fetchall() == [("ok",)]
    result = lab.sync()
    assert (result.quarantined, result.unexplained) == ({"memories": 1}, {})
    assert lab.sql("SELECT row_key FROM quarantine.misfits").fetchall() == [("x'6f6b'",)]
    assert lab.verify().ok


TIMES = ["2024-01-01 10:00:00", "2024-01-01 10:00:00.000", "2024-01-01T10:00:00Z"]
EPOCHS = [1_700_000_000, 1_700_000_001, 1_700_000_002]


KEYS_OF_TYPES = [
    ("", [1, 2, 3]), ("BLOB", [1, 2, 3]), ("", [0, 1, 2.5]), ("", ["a", "1", 1]),
    ("INTEGER", [1, 2, 3]), ("NUMERIC", [1, 2.5, 3]), ("TEXT", ["a", "1", "A"]),
    ("TIMESTAMP", TIMES), ("DATETIME", TIMES), ("DATETIME", EPOCHS), ("DATE", EPOCHS),
]  # fmt: skip


@pytest.mark.slow
def test_changes_are_followed_whatever_the_keys_are(lab):
    """In a tracked table of each type, row by row, until it is empty."""
    for table, (type_, keys) in enumerate(KEYS_OF_TYPES):
        track(lab, f"z_{table}", f"a {type_} PRIMARY KEY, n INTEGER", ["a"])
        for number, key in enumerate(keys):
            lab.primary.execute(f"INSERT INTO z_{table} VALUES (?, ?)", [key, number])
    lab.sync()
    assert lab.verify().ok
    for place in range(3):
        for statement in (
            "UPDATE z_{} SET n = n + 10 WHERE n = ?",
            "DELETE FROM z_{} WHERE n - 10 = ?",
        ):
            for table in range(len(KEYS_OF_TYPES)):
                lab.primary.execute(statement.format(table), [place])
            lab.sync()
            proof = lab.verify()
            assert proof.ok, (statement, proof)
    for table in range(len(KEYS_OF_TYPES)):
        assert lab.sql(f"SELECT count(*) FROM raw.z_{table}").fetchone() == (0,)


def test_rows_whose_keys_are_one_moment_are_all_loaded(lab, tmp_path):
    """They are different rows of the other program."""
    shop = tmp_path / "chat.db"
    with closing(sqlite3.connect(shop)) as other, other:
        other.execute("CREATE TABLE m (chat INTEGER, sent TIMESTAMP, PRIMARY KEY (chat, sent))")
        other.executemany("INSERT INTO m VALUES (1, ?)", [(TIMES[0],), (TIMES[1],)])
    lab.load(shop, "m")
    with closing(sqlite3.connect(shop)) as other, other:
        other.execute("INSERT INTO m VALUES (1, '2024-01-01 10:00')")
    lab.load(shop, "m")
    assert lab.sql("SELECT count(*) FROM chat.m").fetchone() == (3,)
