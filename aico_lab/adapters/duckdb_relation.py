"""A DuckDB relation that converts its errors to this package's errors when rows are read.

DuckDB computes the rows of a relation when they are read, so a damaged block, a failing cast or a
full disk raises an error only then; and DuckDB's own error may quote somebody's message.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from aico_lab.adapters.duckdb import translated, write_rows
from aico_lab.results import distinct, json_text, results_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa


class Relation:
    """A wrapper with all attributes of a `duckdb.DuckDBPyRelation`, and `write`."""

    __slots__ = ("_relation", "_timezone", "_where")

    def __init__(
        self, relation: duckdb.DuckDBPyRelation, where: str, *, timezone: str = "UTC"
    ) -> None:
        """Wrap a relation.

        Args:
            relation: DuckDB's relation.
            where: The name of the database for people.
            timezone: The time zone of times in the CSV files that `write` writes.
        """
        self._relation = relation
        self._where = where
        self._timezone = timezone

    def write(self, file: Path | str) -> None:
        """Write all rows to a file that only its owner can read, replacing an existing file.

        Repeated names of columns are numbered, as `objects` numbers them.

        Args:
            file: The path; the suffix, in any case, selects the format: .csv, .parquet or .json (a
                list of objects).

        Raises:
            InvalidValue: The suffix is another one, or the file lies inside a home.
            HomeNotWritable: The file cannot be written.
            AicoLabError: The rows cannot be computed; an existing file is unchanged.
        """
        with results_file(Path(file)) as target, translated(self._where):
            if target.suffix == ".json":
                target.write_text(f"{json_text(self.objects())}\n", encoding="utf-8")
            else:
                rows = _with_distinct_names(self._relation.to_arrow_reader())
                write_rows(rows, target, timezone=self._timezone)

    def objects(self) -> list[dict[str, Any]]:
        """Return all rows as dictionaries by column name; repeated names are numbered."""
        with translated(self._where):
            names = distinct(self._relation.columns)
            return [dict(zip(names, row, strict=True)) for row in self._relation.fetchall()]

    def __getattr__(self, name: str) -> Any:
        if name in Relation.__slots__:  # not set yet while `copy` makes a copy
            raise AttributeError(name)
        with translated(self._where):
            found = getattr(self._relation, name)
        return self._method(found) if callable(found) else self._wrapped(found)

    def __getitem__(self, name: str) -> Any:
        with translated(self._where):
            return self._wrapped(self._relation[name])

    def __contains__(self, name: str) -> bool:
        return name in self._relation

    def __len__(self) -> int:
        with translated(self._where):
            return len(self._relation)

    def __repr__(self) -> str:
        with translated(self._where):
            return repr(self._relation)

    def __dir__(self) -> list[str]:
        return [*dir(self._relation), "objects", "write"]

    def __narwhals_dataframe__(self) -> Any:
        """Return the rows for Narwhals, through which Altair reads data."""
        import narwhals

        return narwhals.from_native(self.to_arrow_table())._compliant_frame  # noqa: SLF001

    def _method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            with translated(self._where):
                return self._wrapped(
                    method(
                        *map(_plain, arguments),
                        **{name: _plain(value) for name, value in options.items()},
                    )
                )

        return call

    def _wrapped(self, value: Any) -> Any:
        is_relation = isinstance(value, duckdb.DuckDBPyRelation)
        return Relation(value, self._where, timezone=self._timezone) if is_relation else value


def _with_distinct_names(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Return the rows with numbered names where names are repeated, since Arrow refuses those."""
    names = distinct(rows.schema.names)
    if names == rows.schema.names:
        return rows
    import pyarrow as pa  # here, because most results do not need it

    schema = pa.schema(map(pa.Field.with_name, rows.schema, names))
    return pa.RecordBatchReader.from_batches(
        schema, (batch.rename_columns(names) for batch in rows)
    )


def _plain(value: Any) -> Any:
    """Return DuckDB's relation for a `Relation`, and any other value unchanged."""
    return value._relation if isinstance(value, Relation) else value  # noqa: SLF001
