"""The quality of stored data: complete, current, and fit for the questions asked of them."""

from __future__ import annotations

from aico_lab.reports.quality.page import Quality

__all__ = ["Quality"]
