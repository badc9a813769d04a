"""When changes are not known, or pending: nothing is called damaged, and nothing different."""

from __future__ import annotations

import shutil

import pytest

from aico_lab.errors import SchemaChanged
from aico_lab.etl.sync import BROKEN_OFF
from aico_lab.integrity.guard import reseal
from aico_lab.lab import Lab
from aico_lab.schema import feed
from tests.messages import add, message


def track(lab, table, columns):
    """Make a table that the feed follows, as a plugin's."""
    with lab.primary.transaction():
        lab.primary.execute(f"CREATE TABLE {table} ({columns})")
        feed.track(lab.primary, table, ("k",))


@pytest.mark.slow
def test_a_rebuilt_table_makes_no_row_of_another_one_damaged(lab):
    """Though the other one got a misfit meanwhile, of which the feed has lost the record."""
    for table in ("p_t", "p_u"):
        track(lab, table, "k TEXT PRIMARY KEY, n INTEGER")
    lab.primary.execute("INSERT INTO p_u VALUES ('a', 1)")
    lab.sync()
    lab.primary.execute("INSERT INTO p_u VALUES ('b', 'bad')")
    with lab.primary.transaction():
        lab.primary.execute("CREATE TABLE p_t2 (k TEXT PRIMARY KEY, n INTEGER)")
        lab.primary.execute("DROP TABLE p_t")
        lab.primary.execute("ALTER TABLE p_t2 RENAME TO p_t")
        feed.track(lab.primary, "p_t", ("k",))
    with pytest.raises(SchemaChanged, match=r"run `aico-lab sync` first"):
        lab.verify()
    result = lab.sync()
    assert (result.quarantined, result.unexplained) == ({"p_u": 1}, {})
    assert result.warnings == [BROKEN_OFF]
    assert lab.verify().ok
    assert lab.sync(full=True).warnings == []


@pytest.mark.slow
def test_a_restored_backup_is_not_called_damaged(home, homes, tmp_path):
    """Though rows that fitted at the last sync are misfits in it."""
    with homes.open(home) as lab:
        add(lab.primary, message(0), message(1))
        lab.primary.execute("UPDATE messages SET sentiment_score = 'bad' WHERE id = 1")
        lab.sync()
    files = [path.name for path in home.glob("aico.db*")]
    for name in files:
        shutil.copy(home / name, tmp_path / name)
    with Lab.open(home) as lab:
        lab.primary.execute("UPDATE messages SET sentiment_score = 0.5 WHERE id = 1")
        lab.sync()
    for path in home.glob("aico.db*"):
        path.unlink()
    for name in files:
        shutil.copy(tmp_path / name, home / name)
    with Lab.open(home) as lab:
        with pytest.raises(SchemaChanged, match=r"run `aico-lab sync` first"):
            lab.verify()
        reseal(lab.storage, "restored by hand")
        result = lab.sync()
        assert (result.quarantined, result.unexplained) == ({"messages": 1}, {})
        assert result.warnings == [BROKEN_OFF]
        assert lab.verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_a_quarantine_with_other_names_is_filled_anew(lab, monkeypatch, full):
    """No row is called damaged for its new name; a snapshot of that version is not compared."""
    track(lab, "p_j", "k JSON PRIMARY KEY, n INTEGER")
    lab.primary.execute("INSERT INTO p_j VALUES ('tea', 1)")
    with monkeypatch.context() as patch:
        patch.setattr("aico_lab.etl.views.NAMING", "hexadecimal digits")
        patch.setattr("aico_lab.etl.extract.row_key", lambda parts: f"x'{parts[0].value.hex()}'")
        lab.sync()
        assert lab.sql("SELECT row_key FROM quarantine.misfits").fetchall() == [("x'746561'",)]
    with pytest.raises(SchemaChanged, match=r"another version.*run `aico-lab sync` first"):
        lab.verify()
    result = lab.sync(full=full)
    assert (result.quarantined, result.unexplained) == ({"p_j": 1}, {})
    assert lab.sql("SELECT row_key FROM quarantine.misfits").fetchall() == [("tea",)]
    assert lab.verify().ok


