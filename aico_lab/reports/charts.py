"""The components of pages, for the notebooks of this package and for people's own.

::

    from aico_lab import Lab
    from aico_lab.reports import charts as page

    page.enable()
    lab = Lab.open()
    page.explorer(lab, since="90d")
"""

from __future__ import annotations

from aico_lab.charts import BLUE, GREEN, GREY, NAME, VERMILION, Html, enable, tiles
from aico_lab.reports.explorer import explorer
from aico_lab.reports.page import Page

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "NAME",
    "VERMILION",
    "Html",
    "Page",
    "enable",
    "explorer",
    "tiles",
]
