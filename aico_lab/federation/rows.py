"""Versions of rows, and their order, by which all devices choose the same one.

A version is the causal length of the row, a stamp, and a digest of the content; of two versions the
greater one wins. The **causal length** counts how often the row came and went: it is odd while the
row exists and even when it is deleted, so a deletion wins over all changes that did not know of it.
The **stamp** is the time of the change, or one more than the stamp of the version that it replaced:
a wrong clock decides only between changes that were made without knowing of each other.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from aico_lab.adapters.sql_text import quoted
from aico_lab.errors import CorruptDatabase
from aico_lab.federation.tables import select_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.federation.tables import FederatedTable

MAX_STAMP: Final = 2**53 - 1
PLAIN: Final = {str, int, float, type(None)}
"""The types of values that are the same in JSON, except for infinite numbers."""
_STREAM: Final = re.compile(r"[0-9a-f]{16}\.[0-9a-f]{8}")


class RawText(bytes):
    """The bytes of a text that cannot be sent.

    It has a NUL, at which the driver cuts it, or is not UTF-8, at which the driver fails.
    """


def text_or_none(raw: bytes) -> str | None:
    """Return a text that bundles can have, or None if they cannot."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def is_stream(name: str) -> bool:
    """Return whether a name is that of a stream."""
    return _STREAM.fullmatch(name) is not None


def device_of_stream(stream: str) -> str:
    """Return the id of the device that a stream belongs to."""
    return stream.partition(".")[0]


class Version(NamedTuple):
    """The version of a row.

    Attributes:
        cl: The causal length.
        stamp: Microseconds since 1970, or more.
        digest: The digest of the content; empty for a deleted row, or the id of the erasure that
            deleted it.
        stream: The stream of the bundle with this version.
        n: The number of the bundle in it.
    """

    cl: int
    stamp: int
    digest: str
    stream: str
    n: int

    @property
    def is_alive(self) -> bool:
        """Whether the row exists in this version."""
        return self.cl % 2 == 1

    @property
    def is_erased(self) -> bool:
        """Whether an erasure deleted the row."""
        return bool(self.erasure_id)

    @property
    def erasure_id(self) -> str:
        """The id of the erasure that deleted the row; empty if none did."""
        return "" if self.is_alive else self.digest

    @property
    def device_id(self) -> str:
        """The id of the device that wrote the version."""
        return device_of_stream(self.stream)


def order(version: Version) -> tuple[int, bool, int, str]:
    """Return the sort key of a version: whoever wrote it does not matter.

    An erasure's deletion wins over other deletions, so that a version which its author knew is not
    kept when it comes late.
    """
    return (version.cl, version.is_erased, version.stamp, version.digest)


def next_stamp(at: int, replaced: int) -> int:
    """Return the stamp of a change.

    Args:
        at: Its time in milliseconds since 1970.
        replaced: The stamp of the version that it replaces, or 0.
    """
    stamp = at * 1000
    return min(stamp if stamp > replaced else replaced + 1, MAX_STAMP)


def digest_of(table: FederatedTable, key: str, content: Sequence[Any]) -> str:
    """Return the digest of a row's content."""
    return digest_of_text(text_of(table, key, content))


def digest_of_text(text: bytes) -> str:
    """Return the digest of a row of which `text_of` returned the text."""
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def text_of(table: FederatedTable, key: str, content: Sequence[Any]) -> bytes:
    """Return the content of a row as JSON, from which its digest is computed.

    Columns with their default value are left out, so that the digest stays the same when a later
    version of the schema adds a column.
    """
    differing = {
        column: value
        for column, value, default in zip(table.columns, content, table.defaults, strict=True)
        if value is not default
        and (default is None or value != default or type(value) is not type(default))
    }
    if not PLAIN.issuperset(map(type, differing.values())):
        differing = {column: to_json(value) for column, value in differing.items()}
    return orjson.dumps([table.name, key, differing])


