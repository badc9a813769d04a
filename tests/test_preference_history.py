"""What people preferred before is kept, as long as they are."""

from __future__ import annotations

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.errors import ConstraintViolated
from aico_lab.schema.core import CORE
from tests.databases import with_core_schemas

MAY, JUNE = "2024-05-01T00:00:00.000000Z", "2024-06-01T00:00:00.000000Z"
SET = "INSERT INTO preferences VALUES (?, ?, ?, ?)"
HISTORY = (
    "SELECT user_id, preference_key, old_value, value FROM preference_changes ORDER BY change_id"
)


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "a.db"
    with with_core_schemas(made, None).connect() as connection:
        connection.execute_many(
            "INSERT INTO users (user_id, created_at) VALUES (?, ?)", [["ada", MAY], ["bo", MAY]]
        )
        connection.execute_many(SET, [["ada", "tone", '"warm"', MAY], ["bo", "tone", '"dry"', MAY]])
    return made


def change(path, *statements):
    """Change the database; give its history as another connection sees it."""
    with LibSQLAdapter(path, None).connect() as connection:
        for statement in statements:
            connection.execute(statement)
    with LibSQLAdapter(path, None).connect() as connection:
        return connection.fetch_all(HISTORY)[2:]


def times(path):
    with LibSQLAdapter(path, None).connect() as connection:
        found = connection.fetch_all("SELECT changed_at FROM preference_changes ORDER BY change_id")
    return [at for (at,) in found]


def test_what_was_set_first_has_nothing_before_it(path):
    """With the time that its row tells."""
    with LibSQLAdapter(path, None).connect() as connection:
        assert connection.fetch_all(HISTORY) == [
            ("ada", "tone", None, '"warm"'), ("bo", "tone", None, '"dry"'),
        ]  # fmt: skip
    assert times(path) == [MAY, MAY]


def test_another_value_keeps_the_old_one(path):
    """Setting what is set already, or touching only the time, is no change."""
    assert change(
        path,
        f"UPDATE preferences SET value = '\"dry\"', updated_at = '{JUNE}' WHERE user_id = 'ada'",
        "UPDATE preferences SET value = '\"dry\"' WHERE user_id = 'ada'",
        f"UPDATE preferences SET updated_at = '{JUNE}'",
    ) == [("ada", "tone", '"warm"', '"dry"')]
    assert times(path)[2:] == [JUNE]


def test_a_value_that_changes_under_the_old_time_changed_now(path):
    """As a program does that leaves `updated_at` alone."""
    change(path, "UPDATE preferences SET value = '1' WHERE user_id = 'ada'")
    assert times(path)[2] > JUNE


def test_a_removed_preference_has_a_last_value(path):
    """And one that is replaced has two rows, a removal and a new value."""
    assert change(path, "DELETE FROM preferences WHERE user_id = 'ada'") == [
        ("ada", "tone", '"warm"', None)
    ]
    replaced = change(
        path, f"INSERT OR REPLACE INTO preferences VALUES ('bo', 'tone', '1', '{JUNE}')"
    )
    assert replaced[1:] == [("bo", "tone", '"dry"', None), ("bo", "tone", None, "1")]


def test_who_is_erased_leaves_no_history(path):
    """Not of what was set, nor of its removal; and the feed names every row that went."""
    assert change(path, "DELETE FROM users WHERE user_id = 'ada'") == []
    with LibSQLAdapter(path, None).connect() as connection:
        assert connection.fetch_all(HISTORY) == [("bo", "tone", None, '"dry"')]
        keys = connection.fetch_all(
            "SELECT row_key FROM change_log WHERE table_name = 'preference_changes' ORDER BY seq"
        )
        ada, bo = keys[0][0], keys[1][0]
        assert connection.fetch_all(
            "SELECT op, row_key FROM change_log WHERE table_name = 'preference_changes' "
            "ORDER BY seq"
        ) == [("insert", ada), ("insert", bo), ("delete", ada)]


def test_a_refused_value_leaves_no_history(path):
    """The change and its history are one."""
    with pytest.raises(ConstraintViolated):
        change(path, "INSERT INTO preferences VALUES ('nobody', 'tone', '1', 'x')")
    assert change(path) == []


def test_history_is_part_of_the_core(path):
    """Nothing is left to apply."""
    with LibSQLAdapter(path, None).connect() as connection:
        assert CORE.pending(connection) == {}
