"""Reading a table by its pages gives what selecting its rows gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.errors import CorruptDatabase
from aico_lab.etl import pages
from aico_lab.etl.contract import read_contract
from aico_lab.etl.extract import extract
from aico_lab.etl.misfits import count_rows
from tests.effort import examples
from tests.reading import reads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

KEY = "k" * 32
TABLE = """CREATE TABLE things (
    id INTEGER PRIMARY KEY, name TEXT, small INTEGER, real REAL, flag BOOLEAN,
    at TIMESTAMP TEXT, more JSON TEXT, raw BLOB
)"""
COLUMNS = "id, name, small, real, flag, at, more, raw"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """An encrypted database with one table."""
    with LibSQLAdapter(tmp_path / "a.db", KEY).connect() as opened:
        opened.execute(TABLE)
        yield opened


def read(
    connection: Connection, table: str = "things", *, by_pages: bool
) -> tuple[pa.Table, set[Any]]:
    """The rows that fit, ordered, and those that do not."""
    contract = read_contract(connection, table, (connection.fetch_all(
        "SELECT name FROM pragma_table_info(?) ORDER BY cid", [table])[0][0],))  # fmt: skip
    with reads(by_pages=by_pages), connection.snapshot():
        extracted = list(extract(connection, contract))
    rows = pa.Table.from_batches([batch for batch, _ in extracted], contract.arrow_schema)
    misfits = {misfit for _, some in extracted for misfit in some}
    return rows.sort_by(contract.key[0]).combine_chunks(), misfits


def assert_same(connection: Connection, table: str = "things") -> tuple[pa.Table, set[Any]]:
    """Read the table both ways."""
    by_pages, by_rows = (read(connection, table, by_pages=way) for way in (True, False))
    assert by_pages[0].equals(by_rows[0])
    assert by_pages[0].validate(full=True) is None
    assert by_pages[1] == by_rows[1]
    return by_pages


INT64 = st.integers(-(2**63), 2**63 - 1)
EDGES = st.sampled_from([s * 2**b + d for b in (7, 15, 23, 31, 47, 62) for s in (1, -1)
                         for d in (-1, 0, 1)])  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LONG = st.builds(lambda text, times: text * times, TEXT, st.integers(0, 3_000))
TIME = st.datetimes().map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27))
ANYTHING = st.none() | INT64 | st.floats(allow_nan=False) | TEXT | st.binary(max_size=100)
ROW = st.tuples(
    LONG | st.none(),
    INT64 | EDGES | st.none(),
    st.floats(allow_nan=False) | st.integers(-(2**31), 2**31 - 1) | st.none(),
    st.sampled_from([0, 1, None]),
    TIME | st.none(),
    st.sampled_from(["{}", '{"a": [1, 2.5, "ü"]}', "[]", "null", None]),
    st.binary(max_size=5_000) | st.none(),
)
MISFIT = st.tuples(*[ANYTHING] * 7)


@pytest.mark.slow
@given(
    ids=st.lists(INT64 | EDGES | st.integers(0, 300), min_size=1, max_size=60, unique=True),
    data=st.data(),
)
@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_value_is_the_same_by_pages_and_by_rows(connection, ids, data):
    """Whatever the types, the lengths, the keys and the misfits among them."""
    connection.execute("DELETE FROM things")
    odd = data.draw(st.booleans())
    rows = data.draw(st.lists(ROW | MISFIT if odd else ROW, min_size=1, max_size=60))
    connection.execute_many(
        f"INSERT INTO things ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [[id_, *row] for id_, row in zip(ids, rows, strict=False)],
    )
    table, misfits = assert_same(connection)
    assert table.num_rows + count_rows(misfits) == min(len(ids), len(rows))


def fill(connection: Connection, count: int, table: str = "things") -> None:
    connection.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        f"INSERT INTO {table} ({COLUMNS}) SELECT i, 'name ' || i, i * 1000003, i / 7.0, i % 2, "
        "strftime('%Y-%m-%dT%H:%M:%f', 1700000000 + i, 'unixepoch') || '000Z', "
        "json_object('i', i), CAST('blob ' || i AS BLOB) FROM n",
        [count],
    )


@pytest.mark.slow
def test_a_tree_of_several_levels_is_read_whole_and_what_was_deleted_is_not(connection):
    """Interior pages, free pages, and holes in the order of the row ids."""
    fill(connection, 40_000)
    connection.execute("DELETE FROM things WHERE id % 3 = 0 OR id BETWEEN 10000 AND 20000")
    with connection.snapshot():
        layout = pages.read_layout(connection, read_contract(connection, "things", ("id",)))
    assert layout is not None
    assert len(layout.leaves) > 600  # more than one interior page holds
    table, misfits = assert_same(connection)
    assert not misfits
    assert table["id"].to_pylist() == [
        i for i in range(1, 40_001) if i % 3 and not 10_000 <= i <= 20_000
    ]


@pytest.mark.slow
def test_a_column_that_was_added_later_has_its_default_in_older_rows(connection):
    """SQLite does not write it there."""
    fill(connection, 500)
    connection.execute("ALTER TABLE things ADD COLUMN later TEXT")
    connection.execute("ALTER TABLE things ADD COLUMN rated REAL NOT NULL DEFAULT 2.5")
    connection.execute("UPDATE things SET later = 'now', rated = 1 WHERE id % 50 = 0")
    table, _ = assert_same(connection)
    assert table["later"].to_pylist()[48:50] == [None, "now"]
    assert table["rated"].to_pylist()[48:50] == [2.5, 1.0]


def test_a_row_that_does_not_fit_is_set_aside_and_its_neighbours_are_not(connection):
    """Be it of another type, no time, no JSON, no UTF-8, or in overflow pages."""
    fill(connection, 300)
    for id_, assignment in {
        3: "small = 'many'", 50: "real = x'00'", 99: "at = 'yesterday'", 120: "more = '{'",
        150: "name = CAST(x'ff' AS TEXT)", 180: "flag = 2", 200: "raw = 'text'",
        250: "name = replace(hex(zeroblob(5000)), '0', 'x'), small = 1.5",
    }.items():  # fmt: skip
        connection.execute(f"UPDATE things SET {assignment} WHERE id = {id_}")
    _, misfits = assert_same(connection)
    assert {(misfit.row_key, misfit.column) for misfit in misfits} == {
        ("3", "small"), ("50", "real"), ("99", "at"), ("120", "more"), ("150", "name"),
        ("180", "flag"), ("200", "raw"), ("250", "small"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE t (a TEXT PRIMARY KEY, b INTEGER) WITHOUT ROWID",
        "CREATE TABLE t (a TEXT, b INTEGER, c TEXT AS (a || b) STORED)",
        "CREATE TABLE t (a TEXT, b INTEGER, c TEXT AS (a || b))",
        "CREATE TABLE t (a TEXT, b INTEGER, rowid TEXT)",
        "CREATE VIEW t (a, b) AS SELECT name, small FROM things",
    ],
)
def test_what_only_sql_can_read_is_read_by_sql(connection, definition):
    """A key that is stored in the tree itself, columns that are computed, a hidden row id."""
    fill(connection, 20)
    connection.execute(definition)
    if not definition.startswith("CREATE VIEW"):
        connection.execute("INSERT INTO t (a, b) SELECT name, small FROM things")
    with connection.snapshot():
        assert pages.read_layout(connection, read_contract(connection, "t", ("a",))) is None
    table, _ = assert_same(connection, "t")
    assert table.num_rows == 20


@pytest.mark.parametrize("key", ["id INTEGER PRIMARY KEY DESC", "id INT PRIMARY KEY"])
def test_a_key_that_is_no_row_id_is_read_from_the_row(connection, key):
    """Only INTEGER PRIMARY KEY, ascending, is the row id."""
    connection.execute(f"CREATE TABLE t ({key}, b TEXT)")
    connection.execute("INSERT INTO t (rowid, id, b) VALUES (7, 70, 'x'), (8, 80, 'y')")
    table, _ = assert_same(connection, "t")
    assert table["id"].to_pylist() == [70, 80]


def test_an_uncommitted_change_of_another_connection_is_not_seen(connection, tmp_path):
    """The pages are those of the reader's snapshot, whatever is written meanwhile."""
    fill(connection, 2_000)
    contract = read_contract(connection, "things", ("id",))
    with LibSQLAdapter(tmp_path / "a.db", KEY).connect() as other, connection.snapshot():
        layout = pages.read_layout(connection, read_contract(connection, "things", ("id",)))
        assert layout is not None
        other.execute("UPDATE things SET name = 'changed'")
        other.execute("DELETE FROM things WHERE id > 1000")
        found = list(pages.read_columns(connection, contract, layout))
    names = [name for arrays, *_ in found for name in arrays[1].to_pylist()]
    assert names == [b"name %d" % i for i in range(1, 2_001)]


@pytest.mark.slow
def test_damaged_pages_are_an_error_and_never_a_crash(tmp_path):
    """Whatever bytes stand in them; the first two pages say where the others are."""
    path = tmp_path / "plain.db"
    with LibSQLAdapter(path, None).connect() as connection:
        connection.execute(TABLE)
        fill(connection, 2_000)
        connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    assert len(whole) > 20 * 4096
    chance = np.random.default_rng(1)
    outcomes = set()
    for _ in range(30):
        content = np.frombuffer(whole, np.uint8).copy()
        wrong = chance.random(len(content)) < 0.02
        wrong[: 2 * 4096] = False
        content[wrong] ^= chance.integers(0, 256, wrong.sum(), np.uint8)
        path.write_bytes(content.tobytes())
        with LibSQLAdapter(path, None).connect() as connection:
            try:
                read(connection, by_pages=True)
                outcomes.add("read")
            except CorruptDatabase:
                outcomes.add("refused")
    assert "refused" in outcomes
