"""Decode the rows of SQLite's leaf pages into columns, without an object per value.

The format is SQLite's own: https://www.sqlite.org/fileformat2.html, sections 1.6 (b-tree pages) and
2.1 (records). Numba compiles the functions at their first use, and caches the machine code; they
release the interpreter lock, so that another thread can insert meanwhile.
"""
# ruff: noqa: PLR2004 - the numbers are those of the file format

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from aico_lab.etl.pages import damaged
from aico_lab.runtime.machine_code import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aico_lab.etl.contract import Contract, Kind
    from aico_lab.etl.pages import Layout

LEAF: Final = 13  # the type of a leaf page of a table

# Types of values that a column may hold besides NULL.
TEXT, INTEGER, REAL, BLOB, ROWID = range(5)

_STORED_AS: Final[dict[Kind, int]] = {
    "text": TEXT,
    "timestamp": TEXT,
    "json": TEXT,
    "integer": INTEGER,
    "boolean": INTEGER,
    "real": REAL,
    "blob": BLOB,
    "any": TEXT,
    "date": TEXT,
    "seconds": REAL,
    "milliseconds": REAL,
    "decimal": REAL,
}

PADDING: Final = 1 << 10
"""Zero bytes after the last page, so that a damaged page is not read beyond the buffer."""

_NULL = -1


def decode(
    content: bytes, contract: Contract, layout: Layout
) -> tuple[list[pa.Array], NDArray[np.int64], NDArray[np.int64]]:
    """Decode leaf pages.

    Args:
        content: The bytes of the pages, one after the other.
        contract: The contract of their table.
        layout: The layout of the table in its file.

    Returns:
        The columns as they are stored (texts as bytes) and the row ids of the decoded rows, and the
        row ids of the rows that must be read by SQL.

    Raises:
        CorruptDatabase: A page is not a leaf page, or a row does not lie in its page.
    """
    pages = np.frombuffer(content + bytes(PADDING), np.uint8)
    headers = pages[: len(content)].reshape(-1, layout.page_size)[:, :8]
    cells = headers[:, 3].astype(np.int64) << 8 | headers[:, 4]
    if (headers[:, 0] != LEAF).any() or (cells * 2 + 8 > layout.page_size).any():
        raise damaged(f"The table {contract.table}")
    kinds = np.array(
        [
            ROWID if column.name == layout.rowid else _STORED_AS[column.kind]
            for column in contract.columns
        ],
        np.uint8,
    )
    rows = int(cells.sum())
    rowids = np.empty(rows, np.int64)
    words = np.zeros((len(kinds), rows), np.int64)
    lengths = np.full((len(kinds), rows), -1, np.int32)
    odd = np.zeros(rows, np.bool_)
    if not _decode_rows(
        pages, layout.page_size, layout.usable, kinds, np.array(layout.may_be_short),
        rowids, words, words.view(np.float64), lengths, odd,
    ):  # fmt: skip
        raise damaged(f"The table {contract.table}")
    left = rowids[odd]
    if len(left):
        rowids = rowids[~odd]
        words = np.compress(~odd, words, axis=1)
        lengths = np.compress(~odd, lengths, axis=1)
    arrays = [
        _array(pages, kind, words[column], lengths[column]) for column, kind in enumerate(kinds)
    ]
    return arrays, rowids, left


def _array(
    pages: NDArray[np.uint8], kind: int, words: NDArray[np.int64], lengths: NDArray[np.int32]
) -> pa.Array:
    rows = len(words)
    null = lengths < 0
    nulls = int(null.sum())
    validity = pa.py_buffer(np.packbits(~null, bitorder="little")) if nulls else None
    if kind not in (TEXT, BLOB):
        type_ = pa.float64() if kind == REAL else pa.int64()
        return pa.Array.from_buffers(type_, rows, [validity, pa.py_buffer(words)], nulls)
    offsets = np.empty(rows + 1, np.int32)
    data = np.empty(int(np.maximum(lengths, 0).sum()), np.uint8)
    _gather(pages, words, lengths, offsets, data)
    return pa.Array.from_buffers(
        pa.binary(), rows, [validity, pa.py_buffer(offsets), pa.py_buffer(data)], nulls
    )


