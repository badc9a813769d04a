"""Encode the cells of a cube in few bytes, which browsers read without a library."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aico_lab.reports.cube import SCORE_UNITS
from aico_lab.reports.merging import MEASURES, NO_HOUR, WEEK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aico_lab.reports.cube import Cube

    Numbers = NDArray[np.uint64]

SLOTS: Final = 26
"""The hours of a day, and the slots of rows without an hour and of whole weeks after them."""

_SLOT_OF: Final = {NO_HOUR: 24, WEEK: 25}
_BITS: Final = 7
_MOST_BYTES: Final = 10  # of a number of 64 bits


def packed(cube: Cube) -> dict[str, Any]:
    """Return a cube as JSON.

    Returns:
        `cells` is their number, and `data` their values: base64 of zlib's compression of columns
        of LEB128 numbers. The first column holds the differences of ascending keys; a key is
        `(((channel * people + person) * 2 + side) * days + day) * SLOTS + slot`, where `day` counts
        from `first` and `slot` is the hour, 24 for rows without an hour, or 25 for rows of a week.
        A column of each measure follows; `sentiment` is zigzag encoded.
    """
    cells = cube.cells
    numbers = {name: cells[name].to_numpy().astype(np.int64) for name in cells.columns}
    slot = numbers["hour"].copy()
    for hour, place in _SLOT_OF.items():
        slot[numbers["hour"] == hour] = place
    days = cube.last_day - cube.first_day + 1
    key = numbers["channel"] * max(len(cube.people), 1) + numbers["person"]
    key = (key * 2 + numbers["side"]) * days + numbers["day"] - cube.first_day
    key = key * SLOTS + slot
    order = np.argsort(key, kind="stable")
    columns = [np.diff(key[order], prepend=0)]
    for name in MEASURES:
        values = numbers[name][order]
        columns.append((values << 1) ^ (values >> 63) if name == "sentiment" else values)
    coded = b"".join(_leb128(column.astype(np.uint64)) for column in columns)
    return {
        "first": cube.first_day,
        "last": cube.last_day,
        "channels": cube.channels,
        "people": cube.people,
        "measures": MEASURES,
        "scoreUnits": SCORE_UNITS,
        "cells": cells.height,
        "data": base64.b64encode(zlib.compress(coded, 9)).decode(),
    }


def _leb128(values: Numbers) -> bytes:
    """Return numbers in LEB128: seven bits a byte, the lowest first; the last byte is below 128."""
    shifts = np.arange(_MOST_BYTES, dtype=np.uint64) * np.uint64(_BITS)
    rest = values[:, None] >> shifts
    used = rest > 0
    used[:, 0] = True
    more = np.zeros_like(used)
    more[:, :-1] = used[:, 1:]
    groups = (rest & np.uint64(127)).astype(np.uint8) | (more.astype(np.uint8) << 7)
    return groups[used].tobytes()
