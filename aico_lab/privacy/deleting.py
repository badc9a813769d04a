"""Delete what belongs to a scope from the primary database, in one transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.sql_text import quoted
from aico_lab.importing.import_log import ADDED, restore
from aico_lab.privacy.patterns import has_word
from aico_lab.privacy.selecting import drop, select
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.privacy.patterns import Patterns
    from aico_lab.privacy.scope import Scope

SENTENCES: Final = 30
"""The most texts of messages of which other stores are searched for a part."""

TEXTS: Final = 300_000
"""The most messages, the newest, whose whole texts are kept in memory and the sealed file."""

SHORTEST: Final = 16
"""The fewest characters of such a part: shorter ones are in other people's messages, too."""

LONGEST: Final = 60

_IDS: Final = {
    "user_id": "SELECT user_id FROM temp.gone_users",
    "channel_id": "SELECT channel_id FROM temp.gone_channels",
    "conversation_id": "SELECT conversation_id FROM temp.gone_conversations",
    "message_id": "SELECT message_id FROM temp.gone_messages",
}
# Short ids and numbers are also other values, so that they only count in fields of such ids.
_TELLING: Final = "(length({0}) >= 15 OR (length({0}) >= 6 AND {0} GLOB '*[^0-9]*'))"
_FIELDS: Final = {
    "user_id": ("user", "user_id", "userId", "person", "author", "by", "other"),
    "channel_id": ("channel", "channel_id", "channelId"),
    "conversation_id": ("conversation", "conversation_id", "conversationId"),
    "message_id": ("message", "message_id", "messageId", "reply_to"),
}
_MATCHES: Final = " OR ".join(
    f"(CAST(atom AS TEXT) IN ({statement}) AND (key IN {_FIELDS[column]} "
    f"OR (type = 'text' AND {_TELLING.format('atom')})))"
    for column, statement in _IDS.items()
)
# A role is no person, even if somebody has its name.
_VALUES: Final = (
    "EXISTS (SELECT 1 FROM json_tree({0}) WHERE type IN ('text', 'integer') "
    f"AND key IS NOT 'role' AND ({_MATCHES}{{1}}))"
)
_TEXTS: Final = (
    " OR (length(atom) >= 16 AND (atom IN (SELECT content FROM temp.gone_texts) OR atom IN "
    "(SELECT content FROM messages WHERE id IN (SELECT id FROM temp.gone_messages))))"
)
# The parts of a payload between quotes of a text in a text.
_QUOTED: Final = """'[' || replace(json_quote(CAST(payload AS TEXT)), '\\\\\\"', '","') || ']'"""
# The key of a changed row is a text or an array in a text, such as `["ada", "language"]`.
_IN_PAYLOAD: Final = f"""iif(json_valid(payload),
    {_VALUES.format("payload", _TEXTS)}
    OR coalesce(iif(json_valid(json_extract(payload, '$.key')), json_extract(
        json_extract(payload, '$.key'), '$[0]'), NULL) IN ({_IDS["user_id"]}), 0), 0)
    OR EXISTS (SELECT 1 FROM json_each({_QUOTED}) WHERE value IN ({_IDS["user_id"]})
        AND {_TELLING.format("value")})"""

# Another device may have deleted the messages of a segment.
_SEGMENTS: Final = (
    f"SELECT segment_id FROM segment_messages WHERE message_id IN ({_IDS['message_id']}) "
    "UNION SELECT segment_id FROM conversation_segments "
    f"WHERE conversation_id IN ({_IDS['conversation_id']}) "
    "AND segment_id NOT IN (SELECT segment_id FROM segment_messages)"
)
_WORDS: Final = (
    "INSERT INTO messages_search (messages_search) VALUES ('delete-all')",
    "UPDATE search_state SET indexed_through = 0",
    "INSERT OR IGNORE INTO segments_search_data VALUES (1, x''), (10, zeroblob(7))",
    "INSERT INTO segments_search (segments_search) VALUES ('delete-all')",
    "DELETE FROM segments_search_ids",
    "INSERT OR REPLACE INTO segments_search_state VALUES (1, 0, 0, 0, NULL)",
)
"""Empty the indexes of words, which keep those of deleted texts; the next search fills them."""

