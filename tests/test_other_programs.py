"""Other programs at an unencrypted home, with the SQLite that they have."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from aico_lab.dal import DataAccessLayer
from aico_lab.repositories import LibSQLConversationRepository
from aico_lab.schema import CORE, SchemaRegistry, SchemaVersion, feed, feed_keys
from aico_lab.schema.drift import Drift
from tests.databases import with_core_schemas
from tests.messages import START, add, at, message

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection, LibSQLAdapter


@pytest.fixture
def adapter(tmp_path: Path) -> LibSQLAdapter:
    return with_core_schemas(tmp_path / "aico.db")


async def found(adapter: LibSQLAdapter, query: str) -> list[str]:
    async with DataAccessLayer(adapter) as dal:
        turns = await LibSQLConversationRepository(dal).search_by_content(query)
    return sorted(turn.id for turn in turns)


async def test_another_sqlite_can_write_everywhere(adapter: LibSQLAdapter) -> None:
    """Python 3.11 brings 3.40: every table with its triggers, the view, and the index of words."""
    with adapter.connect() as connection:
        add(connection, message(1, content="onion soup"), message(2, content="a new cat"))
    assert await found(adapter, "soup") == ["m1"]
    before = time.time() * 1000
    with closing(sqlite3.connect(adapter.path)) as other, other:
        other.execute("PRAGMA foreign_keys = ON")
        other.execute("INSERT INTO users (user_id, created_at) VALUES ('x', ?)", [START])
        other.execute("INSERT INTO preferences VALUES ('x', 'language', '\"de\"', ?)", [START])
        other.execute(
            "INSERT INTO conversations (user_id, message_id, content, timestamp) "
            "VALUES ('x', 'mine', 'soup for everybody', '2025-07-30 20:30:45')"
        )
        other.execute("UPDATE messages SET content = 'leek pie' WHERE message_id = 'm1'")
        other.execute("DELETE FROM messages WHERE message_id = 'm2'")
        logged = other.execute("SELECT at FROM change_log ORDER BY seq DESC LIMIT 1").fetchone()
    assert before - 2 <= logged[0] <= time.time() * 1000 + 2
    assert await found(adapter, "soup") == ["mine"]
    assert await found(adapter, "pie") == ["m1"]
    assert await found(adapter, "cat") == []
    with adapter.connect() as connection:
        assert connection.fetch_all("INSERT INTO messages_search (messages_search) VALUES "
                                    "('integrity-check')") == []  # fmt: skip


LATER = {"unixepoch": "3.38", "subsec": "3.42", "contentless_delete": "3.43", "->": "3.38"}


def test_no_definition_needs_a_later_sqlite_than_3_37(adapter: LibSQLAdapter) -> None:
    """Which a program that runs today may well have."""
    with adapter.connect() as connection:
        for name, sql in connection.fetch_all("SELECT name, sql FROM sqlite_master WHERE sql > ''"):
            assert not [word for word in LATER if word in sql], name


def former(adapter: LibSQLAdapter, version: int) -> Connection:
    """A database as an earlier version of this program left it."""
    connection = adapter.connect()
    CORE.rollback("search", 1, connection)
    CORE.rollback("conversations", 1, connection)
    CORE.rollback("system", 1, connection)
    for table, keys in feed.tracked_tables(connection).items():
        for name, sql in feed.triggers(table, keys, feed_keys.FORMER[version]).items():
            connection.execute(f"DROP TRIGGER {name}")
            connection.execute(sql.replace(feed.CLOCK, feed.FORMER_CLOCK))
    return connection


@pytest.mark.slow
@pytest.mark.parametrize("version", range(len(feed_keys.FORMER)))
async def test_a_former_database_is_brought_forward(adapter: LibSQLAdapter, version: int) -> None:
    """With its feed, a plugin's table in it, and its index; and it was sound before, too."""
    registry = SchemaRegistry()
    for schema in CORE:
        registry.register(schema.name, schema.kind, schema.versions, priority=schema.priority)
    made = SchemaVersion(1, "v1", "", ["CREATE TABLE diary_days (id TEXT PRIMARY KEY)"],
                         ["DROP TABLE diary_days"], {"diary_days": ("id",)})  # fmt: skip
    registry.register("diary", "plugin", {1: made})
    with adapter.connect() as connection:
        registry.apply_plugin_schema("diary", connection)
    with former(adapter, version) as connection:
        add(connection, message(1, content="onion soup"))
        assert registry.drift(connection) == Drift()
        assert registry.pending(connection) == {"conversations": 3, "search": 3, "system": 2}
        cursor = feed.head(connection)
        CORE.apply_core_schemas(connection)
        assert registry.drift(connection) == Drift()
        assert registry.pending(connection) == {}
        assert not (adapter.path.parent / "backups").exists(), "the index is made again"
        clocks = {
            name: re.search(re.escape(feed.FORMER_CLOCK), sql)
            for name, sql in connection.fetch_all(
                "SELECT name, sql FROM sqlite_master WHERE name GLOB 'feed_*' AND type = 'trigger'"
            )
        }
        assert "feed_diary_days_insert" in clocks
        assert not any(clocks.values())
        assert feed.continues(connection, cursor)
        add(connection, message(2, content="leek soup", timestamp=at(2)))
    assert await found(adapter, "soup") == ["m1", "m2"]
