"""Quarantine: what a row is called there, what it shows, and that damage is no change."""

from __future__ import annotations

import json

import pytest

from aico_lab.config import Settings
from aico_lab.health import diagnose
from aico_lab.schema import feed
from tests.messages import add, at, message

MISFITS = "SELECT row_key, column_name, value FROM quarantine.misfits ORDER BY ALL"


def track(lab, table: str, columns: str, key: tuple[str, ...]) -> None:
    """Make a table that the feed follows, as a plugin's."""
    with lab.primary.transaction():
        lab.primary.execute(f"CREATE TABLE {table} ({columns})")
        feed.track(lab.primary, table, key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("metadata", "'{\"a\": tru'", '{"a": tru'),
        ("metadata", "x'00ff'", "x'00ff'"),
        ("content", "x'41'", "x'41'"),
        ("content", "CAST(x'ff41' AS TEXT)", "x'ff41'"),
        ("timestamp", "x'00ff41'", "x'00ff41'"),
        ("sentiment_score", "CAST(x'ff' AS TEXT)", "x'ff'"),
        ("sentiment_score", "'go' || char(0) || 'od'", "go\0od"),
        ("content", "CAST(zeroblob(5000) AS BLOB)", f"x'{'00' * 99}"),
    ],
)
def test_the_value_of_a_misfit_is_shown_as_it_is(lab, column, value, shown):
    """Its beginning; a blob as a literal."""
    add(lab.primary, message(0), message(1))
    lab.primary.execute(f"UPDATE messages SET {column} = {value} WHERE id = 1")
    lab.sync()
    assert lab.sql(MISFITS).fetchall() == [("m0", column, shown)]
    assert lab.verify().ok


@pytest.mark.slow
def test_all_misfits_of_a_row_are_named_and_it_counts_once(lab):
    """So that it is mended at one go."""
    add(lab.primary, message(0), message(1))
    lab.primary.execute(
        "UPDATE messages SET sentiment_score = 'good', timestamp = 'soon', metadata = '{' "
        "WHERE id = 1"
    )
    assert lab.sync().quarantined == {"messages": 1}
    assert [column for _, column, _ in lab.sql(MISFITS).fetchall()] == [
        "metadata", "sentiment_score", "timestamp",
    ]  # fmt: skip
    proof = lab.verify()
    assert (proof.ok, proof.tables["messages"].quarantined) == (True, (1, 1))
    lab.primary.execute("UPDATE messages SET timestamp = ? WHERE id = 1", [at(0)])
    assert lab.sync().quarantined == {"messages": 1}
    lab.primary.execute("UPDATE messages SET sentiment_score = 1, metadata = NULL WHERE id = 1")
    assert lab.sync().rows == {"messages": 1}
    assert lab.sql(MISFITS).fetchall() == []


def test_keys_of_several_columns_are_told_apart(lab):
    """Though joined by a slash they would be the same."""
    track(lab, "things", "a TEXT, b TEXT, n INTEGER, PRIMARY KEY (a, b)", ("a", "b"))
    lab.primary.execute("INSERT INTO things VALUES ('a/b', 'c', 'x'), ('a', 'b/c', 'y')")
    lab.sync()
    expected = [("a", "b/c", "y"), ("a/b", "c", "x")]
    assert [(*json.loads(key), value) for key, _, value in lab.sql(MISFITS).fetchall()] == expected
    lab.primary.execute("UPDATE things SET n = 1 WHERE a = 'a'")
    lab.sync()
    assert [(*json.loads(key), value) for key, _, value in lab.sql(MISFITS).fetchall()] == [
        ("a/b", "c", "x")
    ]
    assert lab.sql("SELECT a, b, n FROM raw.things").fetchall() == [("a", "b/c", 1)]
    assert lab.verify().ok


ODD_KEYS = {
    "not UTF-8": "CAST(x'ff41' AS TEXT)",
    "with a NUL": "'a' || char(0) || 'b'",
    "a NUL at its beginning": "char(0)",
    "quotes and escapes": "'\"\\u0041\\' || char(10) || '/''ü'",
}


@pytest.mark.slow
@pytest.mark.parametrize("composite", [False, True], ids=["one column", "two columns"])
@pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS)
def test_rows_with_odd_keys_are_followed(lab, key, composite):
    """When they come, change, and go; and so are their neighbours."""
    by = ("a", "b") if composite else ("a",)
    track(lab, "things", f"a TEXT, b TEXT, n INTEGER, PRIMARY KEY ({', '.join(by)})", by)
    lab.primary.execute("INSERT INTO things VALUES ('other', 'b', 0)")
    lab.sync()
    counted = "SELECT n FROM raw.things ORDER BY n"
    for n, statement in (
        (1, f"INSERT INTO things VALUES ({key}, 'b', 1)"),
        (2, f"UPDATE things SET n = 2 WHERE a = {key}"),
        (3, f"UPDATE things SET n = 'x' WHERE a = {key}"),
        (4, f"UPDATE things SET n = 4 WHERE a = {key}"),
    ):
        lab.primary.execute(statement)
        pending = lab.verify()
        assert pending.ok, pending
        lab.sync()
        proof = lab.verify()
        assert proof.ok, proof
        found = [value for (value,) in lab.sql(counted).fetchall()]
        assert found == ([0, n] if n != 3 and "ff41" not in key else [0])
    lab.primary.execute(f"DELETE FROM things WHERE a = {key}")
    lab.sync()
    assert lab.sql(counted).fetchall() == [(0,)]
    assert lab.sql(MISFITS).fetchall() == []
    assert lab.verify().ok