_DELETE: Final = (
    (
        f"DELETE FROM explorations WHERE exploration_id IN (SELECT exploration_id "
        f"FROM passage_themes WHERE segment_id IN ({_SEGMENTS}))"
    ),
    f"DELETE FROM conversation_segments WHERE segment_id IN ({_SEGMENTS})",
    (
        "DELETE FROM feedback_events WHERE event_id IN "
        "(SELECT row_key FROM temp.gone_items WHERE table_name = 'feedback_events')"
    ),
    (
        "DELETE FROM memories WHERE memory_id IN "
        "(SELECT row_key FROM temp.gone_items WHERE table_name = 'memories')"
    ),
    (
        "DELETE FROM personality_policies WHERE policy_id IN "
        "(SELECT row_key FROM temp.gone_items WHERE table_name = 'personality_policies')"
    ),
    "DELETE FROM messages WHERE id IN (SELECT id FROM temp.gone_messages)",
    f"DELETE FROM channels WHERE channel_id IN ({_IDS['channel_id']})",
    f"DELETE FROM relationships WHERE other IN ({_IDS['user_id']})",
    f"DELETE FROM users WHERE user_id IN ({_IDS['user_id']})",
    "DELETE FROM segmenting_changes WHERE id IN (SELECT id FROM temp.gone_messages)",
    # A note of a message that was replaced must not subtract it, which its trigger else does.
    "UPDATE messages_replaced SET by_message_id = NULL",
    "DELETE FROM messages_replaced",
)
_THEMES: Final = "DELETE FROM explorations"
"""Themes may have words of texts that were deleted before, from which nothing leads to a person."""

_NOT_OF_IMPORTS: Final = (
    # After an undone import the reply leads to its message again, once that is imported again.
    (
        f"UPDATE messages SET reply_to = NULL WHERE reply_to IN ({_IDS['message_id']}) "
        "AND id NOT IN (SELECT id FROM temp.gone_messages)"
    ),
    f"DELETE FROM feedback_events WHERE conversation_id IN ({_IDS['conversation_id']})",
)
_VECTORS: Final = (
    (
        "DELETE FROM text_index WHERE item_id NOT IN (SELECT segment_id FROM conversation_segments "
        "UNION ALL SELECT memory_id FROM memories UNION ALL SELECT chunk_id FROM knowledge_chunks)"
    ),
    # A vector can be inverted to something close to its text.
    "DELETE FROM text_vectors WHERE text_sha256 NOT IN (SELECT text_sha256 FROM text_index)",
    "UPDATE text_index_state SET seq = 0, anchor = ''",
)
_NAMES_IT: Final = {
    "outbox": _IN_PAYLOAD,
    "dead_letters": f"{_IN_PAYLOAD} OR rowid IN "
    "(SELECT row_key FROM temp.gone_items WHERE table_name = 'dead_letters')",
    "system_state": "key NOT IN ('database_id', 'backups') AND ("
    f"iif(json_valid(value), {_VALUES.format('value', '')}, 0) "
    "OR EXISTS (SELECT 1 FROM temp.gone_users AS g WHERE (value = g.user_id "
    f"AND (key LIKE '%user%' OR {_TELLING.format('g.user_id')})) "
    f"OR ({_TELLING.format('g.user_id')} AND instr(value, json_quote(g.user_id)))))",
}
_GONE_KEPT: Final = (
    "(SELECT number FROM temp.kept JOIN temp.gone_kept USING (id) WHERE source = '{}')"
)
_CONFLICTS: Final = (
    "SELECT table_name, row_key, loser FROM sync_conflicts "
    f"WHERE conflict_id IN {_GONE_KEPT.format('sync_conflicts')} ORDER BY conflict_id"
)
_KEPT: Final = {
    table: f"DELETE FROM {table} WHERE {number} IN {_GONE_KEPT.format(table)}"
    for table, number in (("sync_conflicts", "conflict_id"), ("sync_parked", "parked_id"))
}
_NEAR: Final = f"""SELECT d.rowid, CAST(d.error || ' ' || d.reason AS BLOB),
    CAST(g.user_id AS BLOB) FROM dead_letters AS d JOIN temp.gone_users AS g
    ON {_TELLING.format("g.user_id")} AND instr(d.error || ' ' || d.reason, g.user_id)"""
"""Dead letters whose error or reason has an id somewhere, also as a part of a longer one."""

