"""The parts of a report's page, for notebooks: `from aico_lab.reports import charts`."""

from __future__ import annotations

from aico_lab.charts import enable
from aico_lab.reports.page import Page

__all__ = ["Page", "enable"]
