"""Numbers that several parts must agree on."""

from __future__ import annotations

from typing import Final

MS_PER_MINUTE: Final = 60_000
MS_PER_HOUR: Final = 3_600_000
MS_PER_DAY: Final = 86_400_000

POSITIVE: Final = 0.05
"""A sentiment score of at least this is positive; one of at most -0.05 is negative.

The thresholds of VADER: Hutto and Gilbert (2014).
"""
