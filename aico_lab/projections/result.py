"""What a projection did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["full", "increment", "nothing"]


@dataclass(frozen=True, slots=True)
class Projected:
    """What a projection did.

    Attributes:
        mode: Whether everything was made anew, or only what changed, or there was nothing to do.
        written: Entries that were added or replaced.
        deleted: Entries that were removed, when only what changed was looked at.
        skipped: Rows that cannot be projected: blank, or no valid text.
        seconds: How long it took.
        rebuilt: Whether what was there was damaged, and was made anew.
    """

    mode: Mode
    written: int = 0
    deleted: int = 0
    skipped: int = 0
    seconds: float = 0.0
    rebuilt: bool = False