def to_json(value: object) -> object:
    """Return a value of a row in a form that JSON preserves."""
    if isinstance(value, RawText):
        return {"t": base64.b64encode(value).decode()}
    if isinstance(value, bytes):
        return {"b": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"f": repr(value)}
    return value


def from_json(value: object) -> object:
    """Return the value that `to_json` was given.

    Raises:
        ValueError: It was given no such value.
    """
    match value:
        case {"b": str(text), **rest} if not rest:
            return base64.b64decode(text, validate=True)
        case {"f": "inf" | "-inf" as text, **rest} if not rest:
            return float(text)
        case str() | int() | float() | None if not isinstance(value, bool):
            return value
        case _:
            raise ValueError("is no value of a row")


def to_columns(table: FederatedTable, content: Sequence[Any]) -> dict[str, object]:
    """Return the content of a row by columns as JSON, which later versions of a table can read."""
    return dict(zip(table.columns, map(to_json, content), strict=True))


def from_columns(table: FederatedTable, stored: Mapping[str, object]) -> tuple[Any, ...]:
    """Return the content of a row that `to_columns` was given, perhaps of an older table.

    Columns that it did not have get their defaults.
    """
    return tuple(
        from_json(stored[column]) if column in stored else default
        for column, default in zip(table.columns, table.defaults, strict=True)
    )


def key_values(table: FederatedTable, key: str) -> list[Any]:
    """Return the values of the key's columns."""
    return [key] if len(table.keys) == 1 else json.loads(key)


def physical(
    connection: Connection, table: FederatedTable, keys: Sequence[str]
) -> tuple[dict[str, tuple[Any, ...]], set[str]]:
    """Return the content of the rows with some keys, and the keys of rows that cannot be read.

    The driver cuts text at a NUL, and fails at text that is not UTF-8.
    """
    if not keys:
        return {}, set()
    try:
        rows = connection.fetch_all(*_reading(table, keys))
    except CorruptDatabase:
        if len(keys) == 1:
            return {}, {keys[0]}
        middle = len(keys) // 2
        found, unreadable = physical(connection, table, keys[:middle])
        more, others = physical(connection, table, keys[middle:])
        return found | more, unreadable | others
    return {row[1]: row[2:] for row in rows if not row[0]}, {row[1] for row in rows if row[0]}


def with_raw_text(
    connection: Connection, table: FederatedTable, keys: Sequence[str]
) -> dict[str, tuple[Any, ...]]:
    """Return the content of the rows with some keys, also of those that no bundle can have.

    Texts that `physical` cannot read are `RawText`.
    """
    there, unreadable = physical(connection, table, keys)
    return there | {key: _raw(connection, table, key) for key in unreadable}


def _raw(connection: Connection, table: FederatedTable, key: str) -> tuple[Any, ...]:
    columns = [quoted(column) for column in table.columns]
    values = ", ".join(f"iif(typeof({c}) = 'text', CAST({c} AS BLOB), {c})" for c in columns)
    types = ", ".join(f"typeof({c})" for c in columns)
    where = " AND ".join(f"{quoted(column)} = ?" for column in table.keys)
    ((*found,),) = connection.fetch_all(
        f"SELECT {values}, {types} FROM {table.name} WHERE {where}", key_values(table, key)
    )
    return tuple(
        _text(value) if type_ == "text" else value
        for value, type_ in zip(found[: len(columns)], found[len(columns) :], strict=True)
    )


def _text(raw: bytes) -> str | RawText:
    text = text_or_none(raw)
    return RawText(raw) if text is None else text


