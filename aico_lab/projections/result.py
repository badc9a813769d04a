"""The result of a projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["full", "increment", "nothing"]


@dataclass(frozen=True, slots=True)
class Projected:
    """The result of a projection.

    Attributes:
        mode: 'full' if everything was projected again, 'increment' if only changed rows were,
            'nothing' if no row had changed.
        written: The number of entries added or replaced.
        deleted: The number of entries removed; 0 if all were rebuilt without comparing.
        skipped: The number of rows that cannot be projected, because they are blank.
        seconds: The duration in seconds.
        rebuilt: Whether the projection was damaged and therefore rebuilt.
    """

    mode: Mode
    written: int = 0
    deleted: int = 0
    skipped: int = 0
    seconds: float = 0.0
    rebuilt: bool = False
