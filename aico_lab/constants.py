"""Constants shared by several packages."""

from __future__ import annotations

from typing import Final

MS_PER_MINUTE: Final = 60_000
MS_PER_HOUR: Final = 3_600_000
MS_PER_DAY: Final = 86_400_000

POSITIVE: Final = 0.05
"""A sentiment score is positive if it is at least this, and negative if it is at most -0.05.

These are VADER's thresholds: Hutto and Gilbert (2014).
"""