# As if the import had added the message: there is nothing to bring back when it is undone.
_NO_FORMER: Final = """UPDATE import_rows SET former = NULL WHERE table_name = 'messages'
    AND row_key NOT IN (SELECT CAST(id AS TEXT) FROM temp.gone_messages) AND"""
_BEFORE: Final = {
    "outbox": "DELETE FROM outbox WHERE created_at < ?",
    "dead_letters": "DELETE FROM dead_letters WHERE created_at < ?",
    "former values": f"{_NO_FORMER} former ->> 'timestamp' < ?",
}
_FORMER: Final = (
    ("DELETE FROM import_rows WHERE table_name = 'messages' AND (row_key IN "
    "(SELECT CAST(id AS TEXT) FROM temp.gone_messages) "
    "OR (former IS NOT NULL AND CAST(row_key AS INTEGER) NOT IN (SELECT id FROM messages)))"),
    f"{_NO_FORMER} former ->> 'user_id' IN ({_IDS['user_id']})",
    *(
        f"DELETE FROM import_rows WHERE table_name = '{table}' "
        f"AND row_key NOT IN (SELECT {key} FROM {table})"
        for table, key in ADDED.items()
    ),
)  # fmt: skip
_NUMBER: Final = "(SELECT number FROM imports WHERE import_id = ?1)"
_MINE: Final = f"mine.number = {_NUMBER} AND mine.table_name = 'messages'"
_LATER: Final = (
    "SELECT min(later.number) FROM import_rows AS later WHERE later.table_name = 'messages' "
    f"AND later.row_key = {{row}}.row_key AND later.number > {_NUMBER}"
)
_SAME: Final = f"FROM import_rows AS mine WHERE {_MINE} AND mine.row_key = x.row_key"
# The import that changed a message next found what this one had found; nothing if this one added
# the message, so that it counts as added by the next one.
_FOUND_BEFORE: Final = f"""UPDATE import_rows AS x SET former = (SELECT mine.former {_SAME})
    WHERE x.table_name = 'messages' AND x.number > {_NUMBER}
        AND x.number = ({_LATER.format(row="x")})
        AND (EXISTS (SELECT 1 {_SAME}) OR CAST(x.row_key AS INTEGER) <= (
            SELECT last_id FROM import_ranges
            WHERE number = {_NUMBER} AND first_id <= CAST(x.row_key AS INTEGER)
            ORDER BY first_id DESC LIMIT 1))"""
_RESTORED: Final = (
    f"SELECT row_key, former FROM import_rows AS mine WHERE {_MINE} AND mine.former IS NOT NULL "
    f"AND ({_LATER.format(row='mine')}) IS NULL"
)
# People and channels that stay count as added by all other imports with a message, or another row,
# that names them: they go with the last of these.
_STILL_NAMED: Final = (
    # Without these orders of the tables, all of one are compared with all of the other.
    """SELECT x.number, n.table_name, n.row_key, NULL FROM temp.still_named AS n
    CROSS JOIN import_rows AS x ON x.table_name = 'messages' AND x.row_key = CAST(n.id AS TEXT)""",
    """SELECT r.number, n.table_name, n.row_key, NULL FROM import_ranges AS r
    CROSS JOIN temp.still_named AS n ON n.id BETWEEN r.first_id AND r.last_id""",
    *(
        f"""SELECT x.number, 'users', t.user_id, NULL FROM import_rows AS x
        JOIN {table} AS t ON t.{key} = x.row_key WHERE x.table_name = '{table}' AND t.user_id IN
            (SELECT row_key FROM import_rows WHERE number = {_NUMBER} AND table_name = 'users')"""
        for table, key in ADDED.items()
        if table not in ("users", "channels")
    ),
)


