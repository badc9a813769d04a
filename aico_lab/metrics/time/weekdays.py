"""The days of the week as charts and answers name them."""

from __future__ import annotations

from typing import Final

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
