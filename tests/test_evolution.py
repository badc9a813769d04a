"""Tables that change: what loses nothing is followed; what would lose something is asked for."""

from __future__ import annotations

import pytest

from aico_lab.errors import InvalidValue, SchemaChanged
from aico_lab.schema import CORE, feed
from tests.messages import add, message


@pytest.fixture
def things(lab):
    """A lab with a table of two columns and three rows, synced."""
    lab.primary.execute("CREATE TABLE things (id TEXT PRIMARY KEY, size INTEGER, note TEXT)")
    with lab.primary.transaction():
        feed.track(lab.primary, "things", ("id",))
    lab.primary.execute("INSERT INTO things VALUES ('a', 1, 'x'), ('b', 2, 'y'), ('c', 3, NULL)")
    lab.sync()
    return lab


def rows(lab, columns: str = "*"):
    """What the warehouse holds, by key."""
    return lab.sql(f"SELECT {columns} FROM raw.things ORDER BY id").fetchall()


def rebuild(lab, columns: str, kept: str) -> None:
    """Give the table other columns, in the way SQLite's documentation recommends."""
    with lab.primary.transaction():
        lab.primary.execute("ALTER TABLE things RENAME TO old")
        lab.primary.execute(f"CREATE TABLE things ({columns})")
        lab.primary.execute(f"INSERT INTO things SELECT {kept} FROM old")
        lab.primary.execute("DROP TABLE old")
        feed.track(lab.primary, "things", ("id",))


def test_a_new_column_is_followed_with_its_default_in_older_rows(things):
    """The feed does not name them: the table is read again, and the others are not."""
    things.primary.execute("ALTER TABLE things ADD COLUMN later TEXT")
    things.primary.execute("ALTER TABLE things ADD COLUMN rated REAL NOT NULL DEFAULT 0.5")
    result = things.sync()
    assert (result.mode, result.rows) == ("increment", {"things": 3})
    assert rows(things, "later, rated") == [(None, 0.5)] * 3
    things.primary.execute("UPDATE things SET later = 'now' WHERE id = 'b'")
    assert things.sync().rows == {"things": 1}
    assert rows(things, "later") == [(None,), ("now",), (None,)]


def test_a_new_table_is_followed(things):
    """With the rows that it has."""
    things.primary.execute("CREATE TABLE more (id INTEGER PRIMARY KEY)")
    with things.primary.transaction():
        things.primary.execute("INSERT INTO more VALUES (7)")
        feed.track(things.primary, "more", ("id",))
    things.sync()
    assert things.sql("FROM raw.more").fetchall() == [(7,)]


def test_a_wider_type_is_followed(things):
    """Integers become numbers, numbers become text."""
    rebuild(things, "id TEXT PRIMARY KEY, size REAL, note TEXT", "id, size + 0.5, note")
    things.sync()
    assert rows(things, "size, typeof(size)") == [(1.5, "DOUBLE"), (2.5, "DOUBLE"), (3.5, "DOUBLE")]