@dataclass(slots=True)
class Deleted:
    """The rows that were deleted from the primary database, or would be.

    Attributes:
        rows: The number of rows by table.
        ids: All ids by column, by which stores are searched; of messages the newest first.
        names: Names of erased people, likewise.
        sentences: Parts of some erased texts, likewise.
        texts: Whole texts that are long enough to be told from those of others.
        turns: The channel, conversation and time of each erased message that an answer may follow.
        alone: The channel and id of each conversation that is erased with a person.
        last_id: The highest `id` of messages before.
        since: The last change of the feed before.
        until: The last change of the feed after.
        conflicts: The table, key and losing version of each conflict, which ends with its row.
    """

    rows: dict[str, int] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    turns: list[list[str]] = field(default_factory=list)
    alone: list[list[str]] = field(default_factory=list)
    last_id: int = 0
    since: int = 0
    until: int = 0
    conflicts: list[tuple[str, str, str]] = field(default_factory=list)

    def wanted(self) -> dict[str, Any]:
        """Return what the other stores are searched for, and the counts for the receipt."""
        return {
            "ids": self.ids, "names": self.names, "sentences": self.sentences,
            "texts": self.texts, "turns": self.turns, "alone": self.alone,
            "last_id": self.last_id, "rows": self.rows,
        }  # fmt: skip