def _reading(table: FederatedTable, keys: Sequence[str]) -> tuple[str, list[str]]:
    columns = [f"t.{quoted(column)}" for column in table.columns]
    cut = " OR ".join(
        f"(instr({column}, char(0)) AND typeof({column}) = 'text')" for column in columns
    )
    select = f"SELECT {cut}, {select_key(table, 't')}, {', '.join(columns)}"
    if len(table.keys) == 1:
        where = f"t.{quoted(table.keys[0])} IN (SELECT value FROM json_each(?))"
        return f"{select} FROM {table.name} AS t WHERE {where}", [orjson.dumps(list(keys)).decode()]
    joined = " AND ".join(
        f"t.{quoted(column)} = (j.value ->> {at})" for at, column in enumerate(table.keys)
    )
    sql = f"{select} FROM json_each(?) AS j CROSS JOIN {table.name} AS t ON {joined}"
    return sql, [f"[{','.join(keys)}]"]


def stored_versions(connection: Connection, table: str, keys: Iterable[str]) -> dict[str, Version]:
    """Return the known versions of the rows with some keys."""
    rows = connection.fetch_all(
        "SELECT row_key, cl, stamp, digest, stream, n FROM sync_rows JOIN sync_streams "
        "USING (stream_id) WHERE table_name = ? AND row_key IN (SELECT value FROM json_each(?))",
        [table, orjson.dumps(list(keys)).decode()],
    )
    return {key: Version(*version) for key, *version in rows}


def store_versions(connection: Connection, table: str, versions: dict[str, Version]) -> None:
    """Store the versions of rows."""
    if not versions:
        return
    streams = sorted({version.stream for version in versions.values()})
    connection.execute(
        "INSERT INTO sync_streams (stream) SELECT value FROM json_each(?) WHERE true "
        "ON CONFLICT DO NOTHING",
        [json.dumps(streams)],
    )
    found = connection.fetch_all(
        "SELECT stream, stream_id FROM sync_streams WHERE stream IN "
        "(SELECT value FROM json_each(?))",
        [json.dumps(streams)],
    )
    ids: dict[str, int] = dict(found)
    rows = [[k, v.cl, v.stamp, ids[v.stream], v.n, v.digest] for k, v in versions.items()]
    # As one text of JSON, because the driver binds large integers slowly.
    connection.execute(
        "INSERT INTO sync_rows (table_name, row_key, cl, stamp, stream_id, n, digest) "
        "SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 "
        "FROM json_each(?) WHERE true "
        "ON CONFLICT (table_name, row_key) DO UPDATE SET cl = excluded.cl, "
        "stamp = excluded.stamp, stream_id = excluded.stream_id, n = excluded.n, "
        "digest = excluded.digest, twins = CASE WHEN cl = excluded.cl "
        "AND digest = excluded.digest THEN twins END",
        [table, orjson.dumps(rows).decode()],
    )


def with_twins(version: Version, twins: str | None) -> list[Version]:
    """Return a version and those with the same content that its author did not know.

    Args:
        version: The stored version of a row.
        twins: What is stored of the others.
    """
    others = json.loads(twins or "[]")
    return [version, *(version._replace(stream=s, n=n, stamp=stamp) for s, n, stamp in others)]


def stored_twins(connection: Connection, table: str, keys: Iterable[str]) -> dict[str, str]:
    """Return what is stored of versions with the content of rows, where there are any."""
    return dict(
        connection.fetch_all(
            "SELECT row_key, twins FROM sync_rows WHERE table_name = ? AND twins IS NOT NULL "
            "AND row_key IN (SELECT value FROM json_each(?))",
            [table, orjson.dumps(list(keys)).decode()],
        )
    )


def store_twins(connection: Connection, table: str, twins: Sequence[tuple[str, Version]]) -> None:
    """Store versions with the content of the rows with some keys, beside the greatest ones."""
    if twins:
        connection.execute_many(
            "UPDATE sync_rows SET twins = json_insert(coalesce(twins, '[]'), '$[#]', json(?)) "
            "WHERE table_name = ? AND row_key = ?",
            [[json.dumps([one.stream, one.n, one.stamp]), table, key] for key, one in twins],
        )
