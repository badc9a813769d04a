"""Columns of loose types: each arrives in the type that all its values fit, and exactly."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.etl import extract as extract_module
from aico_lab.schema import feed
from tests.effort import examples
from tests.reading import reads


@pytest.fixture
def lab(home, homes):
    """A synced lab without encryption."""
    with homes.open(home, "none", synced=True) as opened:
        yield opened


@pytest.fixture
def file(tmp_path):
    """Another program's file, not made yet."""
    return tmp_path / "shop.db"


def write(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def load(lab, file, declared, values, **options):
    """Load a table of one column: its type, its values, and what was said."""
    write(file, "DROP TABLE IF EXISTS t", f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared})")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany("INSERT INTO t (v) VALUES (?)", [(value,) for value in values])
    result = lab.load(file, "t", full=True, **options)
    found = lab.sql("SELECT v FROM shop.t ORDER BY id")
    return str(found.types[0]), [value for (value,) in found.fetchall()], result


UTC = dt.UTC
MAY = dt.datetime(2024, 5, 1, 10, tzinfo=UTC)
SECONDS = int(MAY.timestamp())
CASES = [
    ("NUMERIC", [0.30000000000000004, 0.1], "DOUBLE", None),
    ("", [0.30000000000000004, 2], "DOUBLE", None),
    ("", [-0.0, 1.5], "DOUBLE", None),
    ("", [2**62 + 1, -1], "BIGINT", None),
    ("", [b"\x00\xff", b""], "BLOB", None),
    ("", ["a", ""], "VARCHAR", None),
    ("MONEY", [2.5, 10.5], "DOUBLE", None),
    ("DECIMAL(10,2)", [2.5, 10, 0.1, -99999999.99], "DECIMAL(10,2)",
     [Decimal("2.50"), Decimal("10.00"), Decimal("0.10"), Decimal("-99999999.99")]),
    ("NUMERIC(5)", [12345, -1], "DECIMAL(5,0)", [Decimal(12345), Decimal(-1)]),
    ("DECIMAL(10,2)", [2.5, 0.30000000000000004], "DOUBLE", None),
    ("DECIMAL(3,2)", [123.5], "DOUBLE", None),
    ("DECIMAL(10,2)", [2**60 + 1], "BIGINT", None),
    ("DATE", ["2024-05-01", "2024-02-29"], "DATE", [dt.date(2024, 5, 1), dt.date(2024, 2, 29)]),
    ("DATETIME", ["2024-05-01 10:00:00", "2024-05-01T12:00:00+02:00"],
     "TIMESTAMP WITH TIME ZONE", [MAY, MAY]),
    ("DATETIME", [SECONDS, SECONDS + 1], "TIMESTAMP WITH TIME ZONE",
     [MAY, MAY + dt.timedelta(seconds=1)]),
    ("TIMESTAMP", [SECONDS * 1000 + 7], "TIMESTAMP WITH TIME ZONE",
     [MAY + dt.timedelta(milliseconds=7)]),
    ("TIMESTAMP", [SECONDS + 0.25, 0], "TIMESTAMP WITH TIME ZONE",
     [MAY + dt.timedelta(seconds=0.25), dt.datetime(1970, 1, 1, tzinfo=UTC)]),
    ("DATETIME", [2024, 2023], "BIGINT", None),
    ("DATETIME", [SECONDS, SECONDS * 1000], "BIGINT", None),
    ("BOOL", [1, 0], "BOOLEAN", [True, False]),
    ("BOOLEAN", [1, 0, 2], "BIGINT", None),
    ("VARCHAR(20)", ["1", "x"], "VARCHAR", None),
    ("STRING", ["x", "y"], "VARCHAR", None),
]  # fmt: skip


