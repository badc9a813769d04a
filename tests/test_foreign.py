"""Tables of other programs' files: loaded by a watermark, exactly once, and left as they are."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from hashlib import sha256

import duckdb
import libsql_experimental
import pytest

from aico_lab.adapters import libsql_readonly
from aico_lab.adapters.libsql import Connection
from aico_lab.errors import (
    CorruptDatabase,
    DatabaseLocked,
    InvalidValue,
    NotADatabase,
    SourceMissing,
    SourceUnreadable,
    UnknownName,
)
from aico_lab.etl import snapshots, views
from aico_lab.etl.foreign_table import ForeignTable
from aico_lab.lab import Lab
from aico_lab.pipeline import load_pipeline, run_pipeline
from tests.reading import reads

ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, price REAL, at TIMESTAMP)"
KEY = "k" * 32


@pytest.fixture
def lab(home, homes):
    """A lab without encryption, synced: what is tested here does not depend on its key."""
    with homes.open(home, "none", synced=True) as opened:
        yield opened


@pytest.fixture
def shop(tmp_path):
    """Another program's file."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    write(folder / "shop.db", ORDERS)
    return folder / "shop.db"


def write(path, *statements):
    """Write a file as its own program would, and let go of it."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def order(number, at=None, item="tea", price="1.5"):
    time = "NULL" if at is None else f"'2024-05-01T{at}.000000Z'"
    return f"INSERT OR REPLACE INTO orders VALUES ({number}, '{item}', {price}, {time})"


def rows(lab, query='SELECT id, item FROM shop."orders" ORDER BY id'):
    return lab.sql(query).fetchall()


def ids(lab):
    return [number for number, _ in rows(lab)]


def files(folder):
    """Every file of a folder, with its content."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# Increments


@pytest.mark.slow
def test_the_first_load_takes_all_and_later_ones_take_what_is_new(lab, shop):
    """Each publishes a generation; where nothing is new, nothing is published."""
    write(shop, order(1), order(2))
    first = lab.load(shop, "orders")
    assert (first.table, first.mode, first.rows, first.watermark) == ("shop.orders", "full", 2, 2)
    write(shop, order(3))
    second = lab.load(shop, "orders")
    assert (second.mode, second.rows, second.deleted) == ("increment", 1, 0)
    assert second.generation == first.generation + 1 == lab.generation
    third = lab.load(shop, "orders")
    assert (third.mode, third.generation) == ("nothing", second.generation)
    assert ids(lab) == [1, 2, 3]


@pytest.mark.slow
def test_values_arrive_with_the_types_that_sync_gives_them(lab, shop):
    """Times with microseconds and zone, integers beyond 53 bits, blobs, NULL."""
    write(
        shop,
        "CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB, w TIMESTAMP, j JSON, o BOOLEAN, n)",
        "INSERT INTO t VALUES (9223372036854775807, 0.1, 'ünï', x'00ff', "
        "'2024-05-01T10:00:00.000001Z', '{}', 1, NULL)",
    )
    lab.load(shop, "t")
    query = "SELECT rowid, i, r, s, b, epoch_us(w), j, o, n FROM shop.t"
    assert rows(lab, query) == [
        (1, 2**63 - 1, 0.1, "ünï", b"\x00\xff", 1714557600000001, "{}", True, None)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("by_pages", [True, False], ids=["by pages", "by rows"])
def test_columns_are_understood_as_other_programs_declare_them(lab, shop, by_pages):
    """Integers of every size, and times without a zone, which are UTC as SQLite's own are."""
    write(
        shop,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, n unsigned big int, at TIMESTAMP)",
        "INSERT INTO t VALUES (1, 2, '2024-05-01 10:00:00'), (2, NULL, '2024-05-01T10:00:00.5'), "
        "(3, 4, '2024-05-01T12:00:00+02:00'), (4, 5, '2024-05-01'), (5, 6, NULL)",
    )
    with reads(by_pages=by_pages):
        lab.load(shop, "t", watermark="at")
    assert rows(lab, 'SELECT id, n, epoch_us("at") % 60000000 FROM shop.t ORDER BY id') == [
        (1, 2, 0), (2, None, 500000), (3, 4, 0), (5, 6, None)
    ]  # fmt: skip
    assert rows(lab, 'SELECT DISTINCT hour("at") FROM shop.t WHERE "at" IS NOT NULL') == [(10,)]
    assert rows(lab, "SELECT row_key FROM quarantine.misfits") == [("4",)]


