"""Write results as JSON, as the cells of a table, and into files."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import itertools
import json
import math
import re
import secrets
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from aico_lab.errors import InvalidValue
from aico_lab.home.files import os_errors, private_files
from aico_lab.home.folder import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RESULTS: Final = (".csv", ".parquet", ".json")
"""The suffixes, in any case, of files to which results can be written."""


def json_text(value: object, *, ensure_ascii: bool = False) -> str:
    """Return a value as JSON; decimal numbers keep all their digits."""
    mark = secrets.token_hex(16)  # Python's json cannot write decimals as numbers
    text = json.dumps(_plain(value, mark), ensure_ascii=ensure_ascii, allow_nan=False)
    return re.sub(f'"{mark}([-0-9.]+)"', r"\1", text) if mark in text else text


def in_cell(value: object, number: Callable[[float], str]) -> str:
    """Return a value as the text of a cell of a table.

    Args:
        value: The value; None becomes a dash.
        number: Returns the text of a number with a fraction.
    """
    match value:
        case None:
            return "–"  # noqa: RUF001 - a dash, as in tables
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return number(value)
    return str(value)


def distinct(names: list[str]) -> list[str]:
    """Make names unique by numbering repeated ones: `n`, `n_1`."""
    given: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        taken = {*given, *names}
        given.append(next(n for n in numbered if n not in taken) if name in given else name)
    return given


@contextlib.contextmanager
def results_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path for results; the file replaces `path` if the block does not fail.

    The temporary path has the suffix in lower case.

    Args:
        path: The target file. Only its owner can read it, since it contains private text.

    Raises:
        InvalidValue: The suffix is not in `RESULTS`, the folder does not exist, or the file would
            be inside a home, where it might replace `lab.json`.
        HomeNotWritable: The file cannot be written.
    """
    path = check_results_file(path)
    beside = path.with_name(f".{secrets.token_hex(4)}.{path.stem}{path.suffix.lower()}")
    with os_errors(path):
        try:
            with private_files():
                yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def check_results_file(path: Path) -> Path:
    """Return the absolute path of a file for results.

    Raises:
        InvalidValue: See `results_file`.
    """
    path = path.expanduser().absolute()
    if path.suffix.lower() not in RESULTS:
        raise InvalidValue(f"{path.name!r} does not end in {' or '.join(RESULTS)}.")
    if not path.parent.is_dir():
        raise InvalidValue(f"There is no folder {path.parent}: make it, or name another file.")
    for folder in path.resolve().parents:
        notebooks = (folder / "notebooks") in path.resolve().parents
        if Home(folder).marker.exists() and not notebooks:
            raise InvalidValue(f"{path} is inside the home {folder}: name a file elsewhere.")
    return path


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
