"""The SQL operations that the layer, a transaction and a connection have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from aico_lab.adapters.libsql_statements import kind_of
from aico_lab.errors import InvalidStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aico_lab.adapters.libsql import Connection

Result = TypeVar("Result")


class Operations(ABC):
    """Statements and queries."""

    async def execute(self, query: str, params: Sequence[Any] | None = ()) -> None:
        """Run one statement.

        Args:
            query: SQL with `?` for each value.
            params: The values, a list or tuple.

        Raises:
            InvalidStatement: The SQL is invalid, or the number of values does not match.
            UnstorableValue: The driver would change or lose a value.
            ConstraintViolated: A row violates a constraint of the schema.
        """
        values = _values(params)
        await self._operate(query, lambda connection: connection.execute(query, values))

    async def execute_many(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values, in order and atomically.

        Raises:
            StorageError: As for `execute`.
        """
        await self._operate(
            query, lambda connection: connection.execute_many(query, map(_values, rows)), many=True
        )

    async def execute_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Run several statements in order and atomically, in one trip to the database.

        Args:
            statements: Pairs of SQL and its values.

        Raises:
            StorageError: As for `execute`.
        """
        for query, _ in statements:
            check(query)

        def run(connection: Connection) -> None:
            for query, params in statements:
                connection.execute(query, _values(params))

        await self._operate("", run, many=True)

    async def fetch_all(
        self, query: str, params: Sequence[Any] | None = ()
    ) -> list[dict[str, Any]]:
        """Run one query and return its rows as dictionaries by column name.

        Raises:
            StorageError: As for `execute`.
        """
        values = _values(params)
        return await self._operate(query, lambda connection: connection.fetch_dicts(query, values))

    async def fetch_one(
        self, query: str, params: Sequence[Any] | None = ()
    ) -> dict[str, Any] | None:
        """Run one query and return its first row, or None.

        Raises:
            StorageError: As for `execute`.
        """
        rows = await self.fetch_all(query, params)
        return rows[0] if rows else None

    @abstractmethod
    async def _operate(
        self, query: str, job: Callable[[Connection], Result], *, many: bool = False
    ) -> Result:
        """Run a job on the connection of this task's transaction, or on any other."""


def check(query: str) -> None:
    """Refuse values other than text, and SQL that changes the state of a shared connection.

    Raises:
        InvalidStatement: The query is not text, controls a transaction, or changes a setting.
    """
    if not isinstance(query, str):
        raise InvalidStatement(f"A {type(query).__name__} is not a statement: pass SQL as text.")
    kind = kind_of(query)
    if kind == "control":
        raise InvalidStatement("SQL cannot open or close a transaction: use `transaction()`.")
    if kind == "setting":
        raise InvalidStatement("Connections of a pool share their settings: remove this PRAGMA.")


def _values(params: Sequence[Any] | None) -> Sequence[Any]:
    if params is None:
        return ()
    if isinstance(params, str | bytes) or not isinstance(params, Sequence):
        raise InvalidStatement(
            f"The values of a statement must be a list or tuple, not a {type(params).__name__}."
        )
    return params
