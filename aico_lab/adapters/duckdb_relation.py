"""A DuckDB relation whose errors are converted to ours when its rows are read.

DuckDB computes the rows of a relation when they are read, so a damaged block, a failing cast or a
full disk raises an error only then; and DuckDB's own error may quote somebody's message.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import duckdb

from aico_lab.adapters.duckdb import translated

if TYPE_CHECKING:
    from collections.abc import Callable


class Relation:
    """A wrapper with all attributes of a `duckdb.DuckDBPyRelation`."""

    __slots__ = ("_relation", "_where")

    def __init__(self, relation: duckdb.DuckDBPyRelation, where: str) -> None:
        """Wrap a relation.

        Args:
            relation: DuckDB's relation.
            where: The name of the database for people.
        """
        self._relation = relation
        self._where = where

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
        return dir(self._relation)

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
        return Relation(value, self._where) if is_relation else value


def _plain(value: Any) -> Any:
    """Return DuckDB's relation for a `Relation`, and any other value unchanged."""
    return value._relation if isinstance(value, Relation) else value  # noqa: SLF001
