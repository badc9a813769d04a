"""Decode the cells of the explorer from its page, independently of the package."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

MEASURES = (
    "messages", "unsegmented", "words", "questions", "unscored", "sentiment", "sessions",
)  # fmt: skip
NO_HOUR, WEEK = 24, 25


def content(html: str) -> dict[str, Any]:
    """Return the JSON of a page."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def cells(html: str) -> list[dict[str, Any]]:
    """Return the cells of a page.

    `day` is in days since 1970-01-01; `hour` is 24 for a whole day and 25 for a whole week.
    """
    told = content(html)
    numbers, number, scale = [], 0, 0
    for byte in zlib.decompress(base64.b64decode(told["data"])):
        number |= (byte & 127) << scale
        scale += 7
        if byte < 128:
            numbers.append(number)
            number = scale = 0
    n = told["cells"]
    columns = [numbers[at * n : (at + 1) * n] for at in range(len(MEASURES) + 1)]
    assert sum(map(len, columns)) == len(numbers)
    assert tuple(told["measures"]) == MEASURES
    made, key = [], 0
    for row in zip(*columns, strict=True):
        key += row[0]
        rest, slot = divmod(key, 26)
        rest, day = divmod(rest, told["last"] - told["first"] + 1)
        rest, side = divmod(rest, 2)
        channel, person = divmod(rest, len(told["people"]))
        cell = dict(zip(MEASURES, row[1:], strict=True))
        cell["sentiment"] = (cell["sentiment"] >> 1) ^ -(cell["sentiment"] & 1)
        cell |= {"day": told["first"] + day, "hour": slot, "side": ("assistant", "user")[side]}
        cell |= {"channel": told["channels"][channel], "person": told["people"][person]}
        made.append(cell)
    return made