def test_the_case_of_ascii_letters_alone_is_ignored_in_names(lab, shop):
    """As SQLite does: Ä and ä are two tables, and two columns."""
    write(
        shop,
        "CREATE TABLE Ä (a INTEGER PRIMARY KEY, Ö, ö)",
        "INSERT INTO Ä VALUES (1, 'O', 'o')",
        "CREATE TABLE ä (a INTEGER PRIMARY KEY)",
        "INSERT INTO ä VALUES (2), (3)",
        "CREATE TABLE Übrig (a INTEGER PRIMARY KEY)",
    )
    lab.load(shop, "ä")
    assert rows(lab, "SELECT a FROM shop.ä ORDER BY 1") == [(2,), (3,)]
    lab.load(shop, "Ä", watermark="A")
    assert rows(lab, "SELECT a, Ö, ö FROM shop.Ä") == [(1, "O", "o")]
    assert rows(lab, "SELECT a FROM shop.ä ORDER BY 1") == [(2,), (3,)]
    assert lab.load(shop, "ÜBRIG").table == "shop.Übrig"
    with pytest.raises(UnknownName, match="übrig"):
        lab.load(shop, "übrig")
    with pytest.raises(UnknownName, match="ü"):
        lab.load(shop, "Ä", watermark="ü")


@pytest.mark.slow
def test_columns_of_any_name_are_taken(lab, shop):
    """SQLite takes `true` for a column that has this name."""
    write(
        shop,
        'CREATE TABLE t (id INTEGER PRIMARY KEY, "true" INTEGER, "select" TIMESTAMP)',
        "INSERT INTO t VALUES (1, 0, '2024-05-01 10:00'), (2, NULL, NULL), "
        "(3, 1, '2024-05-02 10:00')",
    )
    for _ in range(2):
        lab.load(shop, "t", watermark="select", deletes=True)
        assert rows(lab, 'SELECT id, "true" FROM shop.t ORDER BY id') == [(1, 0), (2, None), (3, 1)]


@pytest.mark.slow
def test_a_row_that_comes_late_within_the_lag_is_found(lab, shop):
    """And those that are read again are not there twice."""
    write(shop, order(1, "10:00:00"), order(2, "11:00:00"))
    lab.load(shop, "orders", watermark="at", lag=1800)
    write(shop, order(3, "10:45:00"), order(2, "11:00:00", item="coffee"))
    result = lab.load(shop, "orders", watermark="at", lag=1800)
    assert (result.mode, result.rows, result.deleted) == ("increment", 2, 1)
    assert rows(lab) == [(1, "tea"), (2, "coffee"), (3, "tea")]
    assert lab.load(shop, "orders", watermark="at", lag=1800).mode == "nothing"


@pytest.mark.slow
def test_a_row_that_comes_later_than_the_lag_waits_for_a_full_load(lab, shop):
    """The price of a watermark; the documentation says so."""
    write(shop, order(1, "10:00:00"), order(2, "11:00:00"))
    lab.load(shop, "orders", watermark="at", lag=60)
    write(shop, order(3, "10:45:00"))
    assert lab.load(shop, "orders", watermark="at", lag=60).mode == "nothing"
    assert ids(lab) == [1, 2]
    assert lab.load(shop, "orders", watermark="at", lag=60, full=True).mode == "full"
    assert ids(lab) == [1, 2, 3]


@pytest.mark.slow
def test_a_row_at_the_very_time_of_the_watermark_is_found_without_a_lag(lab, shop):
    """Two rows of one second need not come together."""
    write(shop, order(1, "10:00:00"))
    lab.load(shop, "orders", watermark="at")
    write(shop, order(2, "10:00:00"))
    assert lab.load(shop, "orders", watermark="AT").rows == 1


@pytest.mark.slow
def test_the_lag_of_row_ids_counts_row_ids(lab, shop):
    """A changed row is seen as far back as the lag reaches."""
    write(shop, *(order(number) for number in range(1, 11)))
    lab.load(shop, "orders")
    write(shop, *(order(number, item="milk") for number in (5, 8)))
    lab.load(shop, "orders", lag=2)
    assert [number for number, item in rows(lab) if item == "milk"] == [8]


@pytest.mark.slow
@pytest.mark.parametrize("watermark", ["seconds", "at"])
def test_rows_without_a_watermark_are_read_every_time(lab, shop, watermark):
    """A NULL tells nothing of when a row came, nor does a text that is no time."""
    write(
        shop,
        "CREATE TABLE t (id TEXT PRIMARY KEY, seconds INTEGER, at TEXT)",
        "INSERT INTO t VALUES ('a', 1, '2024-01-01 10:00:00'), ('b', NULL, 'soon')",
    )
    lab.load(shop, "t", watermark=watermark)
    write(shop, "INSERT INTO t VALUES ('c', NULL, NULL), ('d', NULL, '2024'), ('e', 1, 'now')")
    write(shop, "UPDATE t SET at = 'later' WHERE id = 'b'")
    assert lab.load(shop, "t", watermark=watermark).mode == "increment"
    assert rows(lab, "SELECT string_agg(id, '' ORDER BY id) FROM shop.t") == [("abcde",)]
    assert lab.load(shop, "t", watermark=watermark).mode == "nothing"


