"""What can be done with SQL: the same on the layer, in a transaction, and on one connection."""

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
            InvalidStatement: The SQL cannot be run, or its number of values is another.
            UnstorableValue: The driver would change or lose a value.
            ConstraintViolated: The schema refused a row.
        """
        values = _values(params)
        await self._operate(query, lambda connection: connection.execute(query, values))

    async def execute_many(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values, in order: for all of them or for none.

        Raises:
            StorageError: As `execute`.
        """
        await self._operate(
            query, lambda connection: connection.execute_many(query, map(_values, rows)), many=True
        )

    async def execute_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Run several statements in order, all or none of them, in one trip to the database.

        Args:
            statements: Each with its values.

        Raises:
            StorageError: As `execute`.
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
        """Run one query and give all its rows by the names of their columns.

        Raises:
            StorageError: As `execute`.
        """
        values = _values(params)
        return await self._operate(query, lambda connection: connection.fetch_dicts(query, values))

    async def fetch_one(
        self, query: str, params: Sequence[Any] | None = ()
    ) -> dict[str, Any] | None:
        """Run one query and give its first row, or None.

        Raises:
            StorageError: As `execute`.
        """
        rows = await self.fetch_all(query, params)
        return rows[0] if rows else None

    @abstractmethod
    async def _operate(
        self, query: str, job: Callable[[Connection], Result], *, many: bool = False
    ) -> Result:
        """Do a job with the right connection."""


def check(query: str) -> None:
    """Refuse what is no statement, and what the next to borrow the connection would suffer from.

    Raises:
        InvalidStatement: It is refused.
    """
    if not isinstance(query, str):
        raise InvalidStatement(f"A {type(query).__name__} is no statement: give SQL as text.")
    kind = kind_of(query)
    if kind == "control":
        raise InvalidStatement("A transaction is opened and closed by `transaction()`, not by SQL.")
    if kind == "setting":
        raise InvalidStatement("Every connection of a pool is set the same: leave this PRAGMA out.")


def _values(params: Sequence[Any] | None) -> Sequence[Any]:
    if params is None:
        return ()
    if isinstance(params, str | bytes) or not isinstance(params, Sequence):
        raise InvalidStatement(
            f"The values of a statement are a list or tuple, not a {type(params).__name__}."
        )
    return params
