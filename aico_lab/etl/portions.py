"""Gather extracted rows into portions for DuckDB, each while the one before is inserted."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import pyarrow as pa

from aico_lab.constants import ROW_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aico_lab.etl.contract import Contract
    from aico_lab.etl.extract import Extracted
    from aico_lab.etl.misfits import Misfit

ROW_GROUPS: Final = min(max(os.cpu_count() or 1, 2), 4)
"""Record batches of a portion: one for each processor, but no more than fit into memory."""

BATCH_BYTES: Final = 48_000_000
"""Bytes from which a record batch of fewer rows is complete."""

Item = TypeVar("Item")


def portions(
    contract: Contract, extracted: Iterable[Extracted]
) -> Iterator[tuple[pa.Table, list[Misfit]]]:
    """Gather rows into portions to insert, each made while the one before is being inserted.

    Args:
        contract: The contract of their table.
        extracted: The rows that fit, and those that do not.
    """
    return _ahead(_portions(contract, extracted))


def _portions(
    contract: Contract, extracted: Iterable[Extracted]
) -> Iterator[tuple[pa.Table, list[Misfit]]]:
    """Gather rows into portions of a few record batches, each a row group of DuckDB.

    DuckDB inserts the record batches of a table in parallel, and writes a whole row group once.
    Batches of long texts have fewer rows, so that they fit into memory.
    """
    schema = contract.arrow_schema
    portion: list[pa.RecordBatch] = []
    misfits: list[Misfit] = []
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch, set_aside in extracted:
        misfits += set_aside
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        while rows >= ROW_GROUP or size >= BATCH_BYTES:
            gathered = pa.Table.from_batches(waiting, schema)
            portion += gathered.slice(0, ROW_GROUP).combine_chunks().to_batches()
            rest = gathered.slice(ROW_GROUP)
            waiting, rows, size = rest.to_batches(), rest.num_rows, rest.nbytes
            del gathered, rest  # else they stay in memory until the next batch
        if len(portion) >= ROW_GROUPS or len(misfits) >= ROW_GROUP:
            yield pa.Table.from_batches(portion, schema), misfits
            portion, misfits = [], []
    portion += pa.Table.from_batches(waiting, schema).combine_chunks().to_batches()
    yield pa.Table.from_batches(portion, schema), misfits


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield items, each made in another thread while the one before is being used."""
    with ThreadPoolExecutor(1, thread_name_prefix="aico-lab-extract") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