@pytest.mark.slow
def test_a_row_of_the_future_does_not_hide_those_that_come(lab, shop):
    """One clock that goes wrong must not stop the loading for ever."""
    write(
        shop,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)",
        "INSERT INTO t VALUES (1, '2999-01-01T00:00:00Z')",
    )
    lab.load(shop, "t", watermark="at", lag=60)
    write(shop, "INSERT INTO t VALUES (2, datetime('now'))")
    assert lab.load(shop, "t", watermark="at", lag=60).rows == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "type_", ["INTEGER", *(pytest.param(t, marks=pytest.mark.slow) for t in
                           ("TIMESTAMP", "DATETIME", ""))]
)  # fmt: skip
@pytest.mark.parametrize("unit", [1, 1000], ids=["seconds", "milliseconds"])
def test_numbers_that_are_times_are_marks_as_times_are(lab, shop, type_, unit):
    """A lag is seconds of them, and the future does not hide what comes."""
    now = int(time.time())
    write(shop, f"CREATE TABLE t (id INTEGER PRIMARY KEY, at {type_})")

    def put(number, seconds):
        write(shop, f"INSERT INTO t VALUES ({number}, {seconds * unit})")
        return lab.load(shop, "t", watermark="at", lag=3600)

    assert put(1, now - 60).watermark == now - 60
    assert put(2, now - 1800).rows == 1
    assert put(3, now - 7200).rows == 0
    assert now <= put(4, 3_786_912_000).watermark <= time.time()
    put(5, now)
    found = [number for (number,) in rows(lab, "SELECT id FROM shop.t ORDER BY id")]
    assert found in ([1, 2, 4, 5], [1, 2, 3, 4, 5])  # whole, where the column's type changed
    put(6, now + 1)
    assert rows(lab, "SELECT id FROM shop.t WHERE id > 4 ORDER BY id") == [(5,), (6,)]
    assert rows(lab, "SELECT count(*) FROM quarantine.misfits") == [(0,)]


@pytest.mark.slow
def test_a_watermark_of_an_earlier_version_is_left_behind(lab, shop):
    """It was as far as the column's numbers go, in the future or in milliseconds."""
    now = int(time.time())
    write(
        shop,
        "CREATE TABLE s (id INTEGER PRIMARY KEY, at INTEGER)",
        "CREATE TABLE ms (id INTEGER PRIMARY KEY, at INTEGER)",
        f"INSERT INTO s VALUES (1, {now}), (2, 3786912000)",
        f"INSERT INTO ms VALUES (1, {now}000), (2, 3786912000000)",
    )
    for table in ("s", "ms"):
        lab.load(shop, table, watermark="at")
    with duckdb.connect(str(lab.home.writer)) as writer:
        writer.execute("UPDATE meta.watermarks SET \"column\" = 'at', value = '3786912000000'")
    for table, unit in (("s", 1), ("ms", 1000)):
        write(shop, f"INSERT INTO {table} VALUES (3, {(now + 5) * unit})")
        lab.load(shop, table, watermark="at")
        assert rows(lab, f"SELECT id FROM shop.{table} ORDER BY id") == [(1,), (2,), (3,)]


@pytest.mark.slow
def test_integers_beyond_53_bits_are_exact_watermarks(lab, shop):
    """Such as the ids of a distributed system."""
    big = 2**62
    write(
        shop,
        "CREATE TABLE t (id BIGINT PRIMARY KEY) WITHOUT ROWID",
        f"INSERT INTO t VALUES ({big}), ({big + 1})",
    )
    assert lab.load(shop, "t", watermark="id").watermark == big + 1
    write(shop, f"INSERT INTO t VALUES ({big + 2})")
    assert lab.load(shop, "t", watermark="id").rows == 1


@pytest.mark.slow
def test_a_table_whose_newest_rows_are_gone_is_read_from_its_beginning(lab, shop):
    """Their ids may have been given again; what is gone stays until --deletes."""
    write(shop, order(1), order(2), order(3))
    lab.load(shop, "orders")
    write(shop, "DELETE FROM orders WHERE id > 1", order(2, item="cocoa"))
    assert lab.load(shop, "orders").mode == "increment"
    assert rows(lab) == [(1, "tea"), (2, "cocoa"), (3, "tea")]


@pytest.mark.slow
def test_row_ids_that_were_given_anew_are_noticed(lab, shop):
    """After VACUUM the same ids name other rows, if nothing else identifies them."""
    write(shop, "CREATE TABLE t (word TEXT)", "INSERT INTO t VALUES ('a'), ('b'), ('c')")
    lab.load(shop, "t")
    write(shop, "DELETE FROM t WHERE word = 'a'")
    with closing(sqlite3.connect(shop)) as connection:
        connection.execute("VACUUM")
    assert lab.load(shop, "t").mode == "full"
    assert rows(lab, "SELECT rowid, word FROM shop.t ORDER BY 1") == [(1, "b"), (2, "c")]


# Deletes and keys