def load_columns(lab, file, cases, *, before=()):
    """Load a table with a column for each case, and return their types, values and the result.

    Args:
        lab: The lab.
        file: The file, which is made.
        cases: A declared type and values of each column, `c0`, `c1` and so on.
        before: SQL that is executed before anything is stored.
    """
    names = [f"c{number}" for number in range(len(cases))]
    declared = ", ".join(f"{name} {case[0]}" for name, case in zip(names, cases, strict=True))
    write(file, *before, f"CREATE TABLE t (id INTEGER PRIMARY KEY, filler TEXT, {declared})")
    rows = list(itertools.zip_longest(*[case[1] for case in cases]))
    with closing(sqlite3.connect(file)) as connection, connection:
        places = ", ".join("?" for _ in names)
        connection.executemany(f"INSERT INTO t ({', '.join(names)}) VALUES ({places})", rows)
        if before:  # each of these rows is longer than half a page
            connection.executemany(
                "INSERT INTO t (filler) VALUES (?)", [("x" * 300,)] * extract_module.PAGEWISE
            )
    result = lab.load(file, "t")
    found = lab.sql(f"SELECT {', '.join(names)} FROM shop.t WHERE filler IS NULL ORDER BY id")
    values = [
        list(column[: len(case[1])])
        for column, case in zip(zip(*found.fetchall(), strict=True), cases, strict=True)
    ]
    return [str(type_) for type_ in found.types], values, result


@pytest.mark.slow
@pytest.mark.parametrize("before", [["PRAGMA page_size = 512"], []], ids=["by pages", "by rows"])
def test_values_say_the_type(lab, file, before):
    """With nothing lost, nothing set aside, and NULL as it was."""
    cases = [(declared, [*values, None]) for declared, values, *_ in CASES]
    types, found, result = load_columns(lab, file, cases, before=before)
    assert (result.quarantined, result.warnings) == (0, [])
    for (declared, values, type_, expected), now, there in zip(CASES, types, found, strict=True):
        assert (declared, now, there) == (declared, type_, [*(expected or values), None])
        if type_ == "DOUBLE":
            signs = [math.copysign(1, v) for v in values]
            assert [math.copysign(1, v) for v in there[:-1]] == signs


TEXTS = [
    ("DECIMAL(10,2)", [2.5, "n/a"], ["2.5", "n/a"]),
    ("", [0.30000000000000004, "x", 3], ["0.30000000000000004", "x", "3"]),
    ("", [2**62 + 1, 0.5], [str(2**62 + 1), "0.5"]),
    ("DATE", ["2024-05-01", "soon"], ["2024-05-01", "soon"]),
    ("DATE", ["2024-02-30"], ["2024-02-30"]),
    ("BOOLEAN", ["t", "f"], ["t", "f"]),
    ("DATETIME", ["2024-05-01T10:00:00.123456789"], ["2024-05-01T10:00:00.123456789"]),
    ("DATETIME", ["2024-02-30 10:00:00"], ["2024-02-30 10:00:00"]),
    ("DATETIME", ["2024-05-01 24:00:00"], ["2024-05-01 24:00:00"]),
    ("DATETIME", ["2024-05-01 10:00:60"], ["2024-05-01 10:00:60"]),
    ("DATETIME", ["2024-05-01 10:00", "2024-05-01"], ["2024-05-01 10:00", "2024-05-01"]),
    ("BLOB", ["text", "more"], ["text", "more"]),
    ("BLOB", ["text", b"\x00\xff", 1], ["text", "x'00ff'", "1"]),
    ("", [b"ok", "x'6f6b'", 0.5], ["x'6f6b'", "x'6f6b'", "0.5"]),
]


@pytest.mark.slow
def test_values_of_several_types_are_text_with_a_warning(lab, file, cli):
    """Of a declared type that they are not, too; with all digits of every number."""
    types, found, result = load_columns(lab, file, TEXTS)
    assert (set(types), result.quarantined, len(result.warnings)) == ({"VARCHAR"}, 0, len(TEXTS))
    for (declared, values, expected), there in zip(TEXTS, found, strict=True):
        assert (declared, values, there) == (declared, values, expected)
    told = cli("load", str(file), "--table", "t").stderr
    for number, warning in enumerate(result.warnings):
        assert f"t.c{number} is loaded as text" in warning
        assert warning in told