@compiled
def _varint(pages: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Return the variable-length integer at an offset, and the offset after it."""
    value = int(pages[at])
    if value < 128:
        return value, at + 1
    value &= 0x7F
    for position in range(1, 8):
        byte = int(pages[at + position])
        value = (value << 7) | (byte & 0x7F)
        if byte < 128:
            return value, at + position + 1
    return (value << 8) | int(pages[at + 8]), at + 9


@compiled
def _big_endian(pages: NDArray[np.uint8], at: int, size: int) -> int:
    value = int(np.int8(pages[at]))  # the sign is in the first byte
    for position in range(1, size):
        value = (value << 8) | int(pages[at + position])
    return value


@compiled
def _size(serial: int) -> int:
    """Return the bytes of a value of this serial type."""
    if serial >= 12:
        return (serial - 12) >> 1
    if serial <= 4:
        return serial
    if serial == 5:
        return 6
    if serial <= 7:
        return 8
    return 0


@compiled
def _decode_rows(  # noqa: C901, PLR0912, PLR0917 - one pass over every cell, called by position
    pages: NDArray[np.uint8],
    page_size: int,
    usable: int,
    kinds: NDArray[np.uint8],
    may_be_short: NDArray[np.bool_],
    rowids: NDArray[np.int64],
    words: NDArray[np.int64],
    reals: NDArray[np.float64],
    lengths: NDArray[np.int32],
    odd: NDArray[np.bool_],
) -> bool:
    """Decode every row of some leaf pages; return False if a row does not lie in its page.

    Args:
        pages: The bytes of the pages, followed by `PADDING` bytes.
        page_size: Bytes of a page.
        usable: Bytes of a page that SQLite uses.
        kinds: The type of values that each column may hold.
        may_be_short: For each column, whether it is NULL in rows that end before it.
        rowids: Filled with the row ids.
        words: Filled with integers, or the offsets of texts and blobs in `pages`; of shape
            (columns, rows).
        reals: The same memory as `words`, filled with floating-point numbers.
        lengths: Filled with the bytes of texts and blobs, 0 for numbers, -1 for NULL; of the same
            shape.
        odd: Set for rows that must be read by SQL: those that go on in overflow pages, and those
            with a value that their column may not hold.
    """
    columns = len(kinds)
    row = 0
    for base in range(0, len(pages) - PADDING, page_size):
        for cell in range((int(pages[base + 3]) << 8) | int(pages[base + 4])):
            pointer = base + 8 + 2 * cell
            at = base + ((int(pages[pointer]) << 8) | int(pages[pointer + 1]))
            if at >= base + usable:
                return False
            payload, at = _varint(pages, at)
            rowids[row], at = _varint(pages, at)
            header_size, types_at = _varint(pages, at)
            types_end = at + header_size
            end = at + payload
            # The row goes on in an overflow page, or the page is damaged.
            if payload > usable - 35 or end > base + usable or types_end > end:
                odd[row] = True
                row += 1
                continue
            at = types_end
            for column in range(columns):
                kind = kinds[column]
                lengths[column, row] = 0
                if types_at >= types_end:
                    lengths[column, row] = _NULL
                    odd[row] |= not may_be_short[column]
                    continue
                serial, types_at = _varint(pages, types_at)
                size = _size(serial)
                if size < 0 or at + size > end:
                    odd[row] = True
                    break
                if kind == ROWID:
                    words[column, row] = rowids[row]
                elif serial == 0:
                    lengths[column, row] = _NULL
                elif serial >= 12:
                    words[column, row] = at
                    lengths[column, row] = size
                    odd[row] |= kind != (TEXT if serial & 1 else BLOB)
                elif serial == 7:
                    words[column, row] = _big_endian(pages, at, size)  # the bits of a double
                    odd[row] |= kind != REAL
                else:
                    integer = serial - 8  # the types 8 and 9 are the numbers 0 and 1
                    if serial < 7:
                        integer = _big_endian(pages, at, size)
                    if kind == REAL:  # SQLite writes 2.0 as 2
                        reals[column, row] = integer
                    else:
                        words[column, row] = integer
                        odd[row] |= kind != INTEGER
                at += size
            row += 1
    return True


@compiled
def _gather(
    pages: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    offsets: NDArray[np.int32],
    data: NDArray[np.uint8],
) -> None:
    """Copy texts or blobs out of the pages, one after the other.

    Args:
        pages: The bytes of the pages.
        starts: The offset of each value in `pages`.
        lengths: The bytes of each value, or -1 for NULL.
        offsets: Filled with the offset of each value in `data`, and the end of the last one.
        data: Filled with the values.
    """
    at = 0
    for row in range(len(starts)):
        offsets[row] = at
        start = starts[row]
        for position in range(lengths[row]):
            data[at + position] = pages[start + position]
        at += max(lengths[row], 0)
    offsets[len(starts)] = at