@pytest.mark.slow
def test_deleted_rows_vanish_on_request_only(lab, shop):
    """To find them costs reading every key."""
    write(shop, order(1), order(2), order(3))
    lab.load(shop, "orders")
    write(shop, "DELETE FROM orders WHERE id = 2")
    assert lab.load(shop, "orders").mode == "nothing"
    assert ids(lab) == [1, 2, 3]
    result = lab.load(shop, "orders", deletes=True)
    assert (result.mode, result.deleted) == ("increment", 1)
    assert ids(lab) == [1, 3]
    assert lab.load(shop, "orders", deletes=True).mode == "nothing"


@pytest.mark.slow
def test_a_table_that_was_emptied_goes_on(lab, shop):
    """Its watermark starts again with it."""
    write(shop, order(1), order(2))
    lab.load(shop, "orders")
    write(shop, "DELETE FROM orders")
    assert lab.load(shop, "orders", deletes=True).deleted == 2
    assert lab.load(shop, "orders", deletes=True).mode == "nothing"
    write(shop, order(1))
    assert lab.load(shop, "orders", deletes=True).rows == 1
    assert ids(lab) == [1]


@pytest.mark.slow
def test_a_key_may_have_several_columns_of_any_type(lab, shop):
    """A text, a time and a blob, one of them NULL, with slashes and quotes."""
    write(
        shop,
        "CREATE TABLE t (a TEXT, b TIMESTAMP, c BLOB, v INTEGER, PRIMARY KEY (a, b, c))",
        """INSERT INTO t VALUES ('x/y', '2024-05-01T10:00:00Z', x'00', 1),
            ('x''"', '2024-05-01T10:00:00Z', x'ff', 2), (NULL, '2024-05-01T11:00:00Z', x'', 3)""",
    )
    lab.load(shop, "t", watermark="v", lag=9)
    write(shop, "UPDATE t SET v = v + 10", "DELETE FROM t WHERE v = 12")
    assert lab.load(shop, "t", watermark="v", lag=9, deletes=True).rows == 2
    assert rows(lab, "SELECT a, v FROM shop.t ORDER BY v") == [("x/y", 11), (None, 13)]


def test_a_key_that_does_not_identify_a_row_is_refused(lab, shop):
    """Rows would be lost when they are merged by it."""
    write(shop, order(1), order(2))
    with pytest.raises(InvalidValue, match="Several rows of orders have the same item"):
        lab.load(shop, "orders", key=["item"])
    assert lab.load(shop, "orders", key=["Item", "id"]).rows == 2


def test_rows_without_a_primary_key_are_known_by_their_row_ids(lab, shop):
    """SQLite allows NULL in a primary key, in any number of rows."""
    write(
        shop,
        "CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)",
        "INSERT INTO t VALUES (NULL, 1), (NULL, 2), ('a', 3)",
    )
    result = lab.load(shop, "t")
    assert (result.rows, len(result.warnings)) == (3, 1)
    assert "Several rows of t have no value in k, its primary key" in result.warnings[0]
    write(shop, "INSERT INTO t VALUES (NULL, 4)")
    assert lab.load(shop, "t").rows == 1
    found = rows(lab, "SELECT rowid, k, v FROM shop.t ORDER BY v")
    assert found == [(1, None, 1), (2, None, 2), (3, "a", 3), (4, None, 4)]
    write(shop, "DELETE FROM t WHERE v > 1 AND k IS NULL")
    assert lab.load(shop, "t").warnings == []
    assert rows(lab, "SELECT k, v FROM shop.t ORDER BY v") == [(None, 1), ("a", 3)]


@pytest.mark.slow
def test_a_view_can_be_loaded_by_a_key_that_is_named(lab, shop):
    """It has neither a primary key nor row ids, and the error says what to name."""
    write(shop, order(1), "CREATE VIEW cheap AS SELECT id, item, price FROM orders")
    with pytest.raises(InvalidValue, match="--key"):
        lab.load(shop, "cheap")
    with pytest.raises(InvalidValue, match="--watermark"):
        lab.load(shop, "cheap", key=["id"])
    lab.load(shop, "cheap", key=["id"], watermark="id")
    assert rows(lab, "FROM shop.cheap") == [(1, "tea", 1.5)]


@pytest.mark.slow
@pytest.mark.parametrize("by_pages", [True, False], ids=["by pages", "by rows"])
def test_a_table_without_a_primary_key_is_known_by_its_row_ids(lab, shop, by_pages):
    """Also one whose own column is called rowid."""
    write(shop, "CREATE TABLE t (rowid TEXT, n INTEGER)", "INSERT INTO t VALUES ('a', 7)")
    write(shop, "CREATE TABLE u (n INTEGER)", "INSERT INTO u VALUES (7)")
    with reads(by_pages=by_pages):
        lab.load(shop, "t", watermark="n")
        lab.load(shop, "u")
    assert rows(lab, "SELECT * FROM shop.t") == [(1, "a", 7)]
    assert rows(lab, "SELECT * FROM shop.u") == [(1, 7)]