@pytest.mark.slow
def test_generated_columns_and_views_arrive_with_the_types_of_their_values(lab, file):
    """None is left out."""
    write(
        file,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p REAL, twice AS (p * 2), "
        "label TEXT AS ('x' || id) STORED)",
        "INSERT INTO t (p) VALUES (1.25), (10.5)",
        "CREATE VIEW v AS SELECT id, p * 2 AS d, id + 1 AS n, 'a' || id AS s FROM t",
    )
    lab.load(file, "t")
    assert lab.sql("SELECT twice, label FROM shop.t ORDER BY id").fetchall() == [
        (2.5, "x1"), (21.0, "x2"),
    ]  # fmt: skip
    lab.load(file, "v", key=["id"], watermark="id")
    assert lab.sql("SELECT max(d), sum(n), max(s) FROM shop.v").fetchall() == [(21.0, 5, "a2")]


@pytest.mark.slow
def test_a_value_that_comes_later_changes_the_type_and_so_does_its_going(lab, file):
    """The table is made again then."""
    load(lab, file, "NUMERIC", [1.5])
    write(file, "INSERT INTO t (v) VALUES ('n/a')")
    assert lab.load(file, "t").mode == "full"
    assert lab.sql("SELECT v FROM shop.t ORDER BY id").fetchall() == [("1.5",), ("n/a",)]
    write(file, "UPDATE t SET v = 2.5 WHERE id = 2")
    assert lab.load(file, "t").mode == "full"
    assert lab.sql("SELECT sum(v) FROM shop.t").fetchone() == (4.0,)


def test_all_misfits_of_a_row_are_named(lab, file):
    """Where types are strict, in a load as in a sync."""
    write(
        file,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, at TIMESTAMP, r REAL)",
        "INSERT INTO t VALUES (1, 'many', 'soon', 'x'), (2, 1, NULL, 1)",
    )
    assert lab.load(file, "t").quarantined == 1
    assert lab.sql("SELECT column_name, value FROM quarantine.misfits ORDER BY ALL").fetchall() == [
        ("at", "soon"),
        ("n", "many"),
        ("r", "x"),
    ]


@pytest.mark.slow
def test_plugin_tables_have_the_types_of_their_values_too(lab):
    """And follow them, both ways, without being asked."""
    with lab.primary.transaction():
        lab.primary.execute(
            "CREATE TABLE things (id BIGINT PRIMARY KEY, price DECIMAL(10,2), at DATETIME, "
            "twice AS (price * 2))"
        )
        feed.track(lab.primary, "things", ("id",))
    lab.primary.execute("INSERT INTO things VALUES (1, 2.5, 1714557600), (2, 10.5, 1714557601)")
    lab.sync()
    query = 'SELECT id, price, epoch("at"), twice FROM raw.things ORDER BY id'
    assert lab.sql(query).fetchall() == [
        (1, Decimal("2.50"), 1714557600.0, 5.0), (2, Decimal("10.50"), 1714557601.0, 21.0),
    ]  # fmt: skip
    assert lab.verify().ok
    lab.primary.execute("INSERT INTO things VALUES (3, 'n/a', 1714557602)")
    assert lab.verify().ok  # what is not synced yet changes no type
    result = lab.sync()
    assert (result.rows["things"], len(result.warnings)) == (3, 1)
    assert lab.sql("SELECT price FROM raw.things ORDER BY id").fetchall() == [
        ("2.5",), ("10.5",), ("n/a",),
    ]  # fmt: skip
    assert lab.verify().ok
    lab.primary.execute("DELETE FROM things WHERE id = 3")
    lab.sync()
    assert lab.sql("SELECT max(price) FROM raw.things").fetchone() == (Decimal("10.50"),)
    assert lab.verify().ok
    assert lab.sync().mode == "nothing"


