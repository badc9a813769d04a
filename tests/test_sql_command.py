"""`aico-lab sql`: what is shown, how exact it is, and how results get out."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from aico_lab.errors import InvalidStatement, InvalidValue
from aico_lab.lab import Lab
from aico_lab.metrics.engine.answer import SHOWN
from tests.messages import add, at, message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.databases import Homes


@pytest.fixture
def ask(in_process, homes: Homes, tmp_path_factory) -> Callable:
    """The command on a home with a snapshot."""
    home = tmp_path_factory.mktemp("asked") / "home"
    with homes.open(home, "none", synced=True):
        pass
    return lambda *arguments: in_process("sql", *arguments, "--home", str(home))


def rows_of(table: str) -> list[str]:
    """The cells of a drawn table of one column."""
    return [line.strip("│ ") for line in table.splitlines() if line.startswith("│")][2:]


@pytest.mark.slow
def test_twenty_rows_are_shown_and_the_rest_is_not_hidden(ask):
    """The hint is no part of the answer."""
    few = ask("FROM range(20)")
    assert rows_of(few.stdout) == [str(number) for number in range(20)]
    assert few.stderr == ""
    many = ask("FROM range(21)")
    assert rows_of(many.stdout)[:20] == [str(number) for number in range(20)]
    assert "20 rows are shown" in many.stderr
    assert all(word in many.stderr for word in ("--limit", "less -S", "--output"))
    more = ask("FROM range(5000)", "--limit", "3000")
    assert rows_of(more.stdout)[:3000] == [str(number) for number in range(3000)]
    assert "3,000 rows are shown" in more.stderr


def test_a_table_is_cut_by_no_terminal_where_there_is_none(ask):
    """In a pipe or a file every column is there, and every text whole."""
    columns = ", ".join(f"'{'x' * 30}{number}' AS c{number}" for number in range(40))
    shown = ask(f"SELECT {columns}, repeat('y', 3000) AS long").stdout
    assert f"{'x' * 30}39" in shown
    assert "y" * 3000 in shown


def test_json_has_all_rows_unless_fewer_are_asked_for(ask):
    """A program wants no hint."""
    every = ask("FROM range(50)", "--json")
    assert [row["range"] for row in json.loads(every.stdout)] == list(range(50))
    assert every.stderr == ""
    assert len(json.loads(ask("FROM range(50)", "--json", "--limit", "7").stdout)) == 7


@pytest.mark.parametrize(
    "number",
    ["0.10", "-0.1", "12345678901234567890.123456789012345678", "0.000000000000000001", "7.00",
     "100", "-99999999999999999999999999999999999999", "0"],
)  # fmt: skip
def test_decimal_numbers_are_exact_in_json(ask, number):
    """A binary fraction has no tenth; and they are numbers, not texts."""
    scale = len(number.partition(".")[2])
    query = f"SELECT '{number}'::DECIMAL(38, {scale}) AS a, ['{number}'::DECIMAL(38, {scale})] AS b"
    (row,) = json.loads(ask(query, "--json").stdout, parse_float=Decimal, parse_int=Decimal)
    assert row == {"a": Decimal(number), "b": [Decimal(number)]}


def test_text_that_looks_like_a_number_stays_text(ask):
    """Only decimals are numbers."""
    (row,) = json.loads(ask("SELECT '1.5' AS t, 1.5::DECIMAL(3, 1) AS d", "--json").stdout)
    assert row == {"t": "1.5", "d": 1.5}


QUERY = (
    "SELECT 1.10::DECIMAL(10, 2) AS price, 'it''s, \"so\"' AS said, [1, 2] AS list, NULL AS gone, "
    "TIMESTAMPTZ '2024-05-01 10:00:00+00' AS at FROM range(3)"
)


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
@pytest.mark.parametrize("written", [str.lower, str.upper])
def test_columns_with_the_same_name_are_numbered(ask, tmp_path: Path, ending, written):
    """Alike in every format, whatever the case of its suffix."""
    file = tmp_path / f"out.{written(ending)}"
    query = "SELECT m.*, n.*, 5 AS a_1 FROM (SELECT 1 AS a, 2 AS b) AS m, (SELECT 3 AS a) AS n"
    done = ask(query, "--output", str(file))
    assert (done.returncode, done.stdout) == (0, f"Wrote {file}.\n"), done.stderr
    assert list(tmp_path.iterdir()) == [file]
    if ending == "csv":
        (row,) = csv.DictReader(file.read_text().splitlines())
    elif ending == "parquet":
        (row,) = pq.read_table(file).to_pylist()
    else:
        (row,) = json.loads(file.read_text())
    assert {name: int(value) for name, value in row.items()} == {"a": 1, "b": 2, "a_2": 3, "a_1": 5}


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_results_are_written_to_a_file_of_ones_own(ask, tmp_path: Path, ending):
    """Whole, exact, and for nobody else to read."""
    file = tmp_path / f"out.{ending}"
    done = ask(QUERY, "--output", str(file), "--timezone", "Europe/Berlin")
    assert (done.returncode, done.stdout) == (0, f"Wrote {file}.\n"), done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
    if ending == "csv":
        rows = list(csv.DictReader(file.read_text().splitlines()))
        assert rows[0]["at"] == "2024-05-01 12:00:00+02"
        assert (rows[0]["list"], rows[0]["gone"]) == ("[1, 2]", "")
    elif ending == "parquet":
        rows = pq.read_table(file).to_pylist()
        assert rows[0]["at"].timestamp() == 1714557600
        assert (rows[0]["list"], rows[0]["gone"]) == ([1, 2], None)
    else:
        rows = json.loads(file.read_text(), parse_float=Decimal)
        assert rows[0]["at"] == "2024-05-01T12:00:00+02:00"
        assert (rows[0]["list"], rows[0]["gone"]) == ([1, 2], None)
    assert len(rows) == 3
    assert Decimal(rows[0]["price"]) == Decimal("1.10")
    assert rows[0]["said"] == 'it\'s, "so"'


def test_a_file_that_is_there_is_replaced_only_by_force(ask, tmp_path: Path):
    """It may be somebody's work."""
    file = tmp_path / "x.csv"
    file.write_text("mine")
    refused = ask("SELECT 1 AS a", "--output", str(file))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--force" in refused.stderr
    assert file.read_text() == "mine"
    assert ask("SELECT 1 AS a", "--output", str(file), "--force").returncode == 0
    assert file.read_text() == "a\n1\n"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; SELECT 2",
        "SHOW TABLES; SELECT 2",
        "FROM range(2); CREATE TEMP TABLE t AS SELECT 1",
    ],
)
def test_no_answer_is_lost_among_several_statements(ask, query):
    """What only prepares the last one may come before it."""
    refused = ask(query)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "one query at a time" in refused.stderr
    prepared = ask("CREATE TEMP TABLE t AS SELECT 7 AS a; SET VARIABLE x = 1; FROM t; -- done")
    assert rows_of(prepared.stdout) == ["7"], prepared.stderr