@pytest.mark.slow
@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        ("TIMESTAMP", ["'2024-05-01T10:00:00.000000Z'", "'2024-05-01T10:00:01.000000Z'"]),
        ("BOOLEAN", ["0", "1"]),
        ("REAL", ["1e20", "0.5"]),
        ("BLOB", ["x'00ff'", "x'41'"]),
        ("DECIMAL(6,2)", ["10.5", "2.25"]),
        ("BIGINT", ["9007199254740993", "-1"]),
        ("DATE", ["'2024-05-01'", "'2024-05-02'"]),
    ],
)
def test_keys_of_every_type_are_followed(lab, type_, keys):
    """A row that changed is there once, one that went is gone."""
    track(lab, "things", f"k {type_} PRIMARY KEY, n INTEGER", ("k",))
    for key in keys:
        lab.primary.execute(f"INSERT INTO things VALUES ({key}, 1)")
    lab.sync()
    lab.primary.execute(f"UPDATE things SET n = 2 WHERE k = {keys[0]}")
    lab.primary.execute(f"DELETE FROM things WHERE k = {keys[1]}")
    assert lab.sync().mode != "nothing"
    assert lab.sql("SELECT n FROM raw.things").fetchall() == [(2,)]
    assert lab.verify().ok


def silently(lab, statement: str) -> None:
    """Change the primary database as damage does: no trigger sees it."""
    for event in ("insert", "update", "delete"):
        lab.primary.execute(f"DROP TRIGGER feed_messages_{event}")
    lab.primary.execute(statement)


@pytest.mark.slow
def test_damage_is_not_blessed_by_reading_everything_anew(lab, cli):
    """Both commands say so until the rows fit again, or a person says that they are right."""
    add(lab.primary, *map(message, range(5)))
    lab.primary.execute("UPDATE messages SET sentiment_score = 'known' WHERE id = 5")
    lab.sync()
    silently(lab, "UPDATE messages SET content = CAST(x'ff' AS TEXT) WHERE id IN (1, 2)")
    for command in (["--full"], ["--full"], []):
        said = cli("sync", *command)
        assert said.returncode == 1
        assert "2 rows of messages no longer fit their columns" in said.stderr
    for full in (False, True):  # doing it again changes nothing
        assert lab.sync(full=full).unexplained == {"messages": 2}
        proof = lab.verify()
        assert not proof.ok
        assert proof.tables["messages"].unexplained == 2
    failed = cli("verify")
    assert (failed.returncode, "sync --acknowledge" in failed.stdout) == (1, True)
    lab.primary.execute("UPDATE messages SET content = 'mended' WHERE id = 1")
    lab.sync(full=True)
    assert lab.verify().tables["messages"].unexplained == 1
    before = lab.generation
    assert cli("sync", "--acknowledge").returncode == 0
    assert lab.generation == before + 1
    assert lab.verify().ok
    assert lab.sync(acknowledge=True).mode == "nothing"
    assert cli("sync", "--full").returncode == 0


@pytest.mark.slow
def test_a_change_that_the_feed_has_told_is_no_damage(lab):
    """Though it is first seen when everything is read again."""
    add(lab.primary, *map(message, range(5)))
    lab.sync()
    lab.primary.execute("UPDATE messages SET sentiment_score = 'bad' WHERE id = 1")
    result = lab.sync(full=True)
    assert (result.quarantined, result.unexplained) == ({"messages": 1}, {})
    assert lab.verify().ok


@pytest.mark.slow
def test_rows_without_a_key_are_counted_though_they_have_one_name(lab, home):
    """Whether their misfits are of one column or of different ones, and with other rows beside."""
    track(lab, "things", "k TEXT PRIMARY KEY, n INTEGER, m INTEGER", ("k",))
    with lab.primary.transaction():
        for values in (
            "(NULL, 'x', 1)", "(NULL, 'x', 1)", "(NULL, 1, 'x')", "('a', 'x', 'x')", "('b', 1, 1)"
        ):  # fmt: skip
            lab.primary.execute(f"INSERT INTO things VALUES {values}")
    result = lab.sync()
    assert (result.rows["things"], result.quarantined["things"]) == (1, 4)
    checks = {one.check: one for one in diagnose(Settings.resolve(home=home))}
    assert checks["warehouse"].ok, checks["warehouse"].detail
    assert lab.verify().ok
    for event in ("insert", "update", "delete"):
        lab.primary.execute(f"DROP TRIGGER feed_things_{event}")
    lab.primary.execute("DELETE FROM things WHERE n = 'x' AND k IS NULL")
    assert "things has 3 rows" in _warehouse(home)
    assert not lab.verify().ok


def _warehouse(home) -> str:
    (found,) = [one for one in diagnose(Settings.resolve(home=home)) if one.check == "warehouse"]
    return found.detail