def joined(former: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return what the other stores are searched for if rows were deleted twice.

    The second time has the ids of the first, apart from those that somebody uses again.
    """

    def union(what: str) -> list[Any]:
        return list(dict.fromkeys([*former.get(what, ()), *more[what]]))

    return {
        **former,
        "ids": more["ids"],
        "names": union("names"),
        "sentences": union("sentences"),
        "texts": union("texts"),
        "turns": [*former.get("turns", ()), *more["turns"]],
        "alone": [*former.get("alone", ()), *more["alone"]],
        "last_id": min(former.get("last_id") or more["last_id"], more["last_id"]),
    }


def delete(connection: Connection, scope: Scope, former: Patterns | None = None) -> Deleted:
    """Delete what belongs to a scope.

    Args:
        connection: The primary database, inside a transaction.
        scope: The scope.
        former: What of the scope was deleted before, if others may have written since.
    """
    done = Deleted(since=feed.head(connection).seq)
    if scope.kind == "import":
        _restore(connection, scope, done)
    select(connection, scope, former)
    if scope.kind == "import":
        _hand_over(connection, scope)
    _note(connection, done)
    if scope.kind == "user":
        _note_turns(connection, done)
    if scope.kind == "import":
        _spare_referenced(connection, done)
    _delete_events(connection, scope, done)  # while the texts that they quote are still there
    if scope.kind == "user":
        connection.execute(_THEMES)
    for statement in (*_WORDS, *(() if scope.kind == "import" else _NOT_OF_IMPORTS), *_DELETE):
        connection.execute(statement)
    _delete_of_plugins(connection, done)
    for statement in _FORMER:
        _count(connection, done, "former values", statement)
    for statement in _VECTORS:
        connection.execute(statement)
    _index_again(connection)
    drop(connection)
    for table, count in connection.fetch_all(
        "SELECT table_name, count(DISTINCT row_key) FROM change_log "
        "WHERE seq > ? AND op = 'delete' GROUP BY 1",
        [done.since],
    ):
        done.rows[table] = count
    # The position of a consumer of the feed quotes the change there, so let that be no erased row.
    feed.mark(connection)
    done.until = feed.head(connection).seq
    return done


def _restore(connection: Connection, scope: Scope, done: Deleted) -> None:
    """Bring back what an import replaced."""
    connection.execute(_FOUND_BEFORE, [scope.value])
    if restored := restore(connection, _RESTORED, [scope.value]):
        done.rows["messages restored"] = restored


def _hand_over(connection: Connection, scope: Scope) -> None:
    """Record people and channels that stay as added by other imports, and remove this record."""
    for named in _STILL_NAMED:
        connection.execute(
            f"INSERT OR IGNORE INTO import_rows {named}", [scope.value] if "?1" in named else []
        )
    connection.execute("DELETE FROM imports WHERE import_id = ?", [scope.value])


def _spare_referenced(connection: Connection, done: Deleted) -> None:
    """Do not search for ids to which rows that stay refer after an import is undone."""
    for column, statement in (
        (
            "message_id",
            "SELECT reply_to AS id FROM messages UNION SELECT message_id FROM feedback_events",
        ),
        ("conversation_id", "SELECT conversation_id AS id FROM feedback_events"),
    ):
        named = connection.fetch_all(
            "SELECT value FROM json_each(?) WHERE value NOT IN "
            f"(SELECT id FROM ({statement}) WHERE id IS NOT NULL)",
            [json.dumps(done.ids[column])],
        )
        done.ids[column] = [one for (one,) in named]


def _delete_events(connection: Connection, scope: Scope, done: Deleted) -> None:
    """Delete events, dead letters and facts that name what is erased, and what else is too old.

    What is kept beside the tables of rows of other devices goes as well.
    """
    done.conflicts = connection.fetch_all(_CONFLICTS)
    for table, statement in _KEPT.items():
        _count(connection, done, table, statement)
    _select_letters(connection)
    for table, names_it in _NAMES_IT.items():
        _count(connection, done, table, f"DELETE FROM {table} WHERE {names_it}")
    if scope.kind == "before":
        for table, statement in _BEFORE.items():
            _count(connection, done, table, statement, [scope.value])


def _select_letters(connection: Connection) -> None:
    """Select the dead letters whose error or reason has the id of an erased person as a word."""
    named = [
        number
        for number, text, person in connection.fetch_all(_NEAR)
        if has_word(text, person.decode(errors="surrogateescape"))
    ]
    connection.execute(
        "INSERT OR IGNORE INTO temp.gone_items SELECT 'dead_letters', value FROM json_each(?)",
        [json.dumps(named)],
    )


def count_events(connection: Connection) -> int:
    """Return the number of events, dead letters and facts that name what was erased.

    Args:
        connection: The primary database, with temporary tables by `select_again`.
    """
    _select_letters(connection)
    counts = (f"(SELECT count(*) FROM {table} WHERE {one})" for table, one in _NAMES_IT.items())
    ((found,),) = connection.fetch_all(f"SELECT {' + '.join(counts)}")
    return int(found)


def forget_keys(connection: Connection, since: int, until: int, people: Sequence[str] = ()) -> None:
    """Remove the keys of rows that an erasure deleted, or that have erased people, from the feed.

    Args:
        connection: The primary database.
        since: The last change of the feed before the erasure.
        until: The last change of the erasure.
        people: The ids of erased people, whose rows may have been deleted before.
    """
    with connection.transaction():
        connection.execute(
            # Whoever wrote a row with such a key again, after the erasure, has that change synced.
            "UPDATE change_log SET table_name = 'feed_tables', row_key = '', op = 'update' "
            "WHERE seq <= ?2 AND (table_name, row_key) IN (SELECT table_name, row_key "
            "FROM change_log WHERE seq > ?1 AND seq <= ?2 AND op = 'delete')",
            [since, until],
        )
        connection.execute(
            "UPDATE change_log SET table_name = 'feed_tables', row_key = '', op = 'update' "
            f"WHERE seq <= ?2 AND {_KEY_OF_PEOPLE}",
            [json.dumps(list(people)), until],
        )


_KEY_OF_PEOPLE: Final = """typeof(row_key) = 'text' AND EXISTS (
    SELECT 1 FROM feed_tables AS f, json_each(f.key_columns) AS k
    WHERE f.table_name = change_log.table_name AND k.value = 'user_id'
        AND CASE WHEN json_array_length(f.key_columns) = 1 THEN row_key
            WHEN json_valid(row_key) THEN json_extract(row_key, '$[' || k.key || ']') END
        IN (SELECT value FROM json_each(?1)))"""


def count_keys(connection: Connection, since: int, until: int) -> int:
    """Return the number of keys of erased rows in the feed that `forget_keys` would remove."""
    ((found,),) = connection.fetch_all(
        "SELECT count(*) FROM change_log WHERE seq > ? AND seq <= ? AND op = 'delete'",
        [since, until],
    )
    return int(found)


def count_keys_of_people(connection: Connection, people: Sequence[str], since: int = -1) -> int:
    """Return the number of keys of rows of erased people that the feed has since a change."""
    ((found,),) = connection.fetch_all(
        f"SELECT count(*) FROM change_log WHERE seq > ?2 AND {_KEY_OF_PEOPLE}",
        [json.dumps(list(people)), since],
    )
    return int(found)


def _note(connection: Connection, done: Deleted) -> None:
    """Note what to search stores for."""
    ((done.last_id,),) = connection.fetch_all("SELECT coalesce(max(id), 0) FROM messages")
    for column, statement in _IDS.items():
        # Whoever writes meanwhile does so about the newest messages.
        newest = "ORDER BY id DESC" if column == "message_id" else ""
        names = _array(connection, f"SELECT {column} AS one FROM ({statement} {newest})")
        done.ids[column] = [one for one in names if one]
    done.names = [
        name
        for (name,) in connection.fetch_all(
            "SELECT DISTINCT name FROM users JOIN temp.gone_users USING (user_id) "
            "WHERE name IS NOT NULL"
        )
    ]
    done.texts = _array(
        connection,
        "SELECT content AS one FROM messages WHERE id IN "
        f"(SELECT id FROM temp.gone_messages ORDER BY id DESC LIMIT {TEXTS}) "
        f"AND length(content) >= {SHORTEST} UNION SELECT content FROM memories "
        "WHERE user_id IN (SELECT user_id FROM temp.gone_users) "
        f"AND length(content) >= {SHORTEST} UNION SELECT content ->> 'content' FROM temp.kept "
        "JOIN temp.gone_kept USING (id) "
        f"WHERE length(content ->> 'content') >= {SHORTEST}",
    )
    kept: dict[str, None] = {}
    for text in done.texts[:: len(done.texts) // (10 * SENTENCES) + 1]:
        part = max(text.splitlines(), key=len, default="").strip()[:LONGEST]
        if len(part) >= SHORTEST and len(kept) < SENTENCES:
            kept.setdefault(part)
    done.sentences = list(kept)


def _note_turns(connection: Connection, done: Deleted) -> None:
    """Note where the companion may go on: after messages in conversations with others, or alone."""
    turns = _array(
        connection,
        "SELECT DISTINCT json_array(m.channel_id, m.conversation_id, m.timestamp) AS one "
        "FROM messages AS m JOIN temp.gone_messages AS g USING (id) WHERE m.role = 'user' "
        f"AND m.conversation_id NOT IN ({_IDS['conversation_id']})",
    )
    done.turns = [json.loads(one) for one in turns]
    alone = _array(
        connection,
        "SELECT DISTINCT json_array(channel_id, conversation_id) AS one FROM temp.gone_messages "
        f"WHERE channel_id IS NOT NULL AND conversation_id IN ({_IDS['conversation_id']})",
    )
    done.alone = [json.loads(one) for one in alone]


def _array(connection: Connection, query: str) -> list[str]:
    """Return the column `one` of a query, whatever its bytes are; many rows are one value."""
    ((found,),) = connection.fetch_all(
        f"SELECT CAST(json_group_array(CAST(one AS TEXT)) AS BLOB) FROM ({query})"
    )
    names: list[str] = json.loads(found.decode(errors="ignore"))
    return names


def _delete_of_plugins(connection: Connection, done: Deleted) -> None:
    """Delete rows of other tables with the id of what was erased, as those of plugins."""
    known = feed.tracked_tables(connection)
    for table, column in connection.fetch_all(
        "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c "
        "WHERE t.type = 'table' AND c.name IN "
        "(SELECT value FROM json_each(?)) AND t.sql NOT LIKE 'CREATE VIRTUAL%'",
        [json.dumps(list(_IDS))],
    ):
        if table not in _CORE and not (table in known and table in _CASCADED):
            statement = f"DELETE FROM {quoted(table)} WHERE {quoted(column)} IN ({_IDS[column]})"
            _count(connection, done, table, statement)


_CORE: Final = frozenset({"messages_replaced", "messages", "channels", "users"})
_CASCADED: Final = frozenset(
    {
        "user_profiles", "preferences", "preference_changes", "relationships", "memories",
        "personality_profiles", "feedback_events", "conversation_segments", "segment_messages",
        "embeddings",
    }
)  # fmt: skip


def _count(
    connection: Connection,
    done: Deleted,
    what: str,
    statement: str,
    parameters: list[Any] | None = None,
) -> None:
    connection.execute(statement, parameters or [])
    if changed := connection.fetch_all("SELECT changes()")[0][0]:
        done.rows[what] = done.rows.get(what, 0) + changed


def _index_again(connection: Connection) -> None:
    """Make the indexes of words of memories and documents anew, without words of erased ones."""
    for table, key in (("memories", "memory_id"), ("knowledge_chunks", "chunk_id")):
        index, ids = f"{table}_search", f"{table}_search_ids"
        connection.execute(f"INSERT INTO {index} ({index}) VALUES ('delete-all')")
        connection.execute(
            f"INSERT INTO {index} (rowid, content) "
            f"SELECT i.id, t.content FROM {ids} AS i JOIN {table} AS t USING ({key})"
        )
