"""The rules by which SQLite's authorizer checks a plugin's statements as they are compiled."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aico_lab.adapters.sql_text import folded

if TYPE_CHECKING:
    from collections.abc import Collection

# Prefixes used by the database, the change feed or the rules below, and those of the core's tables,
# indexes and triggers: a plugin may be active before the core's newest versions are applied.
RESERVED = frozenset(
    {"sqlite", "libsql", "pragma", "vector", "feed", "schema", "idx", "temp", "main"}
    | {"bus", "change", "conversation", "conversations", "dead", "embeddings", "feedback"}
    | {
        "import",
        "integrity",
        "knowledge",
        "memories",
        "messages",
        "passage",
        "personality",
        "pipeline",
    }
    | {"preference", "preferences", "relationships", "report", "search", "segment"}
    | {"segmenting", "segments", "system", "text", "user"}
)
VERBS = frozenset({"create", "drop", "alter", "insert", "replace", "update", "delete", "with"})

_DEFINES = (("create",), ("drop",), ("alter",))
_MASTERS = frozenset({"sqlite_master", "sqlite_sequence"})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
_ROWS = frozenset(
    {sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
)
_TABLES_AND_VIEWS = frozenset(
    {
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_VIEW,
    }
)
_INDEXES = frozenset({sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_DROP_INDEX})


@dataclass
class Guard:
    """The authorizer for one plugin.

    Attributes:
        plugin: The plugin's name; its own objects are named `<plugin>_…`.
        foreign: Names of objects of other schemas, in lower case; they are not the plugin's own.
        verb: The first two words of the statement that is compiled.
        denied: A description of the first denied action.
    """

    plugin: str
    foreign: Collection[str] = ()
    verb: tuple[str, ...] = ()
    denied: str = field(default="", init=False)

    def allow(
        self, action: int, first: str | None, second: str | None, database: str | None, _by: object
    ) -> int:
        """Return SQLITE_OK or SQLITE_DENY for the arguments of `sqlite3_set_authorizer`."""
        names = first or "", second or ""
        # ALTER TABLE is the only action whose first argument is the database.
        if action == sqlite3.SQLITE_ALTER_TABLE:
            allowed = names[0] == "main" and self.is_own(names[1])
        elif database == "temp":  # SQLite searches it for references to a renamed object
            allowed = self.verb[:1] == ("alter",) and names[0] == "sqlite_temp_master"
        else:
            allowed = database in (None, "main") and self._allows(action, *names)
        if not allowed:
            what = ", ".join(name for name in (first, second) if name) or "a forbidden query"
            self.denied = self.denied or f"it accesses {what}"
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def is_own(self, name: str) -> bool:
        """Return whether a name has the plugin's prefix, needs no quoting, and is not foreign."""
        pattern = rf"{self.plugin}_[a-z0-9_]+"
        prefixed = re.fullmatch(pattern, name, re.ASCII | re.IGNORECASE)
        return bool(prefixed) and folded(name) not in self.foreign

    def _allows(self, action: int, first: str, second: str) -> bool:
        verb, own = self.verb[:1], self.is_own
        match action:
            case sqlite3.SQLITE_SELECT:  # CREATE TABLE … AS could read the master tables
                allowed = verb != ("create",)
            case sqlite3.SQLITE_FUNCTION:
                allowed = second not in _FORBIDDEN_FUNCTIONS
            case sqlite3.SQLITE_REINDEX:
                allowed = verb == ("create",)
            case sqlite3.SQLITE_CREATE_TRIGGER:
                allowed = own(first) and own(second)
            case sqlite3.SQLITE_DROP_TRIGGER:  # the feed's triggers are dropped with their table
                allowed = own(second) and (own(first) or self.verb == ("drop", "table"))
            case _ if action in _INDEXES:
                allowed = own(second)
            case _ if action in _ROWS:  # SQLite writes its own tables in CREATE, DROP and ALTER
                allowed = own(first) or (verb in _DEFINES and first in _MASTERS)
            case _:
                allowed = action in _TABLES_AND_VIEWS and own(first)
        return allowed