def test_damage_is_found_by_a_version_with_other_views(lab, monkeypatch):
    """Since rows have the same names as before."""
    add(lab.primary, message(0), message(1))
    with monkeypatch.context() as patch:
        patch.setattr("aico_lab.etl.views.NEEDED", {})
        lab.sync()
    for event in ("insert", "update", "delete"):
        lab.primary.execute(f"DROP TRIGGER feed_messages_{event}")
    lab.primary.execute("UPDATE messages SET content = CAST(x'ff' AS TEXT) WHERE id = 1")
    assert lab.sync().unexplained == {"messages": 1}


PENDING = [
    ("NUMERIC", ["(1, 1)"], ["INSERT INTO p_v VALUES ('x', 1)"]),
    ("NUMERIC", [], ["INSERT INTO p_v VALUES (5, 1)"]),
    ("NUMERIC", ["(1, 1)"], ["DELETE FROM p_v", "INSERT INTO p_v VALUES (5.5, 1)"]),
    ("NUMERIC", ["(1, 1)", "('x', 2)"], ["DELETE FROM p_v WHERE k = 'x'"]),
    ("", ["(1, 1)"], ["UPDATE p_v SET k = x'00'"]),
    ("DATE", ["('2024-05-01', 1)"], ["INSERT INTO p_v VALUES ('soon', 1)"]),
    ("BOOLEAN", ["(0, 1)"], ["INSERT INTO p_v VALUES (2, 1), ('x', 1)"]),
]  # fmt: skip


@pytest.mark.slow
def test_pending_changes_of_the_type_of_a_key_are_left_out(lab):
    """They are counted, and no difference."""
    for table, (type_, rows, _) in enumerate(PENDING):
        track(lab, f"p_{table}", f"k {type_} PRIMARY KEY, n INTEGER")
        for row in rows:
            lab.primary.execute(f"INSERT INTO p_{table} VALUES {row}")
    lab.sync()
    for table, (_, _, statements) in enumerate(PENDING):
        for statement in statements:
            lab.primary.execute(statement.replace("p_v", f"p_{table}"))
    proof = lab.verify()
    assert proof.ok, proof
    assert all(proof.tables[f"p_{table}"].pending for table in range(len(PENDING)))
    lab.sync()
    assert lab.verify().ok


TIMES = [
    ("1714557600", "'soon'"), ("1714557600000", "'soon'"), ("'2024-05-01 10:00:00'", "1714557600"),
    ("1714557600", "75000000000000"),
]  # fmt: skip


@pytest.mark.slow
def test_pending_changes_of_the_type_of_times_are_left_out(lab):
    """Whether they are in the key or not; the times of the snapshot are compared."""
    for table, (synced, _) in enumerate(TIMES):
        track(lab, f"p_k{table}", "k DATETIME PRIMARY KEY, v")
        track(lab, f"p_v{table}", "k INTEGER PRIMARY KEY, v DATETIME")
        lab.primary.execute(f"INSERT INTO p_k{table} VALUES ({synced}, 1)")
        lab.primary.execute(f"INSERT INTO p_v{table} VALUES (1, {synced})")
    lab.sync()
    for table, (_, pending) in enumerate(TIMES):
        lab.primary.execute(f"INSERT INTO p_k{table} VALUES ({pending}, 2)")
        lab.primary.execute(f"INSERT INTO p_v{table} VALUES (2, {pending})")
    proof = lab.verify()
    assert proof.ok, proof
    assert {proof.tables[f"p_{kind}{table}"].rows for kind in "kv" for table in range(4)} == {
        (1, 1)
    }
    lab.sync()
    assert lab.verify().ok


def test_booleans_of_plugins_take_the_type_of_their_values(lab):
    """No row is set aside for a text in such a column."""
    track(lab, "p_b", "k TEXT PRIMARY KEY, seen BOOLEAN, paid BOOLEAN")
    lab.primary.execute("INSERT INTO p_b VALUES ('a', 1, 0), ('b', 0, 'true')")
    result = lab.sync()
    assert (result.quarantined, len(result.warnings)) == ({}, 1)
    assert "p_b.paid is loaded as text" in result.warnings[0]
    found = lab.sql("SELECT * FROM raw.p_b ORDER BY k").fetchall()
    assert found == [("a", True, "0"), ("b", False, "true")]
    lab.primary.execute("INSERT INTO p_b VALUES ('c', 'true', NULL)")
    assert lab.verify().ok
    assert lab.sync().quarantined == {}
    assert lab.verify().ok
