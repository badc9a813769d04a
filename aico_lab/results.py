"""Results as JSON, in the form that commands print and that `.write()` stores."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import math
import re
import secrets
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID


def json_text(value: object, *, ensure_ascii: bool = False) -> str:
    """Return a value as JSON; decimal numbers keep all their digits."""
    mark = secrets.token_hex(16)  # Python's json cannot write decimals as numbers
    text = json.dumps(_plain(value, mark), ensure_ascii=ensure_ascii, allow_nan=False)
    return re.sub(f'"{mark}([-0-9.]+)"', r"\1", text) if mark in text else text


def distinct(names: list[str]) -> list[str]:
    """Make names unique by numbering repeated ones: `n`, `n_1`."""
    given: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        taken = {*given, *names}
        given.append(next(n for n in numbered if n not in taken) if name in given else name)
    return given


def _plain(value: Any, mark: str) -> Any:  # noqa: C901, PLR0911 - one line a type
    """Convert a value to JSON types: NaN and infinities to null, bytes to base64, times to ISO.

    Decimal numbers become text that begins with `mark`.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): _plain(item, mark) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, mark) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return f"{mark}{value:f}"
        case PurePath() | UUID():
            return str(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _plain(dataclasses.asdict(value), mark)
    raise TypeError(f"{type(value).__name__} cannot be converted to JSON")
