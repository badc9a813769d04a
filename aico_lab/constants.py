"""Constants shared by several packages."""

from __future__ import annotations

from typing import Final

MS_PER_MINUTE: Final = 60_000
MS_PER_HOUR: Final = 3_600_000
MS_PER_DAY: Final = 86_400_000

FIRST_PLAUSIBLE_MS: Final = 631_152_000_000
"""1990-01-01 in UTC milliseconds: earlier times of messages are most likely wrong, and smaller
numbers are most likely not times in milliseconds."""

NO_SECONDS: Final = 10**11
"""Numbers from here on are not seconds since 1970, which would be after the year 5000, but smaller
units: as milliseconds they are times from 1973 on."""

ROW_GROUP: Final = 122_880
"""Rows of a row group of DuckDB, which one of its threads inserts and compresses as a whole."""

POSITIVE: Final = 0.05
"""A sentiment score is positive if it is at least this, and negative if it is at most -0.05.

These are VADER's thresholds: Hutto and Gilbert (2014).
"""