LOSSES = {
    "a column": ("id TEXT PRIMARY KEY, size INTEGER", "id, size", "things.note"),
    "a type": ("id TEXT PRIMARY KEY, size INTEGER, note INTEGER", "id, size, 1", "things.note"),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_stops_the_sync_with_the_warehouse_as_it_was(things, loss):
    """The sentence says what would be lost, and what can be done."""
    columns, kept, named = LOSSES[loss]
    before = rows(things)
    rebuild(things, columns, kept)
    for full in (False, True):
        with pytest.raises(SchemaChanged, match=rf"{named}.*evolve.*ignore.*freeze"):
            things.sync(full=full)
    assert rows(things) == before
    assert things.sync(on_change="evolve").rows["things"] == 3
    assert things.sql("FROM raw.things").columns[-1] == ("size" if loss == "a column" else "note")


@pytest.mark.slow
def test_a_table_that_is_gone_stops_the_sync(things):
    """And goes from the warehouse when that is meant."""
    with things.primary.transaction():
        things.primary.execute("DROP TABLE things")
        feed.untrack(things.primary, "things")
    with pytest.raises(SchemaChanged, match="the table things"):
        things.sync()
    things.sync(on_change="ignore")
    assert len(rows(things)) == 3
    things.sync(on_change="evolve")
    assert "things" not in str(things.sql("SELECT table_name FROM duckdb_tables()").fetchall())


@pytest.mark.slow
def test_ignoring_keeps_the_columns_and_goes_on_loading(things):
    """A lost column is NULL, a new one is left out, what does not fit the old type is set aside."""
    rebuild(things, "id TEXT PRIMARY KEY, size TEXT, fresh TEXT", "id, size, 'new'")
    things.sync(on_change="ignore")  # tracked again, so the table is read again
    assert things.sql("FROM raw.things").columns == ["id", "size", "note"]
    assert rows(things) == []
    assert things.sql("SELECT row_key, column_name FROM quarantine.misfits").fetchall() == [
        ("a", "size"), ("b", "size"), ("c", "size"),
    ]  # fmt: skip
    rebuild(
        things, "id TEXT PRIMARY KEY, size INTEGER, fresh TEXT", "id, CAST(size AS INTEGER), fresh"
    )
    things.sync(on_change="ignore")
    assert rows(things) == [("a", 1, None), ("b", 2, None), ("c", 3, None)]
    things.primary.execute("INSERT INTO things VALUES ('d', 4, 'new')")
    assert things.sync(on_change="ignore").rows == {"things": 1}
    assert rows(things)[-1] == ("d", 4, None)


@pytest.mark.slow
def test_a_new_column_that_is_the_row_id_is_left_out_too(things):
    """Changed rows are found by their key, since the warehouse does not have that column."""
    rebuild(
        things,
        "number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, size INTEGER, note TEXT",
        "NULL, id, size, note",
    )
    things.sync(on_change="ignore")
    things.primary.execute("UPDATE things SET size = 9 WHERE id = 'b'")
    things.primary.execute("DELETE FROM things WHERE id = 'c'")
    assert things.sync(on_change="ignore").deleted == {"things": 2}
    assert rows(things) == [("a", 1, "x"), ("b", 9, "y")]


def test_a_key_that_is_lost_cannot_be_ignored(things):
    """Rows could not be found any more."""
    with things.primary.transaction():
        things.primary.execute("CREATE TABLE other (name TEXT PRIMARY KEY)")
        things.primary.execute("DROP TABLE things")
        things.primary.execute("ALTER TABLE other RENAME TO things")
        feed.track(things.primary, "things", ("name",))
    with pytest.raises(SchemaChanged, match="identify a row of things"):
        things.sync(on_change="ignore")


def test_frozen_tables_stay_behind_and_are_caught_up_with(things):
    """The others go on; what a frozen one missed is read when it is no longer frozen."""
    things.primary.execute("ALTER TABLE things DROP COLUMN note")
    things.primary.execute("UPDATE things SET size = 9 WHERE id = 'a'")
    things.primary.execute("INSERT INTO users (user_id, created_at) VALUES ('new', "
                           "'2026-01-01T00:00:00.000000Z')")  # fmt: skip
    result = things.sync(on_change="freeze")
    assert result.rows == {"users": 1}
    assert rows(things)[0] == ("a", 1, "x")
    assert things.sync(on_change="freeze").mode == "nothing"
    things.primary.execute("ALTER TABLE things ADD COLUMN note TEXT")  # as it was, to look at
    assert things.sync().rows == {"things": 3}
    assert rows(things)[0] == ("a", 9, None)
    assert things.sync().mode == "nothing"


@pytest.mark.slow
@pytest.mark.parametrize("column", ["response_time", "sentiment_score", "channel_id"])
def test_a_column_that_the_warehouses_own_views_need_can_be_lost(lab, column):
    """It stays there, and is NULL; what does not need it goes on."""
    add(lab.primary, *[message(i, sentiment_score=0.5, response_time=1.5) for i in range(4)])
    lab.sync()
    lose(lab, column)
    for full in (False, True):
        with pytest.raises(SchemaChanged, match=rf"the column messages\.{column}.*evolve"):
            lab.sync(full=full)
    assert lab.sync(on_change="evolve").rows["messages"] == 4
    assert lab.sql(f"SELECT count({column}), count(content) FROM raw.messages").fetchone() == (0, 4)
    assert lab.sql("SELECT count(*), count(sentiment) FROM conversations").fetchone() == (
        4, 0 if column == "sentiment_score" else 4,
    )  # fmt: skip
    assert lab.sql("SELECT count(*) FROM mart.messages").fetchone() == (4,)
    assert lab.verify().ok
    assert lab.sync().mode == "nothing"
    lab.primary.execute("UPDATE messages SET content = 'changed' WHERE id = 1")
    assert lab.sync().rows == {"messages": 1}
    assert lab.verify().ok


def lose(lab, column: str) -> None:
    """Rebuild the table of messages without a column, as another program would."""
    left = [
        (name, type_)
        for name, type_ in lab.primary.fetch_all("SELECT name, type FROM pragma_table_info(?)",
                                                 ["messages"])
        if name != column
    ]  # fmt: skip
    columns = ", ".join(
        f"{name} {type_} {'PRIMARY KEY' if name == 'id' else ''}" for name, type_ in left
    )
    names = ", ".join(name for name, _ in left)
    with lab.primary.transaction():
        for (view,) in lab.primary.fetch_all("SELECT name FROM sqlite_master WHERE type = 'view'"):
            lab.primary.execute(f"DROP VIEW {view}")
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB 'segment*'"
        for (trigger,) in lab.primary.fetch_all(triggers):
            lab.primary.execute(f"DROP TRIGGER {trigger}")
        lab.primary.execute("DROP TRIGGER messages_count_channel")
        lab.primary.execute("DROP TABLE messages_replaced")
        lab.primary.execute(f"CREATE TABLE other ({columns})")
        lab.primary.execute(f"INSERT INTO other SELECT {names} FROM messages")
        lab.primary.execute("DROP TABLE messages")
        lab.primary.execute("ALTER TABLE other RENAME TO messages")
        feed.track(lab.primary, "messages", ("message_id",))


@pytest.mark.slow
def test_computed_columns_of_an_earlier_version_are_no_loss(lab):
    """They follow from other tables, so the sync after the upgrade asks nothing."""
    CORE.rollback("conversations", 2, lab.primary)
    add(lab.primary, message(1))
    lab.sync()
    assert lab.sql("SELECT count(message_count) FROM raw.channels").fetchone() == (1,)
    CORE.apply_core_schemas(lab.primary)
    assert lab.verify().tables["channels"].ok
    assert lab.sync().mode == "increment"
    assert "message_count" not in lab.sql("FROM raw.channels").pl().columns
    lab.primary.execute("UPDATE messages SET timestamp = '2025-01-01T00:00:00.000000Z'")
    assert lab.sync().rows == {"messages": 1}
    assert lab.verify().ok


def test_an_unknown_mode_is_refused(things):
    """With the ones there are."""
    with pytest.raises(InvalidValue, match="evolve, freeze, ignore"):
        things.sync(on_change="whatever")
