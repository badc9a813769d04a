"""Bring the tables of `mart` up to date in DuckDB, in the transaction that changes `raw`.

The place of a message depends only on the messages before it. So in each conversation only the
messages from the first change on are placed again, counting on from the last ones before; a message
that was merely edited keeps its place. Then the turns, sessions and days of changed messages are
made again. The temporary tables of `aico_lab.mart.statements`, and what each is made from:

    rows of a sync -> measures, rows_added, rows_removed
                                    |
                       affected_conversations + mart.messages -> last_places
                                    |
                          conversation_counts
                                    |
                        numbered_conversations
                                    |   one batch at a time
                         batch_conversations + raw.messages -> messages_to_place -> people
                                    |                                  |
                       old_rows of mart.messages        places() -> measured_places
                                    |                                  |
                                    +--- the edited ones ---> new_rows of mart.messages
                                    |                                  |
                                    +---------> affected_groups <------+
                                                       |
                                      rows of mart.turns, sessions, daily

When all messages are read again, batches of `all_conversations` take the place of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.adapters.duckdb import execute_with
from aico_lab.mart import statements
from aico_lab.mart.places import place_people, places
from aico_lab.mart.statements import GROUPS, TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import pyarrow as pa

VERSION: Final = 6
"""The version of the tables and views of `mart`: a sync that finds another one in the warehouse
reads all messages again. Add 1 when the same messages give other rows, and say what changed.

1: an explicit number, instead of a hash of the package's files.
2: the views `people` and `channels`, with pseudonyms, `replies` and `extras`.
3: the person of a session is that of its first message by a user, not the first by name.
4: replies with an estimated time have no time of reply, missing messages are left out, an address
within an address is no link of its own, and a time after an @ is no mention.
5: the views `profiles` and `traits` have a context, and there is the view `decisions`.
6: sums of scores do not depend on the order of the rows; on several devices, people and channels
are numbered by the times of their first messages.
"""

DIGEST: Final = "435ee31628eb3387a9f285f132337c39f4a91ef3a6dff9591314ee18ec8008c1"
"""SHA-256 of the SQL and of sample places, as they are in `VERSION`; checked by a test."""

MEMORY_LIMIT: Final = "150MB"
"""Memory that DuckDB may use for joins over all messages of a large home; it spills the rest."""

BATCH = 120_000
"""The approximate number of messages placed at a time, which bounds the memory."""


class Changes:
    """Collects the changes of messages in a sync, and then brings the tables of `mart` up to date.

    Messages are measured as they arrive: reading all texts again would take longer.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, reread: bool) -> None:
        """Write nothing yet.

        Args:
            connection: The warehouse, in the transaction that changes `raw.messages`.
            reread: Whether all messages are read again, so that every table is made again.
        """
        self._connection = connection
        self._reread = reread
        self._noted = False

    def note_added(self, rows: pa.Table) -> None:
        """Measure rows of `raw.messages` as they are now, and note them."""
        self._begin()
        self._measure(rows)
        noted = statements.MARK if self._reread else statements.NOTE_ADDED
        execute_with(self._connection, noted, rows=rows)

    def _measure(self, rows: pa.Table) -> None:
        execute_with(self._connection, statements.MEASURE, rows=rows)

    def note_removed(self, rows: pa.Table) -> None:
        """Note the former state of changed or removed rows, as `READ_BY_PLACES` selects it."""
        self._begin()
        execute_with(self._connection, statements.NOTE_REMOVED, rows=rows)

    def apply(self) -> None:
        """Bring the tables up to date with `raw.messages`, which must hold all changes by now."""
        if self._reread:
            self._begin()
            self._make_everything()
        elif self._noted:
            self._run(statements.AFFECTED_CONVERSATIONS)
            self._run(statements.LAST_PLACES)
            self._run(statements.CONVERSATION_COUNTS)
            self._run(statements.NUMBERED_CONVERSATIONS, [BATCH])
            for batch in self._run(statements.BATCHES).fetchall():
                self._replace(batch)
        else:
            return
        for table in statements.TEMPORARY:
            self._run(f"DROP TABLE IF EXISTS temp.{table}")

    def _begin(self) -> None:
        if not self._noted:
            self._run(statements.NOTES)
            self._noted = True

    def _make_everything(self) -> None:
        for table in TABLES:
            self._run(f"CREATE OR REPLACE TABLE mart.{table} ({statements.columns(table)})")
        self._run(statements.ALL_CONVERSATIONS, [BATCH])
        for batch in self._run(statements.ALL_BATCHES).fetchall():
            execute_with(
                self._connection,
                statements.INSERT_ALL,
                rows=place_people(self._run(statements.ALL_MESSAGES, batch).to_arrow_table()),
            )
        for table in GROUPS:
            query = statements.query(table)
            self._run(statements.INSERT_ALL_GROUPS.format(table=table, query=query))

    def _replace(self, batch: Sequence[object]) -> None:
        """Replace the rows of a batch of the affected conversations."""
        self._run(statements.BATCH_CONVERSATIONS, batch)
        self._run(statements.MESSAGES_TO_PLACE)
        self._run(statements.PEOPLE)
        self._run(statements.OLD_ROWS)
        self._run(statements.OLD_MEASURES)
        execute_with(
            self._connection,
            statements.MEASURED_PLACES,
            rows=places(self._run(statements.PLACES_SOURCE).to_arrow_table()),
        )
        self._run(statements.NEW_ROWS)
        self._run(statements.REPLACE_MESSAGES)
        for table, (column, group) in GROUPS.items():
            self._run(statements.AFFECTED_GROUPS.format(group=group))
            query = statements.query(table)
            self._run(
                statements.REPLACE_GROUPS.format(
                    table=table, column=column, group=group, query=query
                )
            )

    def _run(self, statement: str, values: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        return self._connection.execute(statement, values)


def empty_tables() -> list[str]:
    """Return the statements that make those tables which do not exist yet."""
    return [
        f"CREATE TABLE IF NOT EXISTS mart.{table} ({statements.columns(table)})" for table in TABLES
    ]