# Misfits


@pytest.mark.slow
def test_rows_that_do_not_fit_are_set_aside_until_they_are_mended(lab, shop):
    """Under the name of their schema and table, with their key and the reason."""
    write(shop, order(1, price="'dear'"), order(2))
    assert lab.load(shop, "orders").quarantined == 1
    write(shop, order(3, price="'free'"), order(2, price="'gone'"))
    result = lab.load(shop, "orders", lag=5)
    assert (result.mode, result.deleted, result.quarantined) == ("increment", 1, 3)
    quarantine = "SELECT table_name, row_key, column_name, value FROM quarantine.misfits ORDER BY 2"
    assert rows(lab, quarantine) == [
        ("shop.orders", key, "price", value)
        for key, value in (("1", "dear"), ("2", "gone"), ("3", "free"))
    ]
    assert lab.load(shop, "orders", lag=5).mode == "nothing"
    write(shop, order(1), "DELETE FROM orders WHERE id = 3")
    lab.load(shop, "orders", lag=5, deletes=True)
    assert rows(lab, quarantine) == [("shop.orders", "2", "price", "gone")]
    assert ids(lab) == [1]


@pytest.mark.slow
def test_quarantine_knows_keys_of_every_type(lab, shop):
    """As they were stored: a time, a blob, a truth."""
    write(
        shop,
        "CREATE TABLE t (a TIMESTAMP, b BLOB, c BOOLEAN, r REAL, n INTEGER, "
        "PRIMARY KEY (a, b, c, r)) WITHOUT ROWID",
        "INSERT INTO t VALUES ('2024-05-01T10:00:00Z', x'00ff', 1, 1e20, 1), "
        "('2024-05-01T10:00:01Z', x'41', 0, 0.5, 'many')",
    )
    lab.load(shop, "t", watermark="n")
    write(shop, "UPDATE t SET n = 'few' WHERE c = 1", "UPDATE t SET n = 2 WHERE c = 0")
    lab.load(shop, "t", watermark="n", deletes=True)
    assert rows(lab, "SELECT n FROM shop.t") == [(2,)]
    assert rows(lab, "SELECT value FROM quarantine.misfits") == [("few",)]


@pytest.mark.slow
def test_a_sync_leaves_what_was_loaded_and_its_quarantine_alone(lab, shop):
    """Whole or not; and a load leaves the cursor of the sync alone."""
    write(shop, order(1), order(2, price="'dear'"))
    lab.load(shop, "orders")
    assert lab.sync().mode == "nothing"
    lab.sync(full=True)
    assert ids(lab) == [1]
    assert rows(lab, "SELECT row_key FROM quarantine.misfits") == [("2",)]


@pytest.mark.slow
def test_a_load_does_not_hide_that_the_views_are_of_another_version(lab, shop, monkeypatch):
    """It leaves them as they are; the sync that follows makes them again."""
    changed = "CREATE OR REPLACE VIEW conversations AS SELECT 1 AS one FROM raw.messages"
    monkeypatch.setattr(views, "VIEWS", (changed,))
    lab.load(shop, "orders")
    assert lab.sync().mode == "increment"
    assert lab.sql("FROM conversations").columns == ["one"]
    assert lab.sync().mode == "nothing"


@pytest.mark.slow
def test_changed_columns_make_the_table_anew(lab, shop):
    """So does another watermark, whose values say nothing about the first one's."""
    write(shop, order(1, "10:00:00"))
    lab.load(shop, "orders")
    write(shop, "ALTER TABLE orders ADD COLUMN note TEXT")
    assert lab.load(shop, "orders").mode == "full"
    assert rows(lab, "SELECT id, note FROM shop.orders") == [(1, None)]
    assert lab.load(shop, "orders", watermark="at").mode == "full"


# Exactly once


