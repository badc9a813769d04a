"""Read a Parquet file in batches; times become ISO 8601 text, whatever their unit and zone."""

from __future__ import annotations

import math
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final

from aico_lab.errors import SourceUnreadable
from aico_lab.messages.records import NotAMessageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.sources.exports.engine.opened import Member
    from aico_lab.sources.tables.layout import Reached, TableRow

_ROWS: Final = 4_096


class ParquetTable:
    """A table in a Parquet file."""

    kind = "parquet"
    layout = "a Parquet file"
    unit = "row"

    def __init__(self, member: Member) -> None:
        """Read the names of the columns.

        Raises:
            SourceUnreadable: The end of the file, which describes it, is damaged.
        """
        self._member = member
        self._damaged: list[str] = []
        with self._opened() as file:
            self.columns: list[str] = list(file.schema_arrow.names)

    def rows(self, reached: Reached) -> Iterator[tuple[int, TableRow | NotAMessageError]]:
        """Yield the rows; a damaged group of rows is one reason, and the next group is read."""
        import pyarrow as pa

        with self._opened() as file:
            for group in range(file.num_row_groups):
                begin = reached.number
                try:
                    for batch in file.iter_batches(_ROWS, row_groups=[group]):
                        reached.position += batch.nbytes
                        for row in _rows(batch):
                            reached.number += 1
                            yield reached.number, row
                except (pa.ArrowException, OSError, ValueError, MemoryError):
                    count = file.metadata.row_group(group).num_rows
                    left = begin + count - reached.number
                    reached.number += 1
                    yield (
                        reached.number,
                        NotAMessageError(f"{left:,} rows from here on are damaged in the file"),
                    )
                    reached.number = begin + count

    def notes(self) -> list[str]:  # noqa: D102
        return []

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with self._member.open() as stream:
            yield self._file(stream)

    def _file(self, stream: IO[bytes]) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(stream)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as damaged:
            raise SourceUnreadable(
                f"{self._member.name} is a Parquet file that is damaged or cut off, so that its "
                "end does not describe it: export it again."
            ) from damaged


def _rows(batch: Any) -> Iterator[TableRow]:
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()  # noqa: PLW2901
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)  # noqa: PLW2901
        elif pa.types.is_time64(column.type):
            column = column.cast(pa.time64("us"), safe=False)  # noqa: PLW2901
        elif pa.types.is_duration(column.type):
            column = column.cast(pa.int64())  # noqa: PLW2901
        columns.append(column.to_pylist())
    names = batch.schema.names
    for values in zip(*columns, strict=True):
        yield {name: _plain(value) for name, value in zip(names, values, strict=True)}


def _plain(value: object) -> Any:
    """Return a value as JSON has it."""
    match value:
        case None | str() | bool() | int():
            plain: Any = value
        case float():
            plain = value if math.isfinite(value) else None
        case datetime() | date() | time():
            plain = value.isoformat()
        case Decimal() if not value.is_finite():
            plain = None
        case Decimal():
            plain = int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            plain = value.decode("utf-8", "replace")
        case timedelta():
            plain = value.total_seconds()
        case dict():
            plain = {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            plain = [_plain(one) for one in value]
        case _:
            plain = str(value)
    return plain