DECLARED = st.sampled_from(
    ["", "INTEGER", "BIGINT", "REAL", "TEXT", "VARCHAR(9)", "BLOB", "NUMERIC", "DECIMAL(10,2)",
     "DECIMAL(30,10)", "MONEY", "DATE", "DATETIME", "BOOL", "FLOAT", "POINT", "STRING"]
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
SMALL = st.integers(-9999, 9999) | st.decimals(-99, 99, places=2).map(float)
DAY = st.dates().map(str) | st.datetimes().map(lambda t: t.isoformat(" "))
EPOCH = st.integers(10**8, 2 * 10**9) | st.integers(10**11, 2 * 10**12)
COLUMN = st.sampled_from(
    [TEXT, NUMBER, SMALL, DAY, EPOCH, st.booleans(), st.binary(max_size=8),
     TEXT | NUMBER | DAY | st.binary(max_size=8)]
)  # fmt: skip


@st.composite
def tables(draw):
    """Declared types, and rows of values of which some do not go with them."""
    declared = draw(st.lists(DECLARED, min_size=1, max_size=12))
    columns = [st.none() | draw(COLUMN) for _ in declared]
    return declared, draw(st.lists(st.tuples(*columns), min_size=1, max_size=8))


def same(stored, found, type_):
    """Whether a value of the warehouse is what SQLite holds."""
    if stored is None or found is None:
        return stored is found
    if type_ == "VARCHAR":
        return found == in_text(stored)
    if type_ == "DOUBLE":
        return found == stored and math.copysign(1, found) == math.copysign(1, stored)
    if type_ == "DECIMAL":
        return float(found) == stored
    if type_.startswith("TIMESTAMP"):
        return abs(found - micros(stored)) <= 0.5
    return found == stored  # a truth is an integer


def in_text(stored):
    """What a column of values of several types holds."""
    if isinstance(stored, bytes):
        return f"x'{stored.hex()}'"
    return stored if isinstance(stored, str) else repr(stored)


def micros(stored):
    """Microseconds since 1970."""
    if not isinstance(stored, str):
        return stored * (10**6 if abs(stored) < 10**11 else 10**3)
    moment = dt.datetime.fromisoformat(stored)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - dt.datetime(1970, 1, 1, tzinfo=UTC)) // dt.timedelta(microseconds=1)


@pytest.mark.slow
@given(table=tables(), by_pages=st.booleans())
@settings(
    max_examples=examples(18),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_value_is_the_one_that_sqlite_holds(lab, file, table, by_pages):
    """Or its row is in quarantine; of any declared types and values."""
    declared, values = table
    names = [f"c{i}" for i in range(len(declared))]
    columns = ", ".join(f"{name} {type_}" for name, type_ in zip(names, declared, strict=True))
    write(file, "DROP TABLE IF EXISTS t", f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})")
    with closing(sqlite3.connect(file)) as connection, connection:
        marks = ", ".join("?" for _ in names)
        connection.executemany(f"INSERT INTO t ({', '.join(names)}) VALUES ({marks})", values)
        stored = dict(enumerate(connection.execute(f"SELECT {', '.join(names)} FROM t"), 1))
    with reads(by_pages=by_pages):
        lab.load(file, "t", full=True)
    types = [str(type_) for type_ in lab.sql(f"SELECT {', '.join(names)} FROM shop.t").types]
    shown = [
        f"epoch_us({name})" if type_.startswith("TIMESTAMP")
        else f"CAST({name} AS VARCHAR)" if type_ == "DATE" else name
        for name, type_ in zip(names, types, strict=True)
    ]  # fmt: skip
    found = lab.sql(f"SELECT id, {', '.join(shown)} FROM shop.t").fetchall()
    for number, *row in found:
        original = stored.pop(number)
        for before, now, type_ in zip(original, row, types, strict=True):
            assert same(before, now, type_.partition("(")[0]), (before, now, type_)
    aside = lab.sql("SELECT DISTINCT row_key FROM quarantine.misfits").fetchall()
    assert {int(key) for (key,) in aside} == set(stored)


def test_a_text_that_is_not_utf_8_is_no_misfit_of_a_column_that_takes_anything(lab, file):
    """It stands there as a literal."""
    write(
        file,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v, k DATETIME)",
        "INSERT INTO t VALUES (1, CAST(x'ff41' AS TEXT), CAST(x'ff' AS TEXT)), (2, 'a', 'b')",
    )
    result = lab.load(file, "t")
    assert (result.quarantined, len(result.warnings)) == (0, 2)
    assert lab.sql("SELECT v, k FROM shop.t ORDER BY id").fetchall() == [
        ("CAST(x'ff41' AS TEXT)", "CAST(x'ff' AS TEXT)"), ("a", "b"),
    ]  # fmt: skip


