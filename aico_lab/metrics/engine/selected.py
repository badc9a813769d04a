"""The selected messages in plain SQL, and their words, which are cut once for all metrics.

Cutting texts into words takes longer than most questions about the words. So the words of the last
selection stay in a temporary table, about 110 bytes for each message, while the snapshot is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from aico_lab.mart.views import word_lists, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from aico_lab.metrics.engine.talk import Talk

WORDS: Final = "selected_words"
"""The temporary view of the words of a selection, with the columns of `mart.words`."""

_LISTS: Final = "selected_word_lists"

_selections: WeakKeyDictionary[duckdb.DuckDBPyConnection, str] = WeakKeyDictionary()
"""The selection whose words each connection holds, as SQL."""


def cut_words(connection: duckdb.DuckDBPyConnection, talk: Talk) -> None:
    """Cut the selected messages of both sides into words, unless they are the last selection.

    Args:
        connection: A connection to the snapshot.
        talk: The selection; the filter `role` is ignored, since some metrics need both sides.
    """
    selection = condition(talk, "ts_ms")
    if _selections.get(connection) == selection:
        return
    _selections.pop(connection, None)
    lists = f"SELECT m.*, words FROM mart.messages m JOIN temp.{_LISTS} USING (id)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {_LISTS} AS {word_lists(selection)}")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {WORDS} AS {words_of(lists)}")
    _selections[connection] = selection


def condition(talk: Talk, time: str) -> str:
    """Return the SQL condition of the period, people and channels of a selection.

    Args:
        talk: The selection.
        time: The column of UTC milliseconds.
    """
    since, until = talk.bounds
    conditions = (
        "true" if since is None else f"{time} >= {since}",
        "true" if until is None else f"{time} < {until}",
        is_one_of("user_id", talk.filters.users),
        is_one_of("channel_id", talk.filters.channels),
    )
    return " AND ".join(conditions)


def is_one_of(column: str, names: Sequence[str]) -> str:
    """Return an SQL condition that a column has one of these names; true if there are none.

    Literals instead of bound values: DuckDB imports pandas to bind, which is slower than the query.
    """
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"{column} IN ({quoted})" if names else "true"