@pytest.mark.slow
@pytest.mark.parametrize("step", ["insert", "merge", "advance"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_failure_at_any_step_leaves_the_warehouse_as_it_was(lab, shop, monkeypatch, step, first):
    """And the next load brings everything, once."""
    if first and step == "merge":
        pytest.skip("a first load merges nothing")
    write(shop, order(1))
    if not first:
        lab.load(shop, "orders")
        write(shop, order(2), order(3))
    before = lab.generation, rows(lab, "SELECT count(*) FROM meta.runs")
    original = getattr(ForeignTable, step)

    def fail(*arguments, **options):
        original(*arguments, **options)
        raise OSError("the power went out")

    with monkeypatch.context() as broken:
        broken.setattr(ForeignTable, step, fail)
        with pytest.raises(OSError, match="power"):
            lab.load(shop, "orders")
    assert (lab.generation, rows(lab, "SELECT count(*) FROM meta.runs")) == before
    assert lab.load(shop, "orders").mode == ("full" if first else "increment")
    assert ids(lab) == ([1] if first else [1, 2, 3])


@pytest.mark.slow
def test_a_load_that_was_not_published_is_published_by_the_next_one(lab, shop, monkeypatch):
    """A crash between commit and publication costs nothing."""
    write(shop, order(1))

    def fail(*_, **__):
        raise OSError("the power went out")

    with monkeypatch.context() as broken:
        broken.setattr(snapshots, "publish", fail)
        with pytest.raises(OSError, match="power"):
            lab.load(shop, "orders")
    assert lab.load(shop, "orders").mode == "nothing"
    assert ids(lab) == [1]


@pytest.mark.slow
def test_a_home_that_was_never_synced_is_synced_first(home, shop):
    """A snapshot without the view of the conversations would be no snapshot of this home."""
    write(shop, order(1))
    with Lab.create(home) as lab:  # encrypted, as homes usually are
        assert lab.load(shop, "orders").rows == 1
        assert rows(lab, "SELECT count(*) FROM conversations") == [(0,)]
        assert ids(lab) == [1]


# The file of the other program


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_nothing_is_written_into_the_file_or_beside_it(lab, shop, mode):
    """Not even the shared memory that a reader of a file in WAL mode makes."""
    write(shop, f"PRAGMA journal_mode = {mode}", order(1))
    before = files(shop.parent)
    lab.load(shop, "orders")
    lab.load(shop, "orders", deletes=True)
    assert files(shop.parent) == before == {"shop.db": before["shop.db"]}
    assert ids(lab) == [1]


@contextmanager
def read_only(folder):
    """A mount that is read-only, which binds even root."""
    try:
        subprocess.run(["mount", "--bind", folder, folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
@pytest.mark.parametrize("mode", ["delete", "wal", "crashed wal", "crashed delete"])
def test_a_file_on_a_read_only_medium_is_read(lab, shop, mode):
    """Also where its program crashed, and what was committed is in the log beside it."""
    crash(shop, mode) if mode.startswith("crashed") else write(
        shop, f"PRAGMA journal_mode = {mode}", order(1)
    )
    with read_only(shop.parent):
        lab.load(shop, "orders")
    assert ids(lab) == [1]


CRASH = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = " + sys.argv[2])
connection.execute("PRAGMA cache_size = 1")
connection.execute(sys.argv[3])
if sys.argv[2] == "delete":
    connection.execute("BEGIN")
    connection.execute("UPDATE orders SET item = 'half done'")
    connection.execute("WITH RECURSIVE n(i) AS (SELECT 9 UNION ALL SELECT i + 1 FROM n LIMIT 999) "
        "INSERT INTO orders SELECT i, hex(randomblob(200)), 1, NULL FROM n")
os._exit(1)
"""


def crash(path, mode):
    """Let a program die while it has the file open."""
    kind = mode.removeprefix("crashed ")
    subprocess.run([sys.executable, "-c", CRASH, path, kind, order(1)], check=False)
    log = path.with_name(f"{path.name}-{'wal' if kind == 'wal' else 'journal'}")
    assert log.stat().st_size > 0
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # as a copy of the file lacks it


@pytest.mark.parametrize("mode", ["crashed wal", "crashed delete"])
def test_what_a_crashed_program_committed_is_read_and_the_rest_is_not(lab, shop, mode):
    """From a copy, on which its log is applied."""
    crash(shop, mode)
    before = files(shop.parent)
    lab.load(shop, "orders")
    assert rows(lab) == [(1, "tea")]
    assert files(shop.parent) == before


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
connection.close()
"""


@contextmanager
def held(path, *statements):
    """Let another process write a file and wait before it commits: locks are a process's own."""
    command = [sys.executable, "-c", HOLD, path, *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as theirs:
        assert theirs.stdout.readline().strip() == b"held"
        yield
        theirs.communicate(b"\n")
    assert theirs.returncode == 0


@pytest.mark.slow
def test_a_file_that_is_being_written_is_read_as_of_its_last_commit(lab, shop):
    """Its program, in WAL mode, is not disturbed, nor are its files removed."""
    write(shop, "PRAGMA journal_mode = wal")
    with held(shop, order(1), "BEGIN IMMEDIATE", order(2)):
        before = set(shop.parent.iterdir())
        lab.load(shop, "orders")
        assert set(shop.parent.iterdir()) == before
        assert ids(lab) == [1]
    lab.load(shop, "orders")
    assert ids(lab) == [1, 2]


def test_a_file_that_this_process_has_open_keeps_its_locks(lab, shop):
    """As that of a channel memory: to look into a file beside SQLite would end them."""
    write(shop, order(1))
    with Connection(shop, None, busy_timeout=1) as ours, ours.transaction():
        ours.execute(order(2))
        lab.load(shop, "orders")
        assert ids(lab) == [1]
        command = ["-c", HOLD, shop, "PRAGMA busy_timeout = 0", "BEGIN IMMEDIATE"]
        other = subprocess.run([sys.executable, *command], input=b"", check=False)
        assert other.returncode != 0


@pytest.mark.slow
def test_a_file_that_changes_unseen_while_it_is_read_is_not_taken(lab, shop, monkeypatch):
    """It was opened as one that nobody writes; nothing of it is committed."""
    write(shop, "PRAGMA journal_mode = wal", order(1))
    original = ForeignTable.insert

    def meanwhile(*arguments, **options):
        write(shop, order(2))
        original(*arguments, **options)

    with monkeypatch.context() as busy:
        busy.setattr(ForeignTable, "insert", meanwhile)
        with pytest.raises(DatabaseLocked, match="try again"):
            lab.load(shop, "orders")
    assert lab.load(shop, "orders").rows == 2


@pytest.mark.slow
def test_an_encrypted_file_is_opened_by_the_key_in_the_environment(lab, tmp_path, monkeypatch):
    """Which is ignored for a file that is not encrypted."""
    secret, plain = tmp_path / "secret.db", tmp_path / "plain.db"
    connection = libsql_experimental.connect(str(secret), isolation_level=None, encryption_key=KEY)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(ORDERS)
    connection.execute(order(1))
    connection.close()
    write(plain, ORDERS, order(1))
    with pytest.raises(NotADatabase, match="AICO_LAB_SOURCE_KEY"):
        lab.load(secret, "orders")
    monkeypatch.setenv("AICO_LAB_SOURCE_KEY", "z" * 32)
    with pytest.raises(NotADatabase, match="does not open") as refused:
        lab.load(secret, "orders")
    assert "zzz" not in str(refused.value)
    monkeypatch.setenv("AICO_LAB_SOURCE_KEY", KEY)
    lab.load(secret, "orders")
    lab.load(plain, "orders")
    assert rows(lab, "FROM secret.orders") == rows(lab, "FROM plain.orders")
    assert not list(tmp_path.glob("*.db-*"))


@pytest.mark.parametrize("form", ["{}", "0x{}", "x'{}'"])
def test_a_key_of_bytes_is_given_in_hexadecimal_digits(lab, tmp_path, monkeypatch, form):
    """As another program keeps one that is no text."""
    digits = bytes(range(0xC0, 0xE0)).hex()
    connection = libsql_experimental.connect(str(tmp_path / "secret.db"), isolation_level=None)
    connection.execute(f"PRAGMA hexkey = '{digits}'").fetchall()
    connection.execute(ORDERS)
    connection.execute(order(1))
    connection.close()
    monkeypatch.setenv("AICO_LAB_SOURCE_KEY", form.format(digits.upper()))
    assert lab.load(tmp_path / "secret.db", "orders").rows == 1


# What cannot be loaded


@pytest.mark.slow
def test_a_missing_file_and_a_missing_table_are_named(lab, shop, tmp_path):
    """With the tables that there are."""
    with pytest.raises(SourceMissing, match=r"none\.db"):
        lab.load(tmp_path / "none.db", "orders")
    with pytest.raises(UnknownName, match="no table 'users'; it has orders"):
        lab.load(shop, "users")
    with pytest.raises(UnknownName, match="no column 'when'; it has id, item, price, at"):
        lab.load(shop, "orders", watermark="when")
    with pytest.raises(UnknownName, match="no column 'x'"):
        lab.load(shop, "orders", key=["x"])
    (tmp_path / "empty.db").touch()
    with pytest.raises(UnknownName, match="none at all"):
        lab.load(tmp_path / "empty.db", "orders")


def test_a_file_that_is_no_database_is_told_from_one_that_was_cut_short(lab, shop, tmp_path):
    """The warehouse stays as it is."""
    before = lab.generation
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(NotADatabase, match=r"text\.db is not a SQLite database"):
        lab.load(tmp_path / "text.db", "orders")
    write(shop, *(order(number, item="x" * 500) for number in range(100)))
    whole = shop.read_bytes()
    for length in (len(whole) // 2 // 4096 * 4096, len(whole) // 2 + 99):
        shop.write_bytes(whole[:length])
        with pytest.raises(CorruptDatabase, match=r"shop\.db is damaged"):
            lab.load(shop, "orders")
    assert lab.generation == before


def test_a_file_that_stays_locked_is_given_up(lab, shop, monkeypatch):
    """After the time that every connection waits."""
    monkeypatch.setattr(libsql_readonly, "BUSY_TIMEOUT", 0.1)
    write(shop, order(1))
    with held(shop, "BEGIN EXCLUSIVE"), pytest.raises(DatabaseLocked, match="when it is done"):
        lab.load(shop, "orders")


FOREIGN = [
    ('CREATE TABLE t ("a""b" INTEGER)', SourceUnreadable, "warehouse cannot use .* as a name"),
    ("CREATE TABLE t (at TEXT)", InvalidValue, "holds neither numbers nor times"),
]


@pytest.mark.parametrize(("statement", "kind", "words"), FOREIGN, ids=["name", "watermark"])
def test_a_schema_that_cannot_be_loaded_is_refused(lab, shop, statement, kind, words):
    """In one sentence that says what to do."""
    write(shop, statement, "INSERT INTO t VALUES ('soon')")
    with pytest.raises(kind, match=words):
        lab.load(shop, "t", watermark="at" if kind is InvalidValue else "rowid")


def test_texts_in_utf_16_are_refused(lab, tmp_path):
    """Their bytes would be read as other texts."""
    write(tmp_path / "wide.db", "PRAGMA encoding = 'UTF-16'", ORDERS)
    with pytest.raises(SourceUnreadable, match="UTF-16"):
        lab.load(tmp_path / "wide.db", "orders")


@pytest.mark.parametrize(
    "name", ["raw", "META", "quarantine", "mart", "main", "lab", "a b", "1a", "select"]
)
def test_a_name_that_the_warehouse_uses_itself_is_refused(lab, shop, name):
    """And one that is no name."""
    with pytest.raises(InvalidValue, match="--name"):
        lab.load(shop, "orders", name=name)


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("memory.db", "memory_db"), ("Main.sqlite", "main_db"), ("sp ace.db", "sp_ace"),
        ("1a.db", "_1a"), ("Übung-2.db", "ubung_2"), ("日記.db", "db"), ("a.b.db", "a_b"),
        ("select.db", "select_db"), ("Table.sqlite", "table_db"), ("date.db", "date"),
    ],
)  # fmt: skip
def test_a_file_of_any_name_gets_a_schema(lab, shop, file, schema):
    """Which can be written without quotes."""
    assert lab.load(shop.rename(shop.with_name(file)), "orders").table == f"{schema}.orders"
    assert rows(lab, f"FROM {schema}.orders") == []


@pytest.mark.slow
def test_two_files_of_one_name_are_not_mixed_up(lab, shop, tmp_path):
    """Unless they are said to be the same, as the copy of every night is."""
    write(shop, order(1))
    lab.load(shop, "orders")
    other = tmp_path / "shop.db"
    write(other, ORDERS, order(2))
    with pytest.raises(InvalidValue, match="--name"):
        lab.load(other, "orders")
    lab.load(other, "orders", name="shop")
    assert ids(lab) == [1, 2]


@pytest.mark.parametrize("lag", [-1, float("inf"), float("nan")])
def test_a_lag_is_not_negative(lab, shop, lag):
    """Nor without end."""
    with pytest.raises(InvalidValue, match="lag"):
        lab.load(shop, "orders", lag=lag)


# The command and the step


@pytest.mark.slow
@pytest.mark.usefixtures("lab")
def test_the_command_loads_and_says_what_it_did(cli, shop):
    """In words, and as one JSON value."""
    write(shop, order(1, "10:00:00"), order(2, "10:00:01", price="'x'"))
    arguments = ("load", str(shop), "--table", "orders", "--watermark", "at", "--lag", "60")
    done = cli(*arguments)
    assert "1 rows of shop.orders written" in done.stdout
    assert "1 rows do not fit" in done.stdout
    assert "Nothing new in shop.orders" in cli(*arguments, "--deletes").stdout
    again = json.loads(cli(*arguments, "--name", "other", "--key", "id", "--json").stdout)
    assert (again["table"], again["mode"], again["rows"]) == ("other.orders", "full", 1)
    failed = cli("load", str(shop), "--table", "nope")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "it has orders" in failed.stderr


def test_a_pipeline_loads(lab, shop):
    """The path is relative to its file, and a step that cannot be meant shows before any runs."""
    write(shop, order(1))
    job = shop.with_name("job.toml")
    job.write_text("[[steps]]\nrun = 'load'\npath = 'shop.db'\ntable = 'orders'\nkey = ['id']")
    (step,) = run_pipeline(lab, load_pipeline(str(job)))
    assert step.result.rows == 1
    for wrong, words in (("name = 'raw'", "--name"), ("lag = -1", "lag"), ("lag = 'x'", "number")):
        job.write_text(f"[[steps]]\nrun = 'load'\npath = 'shop.db'\ntable = 'orders'\n{wrong}")
        with pytest.raises(InvalidValue, match=words):
            load_pipeline(str(job))
    job.write_text("[[steps]]\nrun = 'load'\npath = 'shop.db'")
    with pytest.raises(InvalidValue, match="needs 'table'"):
        load_pipeline(str(job))


def test_a_notebook_is_not_given_the_key_of_the_source(monkeypatch):
    """It reads the warehouse only."""
    from aico_lab.config import Settings

    monkeypatch.setenv("AICO_LAB_SOURCE_KEY", KEY)
    assert KEY in os.environ.values()
    assert KEY not in Settings.resolve().environment().values()