LOOSE = st.sampled_from(
    ["", "BLOB", "NUMERIC", "DECIMAL(10,2)", "DECIMAL(30,10)", "MONEY", "DATE", "DATETIME", "BOOL",
     "BOOLEAN", "STRING"]
)  # fmt: skip
ZONE = st.sampled_from(["", "Z", "+02:00", "-0330", "+24:00", " UTC"])
PART = st.integers(0, 99).map("{:02}".format)
ODD_TIME = st.builds(
    "{}-{}-{}{}{}:{}{}{}{}".format,
    st.integers(0, 9999).map("{:04}".format), st.integers(0, 13).map("{:02}".format),
    st.integers(0, 32).map("{:02}".format), st.sampled_from(" T"),
    st.integers(0, 25).map("{:02}".format), PART, PART.map(":{}".format) | st.just(""),
    st.text("0123456789", max_size=10).map(lambda digits: digits and f".{digits}"), ZONE,
)  # fmt: skip
ODD_DAY = st.builds("{:04}-{:02}-{:02}".format, st.integers(0, 9999), st.integers(0, 13),
                    st.integers(0, 32))  # fmt: skip
CLOCK = st.datetimes().map(dt.datetime.isoformat)
VALUES = st.one_of(
    st.lists(kind, min_size=1, max_size=5)
    for kind in (ODD_TIME, ODD_DAY, ODD_TIME | DAY, CLOCK | ODD_TIME, TEXT | st.binary(max_size=4),
                 EPOCH | SMALL, NUMBER | SMALL, NUMBER | TEXT, st.booleans() | SMALL, DAY, CLOCK)
)  # fmt: skip


@pytest.fixture(scope="module")
def shared(homes, tmp_path_factory):
    """A lab for many examples."""
    folder = tmp_path_factory.mktemp("settle")
    with homes.open(folder / "home", "none", synced=True) as opened:
        yield opened, folder / "shop.db"


@pytest.mark.slow
@given(columns=st.lists(st.tuples(LOOSE, VALUES), min_size=6, max_size=12))
@settings(max_examples=examples(15))
def test_no_row_is_set_aside_for_a_type_that_was_chosen_by_the_values(shared, columns):
    """Of any column of values: what is decided is what is read."""
    lab, file = shared
    names = ", ".join(f"c{i} {declared}" for i, (declared, _) in enumerate(columns))
    write(file, "DROP TABLE IF EXISTS t", f"CREATE TABLE t (id INTEGER PRIMARY KEY, {names})")
    with closing(sqlite3.connect(file)) as connection, connection:
        for i, (_, values) in enumerate(columns):
            connection.executemany(f"INSERT INTO t (c{i}) VALUES (?)", [(v,) for v in values])
    result = lab.load(file, "t", full=True)
    assert result.quarantined == 0
    assert result.rows == sum(len(values) for _, values in columns)


@pytest.mark.parametrize("number", [20240101101112, 202401011011, 2401011011, 20240101])
def test_the_digits_of_a_date_are_no_time_since_1970(lab, tmp_path, number):
    """They stay the whole numbers that they are."""
    with closing(sqlite3.connect(tmp_path / "d.db")) as other, other:
        other.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, moment DATETIME)")
        other.execute("INSERT INTO t VALUES (1, ?)", [number])
    lab.load(tmp_path / "d.db", "t")
    assert lab.sql("SELECT moment::VARCHAR, typeof(moment) FROM d.t").fetchall() == [
        (str(number), "BIGINT")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("before", [["PRAGMA page_size = 512"], []], ids=["by pages", "by rows"])
def test_numbers_among_texts_have_all_their_digits(lab, file, before):
    """Each text is the number that SQLite holds, to the last bit and with its sign."""
    numbers = [-0.0, math.inf, -math.inf, 1e300, -1e300, 5e-324, 0.1, 1e16, 2.0**60, 1 / 3]
    cases = [(declared, ["a", *numbers]) for declared in ("STRING", "", "NUMERIC")]
    types, columns, _ = load_columns(lab, file, cases, before=before)
    assert types == ["VARCHAR"] * len(cases)
    for number, found in enumerate(columns):
        query = f"SELECT c{number} FROM t WHERE filler IS NULL ORDER BY id"
        with closing(sqlite3.connect(file)) as connection:
            stored = [value for (value,) in connection.execute(query)]
        assert found == [in_text(value) for value in stored]
        assert [float(text).hex() for text in found[1:]] == [float(v).hex() for v in stored[1:]]
