"""DuckDB's errors are attributed correctly to the query or to the file."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from aico_lab.adapters.duckdb import DuckDBAdapter, execute_with, translated
from aico_lab.errors import InvalidStatement, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

MESSAGE = 'it\'s my "private" diary\nof two lines'


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    adapter = DuckDBAdapter(tmp_path / "w.duckdb", read_only=False, temporary=tmp_path)
    opened = adapter.connect()
    opened.execute("CREATE TABLE t (content VARCHAR)")
    opened.execute("INSERT INTO t VALUES (?)", [MESSAGE])
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT checksum FROM t",
        "FROM corrupt_rows",
        "SELECT decrypt(content) FROM t",
        "FROM t WHERE content::INTEGER = 1 -- checksum",
        "SELECT 'read-only' 'corrupt' FROM",
    ],
)
def test_a_mistake_in_a_query_is_no_damage_of_the_file(connection, query: str) -> None:
    """Whatever words the query has: a false report would make people delete a good warehouse."""
    with pytest.raises(InvalidStatement), translated("The snapshot"):
        connection.execute(query)


@pytest.mark.parametrize(
    "value",
    [
        "content::INTEGER",
        "content::DATE",
        "content::DECIMAL(3, 2)",
        "content::INTEGER[]",
        "date_trunc(content, now())",
        "strptime(content, '%d')",
        "content::BOOLEAN",
    ],
)
def test_an_error_repeats_no_value_of_a_row(connection, value: str) -> None:
    """The value may be confidential."""
    with pytest.raises(InvalidStatement) as refused, translated("The snapshot"):
        connection.execute(f"SELECT {value} FROM t")
    assert not any(word in str(refused.value) for word in ("private", "diary", "lines"))


def test_writing_to_a_snapshot_is_told_from_a_mistake(connection, tmp_path: Path) -> None:
    """By the driver's message, because both have the same class."""
    connection.close()
    adapter = DuckDBAdapter(tmp_path / "w.duckdb", read_only=True, temporary=tmp_path)
    with adapter.connect() as reader, pytest.raises(NotPermitted), translated("The snapshot"):
        reader.execute("DELETE FROM t")


@pytest.mark.slow
def test_a_long_query_draws_no_bar_among_the_answers(tmp_path):
    """DuckDB draws one on stdout after two seconds."""
    asked = f"""
from pathlib import Path
from aico_lab.adapters.duckdb import DuckDBAdapter
folder = Path({str(tmp_path)!r})
connection = DuckDBAdapter(folder / "a.duckdb", read_only=False, temporary=folder).connect()
connection.execute("SET threads = 1")
connection.execute(
    "SELECT count(*) FROM range(100000) AS a, range(4000) AS b WHERE a.range * b.range % 7 = 3"
).fetchall()
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_inserted_rows_do_not_stay_in_memory_until_the_transaction_ends(tmp_path):
    """As those of a registered view would."""
    adapter = DuckDBAdapter(tmp_path / "a.duckdb", read_only=False, temporary=tmp_path / "tmp")
    with adapter.connect() as connection:
        connection.execute("BEGIN; CREATE TABLE t (a BIGINT)")
        before = pa.total_allocated_bytes()
        for _ in range(5):
            rows = pa.table({"a": pa.array(range(100_000))})
            execute_with(connection, "INSERT INTO t FROM rows", rows=rows)
        del rows
        assert pa.total_allocated_bytes() - before < 100_000
        connection.execute("COMMIT")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (500_000,)