def test_only_so_many_rows_are_written_if_so_many_are_asked_for(ask, tmp_path: Path):
    """The same option for all forms."""
    assert ask("FROM range(9)", "--output", str(tmp_path / "x.csv"), "--limit", "2").returncode == 0
    assert (tmp_path / "x.csv").read_text() == "range\n0\n1\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--output", "x.txt"], ".csv or .parquet or .json"),
        (["--output", "x.db"], ".csv or .parquet or .json"),
        (["--output", "x.csv", "--json"], "only one"),
        (["--limit", "0"], "limit"),
    ],
)
def test_wrong_use_is_told(ask, arguments, word, tmp_path, monkeypatch):
    """With exit code 2, and no file."""
    monkeypatch.chdir(tmp_path)
    refused = ask("SELECT 1", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert word in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_told(ask, tmp_path):
    """Nothing half written is left."""
    refused = ask("SELECT 1", "--output", str(tmp_path / "nowhere" / "x.csv"))
    assert refused.returncode == 2
    assert f"no folder {tmp_path / 'nowhere'}" in refused.stderr
    failed = ask("SELECT error('later') FROM range(9)", "--output", str(tmp_path / "x.csv"))
    assert failed.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_query_that_would_write_is_refused_in_one_sentence(ask, tmp_path):
    """It names the option."""
    refused = ask(f"COPY (SELECT 1) TO '{tmp_path}/x.csv'")
    assert refused.returncode == 1
    assert "--output FILE" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_an_answer_writes_itself(lab: Lab, tmp_path: Path, ending):
    """All rows, and not only those that show."""
    add(lab.primary, *(message(n, timestamp=at(n * 40_000)) for n in range(100)))
    lab.sync()
    answer = lab.metrics.daily_activity()
    assert len(answer) > SHOWN
    file = tmp_path / f"answer.{ending}"
    answer.write(file)
    assert file.stat().st_mode & 0o777 == 0o600
    match ending:
        case "csv":
            rows = list(csv.DictReader(file.read_text().splitlines()))
        case "parquet":
            rows = pq.read_table(file).to_pylist()
        case _:
            rows = json.loads(file.read_text())
    assert len(rows) == len(answer)
    assert list(rows[0]) == answer.pl().columns


@pytest.mark.slow
def test_a_relation_writes_the_same_file_as_the_command(homes: Homes, in_process, tmp_path: Path):
    """In every format, private, and in the lab's zone; the rules for the file are the same."""
    with homes.open(tmp_path / "home", "none", synced=True):
        pass
    with Lab.open(tmp_path / "home", timezone="Europe/Berlin") as lab:
        for ending in ("csv", "parquet", "json"):
            file, other = tmp_path / f"out.{ending}", tmp_path / f"other.{ending}"
            asked = lab.sql(f"{QUERY} WHERE range >= ?", [1])
            assert asked is not None
            assert "write" in dir(asked)
            asked.limit(2).write(file)
            assert file.stat().st_mode & 0o777 == 0o600
            options = ("--timezone", "Europe/Berlin", "--home", str(tmp_path / "home"))
            done = in_process("sql", f"{QUERY} LIMIT 2", "--output", str(other), *options)
            assert done.returncode == 0, done.stderr
            assert file.read_bytes() == other.read_bytes()
        relation = lab.sql("SELECT 1 AS a")
        assert relation is not None
        for wrong in (tmp_path / "x.txt", tmp_path / "home" / "x.csv", tmp_path / "no" / "x.csv"):
            with pytest.raises(InvalidValue):
                relation.write(wrong)
        failing = lab.sql("SELECT error('later') FROM range(9)")
        assert failing is not None
        with pytest.raises(InvalidStatement):
            failing.write(tmp_path / "out.json")
        assert json.loads((tmp_path / "out.json").read_text())[0]["list"] == [1, 2]


@pytest.mark.slow
def test_a_query_or_parameters_that_are_none_are_told(lab: Lab):
    """A terminal of another encoding gives bytes that are no text."""
    lab.sync()
    with pytest.raises(InvalidValue, match="not UTF-8 text"):
        lab.sql("SELECT '\udcff'")
    with pytest.raises(InvalidValue, match=r"not 5: write \[value\]"):
        lab.sql("SELECT ?", 5)
    with pytest.raises(InvalidStatement, match="parameter without a value"):
        lab.sql("SELECT ?")
